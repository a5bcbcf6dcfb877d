//! `cvm ca`: the CAs whose device certificates AWS IoT takes, certificates from one that is at hand, and the CA of a server
//! of one's own.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use cvm_aws::{CertificateAuthorities, Clients};
use cvm_provisioning::Timestamp;

mod authority;
mod create;
mod deactivate;
mod error;
mod issue;
mod issue_server;
mod key;
mod list;
mod passphrase;
mod register;
mod revoke;
mod rotate;
mod show;
mod view;

pub(crate) use error::CaError;
pub(crate) use issue_server::ServerTerms;

use crate::error::CommandError;
use crate::output::Output;
use crate::own_ca::CaFolder;

/// Operate CAs of your own: those of a factory, and the one of `cvm serve`
///
/// A factory's CA is made with `create`, registered with AWS IoT, and issues device certificates with `issue`. Region,
/// credentials and endpoint are those of the AWS environment (AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL, ...); `create` and
/// `issue` work without AWS and without a network.
///
/// `show`, `rotate`, `passphrase` and `issue-server` are for the CA that `cvm serve` has in its folder; `revoke` asks the
/// server.
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
    IssueServer(issue_server::IssueServerArguments),
    Show(show::ShowArguments),
    Revoke(revoke::RevokeArguments),
    Rotate(rotate::RotateArguments),
    Passphrase(passphrase::ChangePassphraseArguments),
}

/// The data folder of `cvm serve`.
#[derive(Args, Debug)]
pub(crate) struct DataArguments {
    /// The folder of `cvm serve`, which may run meanwhile
    #[arg(long, env = "CVM_DATA", value_name = "DIR", default_value = "cvm-data")]
    data: PathBuf,
}

impl DataArguments {
    /// The folder of its CA.
    pub(crate) fn folder(&self) -> CaFolder {
        CaFolder::of_data(&self.data)
    }
}

const EXAMPLES: &str = "\
Examples:
  cvm ca create --name 'Factory 1' --out factory-1
  cvm ca register --ca-cert factory-1/ca.pem --ca-key factory-1/ca.key
  cvm ca issue --ca-cert factory-1/ca.pem --ca-key factory-1/ca.key \\
      --device sn-0001 --out devices
  cvm ca list
  cvm ca show --data /var/lib/cvm
  cvm ca rotate --data /var/lib/cvm
  cvm ca issue-server broker.example.com --data /var/lib/cvm --out broker";

/// Runs `cvm ca ...`.
pub(crate) async fn run(arguments: CaArguments, output: &Output) -> Result<(), CommandError> {
    match arguments.verb {
        CaVerb::Create(arguments) => create::run(&arguments, output).await,
        CaVerb::Register(arguments) => register::run(arguments, &authorities().await, output).await,
        CaVerb::List(_) => list::run(&authorities().await, output).await,
        CaVerb::Deactivate(arguments) => deactivate::run(&arguments, &authorities().await, output).await,
        CaVerb::Issue(arguments) => issue::run(&arguments, output).await,
        CaVerb::IssueServer(arguments) => issue_server::run(&arguments, output).await,
        CaVerb::Show(arguments) => show::run(&arguments, output),
        CaVerb::Revoke(arguments) => revoke::run(arguments, output).await,
        CaVerb::Rotate(arguments) => rotate::run(&arguments, output).await,
        CaVerb::Passphrase(arguments) => passphrase::run(&arguments, output),
    }
}

async fn authorities() -> CertificateAuthorities {
    CertificateAuthorities::new(Clients::from_environment().await.iot)
}

fn now() -> Timestamp {
    SystemTime::now().into()
}
