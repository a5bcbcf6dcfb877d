use clap::Args;
use cvm_provisioning::ReasonText;

use super::bulk::{Action, Targets};
use super::view::{DeviceView, live_certificate};
use super::{Change, DeviceRegistry};
use crate::error::CommandError;
use crate::output::Output;
use crate::registry::now;

/// Refuse a device from now on, and cut it off
///
/// Its certificate is put out of power and its connection is ended within moments, by the service. `cvm device enable`
/// gives it back.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct DisableArguments {
    #[command(flatten)]
    targets: Targets,
    /// Why, for whoever asks later; up to 200 characters on one line
    #[arg(long, value_name = "TEXT")]
    reason: ReasonText,
}

const EXAMPLES: &str = "\
Examples:
  cvm device disable sn-0001 --reason 'stolen, ticket 4711'
  cvm device disable --file serials.txt --reason 'recall 12' --dry-run
  cvm device disable --group berlin --reason 'recall 12' --yes
  cvm device enable sn-0001";

pub(super) async fn run(
    DisableArguments { targets, reason }: &DisableArguments,
    registry: &impl DeviceRegistry,
    output: &Output,
) -> Result<(), CommandError> {
    let change = Change::Disable(reason.clone());
    let Some(id) = targets.single() else { return targets.run(&Action::Change(change), registry, output).await };
    let device = registry.change(id, &change, None).await?;
    output.json(&DeviceView::from(&device))?;
    output.done(format_args!("{id} is disabled: it gets no certificate from now on"))?;
    if let Some(certificate) = live_certificate(&device, now()) {
        output
            .note(format_args!("the service is putting its certificate {} out of power", certificate.certificate_id))?;
    }
    Ok(())
}
