use clap::Args;
use cvm_provisioning::{Claim, ClaimStore, ReasonText, Status};

use super::terms::TermsArguments;
use super::view::{ClaimView, terms};
use super::{ClaimError, change};
use crate::certificate::CertificateArgument;
use crate::error::CommandError;
use crate::output::Output;
use crate::registry::now;

/// Register a claim certificate, or change what it is good for
///
/// Claim certificates that the registry does not know claim nothing. Registering one again changes its quota or its
/// end; what it has used counts on, and one that was revoked stays so.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct AddArguments {
    /// The claim certificate: its id at AWS IoT, or a file in PEM or DER
    #[arg(value_name = "ID|FILE")]
    certificate: CertificateArgument,
    #[command(flatten)]
    terms: TermsArguments,
    /// Let a claim that was revoked claim again
    #[arg(long)]
    enable: bool,
}

const EXAMPLES: &str = "\
Examples:
  cvm claim add claim.pem --quota 1000 --expires 26w
  cvm claim add claim.pem --quota 2000
  cvm claim add claim.pem --quota any --expires never
  cvm claim add --enable \\
      e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

pub(super) async fn run(
    arguments: &AddArguments,
    registry: &impl ClaimStore,
    output: &Output,
) -> Result<(), CommandError> {
    let id = arguments.certificate.id().map_err(ClaimError::from)?;
    let claim = change(registry, &id, |found| {
        let claim = found.unwrap_or_else(|| Claim::new(id, now()));
        let status =
            if arguments.enable && !claim.status.enabled { Status::enabled(now()) } else { claim.status.clone() };
        Ok(arguments.terms.revise(Claim { status, ..claim }, now()))
    })
    .await?;
    output.json(&ClaimView::from(&claim))?;
    output.done(format_args!("claim {id} is registered, {}", terms(&claim)))?;
    if let Status { enabled: false, reason, since } = &claim.status {
        let reason = reason.as_ref().map_or("no reason given", ReasonText::as_str);
        output.note(format_args!(
            "it stays revoked, as it is since {since}: {reason}; `cvm claim add {id} --enable` lets it claim again"
        ))?;
    } else {
        output.say("\nNext:\n  cvm device add ID --claim")?;
    }
    Ok(())
}
