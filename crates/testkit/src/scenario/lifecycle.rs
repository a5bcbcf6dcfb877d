//! What an operator decides, while devices do what they do and anything can fail.

use cvm_provisioning::{
    Attempt, CertificateId, Changes as _, Confirmation, Enforce, EnforceError, GenerationId, Operations, Portion,
    Precondition, ReasonText, Reconcile, Standing, State, StatusSetting, VendError,
};

use super::first_connect::{connection, registration};
use super::{Registry, World};
use crate::fixture::{NOW, csr, device, id, later, origin, request};
use crate::{Factory, Fault, Faulty, MemoryPlatform, Script};

const NAME: &str = "sn-1";
/// The calls of a vend, and those of a registration at a first connection.
const CALLS: usize = 7;

/// What an operator does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Decision {
    Delete,
    Disable,
}

impl<R: Registry> World<R> {
    fn operations(&self) -> Operations<R> {
        Operations { registry: self.registry.clone() }
    }

    async fn set_enabled(&self, enabled: bool) {
        let settings = cvm_provisioning::Settings {
            status: Some(StatusSetting { enabled, reason: "ticket 4711".parse().ok() }),
            ..cvm_provisioning::Settings::default()
        };
        let change = |device: &mut cvm_provisioning::Device| Ok(settings.clone().apply(device, later(2))?);
        let changed = self.operations().change(&id(NAME), &Precondition::Exists, &origin(), change).await;
        changed.expect("the store answers");
    }

    async fn change(&self, change: impl Fn(&mut cvm_provisioning::Device)) {
        let change = |device: &mut cvm_provisioning::Device| {
            change(device);
            Ok(())
        };
        let changed = self.operations().change(&id(NAME), &Precondition::Exists, &origin(), change).await;
        changed.expect("the store answers");
    }

    /// Deletes the device, and says which it was.
    async fn delete(&self) -> GenerationId {
        let generation = self.stored(NAME).await.generation;
        let deleted = self.operations().delete(&id(NAME), &Precondition::Exists, &origin(), later(2)).await;
        deleted.expect("the store answers");
        generation
    }

    /// Decides, and has it enforced.
    async fn decide(&self, decision: Decision) {
        match decision {
            Decision::Delete => {
                let generation = self.delete().await;
                self.enforce_deletion(&Script::default(), generation).await.expect("the services answer");
            }
            Decision::Disable => {
                self.set_enabled(false).await;
                self.enforce_status(&Script::default()).await.expect("the services answer");
            }
        }
    }

    async fn enforce_status(&self, script: &Script) -> Result<(), EnforceError> {
        let (registry, platform) = (self.scripted(script), self.scripted_platform(script));
        Box::pin(enforce(&registry, &platform, &self.audit).status(&id(NAME), &origin())).await
    }

    async fn enforce_deletion(&self, script: &Script, generation: GenerationId) -> Result<(), EnforceError> {
        let (registry, platform) = (self.scripted(script), self.scripted_platform(script));
        Box::pin(enforce(&registry, &platform, &self.audit).deletion(&id(NAME), generation, &origin())).await
    }

    /// A world in which the device has been vended.
    async fn vended(registry: R) -> (Self, CertificateId) {
        let world = Self::new(registry, device(NAME)).await;
        world.platform.set_clock(NOW);
        let vended = world.vend(&Script::default()).vend(request(NAME, 1, Some(&csr(NAME)), NOW)).await;
        (world, vended.expect("it is vended").credential.certificate)
    }
}

const fn enforce<'a, R>(
    registry: &'a Faulty<R>,
    platform: &'a Faulty<MemoryPlatform>,
    audit: &'a crate::MemoryAudit,
) -> Enforce<'a, Faulty<R>, Faulty<MemoryPlatform>, crate::MemoryAudit> {
    Enforce { registry, platform, audit }
}

/// Disabling and enabling, each failing at every call in every way and then told again: the certificate is out of power,
/// and in power again.
pub async fn a_status_is_enforced_however_it_fails<R: Registry>(registry: impl Fn() -> R) {
    for enabled in [false, true] {
        for fault in Fault::FAILURES {
            for n in 1.. {
                let context = format!("enabled: {enabled}, {fault:?} at call {n}");
                let (world, certificate) = World::vended(registry()).await;
                if enabled {
                    world.decide(Decision::Disable).await;
                    assert_eq!(world.platform.standing(&certificate), Some(Standing::Inactive), "{context}");
                }
                world.set_enabled(enabled).await;
                let script = Script::fail(n, fault);
                let first = script.run(world.enforce_status(&script)).await;
                if script.calls() < n {
                    assert!(matches!(first, Some(Ok(()))), "{context}");
                    break;
                }
                world.enforce_status(&Script::default()).await.expect("the services answer");
                let powerful = if enabled { vec![certificate] } else { Vec::new() };
                assert_eq!(world.platform.powerful(), powerful, "{context}");
                assert!(!world.platform.disconnected().is_empty(), "{context}: it was connected until then");
            }
        }
    }
}

/// A revocation that fails at every call in every way and is then told again: no certificate that the device has, or had, comes
/// back into power, whatever is decided afterwards.
pub async fn a_revocation_is_enforced_however_it_fails<R: Registry>(registry: impl Fn() -> R) {
    for fault in Fault::FAILURES {
        for n in 1.. {
            let context = format!("{fault:?} at call {n}");
            let (world, earlier) = World::vended(registry()).await;
            world.change(|device| device.renew(later(1)).expect("it has a certificate")).await;
            let renewed = world.vend(&Script::default()).vend(request(NAME, 2, Some(&csr(NAME)), later(2))).await;
            let newest = renewed.expect("it is vended").credential.certificate;
            assert_eq!(world.platform.powerful().len(), 2, "{context}: the earlier one still counts");
            let reason = "ticket 4711".parse().expect("a reason");
            world.change(|device| device.revoke(ReasonText::clone(&reason), later(3)).expect("it has one")).await;
            let script = Script::fail(n, fault);
            let first = script.run(world.enforce_status(&script)).await;
            if script.calls() < n {
                assert!(matches!(first, Some(Ok(()))), "{context}");
                break;
            }
            world.enforce_status(&Script::default()).await.expect("the services answer");
            assert!(!world.platform.disconnected().is_empty(), "{context}: it was connected until then");
            for enabled in [false, true] {
                world.set_enabled(enabled).await;
                world.enforce_status(&Script::default()).await.expect("the services answer");
                for certificate in [earlier, newest] {
                    assert_eq!(world.platform.standing(&certificate), Some(Standing::Revoked), "{context}");
                }
            }
            let again = world.vend(&Script::default()).vend(request(NAME, 3, Some(&csr(NAME)), later(4))).await;
            assert!(matches!(again, Err(VendError::Refused)), "{context}: {again:?}");
        }
    }
}

/// A deletion that fails at every call in every way and is then told again: nothing is left of the device.
pub async fn a_deletion_is_enforced_however_it_fails<R: Registry>(registry: impl Fn() -> R) {
    for fault in Fault::FAILURES {
        for n in 1.. {
            let context = format!("{fault:?} at call {n}");
            let (world, certificate) = World::vended(registry()).await;
            let confirm = world.confirm(&Script::default());
            confirm.connected(&connection(&certificate, NAME, later(1))).await.expect("the services answer");
            let generation = world.delete().await;
            let script = Script::fail(n, fault);
            let first = script.run(world.enforce_deletion(&script, generation)).await;
            if script.calls() < n {
                assert!(matches!(first, Some(Ok(()))), "{context}");
                break;
            }
            world.enforce_deletion(&Script::default(), generation).await.expect("the services answer");
            assert_eq!(world.platform.standing(&certificate), None, "{context}");
            assert!(world.platform.things().is_empty(), "{context}");
            assert_eq!(world.registry.count_connected().await.expect("the store answers"), 0, "{context}");
            let tombstone = world.registry.tombstone(&id(NAME), generation).await.expect("the store answers");
            assert_eq!(tombstone, None, "{context}");
        }
    }
}

/// A device is disabled, or deleted, before each call of its vend, which then goes on, dies, or is never heard of again:
/// it ends without power.
pub async fn a_decision_in_the_middle_of_a_vend<R: Registry>(registry: impl Fn() -> R) {
    for decision in [Decision::Disable, Decision::Delete] {
        for n in 1..=CALLS {
            for dies in [false, true] {
                let context = format!("{decision:?} before call {n}, dies: {dies}");
                let world = World::new(registry(), device(NAME)).await;
                world.platform.set_clock(NOW);
                let script = Script::fail(n, Fault::Hold);
                let (key, vend) = (csr(NAME), world.vend(&script));
                let mut vending = Box::pin(vend.vend(request(NAME, 1, Some(&key), NOW)));
                tokio::select! {
                    biased;
                    () = script.held() => {}
                    answer = &mut vending => panic!("{context}: {answer:?}"),
                }
                world.decide(decision).await;
                if dies {
                    drop(vending);
                } else {
                    script.resume();
                    let answer = vending.await;
                    let refused = matches!(answer, Err(VendError::InProgress { .. } | VendError::Refused));
                    assert!(refused, "{context}: {answer:?}");
                    assert!(world.platform.powerful().is_empty(), "{context}");
                }
                world.settle(later(600)).await;
                assert!(world.platform.powerful().is_empty(), "{context}: after the reconciler");
                if decision == Decision::Delete {
                    assert_eq!(world.platform.active(), 0, "{context}: nobody knows of it any more");
                    assert!(world.registry.unsettled(9).await.expect("the store answers").is_empty(), "{context}");
                }
            }
        }
    }
}

/// The same with a factory certificate, which the registration puts into power last of all, and after which nobody asks
/// the registry: whoever comes next, the device or the reconciler, finds out.
pub async fn a_decision_in_the_middle_of_a_first_connection<R: Registry>(registry: impl Fn() -> R) {
    let factory = Factory::new("factory");
    for decision in [Decision::Disable, Decision::Delete] {
        for n in 1..=CALLS {
            for connects in [false, true] {
                let context = format!("{decision:?} before call {n}, connects: {connects}");
                let (registered, certificate) = factory.device(NAME);
                let world = World::new(registry(), registered).await;
                world.platform.set_clock(NOW);
                world.show(&certificate, &factory);
                let script = Script::fail(n, Fault::Hold);
                let door = world.first_connect(&script);
                let mut admitting = Box::pin(door.admit(registration(&certificate, &factory, NOW)));
                tokio::select! {
                    biased;
                    () = script.held() => {}
                    admitted = &mut admitting => panic!("{context}: {admitted:?}"),
                }
                world.decide(decision).await;
                script.resume();
                let _ = admitting.await;
                let powerful = !world.platform.powerful().is_empty();
                if connects && powerful && decision == Decision::Disable {
                    let event = connection(certificate.id(), NAME, later(5));
                    let noted = world.confirm(&Script::default()).connected(&event).await;
                    assert_eq!(noted.expect("the services answer"), Confirmation::Suspended, "{context}");
                    assert!(world.platform.powerful().is_empty(), "{context}");
                    world.set_enabled(true).await;
                    world.enforce_status(&Script::default()).await.expect("the services answer");
                    assert_eq!(world.platform.powerful(), [*certificate.id()], "{context}: it is let in again");
                    continue;
                }
                // Without its look at one device after the other, which would find it in the end.
                for minutes in [10, 16, 22] {
                    let portion = Portion { compared: 0, ..Portion::default() };
                    let reconcile = Reconcile { portion, ..world.reconcile(&Script::default()) };
                    Box::pin(reconcile.run(&origin(), later(60 * minutes))).await.expect("the services answer");
                }
                assert!(world.platform.powerful().is_empty(), "{context}: after the reconciler");
            }
        }
    }
}

/// An operator thinks again while the first decision is being enforced, at every call of it, and the second is enforced
/// before the first goes on: the second is what holds.
pub async fn the_last_decision_holds<R: Registry>(registry: impl Fn() -> R) {
    for enabled in [false, true] {
        for n in 1.. {
            let context = format!("enabled: {enabled} before call {n}");
            let (world, certificate) = World::vended(registry()).await;
            if enabled {
                world.set_enabled(false).await;
            } else {
                world.decide(Decision::Disable).await;
                world.set_enabled(true).await;
            }
            let script = Script::fail(n, Fault::Hold);
            let mut first = Box::pin(world.enforce_status(&script));
            let held = tokio::select! {
                biased;
                () = script.held() => true,
                done = &mut first => {
                    done.expect("the services answer");
                    false
                }
            };
            if !held {
                break;
            }
            world.set_enabled(enabled).await;
            world.enforce_status(&Script::default()).await.expect("the services answer");
            script.resume();
            first.await.expect("the services answer");
            let expected = if enabled { vec![certificate] } else { Vec::new() };
            assert_eq!(world.platform.powerful(), expected, "{context}");
        }
    }
}

/// A device with a factory certificate is deleted and registered again, and connects while what it was before is being
/// cleared away: the certificate is its own again, and stays.
pub async fn a_factory_certificate_comes_back_while_it_is_cleared_away<R: Registry>(registry: impl Fn() -> R) {
    let factory = Factory::new("factory");
    for n in 1.. {
        let (registered, certificate) = factory.device(NAME);
        let world = World::new(registry(), registered.clone()).await;
        world.platform.set_clock(NOW);
        world.show(&certificate, &factory);
        let admitted = world.first_connect(&Script::default()).admit(registration(&certificate, &factory, NOW)).await;
        admitted.expect("it is let in");
        let confirm = world.confirm(&Script::default());
        confirm.connected(&connection(certificate.id(), NAME, later(1))).await.expect("the services answer");
        let generation = world.delete().await;
        let again = cvm_provisioning::Device { generation: GenerationId::new(9), ..registered };
        assert!(world.registry.add(&again, &origin()).await.expect("the store answers"));
        let script = Script::fail(n, Fault::Kill(crate::Effect::After));
        let first = script.run(world.enforce_deletion(&script, generation)).await;
        if first.is_some() {
            break;
        }
        if world.platform.standing(certificate.id()).is_none() {
            world.show(&certificate, &factory);
            let door = world.first_connect(&Script::default());
            door.admit(registration(&certificate, &factory, later(5))).await.expect("it is let in");
            assert_eq!(world.platform.powerful(), [*certificate.id()], "call {n}");
            world.enforce_deletion(&Script::default(), generation).await.expect("the services answer");
            assert_eq!(world.platform.powerful(), [*certificate.id()], "call {n}: it is the new device's");
        }
    }
}

/// Fifty callers for one device, and an operator who disables it among them: no certificate is left in power.
pub async fn a_disable_racing_fifty_vends<R: Registry + 'static>(registry: R) {
    let world = std::sync::Arc::new(World::new(registry, device(NAME)).await);
    world.platform.set_clock(NOW);
    let barrier = std::sync::Arc::new(tokio::sync::Barrier::new(51));
    let key = csr(NAME);
    let mut tasks = Vec::new();
    for number in 1..=50 {
        let (vend, barrier, key) = (world.vend(&Script::default()), barrier.clone(), key.clone());
        tasks.push(tokio::spawn(async move {
            barrier.wait().await;
            let _ = Box::pin(vend.vend(request(NAME, number, Some(&key), NOW))).await;
        }));
    }
    barrier.wait().await;
    world.decide(Decision::Disable).await;
    for task in tasks {
        task.await.expect("no panic");
    }
    assert!(!world.stored(NAME).await.status.enabled);
    assert!(world.platform.powerful().is_empty());
}

/// An id that was deleted and registered again is another device: the old certificate has no power, and clearing up
/// after the old one does not touch the new one, however late it comes.
pub async fn a_device_registered_again_is_another<R: Registry>(registry: impl Fn() -> R) {
    for early in [true, false] {
        let (world, old) = World::vended(registry()).await;
        let generation = world.delete().await;
        let again = cvm_provisioning::Device { generation: GenerationId::new(9), ..device(NAME) };
        assert!(world.registry.add(&again, &origin()).await.expect("the store answers"));
        if early {
            world.enforce_deletion(&Script::default(), generation).await.expect("the services answer");
            assert!(world.platform.powerful().is_empty());
        }
        let now = later(3).after(Attempt::LEASE);
        let vended = world.vend(&Script::default()).vend(request(NAME, 2, Some(&csr(NAME)), now)).await;
        let new = vended.expect("it is another device").credential.certificate;
        world.enforce_deletion(&Script::default(), generation).await.expect("the services answer");
        world.settle(later(900)).await;
        assert_ne!(old, new);
        assert_eq!(world.platform.powerful(), [new], "early: {early}");
        assert_eq!(world.platform.things(), [NAME]);
        let stored = world.stored(NAME).await;
        assert_eq!((stored.state, stored.generation), (State::Provisioned, GenerationId::new(9)));
    }
}
