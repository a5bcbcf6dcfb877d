use clap::Args;

use super::bulk::{Action, Targets};
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
    #[command(flatten)]
    targets: Targets,
}

const EXAMPLES: &str = "\
Examples:
  cvm device renew sn-0001
  cvm device renew --expires-within 30d --state provisioned";

pub(super) async fn run(
    RenewArguments { targets }: &RenewArguments,
    registry: &impl DeviceRegistry,
    output: &Output,
) -> Result<(), CommandError> {
    let change = Change::Renew;
    let Some(id) = targets.single() else { return targets.run(&Action::Change(change), registry, output).await };
    let device = registry.change(id, &change, None).await?;
    output.json(&DeviceView::from(&device))?;
    output.done(format_args!("{id} may be provisioned once more"))?;
    output
        .note("the next key that comes with the right proof replaces its certificate; until then that stays active")?;
    Ok(())
}
