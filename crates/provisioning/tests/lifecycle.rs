//! What follows from writes: notices, the trail, the bus, and the platform in line.

#![expect(clippy::large_futures, clippy::unwrap_used, reason = "a panic is a failed test")]

use cvm_provisioning::{
    AuditQuery, AuditTrail as _, Changes as _, Device, GenerationId, Lifecycle, Module, NoticeKind, Operations,
    Precondition, RegistryWrite, State, Verdict,
};
use cvm_testkit::fixture::{NOW, csr, device, id, later, origin, request};
use cvm_testkit::scenario::World;
use cvm_testkit::{
    Fault, Faulty, MemoryAudit, MemoryBus, MemoryPlatform, MemoryRegistry, MemoryTrail, Script, contract, scenario,
};

mod enforcement {
    use super::*;

    #[tokio::test]
    async fn a_status_is_enforced_however_it_fails() {
        scenario::lifecycle::a_status_is_enforced_however_it_fails(MemoryRegistry::default).await;
    }

    #[tokio::test]
    async fn a_revocation_is_enforced_however_it_fails() {
        scenario::lifecycle::a_revocation_is_enforced_however_it_fails(MemoryRegistry::default).await;
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

/// What the store's stream tells of each step of a device's life.
mod notices {
    use super::*;

    struct Life {
        world: World<MemoryRegistry>,
        operations: Operations<MemoryRegistry>,
    }

    impl Life {
        async fn begins() -> Self {
            let world = World::new(MemoryRegistry::default(), device("sn-1")).await;
            let operations = Operations { registry: world.registry.clone() };
            Self { world, operations }
        }

        async fn change(&self, change: impl Fn(&mut Device)) {
            let change = |device: &mut Device| {
                change(device);
                Ok(())
            };
            self.operations.change(&id("sn-1"), &Precondition::Exists, &origin(), change).await.unwrap();
        }

        /// What was told since this was asked last.
        fn told(&self) -> Vec<NoticeKind> {
            let writes = self.world.registry.take_writes();
            writes.iter().flat_map(RegistryWrite::notices).map(|notice| notice.kind).collect()
        }
    }

    #[tokio::test]
    async fn every_step_of_a_device_is_told_once() {
        use NoticeKind::{
            Approved, Changed, Connected, Created, Deleted, Disabled, Enabled, ModuleChanged, ModuleCreated,
            ModuleDeleted, Provisioned, Quarantined, Refused, Released, Renewable, Reserved,
        };
        let life = Life::begins().await;
        assert_eq!(life.told(), [Created]);
        let vend = life.world.vend(&Script::default());
        let key = csr("sn-1");
        let vended = vend.vend(request("sn-1", 1, Some(&key), NOW)).await.unwrap();
        assert_eq!(life.told(), [Reserved, Provisioned]);
        vend.vend(request("sn-1", 2, Some(&key), NOW)).await.unwrap();
        assert_eq!(life.told(), [], "a replay writes nothing");
        let connection = scenario::first_connect::connection(&vended.credential.certificate, "sn-1", later(9));
        life.world.confirm(&Script::default()).connected(&connection).await.unwrap();
        assert_eq!(life.told(), [Connected]);
        vend.vend(request("sn-1", 3, Some(&csr("sn-1")), later(10))).await.unwrap_err();
        assert_eq!(life.told(), [Quarantined]);
        life.change(|device| device.approve(Verdict::KeepCertificate, later(11)).unwrap()).await;
        assert_eq!(life.told(), [Approved]);
        let wrong = cvm_provisioning::VendRequest { token: None, ..request("sn-1", 4, Some(&csr("sn-1")), later(12)) };
        vend.vend(wrong).await.unwrap_err();
        assert_eq!(life.told(), [Refused]);
        life.change(|device| device.renew(later(13)).unwrap()).await;
        assert_eq!(life.told(), [Renewable]);
        let failing = Script::fail(5, Fault::Outage);
        life.world.vend(&failing).vend(request("sn-1", 5, Some(&csr("sn-1")), later(14))).await.unwrap_err();
        assert_eq!(life.told(), [Reserved], "and it could not give the reservation back");
        let throttled = Script::fail(4, Fault::Throttle);
        let again = request("sn-1", 6, Some(&csr("sn-1")), later(60));
        life.world.vend(&throttled).vend(again).await.unwrap_err();
        assert_eq!(life.told(), [Reserved, Released]);
        life.change(|device| device.disable("stolen".parse().ok(), later(70))).await;
        life.change(|device| device.enable(None, later(71))).await;
        life.change(|device| {
            device.group = "berlin".parse().ok();
            device.version += 1;
        })
        .await;
        assert_eq!(life.told(), [Disabled, Enabled, Changed]);
        let module = |version| Module { version, ..Module::new(GenerationId::new(1), device("m").attestation, NOW) };
        life.change(|device| device.put_module("m".parse().unwrap(), module(1), later(72))).await;
        life.change(|device| device.put_module("m".parse().unwrap(), module(2), later(73))).await;
        life.change(|device| assert!(device.remove_module(&"m".parse().unwrap(), later(74)))).await;
        assert_eq!(life.told(), [ModuleCreated, ModuleChanged, ModuleDeleted]);
        life.operations.delete(&id("sn-1"), &Precondition::Exists, &origin(), later(75)).await.unwrap();
        assert_eq!(life.told(), [Deleted]);
    }

    #[tokio::test]
    async fn a_revocation_is_told_once_with_its_reason_and_is_enforced() {
        let life = Life::begins().await;
        let vended =
            life.world.vend(&Script::default()).vend(request("sn-1", 1, Some(&csr("sn-1")), NOW)).await.unwrap();
        life.told();
        life.change(|device| device.revoke("key leaked".parse().unwrap(), later(1)).unwrap()).await;
        let writes = life.world.registry.take_writes();
        let [revoked] = &writes[0].notices()[..] else { panic!("{writes:?}") };
        assert_eq!((revoked.kind, revoked.reason.as_deref()), (NoticeKind::Revoked, Some("key leaked")));
        assert_eq!(revoked.certificate, Some(vended.credential.certificate));
        assert!(writes[0].is_to_be_enforced());
        // What changes nothing about its power has nothing to be done about it.
        life.change(|device| device.disable("on hold".parse().ok(), later(2))).await;
        assert!(!life.world.registry.take_writes()[0].is_to_be_enforced());
        let restored = RegistryWrite { before: None, ..writes[0].clone() };
        assert!(restored.is_to_be_enforced(), "one that was exported is revoked where it is imported");
    }

    #[tokio::test]
    async fn a_notice_says_what_changed_and_why_and_by_whom() {
        let life = Life::begins().await;
        life.change(|device| device.disable("stolen".parse().ok(), later(1))).await;
        life.change(|device| {
            device.template = "cameras".parse().ok();
            device.parameters.insert("Site".to_owned(), "berlin".to_owned());
            device.version += 1;
        })
        .await;
        let writes = life.world.registry.take_writes();
        assert_eq!(writes[1].notices()[0].reason.as_deref(), Some("stolen"));
        assert_eq!(writes[2].notices()[0].changed, ["parameters", "template"]);
        assert_eq!(writes[2].by, Some(origin()));
    }
}

mod following_up {
    use super::*;

    type Lives = Lifecycle<Faulty<MemoryRegistry>, Faulty<MemoryPlatform>, MemoryAudit, MemoryTrail, MemoryBus>;

    fn lifecycle(world: &World<MemoryRegistry>, script: &Script, bus: MemoryBus) -> Lives {
        Lifecycle {
            registry: Faulty { inner: world.registry.clone(), script: script.clone() },
            platform: Faulty { inner: world.platform.clone(), script: script.clone() },
            audit: MemoryAudit::default(),
            trail: MemoryTrail::default(),
            bus,
        }
    }

    async fn disabled() -> (World<MemoryRegistry>, Vec<RegistryWrite>) {
        let world = World::new(MemoryRegistry::default(), device("sn-1")).await;
        world.vend(&Script::default()).vend(request("sn-1", 1, Some(&csr("sn-1")), NOW)).await.unwrap();
        let mut stored = world.stored("sn-1").await;
        let version = stored.version;
        stored.disable("stolen".parse().ok(), later(1));
        assert!(world.registry.replace(&stored, version, &origin()).await.unwrap());
        let writes = world.registry.take_writes();
        (world, writes)
    }

    #[tokio::test]
    async fn every_write_is_kept_told_and_enforced_and_again_is_the_same_as_once() {
        let (world, writes) = disabled().await;
        let lifecycle = lifecycle(&world, &Script::default(), MemoryBus::default());
        for _ in 0..2 {
            lifecycle.follow_up(&writes, &origin()).await.unwrap();
        }
        assert!(world.platform.powerful().is_empty());
        let query = AuditQuery { device: Some(id("sn-1")), since: NOW, until: later(100) };
        let kept = lifecycle.trail.entries(&query, None, 100).await.unwrap().entries;
        let mut actions: Vec<_> = kept.iter().map(|entry| entry.action.as_str()).collect();
        actions.sort_unstable();
        assert_eq!(actions, ["created", "disabled", "provisioned", "reserved"], "each once");
        let disabled = kept.iter().find(|entry| entry.action == "disabled").unwrap();
        assert_eq!((disabled.reason.as_deref(), disabled.door.as_deref()), (Some("stolen"), Some("cvm")));
        let told = lifecycle.bus.told();
        assert_eq!(told[..4], told[4..], "under the same ids, in the same order");
        assert!(told[0].ends_with("sn-1 created") && told[3].ends_with("sn-1 disabled"), "{told:?}");
    }

    #[tokio::test]
    async fn a_device_put_back_as_disabled_has_no_certificate_in_power() {
        let (world, writes) = disabled().await;
        assert_eq!(world.platform.powerful().len(), 1, "nobody has followed it up yet");
        let put_back = RegistryWrite { before: None, ..writes.last().unwrap().clone() };
        lifecycle(&world, &Script::default(), MemoryBus::default()).follow_up(&[put_back], &origin()).await.unwrap();
        assert!(world.platform.powerful().is_empty());
    }

    #[tokio::test]
    async fn where_it_gets_stuck_is_where_it_goes_on() {
        let (world, writes) = disabled().await;
        let last = writes.len() - 1;
        let broken = lifecycle(&world, &Script::default(), MemoryBus::broken());
        assert_eq!(broken.follow_up(&writes, &origin()).await.unwrap_err().index, 0);
        for fault in [Fault::Throttle, Fault::Outage] {
            for n in 1..=4 {
                let throttled = lifecycle(&world, &Script::fail(n, fault), MemoryBus::default());
                let stuck = throttled.follow_up(&writes, &origin()).await.unwrap_err();
                assert_eq!(stuck.index, last, "call {n}: {stuck:?}");
                assert_eq!(throttled.bus.told().len(), 4, "what could be told was");
            }
        }
        let working = lifecycle(&world, &Script::default(), MemoryBus::default());
        working.follow_up(&writes[last..], &origin()).await.unwrap();
        assert!(world.platform.powerful().is_empty());
        assert_eq!(world.stored("sn-1").await.state, State::Provisioned);
    }

    #[tokio::test]
    async fn the_trail_in_memory_keeps_the_contract() {
        contract::audit_trail(&MemoryTrail::default()).await;
    }
}
