use clap::Args;
use serde_json::json;

use super::DeviceRegistry;
use super::bulk::{Action, Targets};
use crate::error::CommandError;
use crate::output::Output;

/// Delete a device: its item at once, its certificates and its thing within moments
///
/// The id is free again. Whoever registers it anew gets another device, which cannot use the certificate of this one.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct DeleteArguments {
    #[command(flatten)]
    targets: Targets,
}

const EXAMPLES: &str = "\
Examples:
  cvm device delete sn-0001
  cvm device delete --file sold.txt --yes --output json > report.jsonl
  cvm device disable sn-0001 --reason 'sold'      # keeps it, powerless";

pub(super) async fn run(
    DeleteArguments { targets }: &DeleteArguments,
    registry: &impl DeviceRegistry,
    output: &Output,
) -> Result<(), CommandError> {
    let Some(id) = targets.single() else { return targets.run(&Action::Delete, registry, output).await };
    registry.delete(id, None).await?;
    output.json(&json!({ "deviceId": id, "deleted": true }))?;
    output.done(format_args!("{id} is no longer in the registry"))?;
    output.note("the service is removing its certificates, its connection and its thing")?;
    Ok(())
}
