//! What follows from writes: notices, the trail, the bus, and the platform in line.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use cvm_testkit::{MemoryRegistry, scenario};

mod enforcement {
    use super::*;

    #[tokio::test]
    async fn a_status_is_enforced_however_it_fails() {
        scenario::lifecycle::a_status_is_enforced_however_it_fails(MemoryRegistry::default).await;
    }

    #[tokio::test]
    async fn a_deletion_is_enforced_however_it_fails() {
        scenario::lifecycle::a_deletion_is_enforced_however_it_fails(MemoryRegistry::default).await;
    }

    #[tokio::test]
    async fn a_device_disabled_or_deleted_in_the_middle_of_a_vend_ends_without_power() {
        scenario::lifecycle::a_decision_in_the_middle_of_a_vend(MemoryRegistry::default).await;
    }

    #[tokio::test]
    async fn a_device_disabled_or_deleted_in_the_middle_of_its_first_connection_ends_without_power() {
        scenario::lifecycle::a_decision_in_the_middle_of_a_first_connection(MemoryRegistry::default).await;
    }

    #[tokio::test]
    async fn of_two_decisions_at_the_same_time_the_last_one_holds() {
        scenario::lifecycle::the_last_decision_holds(MemoryRegistry::default).await;
    }

    #[tokio::test]
    async fn a_factory_certificate_that_comes_back_is_not_cleared_away() {
        let scenario = scenario::lifecycle::a_factory_certificate_comes_back_while_it_is_cleared_away;
        scenario(MemoryRegistry::default).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_disable_racing_fifty_vends_leaves_no_power() {
        for _ in 0..20 {
            scenario::lifecycle::a_disable_racing_fifty_vends(MemoryRegistry::default()).await;
        }
    }

    #[tokio::test]
    async fn a_device_registered_again_cannot_use_its_old_certificate() {
        scenario::lifecycle::a_device_registered_again_is_another(MemoryRegistry::default).await;
    }
}
