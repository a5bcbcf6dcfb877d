use clap::Args;
use cvm_provisioning::{DeviceId, DeviceStore};

use super::change;
use super::view::DeviceView;
use crate::error::CommandError;
use crate::output::Output;
use crate::registry::now;

/// Let a disabled device in again, and forget its wrong proofs and the delay they earned
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
    registry: &impl DeviceStore,
    output: &Output,
) -> Result<(), CommandError> {
    let device = change(registry, id, |device| {
        device.enable(now());
        Ok(())
    })
    .await?;
    output.json(&DeviceView::from(&device))?;
    output.done(format_args!("{id} is enabled and {}; its wrong proofs are forgotten", device.state.name()))?;
    Ok(())
}
