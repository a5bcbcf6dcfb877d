use clap::Args;
use cvm_provisioning::{DeviceId, Verdict};

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
    /// The device's id
    id: DeviceId,
    /// The other key was a clone's: the device keeps the certificate that it has
    #[arg(long)]
    keep: bool,
}

const EXAMPLES: &str = "\
Examples:
  cvm device list --state quarantined
  cvm device show sn-0001               # has both keys
  cvm device approve sn-0001            # it lost its key: admit the next one
  cvm device approve sn-0001 --keep     # the other one was a clone";

pub(super) async fn run(
    ApproveArguments { id, keep }: &ApproveArguments,
    registry: &impl DeviceRegistry,
    output: &Output,
) -> Result<(), CommandError> {
    let verdict = if *keep { Verdict::KeepCertificate } else { Verdict::AdmitNextKey };
    let device = registry.change(id, &Change::Approve(verdict)).await?;
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
