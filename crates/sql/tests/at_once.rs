//! The vend with a CA of our own over SQLite: one write, and whatever fails around it.

#![expect(clippy::large_futures, clippy::unwrap_used, reason = "a panic is a failed test")]

use std::sync::Arc;
use std::time::Duration;

use cvm_provisioning::{
    Attempt, AuditQuery, AuditTrail as _, Certificate, CertificateId, CertificateIndex as _, CertificateLedger as _,
    Changes as _, Csr, DeviceStore as _, KeyOrigin, RefusedKeys, ShownCertificate, Standing, State, Superseded,
    Timestamp, VendAtOnce, VendError, VendRequest, Vended, Vending as _, end_successions,
};
use cvm_sql::SqlRegistry;
use cvm_testkit::fixture::{NOW, csr, device, id, later, origin, request, templates};
use cvm_testkit::{Fault, Faulty, MemoryAudit, Script};

use self::own_ca::{OwnCa, own_ca, own_ca_at};

mod own_ca;

const NAME: &str = "sn-1";
/// The calls of a vend: look, sign, enrol.
const CALLS: usize = 3;

struct World {
    _folder: tempfile::TempDir,
    registry: SqlRegistry,
    platform: OwnCa,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = SqlRegistry::in_folder(folder.path()).unwrap();
        let platform = own_ca(&registry).await;
        Self { _folder: folder, registry, platform }
    }

    /// Puts the device on the allowlist anew, whatever it was.
    async fn register(&self, key_origin: KeyOrigin) {
        if let Some(there) = self.registry.find(&id(NAME)).await.unwrap() {
            let version = there.version;
            assert!(self.registry.remove(&there.bury(NOW), version, &origin()).await.unwrap());
            for entry in self.registry.entries_of(&NAME.to_owned().try_into().unwrap()).await.unwrap() {
                self.registry.set_standing(&entry.id, Standing::Revoked, NOW).await.unwrap();
            }
        }
        let device = cvm_provisioning::Device { key_origin, ..device(NAME) };
        assert!(self.registry.add(&device, &origin()).await.unwrap());
    }

    fn vend(&self, script: &Script) -> VendAtOnce<Faulty<SqlRegistry>, Faulty<OwnCa>, MemoryAudit> {
        VendAtOnce {
            registry: Faulty { inner: self.registry.clone(), script: script.clone() },
            authority: Faulty { inner: self.platform.clone(), script: script.clone() },
            audit: MemoryAudit::default(),
            templates: templates(),
            refused_keys: RefusedKeys::default(),
        }
    }

    async fn ask(&self, request: VendRequest) -> Result<Vended, VendError> {
        self.vend(&Script::default()).vend(request).await
    }

    /// The certificates that brokers let in.
    async fn powerful(&self) -> Vec<CertificateId> {
        let entries = self.registry.entries_of(&NAME.to_owned().try_into().unwrap()).await.unwrap();
        entries.iter().filter(|entry| entry.standing == Standing::Active).map(|entry| entry.id).collect()
    }

    async fn stored(&self) -> cvm_provisioning::Device {
        self.registry.find(&id(NAME)).await.unwrap().unwrap()
    }
}

fn renewal(number: u128, shown: &Vended, key: &Csr, now: Timestamp) -> VendRequest {
    let shown = Some(Arc::new(Certificate::parse(&shown.credential.pem).unwrap()));
    VendRequest { token: None, shown, ..request(NAME, number, Some(key), now) }
}

#[tokio::test]
async fn threat_33_a_vend_at_once_that_fails_anywhere_ends_with_one_certificate() {
    let world = World::new().await;
    for key_origin in [KeyOrigin::Device, KeyOrigin::Service] {
        for same_key in [true, false] {
            for fault in Fault::FAILURES {
                for n in 1..=CALLS {
                    let context = format!("{key_origin:?}, same key: {same_key}, {fault:?} at call {n}");
                    world.register(key_origin).await;
                    let made_here = key_origin == KeyOrigin::Service;
                    let first = (!made_here).then(|| csr(NAME));
                    let script = Script::fail(n, fault);
                    let vend = world.vend(&script);
                    let failed = script.run(vend.vend(request(NAME, 1, first.as_ref(), NOW))).await;
                    assert!(!matches!(failed, Some(Ok(_))), "{context}: {failed:?}");
                    let enrolled = world.stored().await.state == State::Provisioned;
                    let key = if same_key || enrolled { first } else { (!made_here).then(|| csr(NAME)) };
                    let vended = world.ask(request(NAME, 2, key.as_ref(), later(1))).await.unwrap();
                    assert_eq!(world.powerful().await, [vended.credential.certificate], "{context}");
                    assert_eq!(world.stored().await.credential, Some(vended.credential), "{context}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_07_fifty_callers_at_once_get_one_certificate() {
    let world = World::new().await;
    for keys in [vec![csr(NAME); 50], (0..50).map(|_| csr(NAME)).collect()] {
        world.register(KeyOrigin::Device).await;
        let one_key = keys[0].key() == keys[1].key();
        let all = (1..).zip(&keys).map(|(number, key)| world.ask(request(NAME, number, Some(key), NOW)));
        let mut given: Vec<_> = futures_util::future::join_all(all).await.into_iter().flatten().collect();
        assert_eq!(given.len(), if one_key { 50 } else { 1 });
        assert_eq!(given.iter().filter(|vended| !vended.replayed).count(), 1);
        assert_eq!(world.powerful().await, [given.pop().unwrap().credential.certificate]);
    }
}

#[tokio::test]
async fn a_certificate_of_the_ledger_finds_its_device_while_it_is_the_devices() {
    let world = World::new().await;
    world.register(KeyOrigin::Device).await;
    let first = world.ask(request(NAME, 1, Some(&csr(NAME)), NOW)).await.unwrap();
    let owner = async |vended: &Vended| {
        let owner = world.registry.device_of(&vended.credential.certificate).await.unwrap();
        owner.map(|owner| owner.device)
    };
    assert_eq!(owner(&first).await, Some(id(NAME)));
    let second = world.ask(renewal(2, &first, &csr(NAME), later(10))).await.unwrap();
    assert_eq!(owner(&first).await, None, "it has another one");
    assert_eq!(owner(&second).await, Some(id(NAME)));
    let mut disabled = world.stored().await;
    let version = disabled.version;
    disabled.disable(None, later(20));
    assert!(world.registry.replace(&disabled, version, &origin()).await.unwrap());
    assert_eq!(owner(&second).await, Some(id(NAME)), "whatever else becomes of it");
    world.register(KeyOrigin::Device).await;
    assert_eq!(owner(&second).await, None, "one of the same name is another device");
}

#[tokio::test]
async fn threat_06_a_renewal_at_once_never_leaves_a_device_without_a_certificate() {
    let world = World::new().await;
    for fault in Fault::FAILURES {
        for n in 1..=CALLS {
            let context = format!("{fault:?} at call {n}");
            world.register(KeyOrigin::Device).await;
            let first = world.ask(request(NAME, 1, Some(&csr(NAME)), NOW)).await.unwrap();
            let script = Script::fail(n, fault);
            let vend = world.vend(&script);
            let _ = script.run(vend.vend(renewal(2, &first, &csr(NAME), later(10)))).await;
            assert!(world.powerful().await.contains(&first.credential.certificate), "{context}");

            let second = world.ask(renewal(3, &first, &csr(NAME), later(20))).await.unwrap();
            let powerful = world.powerful().await;
            assert!(powerful.contains(&first.credential.certificate), "{context}: the answer may be lost");
            assert!(powerful.contains(&second.credential.certificate), "{context}");
            // Who shows the second certificate has it, and what it had before can go.
            let third = world.ask(renewal(4, &second, &csr(NAME), later(30))).await.unwrap();
            let mut left = [second.credential.certificate, third.credential.certificate];
            let mut powerful = world.powerful().await;
            left.sort();
            powerful.sort();
            assert_eq!(powerful, left, "{context}");
            assert!(matches!(world.ask(renewal(5, &first, &csr(NAME), later(40))).await, Err(VendError::Refused)));
        }
    }
}

#[tokio::test]
async fn threat_08_a_second_device_with_a_key_gets_nothing() {
    let world = World::new().await;
    world.register(KeyOrigin::Device).await;
    assert!(world.registry.add(&device("sn-2"), &origin()).await.unwrap());
    let key = csr(NAME);
    let first = world.ask(request(NAME, 1, Some(&key), NOW)).await.unwrap();
    let second = world.ask(request("sn-2", 2, Some(&key), NOW)).await;
    assert!(matches!(second, Err(VendError::KeyRefused)), "{second:?}");
    assert_eq!(world.registry.entries_of(&"sn-2".to_owned().try_into().unwrap()).await.unwrap(), []);
    assert_eq!(world.powerful().await, [first.credential.certificate]);
    assert!(world.ask(request("sn-2", 3, Some(&csr("sn-2")), NOW)).await.is_ok());
}

/// A moment after the end of a certificate that was made at the beginning.
fn after_the_end() -> Timestamp {
    later(366 * 24 * 60 * 60)
}

#[tokio::test]
async fn an_expired_certificate_is_renewed_and_never_given_again() {
    let world = World::new().await;
    world.register(KeyOrigin::Device).await;
    let key = csr(NAME);
    let first = world.ask(request(NAME, 1, Some(&key), NOW)).await.unwrap();
    let world = World { platform: own_ca_at(&world.registry, after_the_end).await, ..world };
    let last = world.ask(request(NAME, 2, Some(&key), first.credential.not_after)).await.unwrap();
    assert!(last.replayed);
    let renewed = world.ask(request(NAME, 3, Some(&key), after_the_end())).await.unwrap();
    assert!(!renewed.replayed && !renewed.credential.is_expired(after_the_end()));
    let again = world.ask(request(NAME, 4, Some(&key), after_the_end())).await.unwrap();
    assert!(again.replayed && again.credential == renewed.credential);
    let clone = world.ask(request(NAME, 5, Some(&csr(NAME)), after_the_end())).await;
    assert!(matches!(clone, Err(VendError::Refused)));
    assert_eq!(world.stored().await.state, State::Quarantined);
}

#[tokio::test]
async fn threat_29_an_expired_certificate_proves_its_device_within_its_grace() {
    let world = World::new().await;
    let grace = ShownCertificate::MAX_GRACE;
    for (after, renews) in [(grace, true), (grace + Duration::from_secs(1), false)] {
        for same_key in [true, false] {
            world.register(KeyOrigin::Device).await;
            let key = csr(NAME);
            let first = world.ask(request(NAME, 1, Some(&key), NOW)).await.unwrap();
            let now = first.credential.not_after.after(after);
            let asked = if same_key { key } else { csr(NAME) };
            let answer = world.ask(renewal(2, &first, &asked, now)).await;
            assert_eq!(answer.is_ok_and(|vended| !vended.replayed), renews, "{after:?}, same key: {same_key}");
        }
    }
}

#[tokio::test]
async fn superseded_certificates_lose_their_power_when_their_grace_is_over() {
    let world = World::new().await;
    world.register(KeyOrigin::Device).await;
    let first = world.ask(request(NAME, 1, Some(&csr(NAME)), NOW)).await.unwrap();
    let second = world.ask(renewal(2, &first, &csr(NAME), later(10))).await.unwrap();
    let end = later(10).after(Superseded::GRACE);
    assert_eq!(end_successions(&world.registry, end.before(Duration::from_secs(1)), 10).await.unwrap(), 0);
    assert_eq!(world.powerful().await.len(), 2);
    assert_eq!(end_successions(&world.registry, end, 10).await.unwrap(), 1);
    assert_eq!(world.powerful().await, [second.credential.certificate]);
    assert_eq!(world.stored().await.superseded, []);
    assert_eq!(end_successions(&world.registry, end, 10).await.unwrap(), 0);
    let query = AuditQuery { device: Some(id(NAME)), since: NOW, until: end.after(Duration::from_secs(1)) };
    let page = world.registry.entries(&query, None, 10).await.unwrap();
    let told: Vec<_> = page.entries.iter().map(|entry| entry.action.as_str()).collect();
    assert!(told.contains(&"succeeded"), "{told:?}");
}

#[tokio::test]
async fn a_device_disabled_in_the_middle_of_a_vend_at_once_gets_nothing() {
    let world = World::new().await;
    for n in 2..=CALLS {
        world.register(KeyOrigin::Device).await;
        let script = Script::fail(n, Fault::Hold);
        let vend = world.vend(&script);
        let key = csr(NAME);
        let operator = async {
            script.held().await;
            let mut device = world.stored().await;
            let version = device.version;
            device.disable("stolen".parse().ok(), NOW);
            assert!(world.registry.replace(&device, version, &origin()).await.unwrap());
            script.resume();
        };
        let (answer, ()) = tokio::join!(vend.vend(request(NAME, 1, Some(&key), NOW)), operator);
        assert!(matches!(answer, Err(VendError::Refused)), "call {n}: {answer:?}");
        assert_eq!(world.powerful().await, [], "call {n}");
    }
}

#[tokio::test]
async fn a_fresh_vend_at_once_is_three_steps_and_a_replay_is_one() {
    let world = World::new().await;
    world.register(KeyOrigin::Device).await;
    let key = csr(NAME);
    for (number, calls) in [(1, CALLS), (2, 1)] {
        let script = Script::default();
        let vended = world.vend(&script).vend(request(NAME, number, Some(&key), NOW)).await.unwrap();
        assert_eq!(vended.replayed, number == 2);
        assert_eq!(script.calls(), calls);
    }
    // Whoever has no proof costs no signature.
    let script = Script::default();
    let stranger = Attempt { device: id("nobody"), ..cvm_testkit::fixture::attempt("nobody", 3, &key, NOW) };
    let asked = VendRequest { device: stranger.device, ..request(NAME, 3, Some(&key), NOW) };
    assert!(matches!(world.vend(&script).vend(asked).await, Err(VendError::Refused)));
    assert_eq!(script.calls(), 2, "look, and count the refusal");
}
