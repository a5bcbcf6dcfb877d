//! A device that has its certificate and asks for the next one, with everything that can go wrong.

use std::sync::Arc;
use std::time::Duration;

use cvm_provisioning::{
    Attempt, Attestation, Certificate, CertificateId, Changes as _, Confirmation, Csr, Device, Platform as _,
    ShownCertificate, State, Superseded, Timestamp, VendError, VendRequest, Vended, Verdict,
};

use super::first_connect::connection;
use super::{PLATFORMS, Registry, World};
use crate::fixture::{NOW, csr, device, later, origin, request};
use crate::{Effect, Fault, Script};

const NAME: &str = "sn-1";
/// When half of the validity is over of the certificates that [`MemoryPlatform`](crate::MemoryPlatform) makes.
const OLD: Timestamp = Timestamp::from_seconds(2_160_000_000);

/// A device that shows this certificate, and nothing else.
fn renewal(number: u128, shown: &Certificate, key: &Csr, now: Timestamp) -> VendRequest {
    VendRequest { token: None, shown: Some(Arc::new(shown.clone())), ..request(NAME, number, Some(key), now) }
}

fn certificate(vended: &Vended) -> Certificate {
    Certificate::parse(&vended.credential.pem).expect("the platform makes certificates")
}

impl<R: Registry> World<R> {
    /// A device that has its first certificate, by this key.
    async fn with_certificate(registry: R, key: &Csr) -> (Self, Certificate) {
        let world = Self::new(registry, device(NAME)).await;
        let first = world.first_certificate(key).await;
        (world, first)
    }

    async fn first_certificate(&self, key: &Csr) -> Certificate {
        let vended = self.vend(&Script::default()).vend(request(NAME, 1, Some(key), NOW)).await;
        self.platform.set_clock(later(10));
        certificate(&vended.expect("it is vended"))
    }

    async fn renew_until_answered(&self, shown: &Certificate, key: &Csr, from: Timestamp) -> Vended {
        let mut now = from;
        for number in 1_000..1_005 {
            match self.vend(&Script::default()).vend(renewal(number, shown, key, now)).await {
                Ok(vended) => return vended,
                Err(VendError::InProgress { until }) => now = until,
                Err(error) => panic!("a retry ended with {error:?}"),
            }
        }
        panic!("five retries were not enough");
    }

    async fn connects_with(&self, certificate: &CertificateId, at: Timestamp) -> Confirmation {
        let confirm = self.confirm(&Script::default());
        Box::pin(confirm.connected(&connection(certificate, NAME, at))).await.expect("the services answer")
    }

    fn has_power(&self, certificate: &CertificateId) -> bool {
        self.platform.powerful().contains(certificate)
    }
}

/// A renewal that fails at every call in every way, the retry with the same key or another one that fails itself, and the
/// last retry: the device has a certificate that works at every moment, and exactly one in the end.
pub async fn fault_matrix<R: Registry>(registry: impl Fn() -> R, faults: &[Fault]) {
    for (platform, calls) in PLATFORMS {
        for same_key in [true, false] {
            for fault in faults.iter().copied() {
                for n in 1..=calls {
                    for m in 0.. {
                        let world = World::on(platform(), registry(), device(NAME)).await;
                        let failed_twice = Box::pin(two_failures(world, same_key, fault, n, m)).await;
                        if m > 0 && !failed_twice {
                            break;
                        }
                    }
                }
            }
        }
    }
}

async fn two_failures<R: Registry>(world: World<R>, same_key: bool, fault: Fault, n: usize, m: usize) -> bool {
    let own_ca = world.platform.prepares();
    let context = format!("own CA: {own_ca}, same key: {same_key}, {fault:?} at call {n} and then at call {m}");
    let first = world.first_certificate(&csr(NAME)).await;
    let key = csr(NAME);
    let script = Script::fail(n, fault);
    let vend = world.vend(&script);
    let failed = Box::pin(script.run(vend.vend(renewal(2, &first, &key, later(10))))).await;
    assert!(script.calls() >= n && !matches!(failed, Some(Ok(_))), "{context}: {failed:?}");
    assert!(world.has_power(first.id()), "{context}: the device has no certificate that works");

    let key = if same_key { key } else { csr(NAME) };
    let mut now = later(10).after(Attempt::LEASE);
    let mut failed_twice = false;
    if m > 0 {
        let script = Script::fail(m, fault);
        let vend = world.vend(&script);
        let _ = Box::pin(script.run(vend.vend(renewal(3, &first, &key, now)))).await;
        failed_twice = script.calls() >= m;
        assert!(world.has_power(first.id()), "{context}: the device has no certificate that works");
        now = now.after(Attempt::LEASE);
    }
    let second = certificate(&world.renew_until_answered(&first, &key, now).await);
    assert_eq!(second.key(), key.key().fingerprint(), "{context}");
    assert!(world.has_power(first.id()), "{context}: the answer may be lost");
    assert!(world.has_power(second.id()), "{context}");
    assert_eq!(world.platform.things(), [NAME], "{context}");
    // A device that did not get the answer goes on with the certificate that it has.
    assert_eq!(world.connects_with(first.id(), now.after(Duration::from_secs(60))).await, Confirmation::Nothing);
    assert!(world.has_power(first.id()), "{context}");

    let seen = now.after(Duration::from_secs(120));
    assert_eq!(world.connects_with(second.id(), seen).await, Confirmation::Used, "{context}");
    world.settle(seen.after(Duration::from_secs(3_600))).await;
    assert_eq!(world.platform.powerful(), [*second.id()], "{context}");
    let stored = world.stored(NAME).await;
    assert_eq!(
        (stored.state, stored.superseded, stored.unsettled),
        (State::Provisioned, Vec::new(), None),
        "{context}"
    );
    failed_twice
}

/// A renewal that dies, and nobody asks again: the device has the certificate that it had and no other, and may renew.
pub async fn a_renewal_that_died_leaves_what_was<R: Registry>(registry: impl Fn() -> R) {
    let calls = PLATFORMS.iter().flat_map(|(platform, calls)| (1..=*calls).map(move |n| (platform, n)));
    for (platform, n) in calls {
        for fault in Fault::FAILURES {
            let world = World::on(platform(), registry(), device(NAME)).await;
            let context = format!("own CA: {}, {fault:?} at call {n}", world.platform.prepares());
            let first = world.first_certificate(&csr(NAME)).await;
            let script = Script::fail(n, fault);
            let vend = world.vend(&script);
            let _ = Box::pin(script.run(vend.vend(renewal(2, &first, &csr(NAME), later(10))))).await;
            let committed = world.stored(NAME).await.state == State::Provisioned;
            world.settle(later(3_600)).await;
            let stored = world.stored(NAME).await;
            assert_eq!(stored.state, State::Provisioned, "{context}");
            assert!(world.has_power(first.id()), "{context}");
            assert_eq!(
                world.platform.active(),
                if committed && stored.superseded.len() == 1 { 2 } else { 1 },
                "{context}"
            );
            let key = csr(NAME);
            let second = certificate(&world.renew_until_answered(&first, &key, later(9_000)).await);
            assert_eq!(second.key(), key.key().fingerprint(), "{context}");
        }
    }
}

/// A device that never shows that it got its new certificate keeps the old one for the time of grace, and not for longer.
pub async fn the_old_certificate_ends_with_its_grace<R: Registry>(registry: R) {
    let (world, first) = World::with_certificate(registry, &csr(NAME)).await;
    let second = certificate(&world.renew_until_answered(&first, &csr(NAME), later(10)).await);
    let done = world.settle(later(10).after(Superseded::GRACE / 2)).await;
    assert!(world.has_power(first.id()) && world.has_power(second.id()));
    assert_eq!(done.drift, 0, "nobody is told to deactivate what the device may still need");
    world.settle(later(20).after(Superseded::GRACE)).await;
    assert_eq!(world.platform.powerful(), [*second.id()]);
    assert_eq!(world.stored(NAME).await.superseded, []);
}

/// Answers that are lost again and again leave no more certificates in power than a device may have, and the one that it
/// holds is always among them.
pub async fn lost_answers_add_up_to_no_crowd<R: Registry>(registry: R) {
    let (world, first) = World::with_certificate(registry, &csr(NAME)).await;
    for number in 0..8 {
        let now = later(100 * (number + 1));
        let vended =
            world.vend(&Script::default()).vend(renewal(u128::from(number) + 2, &first, &csr(NAME), now)).await;
        vended.expect("it is renewed");
        assert!(world.has_power(first.id()), "renewal {number}");
        assert!(world.platform.active() <= Device::MAX_SUPERSEDED + 1, "renewal {number}");
    }
}

/// One key for long: as long as the certificate is young its renewal is the same one again, and later another one.
pub async fn the_same_key_gets_another_certificate_only_when_it_is_time<R: Registry>(registry: R) {
    let key = csr(NAME);
    let (world, first) = World::with_certificate(registry, &key).await;
    let vend = world.vend(&Script::default());
    let early = vend.vend(renewal(2, &first, &key, later(10))).await.expect("it is answered");
    assert!(early.replayed && early.credential.certificate == *first.id());
    let renewed = vend.vend(renewal(3, &first, &key, OLD)).await.expect("it is renewed");
    assert!(!renewed.replayed && renewed.credential.certificate != *first.id());
    let again = vend.vend(renewal(4, &first, &key, OLD)).await.expect("its answer was lost");
    assert!(again.replayed && again.credential.certificate == renewed.credential.certificate);
    assert_eq!(world.connects_with(&renewed.credential.certificate, OLD).await, Confirmation::Used);
    assert_eq!(world.platform.powerful(), [renewed.credential.certificate]);
}

/// A device that was off until its certificate had expired is renewed at once, by the key that it had. Another key is a
/// clone's, as before.
pub async fn an_expired_certificate_is_renewed_and_never_given_again<R: Registry>(registry: impl Fn() -> R) {
    for with_token in [true, false] {
        let key = csr(NAME);
        let attestation = match with_token {
            true => device(NAME).attestation,
            false => Attestation::PublicKey { key: *key.key().fingerprint() },
        };
        let world = World::new(registry(), Device { attestation, ..device(NAME) }).await;
        let first = world.first_certificate(&key).await;
        let vend = world.vend(&Script::default());
        let ask = |number, key, now| {
            let asked = request(NAME, number, Some(key), now);
            VendRequest { token: asked.token.filter(|_| with_token), ..asked }
        };
        let last = Timestamp::from(first.not_after());
        world.platform.set_clock(last.after(Duration::from_secs(1)));
        let replayed = vend.vend(ask(2, &key, last)).await.expect("it is valid for this second");
        assert!(replayed.replayed);
        let expired = last.after(Duration::from_secs(1));
        let renewed = vend.vend(ask(3, &key, expired)).await.expect("it is renewed");
        assert!(!renewed.replayed && renewed.credential.certificate != *first.id());
        assert!(world.stored(NAME).await.superseded.iter().any(|old| old.certificate == *first.id()));
        let again = vend.vend(ask(4, &key, expired)).await.expect("its answer was lost");
        assert!(again.replayed && again.credential.certificate == renewed.credential.certificate);
        let other = vend.vend(ask(5, &csr(NAME), expired)).await;
        assert!(matches!(other, Err(VendError::Refused)), "{other:?}");
        let state = if with_token { State::Quarantined } else { State::Provisioned };
        assert_eq!(world.stored(NAME).await.state, state);
    }
}

/// Another key does not replace an expired certificate, whatever it is asked with, unless an operator lets it.
pub async fn an_expired_certificate_lets_no_clone_in<R: Registry>(registry: R) {
    let (world, first) = World::with_certificate(registry, &csr(NAME)).await;
    let expired = Timestamp::from(first.not_after()).after(Duration::from_secs(1));
    world.platform.set_clock(expired);
    let (vend, other) = (world.vend(&Script::default()), csr(NAME));
    let clone = vend.vend(request(NAME, 2, Some(&other), expired)).await;
    assert!(matches!(clone, Err(VendError::Refused)), "{clone:?}");
    let mut quarantined = world.stored(NAME).await;
    assert_eq!(quarantined.state, State::Quarantined);
    let version = quarantined.version;
    quarantined.approve(Verdict::AdmitNextKey, expired).expect("it is in quarantine");
    assert!(world.registry.replace(&quarantined, version, &origin()).await.expect("the store answers"));
    let vended = vend.vend(request(NAME, 3, Some(&other), expired)).await.expect("an operator let it in");
    assert_eq!(vended.credential.key, *other.key().fingerprint());
}

/// The device's own certificate renews it for some time after its end, by the same key and by another one.
pub async fn an_expired_certificate_proves_its_device_within_its_grace<R: Registry>(registry: impl Fn() -> R) {
    let grace = ShownCertificate::MAX_GRACE;
    for (after, is_same, renews) in [
        (Duration::from_secs(1), true, true),
        (grace, true, true),
        (grace, false, true),
        (grace + Duration::from_secs(1), true, false),
        (grace + Duration::from_secs(1), false, false),
    ] {
        let key = csr(NAME);
        let (world, first) = World::with_certificate(registry(), &key).await;
        let now = Timestamp::from(first.not_after()).after(after);
        world.platform.set_clock(now);
        let asked = if is_same { key } else { csr(NAME) };
        let answer = world.vend(&Script::default()).vend(renewal(2, &first, &asked, now)).await;
        match answer {
            Ok(renewed) => assert!(renews && !renewed.replayed && renewed.credential.certificate != *first.id()),
            Err(error) => assert!(!renews && matches!(error, VendError::Refused), "{after:?}: {error}"),
        }
    }
}

/// What a dead attempt has left is not handed out after its end.
pub async fn what_was_left_is_not_given_when_it_has_expired<R: Registry>(registry: impl Fn() -> R) {
    for (platform, calls) in PLATFORMS {
        for n in 2..=calls {
            for effect in [Effect::Before, Effect::After] {
                let world = World::on(platform(), registry(), device(NAME)).await;
                let key = csr(NAME);
                let script = Script::fail(n, Fault::Kill(effect));
                let vend = world.vend(&script);
                let _ = Box::pin(script.run(vend.vend(request(NAME, 1, Some(&key), NOW)))).await;
                let late = OLD.after(Duration::from_secs(60 * 60 * 24 * 365 * 20));
                world.platform.set_clock(late);
                let mut vended = world.vend(&Script::default()).vend(request(NAME, 2, Some(&key), late)).await;
                if matches!(vended, Err(VendError::InProgress { .. })) {
                    let later = late.after(Attempt::LEASE);
                    vended = world.vend(&Script::default()).vend(request(NAME, 3, Some(&key), later)).await;
                }
                let vended = vended.expect("it is vended");
                assert!(!vended.credential.is_expired(late), "call {n}, {effect:?}");
                assert!(world.has_power(&vended.credential.certificate), "call {n}, {effect:?}");
            }
        }
    }
}

/// A certificate proves its own device, and as long as it counts.
pub async fn only_a_certificate_of_the_device_renews_it<R: Registry>(registry: R) {
    let (world, first) = World::with_certificate(registry, &csr(NAME)).await;
    let (_, stranger) = World::with_certificate(crate::MemoryRegistry::default(), &csr(NAME)).await;
    let vend = world.vend(&Script::default());
    let refused = |answer: Result<Vended, VendError>| assert!(matches!(answer, Err(VendError::Refused)), "{answer:?}");
    refused(vend.vend(renewal(2, &stranger, &csr(NAME), later(10))).await);
    let second = vend.vend(renewal(3, &first, &csr(NAME), later(11))).await.expect("it is renewed");
    let second = certificate(&second);
    assert_eq!(world.connects_with(second.id(), later(12)).await, Confirmation::Used);
    refused(vend.vend(renewal(4, &first, &csr(NAME), later(13))).await);
    assert!(world.has_power(second.id()), "the device has what it had");

    let mut disabled = world.stored(NAME).await;
    let version = disabled.version;
    disabled.disable("stolen".parse().ok(), later(20));
    assert!(world.registry.replace(&disabled, version, &origin()).await.expect("the store answers"));
    refused(vend.vend(renewal(5, &second, &csr(NAME), later(21))).await);
}

/// Wrong tokens of others do not keep the device from renewing.
pub async fn guesses_of_others_do_not_block_a_renewal<R: Registry>(registry: R) {
    let (world, first) = World::with_certificate(registry, &csr(NAME)).await;
    let vend = world.vend(&Script::default());
    for number in 10..20 {
        let token = format!("a-guess-0123456789-0123456789-{number}").parse().expect("a token");
        let guess = VendRequest { token: Some(token), ..request(NAME, number, Some(&csr(NAME)), later(1)) };
        assert!(matches!(vend.vend(guess).await, Err(VendError::Refused)));
    }
    assert_eq!(world.stored(NAME).await.wrong_proofs, 10);
    assert!(vend.vend(renewal(30, &first, &csr(NAME), later(1))).await.is_ok());
}

/// What an operator lets a device renew by its token leaves the old certificate in power, too, until the new one is seen.
pub async fn an_operators_renewal_leaves_no_gap<R: Registry>(registry: impl Fn() -> R) {
    let calls = PLATFORMS.iter().flat_map(|(platform, calls)| (1..=*calls).map(move |n| (platform, n)));
    for (platform, n) in calls {
        let world = World::on(platform(), registry(), device(NAME)).await;
        let first = world.first_certificate(&csr(NAME)).await;
        let mut renewable = world.stored(NAME).await;
        let version = renewable.version;
        renewable.renew(later(5)).expect("there is something to renew");
        assert!(world.registry.replace(&renewable, version, &origin()).await.expect("the store answers"));
        let script = Script::fail(n, Fault::Outage);
        let key = csr(NAME);
        let vend = world.vend(&script);
        let _ = Box::pin(script.run(vend.vend(request(NAME, 2, Some(&key), later(10))))).await;
        assert!(world.has_power(first.id()), "call {n}");
        let again = world.vend(&Script::default()).vend(request(NAME, 3, Some(&key), later(100))).await;
        let second = again.expect("it is vended").credential.certificate;
        assert!(world.has_power(first.id()) && world.has_power(&second), "call {n}");
        assert_eq!(world.connects_with(&second, later(200)).await, Confirmation::Used, "call {n}");
        assert_eq!(world.platform.powerful(), [second], "call {n}");
    }
}
