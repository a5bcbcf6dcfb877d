use clap::Args;
use cvm_provisioning::{DeviceId, DeviceStore, ReasonText};

use super::change;
use super::error::deactivate;
use super::view::{DeviceView, live_certificate};
use crate::error::CommandError;
use crate::output::Output;
use crate::registry::now;

/// Refuse a device from now on
///
/// This stops vending only: a certificate that was issued stays active on AWS IoT.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct DisableArguments {
    /// The device's id
    id: DeviceId,
    /// Why, for whoever asks later; up to 200 characters on one line
    #[arg(long, value_name = "TEXT")]
    reason: ReasonText,
}

const EXAMPLES: &str = "\
Examples:
  cvm device disable sn-0001 --reason 'stolen, ticket 4711'
  cvm device enable sn-0001";

pub(super) async fn run(
    DisableArguments { id, reason }: &DisableArguments,
    registry: &impl DeviceStore,
    output: &Output,
) -> Result<(), CommandError> {
    let device = change(registry, id, |device| {
        device.disable(reason.clone(), now());
        Ok(())
    })
    .await?;
    output.json(&DeviceView::from(&device))?;
    output.done(format_args!("{id} is disabled: it gets no certificate from now on"))?;
    if let Some(credential) = live_certificate(&device, now()) {
        let certificate = &credential.certificate;
        output
            .note(format_args!("the certificate that it has stays active on AWS IoT; {}", deactivate(certificate)))?;
    }
    Ok(())
}
