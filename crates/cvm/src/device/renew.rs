use clap::Args;
use cvm_provisioning::DeviceId;

use super::view::DeviceView;
use super::{Change, DeviceRegistry};
use crate::error::CommandError;
use crate::output::Output;

/// Let a device that has its certificate be provisioned once more
///
/// The next key that comes with the right proof replaces the one that it has. Until then its certificate stays as it is.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct RenewArguments {
    /// The device's id
    id: DeviceId,
}

const EXAMPLES: &str = "\
Examples:
  cvm device renew sn-0001";

pub(super) async fn run(
    RenewArguments { id }: &RenewArguments,
    registry: &impl DeviceRegistry,
    output: &Output,
) -> Result<(), CommandError> {
    let device = registry.change(id, &Change::Renew).await?;
    output.json(&DeviceView::from(&device))?;
    output.done(format_args!("{id} may be provisioned once more"))?;
    output
        .note("the next key that comes with the right proof replaces its certificate; until then that stays active")?;
    Ok(())
}
