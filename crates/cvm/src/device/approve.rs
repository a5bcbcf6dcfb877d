use clap::Args;
use cvm_provisioning::Verdict;

use super::bulk::{Action, Targets};
use super::view::DeviceView;
use super::{Change, DeviceRegistry};
use crate::error::CommandError;
use crate::output::Output;

/// End a quarantine: the right proof came with another key, and a person has to say whose that key is
///
/// Without --keep the device is taken to be real and to have lost its key: the next key that comes with the right proof
/// replaces its certificate.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ApproveArguments {
    #[command(flatten)]
    targets: Targets,
    /// The other key was a clone's: the device keeps the certificate that it has
    #[arg(long)]
    keep: bool,
}

const EXAMPLES: &str = "\
Examples:
  cvm device list --state quarantined
  cvm device show sn-0001               # has both keys
  cvm device approve sn-0001            # it lost its key: admit the next one
  cvm device approve sn-0001 --keep     # the other one was a clone
  cvm device approve --state quarantined --group berlin --dry-run";

pub(super) async fn run(
    ApproveArguments { targets, keep }: &ApproveArguments,
    registry: &impl DeviceRegistry,
    output: &Output,
) -> Result<(), CommandError> {
    let verdict = if *keep { Verdict::KeepCertificate } else { Verdict::AdmitNextKey };
    let change = Change::Approve(verdict);
    let Some(id) = targets.single() else { return targets.run(&Action::Change(change), registry, output).await };
    let device = registry.change(id, &change, None).await?;
    output.json(&DeviceView::from(&device))?;
    match verdict {
        Verdict::AdmitNextKey => {
            output.done(format_args!("{id} is {} again", device.cvm.state))?;
            output.note(
                "the next key that comes with the right proof replaces its certificate; until then that stays active",
            )?;
        }
        Verdict::KeepCertificate => {
            output.done(format_args!("{id} is {} again and keeps its certificate", device.cvm.state))?;
            output
                .note("whoever has the other key also has the device's proof: register the device anew to change it")?;
        }
    }
    Ok(())
}
