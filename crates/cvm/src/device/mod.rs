//! `cvm device`: operate the device registry.

use clap::{Args, Subcommand};
use cvm_aws::{Clients, DynamoDbRegistry};
use cvm_provisioning::Operations;

mod add;
mod approve;
mod delete;
mod disable;
mod enable;
mod error;
mod export;
mod import;
mod list;
mod proof;
mod renew;
mod show;
mod view;

pub(crate) use error::DeviceError;

use crate::error::CommandError;
use crate::output::Output;
use crate::registry::TableArguments;

/// Operate the device registry: who is let in, how far it has come, and why it was refused
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DeviceArguments {
    #[command(flatten)]
    table: TableArguments,
    #[command(subcommand)]
    verb: DeviceVerb,
}

#[derive(Debug, Subcommand)]
enum DeviceVerb {
    Add(Box<add::AddArguments>),
    Show(show::ShowArguments),
    List(list::ListArguments),
    Disable(disable::DisableArguments),
    Enable(enable::EnableArguments),
    Delete(delete::DeleteArguments),
    Import(Box<import::ImportArguments>),
    Export(export::ExportArguments),
    Approve(approve::ApproveArguments),
    Renew(renew::RenewArguments),
}

const EXAMPLES: &str = "\
Examples:
  export CVM_TABLE=cvm-devices
  cvm device add sn-0001
  cvm device list --state quarantined
  cvm device show sn-0001";

/// Runs `cvm device ...`.
pub(crate) async fn run(arguments: DeviceArguments, output: &Output) -> Result<(), CommandError> {
    let table = arguments.table.name().map_err(DeviceError::from)?;
    let registry = DynamoDbRegistry::new(Clients::from_environment().await.dynamodb, table);
    let operations = Operations { registry };
    match arguments.verb {
        DeviceVerb::Add(arguments) => add::run(*arguments, &operations, output).await,
        DeviceVerb::Show(arguments) => show::run(&arguments, &operations, output).await,
        DeviceVerb::List(arguments) => list::run(&arguments, &operations, output).await,
        DeviceVerb::Disable(arguments) => disable::run(&arguments, &operations, output).await,
        DeviceVerb::Enable(arguments) => enable::run(&arguments, &operations, output).await,
        DeviceVerb::Delete(arguments) => delete::run(&arguments, &operations, output).await,
        DeviceVerb::Import(arguments) => import::run(&arguments, &operations, output).await,
        DeviceVerb::Export(arguments) => export::run(&arguments, &operations, output).await,
        DeviceVerb::Approve(arguments) => approve::run(&arguments, &operations, output).await,
        DeviceVerb::Renew(arguments) => renew::run(&arguments, &operations, output).await,
    }
}
