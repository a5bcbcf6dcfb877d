//! `cvm ca`: the CAs whose device certificates AWS IoT takes, and certificates from one that is at hand.

use std::time::SystemTime;

use clap::{Args, Subcommand};
use cvm_aws::{CertificateAuthorities, Clients};
use cvm_provisioning::Timestamp;

mod authority;
mod create;
mod deactivate;
mod error;
mod issue;
mod list;
mod register;
mod view;

pub(crate) use error::CaError;

use crate::error::CommandError;
use crate::output::Output;

/// Operate CAs of your own: make one, register it with AWS IoT, and issue device certificates in the factory
///
/// Region, credentials and endpoint are those of the AWS environment (AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL, ...).
/// `create` and `issue` work without AWS and without a network.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CaArguments {
    #[command(subcommand)]
    verb: CaVerb,
}

#[derive(Debug, Subcommand)]
enum CaVerb {
    Create(create::CreateArguments),
    Register(register::RegisterArguments),
    List(list::ListArguments),
    Deactivate(deactivate::DeactivateArguments),
    Issue(issue::IssueArguments),
}

const EXAMPLES: &str = "\
Examples:
  cvm ca create --name 'Factory 1' --out factory-1
  cvm ca register --ca-cert factory-1/ca.pem --ca-key factory-1/ca.key
  cvm ca issue --ca-cert factory-1/ca.pem --ca-key factory-1/ca.key \\
      --device sn-0001 --out devices
  cvm ca list";

/// Runs `cvm ca ...`.
pub(crate) async fn run(arguments: CaArguments, output: &Output) -> Result<(), CommandError> {
    match arguments.verb {
        CaVerb::Create(arguments) => create::run(&arguments, output).await,
        CaVerb::Register(arguments) => register::run(arguments, &authorities().await, output).await,
        CaVerb::List(_) => list::run(&authorities().await, output).await,
        CaVerb::Deactivate(arguments) => deactivate::run(&arguments, &authorities().await, output).await,
        CaVerb::Issue(arguments) => issue::run(&arguments, output).await,
    }
}

async fn authorities() -> CertificateAuthorities {
    CertificateAuthorities::new(Clients::from_environment().await.iot)
}

fn now() -> Timestamp {
    SystemTime::now().into()
}
