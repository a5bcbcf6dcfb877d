//! `cvm device`: operate the device registry.

use clap::{Args, Subcommand};
use cvm_aws::{Clients, DynamoDbRegistry};

mod add;
mod approve;
mod bulk;
mod delete;
mod disable;
mod enable;
mod error;
mod export;
mod filter;
mod import;
mod list;
mod proof;
mod registry;
mod renew;
mod revoke;
mod show;
mod view;

pub(crate) use add::AddError;
pub(crate) use error::DeviceError;
pub(crate) use filter::FilterArguments;
pub(crate) use registry::{Change, DeviceRegistry, Exported, Listed, Table};

use crate::error::CommandError;
use crate::output::Output;
use crate::registry::{RegistryArguments, Where};

/// Operate the device registry: who is let in, how far it has come, and why it was refused
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DeviceArguments {
    #[command(flatten)]
    registry: RegistryArguments,
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
    Revoke(revoke::RevokeArguments),
}

const EXAMPLES: &str = "\
Examples:
  export CVM_TABLE=cvm-devices
  cvm device add sn-0001
  cvm device list --state quarantined
  cvm device show sn-0001

With a server of one's own, instead of a table:
  cvm device list --server https://cvm.example.com --server-ca ca.pem \\
      --operator-token-file anna.token
  export CVM_SERVER=https://cvm.example.com CVM_SERVER_CA=ca.pem
  export CVM_OPERATOR_TOKEN_FILE=anna.token
  cvm device import serials.csv --tokens tokens.jsonl";

/// Runs `cvm device ...`.
pub(crate) async fn run(arguments: DeviceArguments, output: &Output) -> Result<(), CommandError> {
    match arguments.registry.place(output).map_err(DeviceError::from)? {
        Where::Server(server) => Box::pin(on(&*server, arguments.verb, output)).await,
        Where::Table(name) => {
            let registry = DynamoDbRegistry::new(Clients::from_environment().await.dynamodb, name);
            Box::pin(on(&Table::new(registry), arguments.verb, output)).await
        }
    }
}

async fn on(registry: &impl DeviceRegistry, verb: DeviceVerb, output: &Output) -> Result<(), CommandError> {
    match verb {
        DeviceVerb::Add(arguments) => add::run(*arguments, registry, output).await,
        DeviceVerb::Show(arguments) => show::run(&arguments, registry, output).await,
        DeviceVerb::List(arguments) => list::run(&arguments, registry, output).await,
        DeviceVerb::Disable(arguments) => disable::run(&arguments, registry, output).await,
        DeviceVerb::Enable(arguments) => enable::run(&arguments, registry, output).await,
        DeviceVerb::Delete(arguments) => delete::run(&arguments, registry, output).await,
        DeviceVerb::Import(arguments) => import::run(&arguments, registry, output).await,
        DeviceVerb::Export(arguments) => export::run(&arguments, registry, output).await,
        DeviceVerb::Approve(arguments) => approve::run(&arguments, registry, output).await,
        DeviceVerb::Renew(arguments) => renew::run(&arguments, registry, output).await,
        DeviceVerb::Revoke(arguments) => revoke::run(&arguments, registry, output).await,
    }
}
