use clap::Args;
use cvm_provisioning::{Device, DeviceId, DeviceStore, State};
use serde_json::json;

use super::error::deactivate;
use super::view::live_certificate;
use super::{DeviceError, find};
use crate::error::CommandError;
use crate::output::Output;
use crate::registry::{TRIES, now};

/// Remove a device from the registry
///
/// Refused for a device that has a live certificate: nothing would be left to say whose it is, and it stays active on
/// AWS IoT until it is deactivated there.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct DeleteArguments {
    /// The device's id
    id: DeviceId,
    /// Remove it although it has, or may have, a live certificate
    #[arg(long)]
    force: bool,
}

const EXAMPLES: &str = "\
Examples:
  cvm device delete sn-0001
  cvm device delete sn-0001 --force";

pub(super) async fn run(
    DeleteArguments { id, force }: &DeleteArguments,
    registry: &impl DeviceStore,
    output: &Output,
) -> Result<(), CommandError> {
    let device = delete(registry, id, *force).await?;
    output.json(&json!({ "deviceId": id, "deleted": true }))?;
    output.done(format_args!("{id} is no longer in the registry"))?;
    if let Some(credential) = live_certificate(&device, now()) {
        output
            .note(format_args!("its certificate stays active on AWS IoT; {}", deactivate(&credential.certificate)))?;
    }
    Ok(())
}

/// Removes the item as it was looked at, again from the start where it has changed since.
async fn delete(registry: &impl DeviceStore, id: &DeviceId, force: bool) -> Result<Device, DeviceError> {
    let mut deleted = None;
    for _ in 0..TRIES {
        let device = match (find(registry, id).await, deleted) {
            // It was there and we asked for it to go: the answer was lost.
            (Err(DeviceError::NotFound { .. }), Some(device)) => return Ok(device),
            (found, _) => found?,
        };
        if !force {
            may_go(&device)?;
        }
        if registry.delete(id, device.version).await? {
            return Ok(device);
        }
        deleted = Some(device);
    }
    Err(DeviceError::Contended { id: id.clone() })
}

fn may_go(device: &Device) -> Result<(), DeviceError> {
    if let Some(credential) = live_certificate(device, now()) {
        return Err(DeviceError::LiveCertificate { id: device.id.clone(), certificate: credential.certificate });
    }
    let attempted = device.reservation.as_ref().is_some_and(|reservation| reservation.attempts > 0);
    if device.state == State::Reserved && attempted {
        return Err(DeviceError::Unsettled { id: device.id.clone() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cvm_provisioning::Reservations;
    use cvm_testkit::MemoryRegistry;
    use cvm_testkit::fixture::{NOW, attempt, csr, device, id};

    use super::*;

    #[tokio::test]
    async fn a_device_whose_vend_died_is_not_forgotten_by_accident() {
        let registry = MemoryRegistry::default();
        assert!(registry.add(&device("sn-0001")).await.unwrap());
        registry.reserve(&attempt("sn-0001", 1, &csr("sn-0001"), NOW)).await.unwrap();
        let refused = delete(&registry, &id("sn-0001"), false).await;
        assert!(matches!(refused, Err(DeviceError::Unsettled { .. })), "{refused:?}");
        assert_eq!(delete(&registry, &id("sn-0001"), true).await.unwrap().state, State::Reserved);
        assert!(matches!(delete(&registry, &id("sn-0001"), true).await, Err(DeviceError::NotFound { .. })));
    }
}
