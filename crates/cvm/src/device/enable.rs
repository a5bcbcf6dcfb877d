use clap::Args;
use cvm_provisioning::{DeviceId, DeviceStore, Operations, Precondition};

use super::DeviceError;
use super::view::{DeviceView, live_certificate};
use crate::error::CommandError;
use crate::output::Output;
use crate::registry::{now, origin};

/// Let a disabled device in again, and forget its wrong proofs and the delay they earned
///
/// Its certificate, if it has one, is in power again within moments.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct EnableArguments {
    /// The device's id
    id: DeviceId,
}

const EXAMPLES: &str = "\
Examples:
  cvm device enable sn-0001
  cvm device list --status disabled";

pub(super) async fn run(
    EnableArguments { id }: &EnableArguments,
    operations: &Operations<impl DeviceStore>,
    output: &Output,
) -> Result<(), CommandError> {
    let by = origin();
    let mut was_disabled = false;
    let enabled = operations.change(id, &Precondition::Exists, &by, |device| {
        was_disabled = !device.status.enabled;
        device.enable(None, now());
        Ok(())
    });
    let device = enabled.await.map_err(DeviceError::of(id))?;
    output.json(&DeviceView::from(&device))?;
    output.done(format_args!("{id} is enabled and {}; its wrong proofs are forgotten", device.state.name()))?;
    if let Some(credential) = live_certificate(&device, now()).filter(|_| was_disabled) {
        output.note(format_args!("the service is putting its certificate {} into power", credential.certificate))?;
    }
    Ok(())
}
