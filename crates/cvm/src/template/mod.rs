//! `cvm template`: provisioning templates and policies, looked at before a device meets them.

use clap::{Args, Subcommand};

mod check;
mod door;
mod error;
mod finding;
mod render;

pub(crate) use error::TemplateCommandError;

use crate::error::CommandError;
use crate::output::Output;

/// Check provisioning templates and policies, and show what a device would get; without AWS and without a network
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TemplateArguments {
    #[command(subcommand)]
    verb: TemplateVerb,
}

#[derive(Debug, Subcommand)]
enum TemplateVerb {
    Check(check::CheckArguments),
    Render(render::RenderArguments),
}

const EXAMPLES: &str = "\
Examples:
  cvm template check template.json --type fleet
  cvm template check --policy policy.json
  cvm template render template.json --parameter SerialNumber=sn-0001";

/// The longest file that is read, in bytes: a template body of the longest characters, and then some.
const MAX_FILE: usize = 64 * 1024;

/// Runs `cvm template ...`.
pub(crate) fn run(arguments: &TemplateArguments, output: &Output) -> Result<(), CommandError> {
    match &arguments.verb {
        TemplateVerb::Check(arguments) => check::run(arguments, output),
        TemplateVerb::Render(arguments) => render::run(arguments, output),
    }
}
