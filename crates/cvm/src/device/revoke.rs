use clap::Args;
use cvm_provisioning::ReasonText;

use super::bulk::{Action, Targets};
use super::view::DeviceView;
use super::{Change, DeviceRegistry};
use crate::error::CommandError;
use crate::output::Output;

/// Withdraw the certificates of a device for good
///
/// For a key that somebody else may have. Its certificates are revoked within moments, by the service, those that it had
/// before and that still count as well; its connection is ended, and no key is let in for it any more, whatever proof comes
/// with it. A device that is to come back is deleted and registered again, with a new token. What may be undone is
/// `cvm device disable`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct RevokeArguments {
    #[command(flatten)]
    targets: Targets,
    /// Why, for whoever asks later; up to 200 characters on one line
    #[arg(long, value_name = "TEXT")]
    reason: ReasonText,
}

const EXAMPLES: &str = "\
Examples:
  cvm device revoke sn-0001 --reason 'key found on the internet, ticket 4712'
  cvm device revoke --prefix sn-00 --reason 'ticket 4713' --dry-run
  cvm device delete sn-0001
  cvm device add sn-0001";

pub(super) async fn run(
    RevokeArguments { targets, reason }: &RevokeArguments,
    registry: &impl DeviceRegistry,
    output: &Output,
) -> Result<(), CommandError> {
    let change = Change::Revoke(reason.clone());
    let Some(id) = targets.single() else { return targets.run(&Action::Change(change), registry, output).await };
    let device = registry.change(id, &change, None).await?;
    output.json(&DeviceView::from(&device))?;
    output.done(format_args!("{id} is revoked: no key is let in for it any more"))?;
    if let Some(certificate) = &device.cvm.certificate {
        output.note(format_args!("the service is revoking its certificate {}", certificate.certificate_id))?;
    }
    Ok(())
}
