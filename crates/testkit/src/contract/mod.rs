//! The contract of the device registry: whatever the store, each method has the effect of the [`Device`] method of the
//! same name, in one step. Every case runs the store beside the domain's own rules and compares all there is to see.

use cvm_provisioning::{Changes as _, Device};

use self::cases::Cases;
use crate::fixture::{NOW, origin};
use crate::scenario::Registry;

mod cases;
mod claims;
mod devices;
mod jobs;
mod ledger;
mod reconciliation;
mod reservations;
mod trail;

pub use self::jobs::{job_store, objects};
pub use self::ledger::ledger;
pub use self::reservations::{a_key_is_one_devices, fifty_reservations_at_once, one_reservation_by_many_servers};
pub use self::trail::audit_trail;

const LEAF: &[u8] = b"a factory certificate";
const OTHER_LEAF: &[u8] = b"another factory certificate";

/// Runs the whole contract over one empty registry.
pub async fn registry<R: Registry>(registry: &R) {
    let cases = Cases::new().await;
    reservations::a_reservation_follows_the_decision(registry, &cases).await;
    reservations::a_reservation_made_twice_is_one(registry, &cases).await;
    reservations::a_commit_is_the_holders(registry, &cases).await;
    reservations::a_release_is_the_holders(registry, &cases).await;
    reservations::a_refusal_is_written_down(registry, &cases).await;
    reservations::counting_refusals_leaves_the_version(registry, &cases).await;
    reservations::an_unknown_device_is_not_made(registry, &cases).await;
    devices::operators_do_not_overwrite_each_other(registry).await;
    reconciliation::a_certificate_finds_its_device(registry, &cases).await;
    reconciliation::what_is_unsettled_is_found(registry).await;
    claims::a_reservation_by_claim_is_counted_with_it_or_not_made(registry).await;
    claims::a_claim_is_made_out_with_its_device_or_not_at_all(registry).await;
    claims::an_operator_who_changes_a_claim_keeps_its_count(registry).await;
    claims::nobody_undoes_a_revocation_that_they_did_not_see(registry).await;
    claims::a_user_has_so_many_claims_a_day(registry).await;
    reconciliation::a_place_is_kept_until_it_is_moved(registry).await;
    devices::the_later_word_of_the_platform_counts(registry).await;
    devices::a_tombstone_is_kept_until_it_is_forgotten(registry).await;
    // Claims, counters, places, presences and tombstones are there by now, and are no devices.
    devices::a_list_has_every_device_once(registry).await;
    devices::a_filter_lets_through_what_it_says(registry, &cases).await;
}

/// Puts a device into the registry, whatever is there.
async fn put<R: Registry>(registry: &R, device: &Device) {
    if let Some(there) = registry.find(&device.id).await.expect("the store answers") {
        if there == *device {
            return;
        }
        let (version, tombstone) = (there.version, there.bury(NOW));
        assert!(registry.remove(&tombstone, version, &origin()).await.expect("the store answers"));
        registry.forget(&device.id, tombstone.device.generation).await.expect("the store answers");
    }
    assert!(registry.add(device, &origin()).await.expect("the store answers"));
}

async fn stored<R: Registry>(registry: &R, device: &Device) -> Device {
    registry.find(&device.id).await.expect("the store answers").expect("the device is there")
}
