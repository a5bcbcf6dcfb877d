//! `cvm claim`: the claim certificates that devices share for their first connection.

use clap::{Args, Subcommand};
use cvm_aws::{AwsIot, Clients, DynamoDbRegistry};
use cvm_provisioning::{CertificateId, Claim, ClaimStore};

mod add;
mod create;
mod error;
mod folder;
mod list;
mod name;
mod report;
mod revoke;
mod terms;
mod view;

pub(crate) use error::ClaimError;

use crate::error::CommandError;
use crate::output::Output;
use crate::registry::{TRIES, TableArguments};

/// Operate claim certificates: what devices share to ask for a certificate of their own
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ClaimArguments {
    #[command(flatten)]
    table: TableArguments,
    #[command(subcommand)]
    verb: ClaimVerb,
}

#[derive(Debug, Subcommand)]
enum ClaimVerb {
    Add(add::AddArguments),
    Create(create::CreateArguments),
    List(list::ListArguments),
    Revoke(revoke::RevokeArguments),
    Report(report::ReportArguments),
}

const EXAMPLES: &str = "\
Examples:
  export CVM_TABLE=cvm-devices
  cvm claim create --policy cvm-claim --out claim --quota 1000 --expires 26w
  cvm device add sn-0001 --claim
  cvm claim list
  cvm claim revoke e3b0c44298fc --reason 'found in a firmware image'
  cvm claim report e3b0c44298fc";

/// Runs `cvm claim ...`.
pub(crate) async fn run(arguments: ClaimArguments, output: &Output) -> Result<(), CommandError> {
    let table = arguments.table.name().map_err(ClaimError::from)?;
    let clients = Clients::from_environment().await;
    let (registry, iot) = (DynamoDbRegistry::new(clients.dynamodb, table), AwsIot::new(clients.iot));
    match arguments.verb {
        ClaimVerb::Add(arguments) => add::run(&arguments, &registry, output).await,
        ClaimVerb::Create(arguments) => create::run(&arguments, &registry, &iot, output).await,
        ClaimVerb::List(_) => list::run(&registry, output).await,
        ClaimVerb::Revoke(arguments) => revoke::run(&arguments, &registry, &iot, output).await,
        ClaimVerb::Report(arguments) => report::run(&arguments, &registry, output).await,
    }
}

/// Reads a claim, has it changed or made, and writes it, again from the start where its status changed in between.
async fn change(
    registry: &impl ClaimStore,
    id: &CertificateId,
    mut change: impl FnMut(Option<Claim>) -> Result<Claim, ClaimError>,
) -> Result<Claim, ClaimError> {
    for _ in 0..TRIES {
        let found = registry.find_claim(id).await?;
        let claim = change(found.clone())?;
        if found.as_ref() == Some(&claim) || registry.put_claim(&claim, found.as_ref()).await? {
            return Ok(claim);
        }
    }
    Err(ClaimError::Contended { id: *id })
}
