//! The registry on SQLite: the contract, the scenarios, and what only a database in a folder can come to.

#![expect(clippy::large_futures, clippy::unwrap_used, reason = "a panic is a failed test")]

use cvm_sql::SqlRegistry;
use cvm_testkit::{Fault, contract, scenario};
use tempfile::TempDir;

fn registry() -> (TempDir, SqlRegistry) {
    let folder = tempfile::tempdir().unwrap();
    let registry = SqlRegistry::in_folder(folder.path()).unwrap();
    (folder, registry)
}

#[tokio::test]
async fn the_registry_on_sqlite_keeps_the_contract() {
    let (_folder, registry) = registry();
    contract::registry(&registry).await;
}

#[tokio::test]
async fn the_audit_trail_on_sqlite_keeps_the_contract() {
    let (_folder, registry) = registry();
    contract::audit_trail(&registry).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_07_fifty_callers_at_once_get_one_certificate() {
    contract::fifty_reservations_at_once(&registry().1).await;
    scenario::vend::fifty_callers_with_one_key(registry().1).await;
    scenario::vend::fifty_callers_with_fifty_keys(registry().1).await;
}

#[tokio::test]
async fn threat_33_a_vend_that_fails_anywhere_ends_with_one_certificate_that_works() {
    let (_folder, registry) = registry();
    scenario::vend::fault_matrix(|| registry.clone()).await;
}

#[tokio::test]
async fn what_an_operator_decides_holds_whatever_devices_do() {
    let (_folder, registry) = registry();
    scenario::lifecycle::a_decision_in_the_middle_of_a_vend(|| registry.clone()).await;
    scenario::lifecycle::a_decision_in_the_middle_of_a_first_connection(|| registry.clone()).await;
    scenario::lifecycle::a_device_registered_again_is_another(|| registry.clone()).await;
}

#[tokio::test]
async fn threat_11_a_claim_counts_and_blocks_nobody_and_a_clone_claims_nothing() {
    let (_folder, registry) = registry();
    scenario::claims::fault_matrix(|| registry.clone()).await;
    scenario::claims::a_clone_claims_nothing(registry.clone()).await;
    scenario::claims::the_first_to_connect_stays(registry).await;
}

#[tokio::test]
async fn threat_45_the_reconciler_removes_what_attempts_left_and_nothing_else() {
    let (_folder, registry) = registry();
    scenario::reconcile::fault_matrix(|| registry.clone(), &[Fault::Throttle]).await;
    scenario::reconcile::a_reservation_is_confirmed_or_released(|| registry.clone()).await;
}
