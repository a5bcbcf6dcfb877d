use clap::Args;
use cvm_provisioning::DeviceId;
use serde_json::json;

use super::DeviceRegistry;
use crate::error::CommandError;
use crate::output::Output;

/// Delete a device: its item at once, its certificates and its thing within moments
///
/// The id is free again. Whoever registers it anew gets another device, which cannot use the certificate of this one.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct DeleteArguments {
    /// The device's id
    id: DeviceId,
}

const EXAMPLES: &str = "\
Examples:
  cvm device delete sn-0001
  cvm device disable sn-0001 --reason 'sold'      # keeps it, powerless";

pub(super) async fn run(
    DeleteArguments { id }: &DeleteArguments,
    registry: &impl DeviceRegistry,
    output: &Output,
) -> Result<(), CommandError> {
    registry.delete(id).await?;
    output.json(&json!({ "deviceId": id, "deleted": true }))?;
    output.done(format_args!("{id} is no longer in the registry"))?;
    output.note("the service is removing its certificates, its connection and its thing")?;
    Ok(())
}
