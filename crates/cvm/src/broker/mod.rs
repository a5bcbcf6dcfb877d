//! `cvm broker`: the configuration of a broker that devices of the private CA connect to.

use clap::{Args, Subcommand};

mod error;
mod mosquitto;

pub(crate) use self::error::BrokerError;

use crate::error::CommandError;
use crate::output::Output;

/// Write the configuration of a broker for the devices of `cvm serve`
///
/// Each device connects as itself, publishes and subscribes only under devices/ID/, and is refused when its certificate is
/// revoked. docs/brokers.md has other brokers.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BrokerArguments {
    #[command(subcommand)]
    verb: BrokerVerb,
}

#[derive(Debug, Subcommand)]
enum BrokerVerb {
    Mosquitto(mosquitto::MosquittoArguments),
}

const EXAMPLES: &str = "\
Examples:
  cvm broker mosquitto --data .local/serve --out broker
  broker/run";

/// Runs `cvm broker ...`.
pub(crate) async fn run(arguments: BrokerArguments, output: &Output) -> Result<(), CommandError> {
    match arguments.verb {
        BrokerVerb::Mosquitto(arguments) => Ok(mosquitto::run(&arguments, output).await?),
    }
}
