use clap::Args;

use super::bulk::{Action, Targets};
use super::view::{DeviceView, live_certificate};
use super::{Change, DeviceRegistry};
use crate::error::CommandError;
use crate::output::Output;
use crate::registry::now;

/// Let a disabled device in again, and forget its wrong proofs and the delay they earned
///
/// Its certificate, if it has one, is in power again within moments.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct EnableArguments {
    #[command(flatten)]
    targets: Targets,
}

const EXAMPLES: &str = "\
Examples:
  cvm device enable sn-0001
  cvm device enable --group berlin --status disabled
  cvm device list --status disabled";

pub(super) async fn run(
    EnableArguments { targets }: &EnableArguments,
    registry: &impl DeviceRegistry,
    output: &Output,
) -> Result<(), CommandError> {
    let change = Change::Enable;
    let Some(id) = targets.single() else { return targets.run(&Action::Change(change), registry, output).await };
    let was_disabled = registry.find(id).await?.status == "disabled";
    let device = registry.change(id, &change, None).await?;
    output.json(&DeviceView::from(&device))?;
    output.done(format_args!("{id} is enabled and {}; its wrong proofs are forgotten", device.cvm.state))?;
    if let Some(certificate) = live_certificate(&device, now()).filter(|_| was_disabled) {
        output
            .note(format_args!("the service is putting its certificate {} into power", certificate.certificate_id))?;
    }
    Ok(())
}
