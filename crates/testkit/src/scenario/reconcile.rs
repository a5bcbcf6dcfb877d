//! What is left when nobody comes back.

use std::time::Duration;

use cvm_provisioning::{
    Attempt, Changes as _, Confirmation, Door, Origin, Platform as _, Reconciled, Standing, State, Timestamp,
};

use super::claims::{claimed_device, question};
use super::first_connect::registration;
use super::{PLATFORMS, Registry, World};
use crate::fixture::{NOW, csr, device, later, request};
use crate::{Factory, Fault, MemoryPlatform, Script};

const NAME: &str = "sn-1";

/// Long after everything.
fn quiet(minutes: u64) -> Timestamp {
    later(minutes * 60)
}

fn origin() -> Origin {
    Origin::new(Door::Reconcile, "test".to_owned())
}

impl<R: Registry> World<R> {
    async fn settle_once(&self, now: Timestamp) -> Reconciled {
        let reconcile = self.reconcile(&Script::default());
        Box::pin(reconcile.run(&origin(), now)).await.expect("the services answer")
    }

    /// Runs the reconciler as its schedule does, until nothing changes any more.
    pub(super) async fn settle(&self, from: Timestamp) -> Reconciled {
        let mut total = Reconciled::default();
        for run in 0..3 {
            let now = from.after(Duration::from_secs(run * 300));
            let done = self.settle_once(now).await;
            total.confirmed += done.confirmed;
            total.released += done.released;
            total.removed += done.removed;
            total.settled += done.settled;
            total.drift += done.drift;
        }
        total
    }
}

/// A vend that dies at every call, whose device never comes back: no certificate is left in power, the device may start
/// anew, and the reconciler gets there however it fails itself, at every call.
pub async fn fault_matrix<R: Registry>(registry: impl Fn() -> R, faults: &[Fault]) {
    for (platform, calls) in PLATFORMS {
        for fault in faults.iter().copied() {
            for n in 1..=calls {
                for m in 1.. {
                    // On the heap: three flows in one future are more than a thread's stack has room for.
                    if !Box::pin(two_failures(platform(), registry(), fault, n, m)).await {
                        break;
                    }
                }
            }
        }
    }
}

/// A vend that fails at call `n`, a reconciler that fails at call `m`, and then whatever runs it takes. Says whether
/// there was a call `m` to fail.
async fn two_failures<R: Registry>(platform: MemoryPlatform, registry: R, fault: Fault, n: usize, m: usize) -> bool {
    let own_ca = platform.prepares();
    let context = format!("own CA: {own_ca}, the vend {fault:?} at call {n}, the reconciler at call {m}");
    let world = World::on(platform, registry, device(NAME)).await;
    world.platform.set_clock(NOW);
    let script = Script::fail(n, fault);
    let vend = world.vend(&script);
    let died = Box::pin(script.run(vend.vend(request(NAME, 1, Some(&csr(NAME)), NOW)))).await;
    assert!(!matches!(died, Some(Ok(_))), "{context}");
    let done = world.stored(NAME).await.state == State::Provisioned;
    let powerful = world.platform.powerful();

    let failing = Script::fail(m, fault);
    let reconcile = world.reconcile(&failing);
    let _ = Box::pin(failing.run(reconcile.run(&origin(), quiet(10)))).await;
    world.settle(quiet(20)).await;

    let stored = world.stored(NAME).await;
    assert_eq!(stored.unsettled, None, "{context}");
    if done {
        assert_eq!(world.platform.powerful(), powerful, "{context}: the device's own was taken");
    } else {
        assert!(world.platform.powerful().is_empty(), "{context}");
        assert_eq!(world.platform.active(), 0, "{context}: an orphan is left");
        // A vend that lived to see its failure has left nothing, and needs nobody to say so.
        assert!(stored.reservation.is_none_or(|reservation| reservation.attempts == 0), "{context}");
    }
    let vend = world.vend(&Script::default());
    let again = Box::pin(vend.vend(request(NAME, 2, Some(&csr(NAME)), quiet(60)))).await;
    assert_eq!(again.is_ok(), !done, "{context}: {again:?}");
    failing.calls() >= m
}

/// A reservation by claim that nobody heard of again: final where its certificate is in power, given up where not.
pub async fn a_reservation_is_confirmed_or_released<R: Registry>(registry: impl Fn() -> R) {
    for provisioned in [true, false] {
        let world = World::new(registry(), claimed_device()).await;
        world.platform.set_clock(NOW);
        let claim = world.claim(None).await;
        let certificate = world.made_for_claim().await;
        if provisioned {
            assert!(world.register_thing(&certificate, &claim, NOW).await);
        } else {
            assert!(world.hook(&Script::default()).answer(&question(&certificate, &claim, NOW)).await.is_ok());
        }
        let early = world.settle_once(later(200)).await;
        assert_eq!(early, Reconciled::default(), "the device may still be about to connect");
        let done = world.settle(quiet(10)).await;
        assert_eq!((done.confirmed, done.released), (usize::from(provisioned), usize::from(!provisioned)));
        let stored = world.stored(NAME).await;
        assert_eq!(stored.state, if provisioned { State::Provisioned } else { State::Registered });
        assert_eq!(world.platform.powerful().len(), usize::from(provisioned));
        if provisioned {
            assert_eq!(world.connects(&certificate, quiet(90)).await, Confirmation::Used);
        } else {
            assert!(world.register_thing(&certificate, &claim, quiet(90)).await, "its certificate is still good");
        }
    }
}

/// What the reconciler did not make, it leaves alone; it tells what differs.
pub async fn foreign_things_are_told_and_left<R: Registry>(registry: R) {
    let world = World::new(registry, device(NAME)).await;
    world.platform.set_clock(NOW);
    let foreign = world.platform.issue(&csr("foreign")).await.expect("the platform issues");
    let powerless = world.platform.issue(&csr("foreign")).await.expect("the platform issues");
    let mut thing = crate::fixture::templates()
        .evaluate(&device("foreign"), &std::collections::BTreeMap::new())
        .expect("the template fits")
        .thing;
    thing.name = "foreign".to_owned().try_into().expect("a thing name");
    world.platform.provision(foreign.certificate.id(), &thing, "device");
    // There is something to settle, so that the search runs.
    let script = Script::fail(4, Fault::FAILURES[2]);
    let vend = world.vend(&script);
    let _ = script.run(vend.vend(request(NAME, 1, Some(&csr(NAME)), NOW))).await;

    let done = world.settle(quiet(10)).await;
    assert_eq!(world.platform.standing(foreign.certificate.id()), Some(Standing::Active));
    assert_eq!(world.platform.standing(powerless.certificate.id()), Some(Standing::Active));
    assert!(done.drift >= 2, "{done:?}");
    let told = world.audit.take().join("\n");
    assert!(told.contains("certificate-without-device") && told.contains("thing-without-device"), "{told}");
}

/// A certificate that is gone, one that is not active, and one that is although its device is disabled: told.
pub async fn drift_is_told<R: Registry>(registry: impl Fn() -> R) {
    for (disabled, standing, expected) in [
        (false, None, "certificate-gone"),
        (false, Some(Standing::Inactive), "certificate-not-active"),
        (true, Some(Standing::Active), "Suspended"),
        (false, Some(Standing::Active), ""),
        (true, Some(Standing::Revoked), ""),
    ] {
        let world = World::new(registry(), device(NAME)).await;
        world.platform.set_clock(NOW);
        let vended = world.vend(&Script::default()).vend(request(NAME, 1, Some(&csr(NAME)), NOW)).await;
        let certificate = vended.expect("it is vended").credential.certificate;
        if disabled {
            let mut device = world.stored(NAME).await;
            let version = device.version;
            device.disable("stolen".parse().ok(), NOW);
            assert!(
                world.registry.replace(&device, version, &crate::fixture::origin()).await.expect("the store answers")
            );
        }
        match standing {
            Some(standing) => {
                use cvm_provisioning::Certificates as _;
                world.platform.set_standing(&certificate, standing).await.expect("the platform answers");
            }
            None => {
                use cvm_provisioning::Inventory as _;
                world.platform.remove(&certificate).await.expect("the platform answers");
            }
        }
        world.settle(quiet(10)).await;
        let told = world.audit.take().join("\n");
        assert_eq!(told.contains("Drift"), expected.starts_with("certificate"), "{expected}: {told}");
        assert!(told.contains(expected), "{expected}: {told}");
    }
}

/// A revocation that nobody has told the platform is made up for.
pub async fn a_revoked_device_has_no_power<R: Registry>(registry: impl Fn() -> R) {
    use cvm_provisioning::Certificates as _;
    for standing in [Standing::Active, Standing::Inactive, Standing::Revoked] {
        let world = World::new(registry(), device(NAME)).await;
        world.platform.set_clock(NOW);
        let vended = world.vend(&Script::default()).vend(request(NAME, 1, Some(&csr(NAME)), NOW)).await;
        let certificate = vended.expect("it is vended").credential.certificate;
        let mut device = world.stored(NAME).await;
        let version = device.version;
        device.revoke("ticket 4711".parse().expect("a reason"), NOW).expect("it has a certificate");
        let replaced = world.registry.replace(&device, version, &crate::fixture::origin()).await;
        assert!(replaced.expect("the store answers"));
        world.platform.set_standing(&certificate, standing).await.expect("the platform answers");
        world.audit.take();
        world.settle(quiet(10)).await;
        assert_eq!(world.platform.standing(&certificate), Some(Standing::Revoked), "{standing:?}");
        let told = world.audit.take().join("\n");
        assert_eq!(told.contains("Revoked"), standing != Standing::Revoked, "{standing:?}: {told}");
        assert!(!told.contains("Drift"), "{standing:?}: {told}");
    }
}

/// A factory certificate whose event was lost on the way stays as it is, and its next connection gets it in.
pub async fn a_factory_certificate_is_never_removed<R: Registry>(registry: impl Fn() -> R) {
    let factory = Factory::new("factory");
    for n in 1..=6 {
        let (registered, certificate) = factory.device(NAME);
        let world = World::new(registry(), registered).await;
        world.platform.set_clock(NOW);
        world.show(&certificate, &factory);
        let script = Script::fail(n, Fault::FAILURES[2]);
        let door = world.first_connect(&script);
        let _ = script.run(door.admit(registration(&certificate, &factory, NOW))).await;
        world.settle(quiet(10)).await;
        let now = quiet(60).after(Attempt::LEASE);
        let admitted = world.first_connect(&Script::default()).admit(registration(&certificate, &factory, now)).await;
        assert!(admitted.is_ok(), "call {n}: {admitted:?}");
        assert_eq!(world.platform.powerful(), [*certificate.id()], "call {n}");
    }
}
