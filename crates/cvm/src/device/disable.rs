use clap::Args;
use cvm_provisioning::{DeviceId, DeviceStore, Operations, Precondition, ReasonText};

use super::DeviceError;
use super::view::{DeviceView, live_certificate};
use crate::error::CommandError;
use crate::output::Output;
use crate::registry::{now, origin};

/// Refuse a device from now on, and cut it off
///
/// Its certificate is put out of power and its connection is ended within moments, by the service. `cvm device enable`
/// gives it back.
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
    operations: &Operations<impl DeviceStore>,
    output: &Output,
) -> Result<(), CommandError> {
    let by = origin();
    let disabled = operations.change(id, &Precondition::Exists, &by, |device| {
        device.disable(Some(reason.clone()), now());
        Ok(())
    });
    let device = disabled.await.map_err(DeviceError::of(id))?;
    output.json(&DeviceView::from(&device))?;
    output.done(format_args!("{id} is disabled: it gets no certificate from now on"))?;
    if let Some(credential) = live_certificate(&device, now()) {
        output.note(format_args!("the service is putting its certificate {} out of power", credential.certificate))?;
    }
    Ok(())
}
