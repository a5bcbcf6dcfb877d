//! The contract of the device registry: whatever the store, each method has the effect of the [`Device`] method of the
//! same name, in one step. Every case runs the store beside the domain's own rules and compares all there is to see.

use std::collections::{BTreeMap, BTreeSet};

use cvm_provisioning::{
    Attempt, AttemptId, Attestation, AuditEntry, AuditQuery, AuditTrail, CertificateId, CertificateOwner, Claim,
    Credential, Decision, Denial, Device, DeviceCounts, DeviceFilter, EnrolmentToken, GenerationId, GroupCredential,
    Hierarchy, KeyFingerprint, KeyOrigin, Leftover, MadeOut, Module, Presence, Proof, Refusal, Remains, Reserve, State,
    Status, ThingName, Timestamp, TrustedUser, TrustedUserClaim, UnsettledDevice, Verdict,
};

use crate::MemoryPlatform;
use crate::fixture::{NOW, csr, device, id, later, origin, templates, token};
use crate::scenario::Registry;

const LEAF: &[u8] = b"a factory certificate";
const OTHER_LEAF: &[u8] = b"another factory certificate";
const CA: &[u8] = b"a CA";
const OTHER_CA: &[u8] = b"another CA";

/// Runs the whole contract over one empty registry.
pub async fn registry<R: Registry>(registry: &R) {
    let cases = Cases::new().await;
    a_reservation_follows_the_decision(registry, &cases).await;
    a_reservation_made_twice_is_one(registry, &cases).await;
    a_commit_is_the_holders(registry, &cases).await;
    a_release_is_the_holders(registry, &cases).await;
    a_refusal_is_written_down(registry, &cases).await;
    an_unknown_device_is_not_made(registry, &cases).await;
    operators_do_not_overwrite_each_other(registry).await;
    a_certificate_finds_its_device(registry, &cases).await;
    what_is_unsettled_is_found(registry).await;
    a_reservation_by_claim_is_counted_with_it_or_not_made(registry).await;
    a_claim_is_made_out_with_its_device_or_not_at_all(registry).await;
    an_operator_who_changes_a_claim_keeps_its_count(registry).await;
    nobody_undoes_a_revocation_that_they_did_not_see(registry).await;
    a_user_has_so_many_claims_a_day(registry).await;
    a_place_is_kept_until_it_is_moved(registry).await;
    the_later_word_of_the_platform_counts(registry).await;
    a_tombstone_is_kept_until_it_is_forgotten(registry).await;
    // Claims, counters, places, presences and tombstones are there by now, and are no devices.
    a_list_has_every_device_once(registry).await;
    a_filter_lets_through_what_it_says(registry, &cases).await;
}

/// Devices in every state there is, and attempts of every kind there is.
struct Cases {
    devices: Vec<Device>,
    attempts: Vec<Attempt>,
    credential: Credential,
}

impl Cases {
    async fn new() -> Self {
        let name = "contract";
        let (own, other) = (csr(name), csr(name));
        let fingerprint = *own.key().fingerprint();
        let registered = device(name);

        let attempt = |number, key, token: bool, key_made_here, now| Attempt {
            id: AttemptId::new(number),
            device: id(name),
            proof: Proof::of_key(key, token.then(|| crate::fixture::token().digest()), key_made_here),
            origin: origin(),
            now,
        };
        let factory = |leaf: &[u8], key, ca: &[u8], now| Attempt {
            id: AttemptId::of(&CertificateId::of(leaf)),
            device: id(name),
            proof: Proof::of_certificate(CertificateId::of(leaf), key, GroupCredential::Ca(CertificateId::of(ca))),
            origin: origin(),
            now,
        };
        let first = attempt(1, fingerprint, true, false, NOW);
        let connected = factory(LEAF, fingerprint, CA, NOW);
        let attempts = vec![
            attempt(2, fingerprint, true, false, later(2)),
            attempt(3, *other.key().fingerprint(), true, false, later(2)),
            attempt(4, fingerprint, false, false, later(2)),
            attempt(5, *other.key().fingerprint(), false, true, later(2)),
            attempt(6, *other.key().fingerprint(), true, true, later(2)),
            attempt(7, fingerprint, true, false, later(29)),
            attempt(8, fingerprint, true, false, later(30)),
            attempt(9, *other.key().fingerprint(), true, false, later(600)),
            attempt(10, *other.key().fingerprint(), true, true, later(600)),
            factory(LEAF, fingerprint, CA, later(2)),
            factory(LEAF, fingerprint, CA, later(600)),
            factory(OTHER_LEAF, fingerprint, CA, later(600)),
            factory(OTHER_LEAF, *other.key().fingerprint(), CA, later(600)),
            factory(LEAF, fingerprint, OTHER_CA, later(2)),
        ];

        let with = |change: &dyn Fn(&mut Device)| {
            let mut device = registered.clone();
            change(&mut device);
            device
        };
        let credential = credential(&registered, &first, &own).await;
        let made_here = Credential { key_made_here: true, ..credential.clone() };
        let public_key = Attestation::PublicKey { key: fingerprint };
        let expires = |expires_at: Timestamp| Attestation::Token {
            digest: token().digest(),
            second: None,
            expires_at: Some(expires_at),
        };
        let refused = |denial| Refusal { denial, key: *other.key().fingerprint(), at: later(1), blocked_until: None };
        let clone = refused(Denial::Cloned);
        let reserve = |device: &mut Device| device.reserve(&first);
        let provision = |device: &mut Device, credential: &Credential| {
            device.reserve(&first);
            device
                .commit(first.id, credential.clone(), Remains::Nothing, later(1))
                .expect("the attempt holds the device");
        };
        let release = |device: &mut Device, left: Leftover| {
            device.reserve(&first);
            device.release(first.id, left, Remains::Nothing, later(1));
        };
        let devices = vec![
            registered.clone(),
            with(&|device| device.disable("stolen".parse().ok(), later(1))),
            with(&|device| device.attestation = public_key.clone()),
            with(&|device| device.attestation = Attestation::PublicKey { key: *other.key().fingerprint() }),
            with(&|device| device.attestation = expires(later(2))),
            with(&|device| device.attestation = expires(later(3))),
            with(&|device| device.key_origin = KeyOrigin::Service),
            with(&|device| {
                device.key_origin = KeyOrigin::Service;
                device.template = Some("other".parse().expect("a template name"));
                device.parameters = BTreeMap::from([("Site".to_owned(), "Ulm".to_owned())]);
                device.settable_parameters = BTreeSet::from(["Site".to_owned()]);
                provision(device, &made_here);
            }),
            with(&|device| provision(device, &made_here)),
            with(&reserve),
            with(&|device| {
                reserve(device);
                device.disable("stolen".parse().ok(), later(1));
            }),
            with(&|device| release(device, Leftover::Unknown)),
            with(&|device| release(device, Leftover::Known(None))),
            with(&|device| release(device, Leftover::Known(Some(credential.clone())))),
            with(&|device| {
                release(device, Leftover::Unknown);
                device.reserve(&attempt(20, *other.key().fingerprint(), true, false, later(1)));
            }),
            with(&|device| provision(device, &credential)),
            with(&|device| {
                device.attestation = public_key.clone();
                provision(device, &credential);
            }),
            with(&|device| {
                provision(device, &credential);
                device.refuse(&clone);
            }),
            with(&|device| {
                provision(device, &credential);
                device.refuse(&clone);
                device.approve(Verdict::AdmitNextKey, later(1)).expect("it is in quarantine");
            }),
            with(&|device| {
                provision(device, &credential);
                device.refuse(&clone);
                device.approve(Verdict::KeepCertificate, later(1)).expect("it is in quarantine");
            }),
            with(&|device| {
                provision(device, &credential);
                device.state = State::Revoked;
            }),
            with(&|device| device.attestation = Attestation::Certificate { id: CertificateId::of(LEAF), second: None }),
            with(&|device| device.attestation = Attestation::Ca { id: Some(CertificateId::of(CA)) }),
            with(&|device| {
                device.attestation =
                    Attestation::Certificate { id: CertificateId::of(CA), second: Some(CertificateId::of(LEAF)) };
            }),
            with(&|device| device.attestation = Attestation::Ca { id: None }),
            with(&|device| device.attestation = Attestation::Nothing),
            with(&|device| {
                let other = EnrolmentToken::generate().expect("there is randomness").digest();
                device.attestation =
                    Attestation::Token { digest: other, second: Some(token().digest()), expires_at: Some(later(500)) };
                device.group = Some("berlin".parse().expect("a group"));
                device.hierarchy = Hierarchy {
                    edge: true,
                    scope: Some("scope://own".parse().expect("a scope")),
                    parents: vec!["scope://parent".parse().expect("a scope")],
                };
                let module = Module::new(GenerationId::new(3), device.attestation.clone(), later(1));
                device.put_module("gateway".parse().expect("a module"), module, later(1));
                let managed = Module {
                    managed_by: Some("iotEdge".parse().expect("a manager")),
                    ..Module::new(GenerationId::new(4), Attestation::Nothing, later(1))
                };
                device.put_module("other".parse().expect("a module"), managed, later(1));
            }),
            with(&|device| device.attestation = Attestation::Claim { certificate: None }),
            with(&|device| device.attestation = Attestation::Claim { certificate: Some(CertificateId::of(CA)) }),
            with(&|device| device.attestation = Attestation::TrustedUser { claim: None }),
            with(&|device| {
                let user = "arn:aws:iam::123456789012:user/installer".parse().expect("a user");
                device.attestation = Attestation::TrustedUser { claim: None };
                device.vouch(
                    TrustedUserClaim { certificate: CertificateId::of(LEAF), user, expires_at: later(300) },
                    NOW,
                );
            }),
            with(&|device| {
                device.attestation = Attestation::Ca { id: Some(CertificateId::of(CA)) };
                device.reserve(&connected);
            }),
            with(&|device| {
                device.attestation = Attestation::Ca { id: Some(CertificateId::of(CA)) };
                device.reserve(&connected);
                device.confirm(credential.clone(), later(1));
            }),
            with(&|device| {
                device.attestation = Attestation::Ca { id: Some(CertificateId::of(CA)) };
                device.reserve(&connected);
                device.confirm(Credential { used_at: Some(later(1)), ..credential.clone() }, later(1));
                device.reserve(&factory(OTHER_LEAF, fingerprint, CA, later(2)));
            }),
            with(&|device| {
                device.key_origin = KeyOrigin::Service;
                provision(device, &made_here);
                device.mark_used(later(1));
            }),
            with(&|device| {
                for _ in 0..6 {
                    let wrong = Refusal {
                        blocked_until: device.wrong_proofs.one_more(later(1)).blocked_until,
                        ..refused(Denial::WrongProof)
                    };
                    device.refuse(&wrong);
                }
            }),
        ];
        Self { devices, attempts, credential }
    }
}

/// What `attempt` would be given.
async fn credential(device: &Device, attempt: &Attempt, csr: &cvm_provisioning::Csr) -> Credential {
    use cvm_provisioning::Platform as _;

    let resources = templates().evaluate(device, &BTreeMap::new()).expect("the template fits");
    let issued = MemoryPlatform::default().issue(csr).await.expect("the platform in memory issues");
    Credential::new(&issued, attempt, &resources)
}

/// Puts a device into the registry, whatever is there.
async fn put<R: Registry>(registry: &R, device: &Device) {
    if let Some(there) = registry.find(&device.id).await.expect("the store answers") {
        let (version, tombstone) = (there.version, there.bury(NOW));
        assert!(registry.remove(&tombstone, version, &origin()).await.expect("the store answers"));
        registry.forget(&device.id, tombstone.device.generation).await.expect("the store answers");
    }
    assert!(registry.add(device, &origin()).await.expect("the store answers"));
}

async fn stored<R: Registry>(registry: &R, device: &Device) -> Device {
    registry.find(&device.id).await.expect("the store answers").expect("the device is there")
}

async fn a_reservation_follows_the_decision<R: Registry>(registry: &R, cases: &Cases) {
    for device in &cases.devices {
        put(registry, device).await;
        assert_eq!(stored(registry, device).await, *device, "what is stored is what was put there");
        for attempt in &cases.attempts {
            put(registry, device).await;
            let mut expected = device.clone();
            let reserve = match device.decide(attempt) {
                Decision::Provision => {
                    expected.reserve(attempt);
                    Reserve::Held(expected.clone())
                }
                _ => Reserve::Refused(Some(device.clone())),
            };
            assert_eq!(registry.reserve(attempt).await.expect("the store answers"), reserve, "{attempt:?}");
            assert_eq!(stored(registry, device).await, expected, "{attempt:?}");
        }
    }
}

async fn a_reservation_made_twice_is_one<R: Registry>(registry: &R, cases: &Cases) {
    let (device, attempt) = (&cases.devices[0], &cases.attempts[0]);
    put(registry, device).await;
    let first = registry.reserve(attempt).await.expect("the store answers");
    assert_eq!(registry.reserve(attempt).await.expect("the store answers"), first, "its answer was lost");
    let other = Attempt { id: AttemptId::new(99), ..attempt.clone() };
    let refused = registry.reserve(&other).await.expect("the store answers");
    assert!(matches!(refused, Reserve::Refused(Some(_))), "the same key in another attempt has to wait");
}

async fn a_commit_is_the_holders<R: Registry>(registry: &R, cases: &Cases) {
    let other = Credential { certificate: CertificateId::of(b"another"), ..cases.credential.clone() };
    for device in &cases.devices {
        let used = Credential { used_at: Some(later(2)), ..cases.credential.clone() };
        for (owner, credential, remains) in [
            (1, &cases.credential, Remains::Nothing),
            (1, &other, Remains::Unsettled),
            (1, &used, Remains::Unsettled),
            (20, &other, Remains::Nothing),
            (2, &cases.credential, Remains::Nothing),
        ] {
            put(registry, device).await;
            let attempt = Attempt { id: AttemptId::new(owner), now: later(3), ..cases.attempts[0].clone() };
            let mut expected = device.clone();
            let outcome = expected.commit(attempt.id, credential.clone(), remains, attempt.now);
            assert_eq!(registry.commit(&attempt, credential, remains).await.expect("the store answers"), outcome);
            assert_eq!(stored(registry, device).await, expected, "{owner}");
            if outcome.is_ok() {
                let again = registry.commit(&attempt, credential, remains).await.expect("the store answers");
                assert_eq!(again, Ok(()), "its answer was lost");
                assert_eq!(stored(registry, device).await, expected);
            }
        }
    }
}

async fn a_release_is_the_holders<R: Registry>(registry: &R, cases: &Cases) {
    let leftovers = [Leftover::Unknown, Leftover::Known(None), Leftover::Known(Some(cases.credential.clone()))];
    for device in &cases.devices {
        for left in &leftovers {
            for (owner, remains) in
                [(1, Remains::Nothing), (1, Remains::Unsettled), (20, Remains::Nothing), (2, Remains::Nothing)]
            {
                put(registry, device).await;
                let attempt = Attempt { id: AttemptId::new(owner), now: later(3), ..cases.attempts[0].clone() };
                let mut expected = device.clone();
                expected.release(attempt.id, left.clone(), remains, attempt.now);
                registry.release(&attempt, left, remains).await.expect("the store answers");
                assert_eq!(stored(registry, device).await, expected, "{left:?}");
            }
        }
    }
}

async fn a_refusal_is_written_down<R: Registry>(registry: &R, cases: &Cases) {
    for device in &cases.devices {
        for denial in Denial::ALL {
            // Which key was shown matters where there is a clone; elsewhere one is as good as two.
            let keys = if denial == Denial::Cloned { 2 } else { 1 };
            for attempt in &cases.attempts[..keys] {
                put(registry, device).await;
                let refusal = Refusal::new(denial, Some(device), attempt);
                let mut expected = device.clone();
                expected.refuse(&refusal);
                registry.refuse(&device.id, &refusal, &origin()).await.expect("the store answers");
                assert_eq!(stored(registry, device).await, expected, "{denial:?}");
            }
        }
    }
}

async fn an_unknown_device_is_not_made<R: Registry>(registry: &R, cases: &Cases) {
    let attempt = Attempt { device: id("nobody"), ..cases.attempts[0].clone() };
    assert_eq!(registry.reserve(&attempt).await.expect("the store answers"), Reserve::Refused(None));
    for denial in Denial::ALL {
        let refusal = Refusal::new(denial, None, &attempt);
        registry.refuse(&attempt.device, &refusal, &origin()).await.expect("the store answers");
    }
    assert!(registry.commit(&attempt, &cases.credential, Remains::Nothing).await.expect("the store answers").is_err());
    registry.release(&attempt, &Leftover::Unknown, Remains::Nothing).await.expect("the store answers");
    assert_eq!(registry.find(&attempt.device).await.expect("the store answers"), None);
}

async fn operators_do_not_overwrite_each_other<R: Registry>(registry: &R) {
    let first = device("edited");
    put(registry, &first).await;
    let twin = Device { generation: GenerationId::new(8), ..first.clone() };
    assert!(!registry.add(&twin, &origin()).await.expect("the store answers"), "the id is taken");

    let mut second = first.clone();
    second.disable("lost in the post".parse().ok(), later(1));
    assert!(registry.replace(&second, first.version, &origin()).await.expect("the store answers"));
    assert!(
        !registry.replace(&second, first.version, &origin()).await.expect("the store answers"),
        "that version is gone"
    );
    let foreign = Device { generation: GenerationId::new(8), ..second.clone() };
    assert!(
        !registry.replace(&foreign, second.version, &origin()).await.expect("the store answers"),
        "that is another device"
    );
    assert!(
        !registry.remove(&first.clone().bury(NOW), first.version, &origin()).await.expect("the store answers"),
        "that version is gone"
    );
    assert_eq!(stored(registry, &first).await, second);
    assert!(registry.remove(&second.clone().bury(NOW), second.version, &origin()).await.expect("the store answers"));
    assert_eq!(registry.find(&first.id).await.expect("the store answers"), None);
    assert!(!registry.replace(&second, second.version, &origin()).await.expect("the store answers"), "it is deleted");
    assert_eq!(registry.find(&first.id).await.expect("the store answers"), None);
}

async fn a_list_has_every_device_once<R: Registry>(registry: &R) {
    let key = KeyFingerprint::of(b"listed");
    for number in 0..25 {
        let attestation = Attestation::PublicKey { key };
        put(registry, &Device::new(id(&format!("listed-{number}")), GenerationId::new(number), attestation, NOW)).await;
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = registry.list(&DeviceFilter::default(), after.as_ref(), 10).await.expect("the store answers");
        assert!(page.devices.len() <= 10);
        seen.extend(page.devices.into_iter().map(|device| device.id).filter(|id| id.as_str().starts_with("listed-")));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 25);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>().len(), 25);
}

async fn a_filter_lets_through_what_it_says<R: Registry>(registry: &R, cases: &Cases) {
    let mut all = Vec::new();
    for (number, device) in cases.devices.iter().enumerate() {
        let group = (number % 2 == 0).then(|| "berlin".parse().expect("a group"));
        let filtered = Device { id: id(&format!("filtered-{number}")), group, ..device.clone() };
        put(registry, &filtered).await;
        all.push(filtered);
    }
    let counted = registry.count().await.expect("the store answers");
    let everything = DeviceFilter::default();
    let filters = [
        everything.clone(),
        DeviceFilter { state: Some(State::Quarantined), ..everything.clone() },
        DeviceFilter { enabled: Some(false), ..everything.clone() },
        DeviceFilter { enabled: Some(true), group: "berlin".parse().ok(), ..everything.clone() },
        DeviceFilter { template: "other".parse().ok(), ..everything.clone() },
        DeviceFilter { changed_since: Some(later(1)), ..everything.clone() },
    ];
    for filter in filters {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = registry.list(&filter, after.as_ref(), 7).await.expect("the store answers");
            assert!(page.devices.len() <= 7);
            found.extend(page.devices);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert!(found.iter().all(|device| filter.admits(device)), "{filter:?}");
        if filter == everything {
            let mut counts = DeviceCounts::default();
            found.iter().for_each(|device| counts.add(device.state, device.status.enabled));
            assert_eq!(counted, counts);
        }
        let mut found: Vec<_> =
            found.into_iter().filter(|device| device.id.as_str().starts_with("filtered-")).collect();
        let mut expected: Vec<_> = all.iter().filter(|device| filter.admits(device)).cloned().collect();
        found.sort_by(|one, other| one.id.cmp(&other.id));
        expected.sort_by(|one, other| one.id.cmp(&other.id));
        assert_eq!(found, expected, "{filter:?}");
    }
}

async fn the_later_word_of_the_platform_counts<R: Registry>(registry: &R) {
    let [here, gone] = [id("connected"), id("never-seen")];
    let presence = |connected, order| Presence {
        connected,
        since: later(order),
        order: order * 1_000,
        client_id: "connected".to_owned(),
        certificate: CertificateId::of(LEAF),
    };
    let before = registry.count_connected().await.expect("the store answers");
    for (told, connected, expected) in [(5, true, 5), (5, true, 5), (4, false, 5), (6, false, 6), (7, true, 7)] {
        registry.note_presence(&here, &presence(connected, told)).await.expect("the store answers");
        let known = registry.presences(&[here.clone(), gone.clone()]).await.expect("the store answers");
        assert_eq!(known.len(), 1);
        assert_eq!(known[&here].order, expected * 1_000);
    }
    assert_eq!(registry.count_connected().await.expect("the store answers"), before + 1);
    for _ in 0..2 {
        registry.forget_presence(&here).await.expect("the store answers");
        assert!(registry.presences(std::slice::from_ref(&here)).await.expect("the store answers").is_empty());
    }
}

async fn a_tombstone_is_kept_until_it_is_forgotten<R: Registry>(registry: &R) {
    let first = Device { group: "berlin".parse().ok(), ..device("buried") };
    put(registry, &first).await;
    let tombstone = first.clone().bury(later(1));
    let foreign = Device { generation: GenerationId::new(8), ..first.clone() }.bury(later(1));
    assert!(!registry.remove(&foreign, first.version, &origin()).await.expect("the store answers"), "another device");
    assert!(registry.remove(&tombstone, first.version, &origin()).await.expect("the store answers"));
    assert!(!registry.remove(&tombstone, first.version, &origin()).await.expect("the store answers"), "it is gone");
    let find = async || registry.tombstone(&first.id, first.generation).await.expect("the store answers");
    assert_eq!(find().await, Some(tombstone));
    let deleted = UnsettledDevice { id: first.id.clone(), deleted: Some(first.generation) };
    assert!(registry.unsettled(1_000).await.expect("the store answers").contains(&deleted));
    let twin = Device { generation: GenerationId::new(9), ..first.clone() };
    assert!(registry.add(&twin, &origin()).await.expect("the store answers"), "the id is free");
    for _ in 0..2 {
        registry.forget(&first.id, first.generation).await.expect("the store answers");
        assert_eq!(find().await, None);
    }
    assert_eq!(stored(registry, &twin).await, twin);
}

/// Runs the contract of an audit trail over an empty one.
pub async fn audit_trail<T: AuditTrail>(trail: &T) {
    let entry = |number: u64, device: &str, at: Timestamp| AuditEntry {
        id: format!("{number:04}"),
        at,
        device: id(device),
        generation: Some(GenerationId::new(7)),
        module: (number == 3).then(|| "module".parse().expect("a module")),
        action: "refused".to_owned(),
        reason: Some("wrong-proof".to_owned()),
        key: Some(KeyFingerprint::of(b"key")),
        certificate: Some(CertificateId::of(LEAF)),
        thing: ThingName::try_from(device.to_owned()).ok(),
        changed: vec!["group".to_owned()],
        door: Some("vend".to_owned()),
        request_id: Some("request".to_owned()),
        source: Some("192.0.2.1".to_owned()),
        actor: Some("anna".to_owned()),
    };
    // Two devices, three hours, and several entries in one second.
    let all: Vec<_> =
        (0..60).map(|number| entry(number, ["sn-1", "sn-2"][number as usize % 2], later(number / 7 * 1_200))).collect();
    trail.append(&all).await.expect("the store answers");
    trail.append(&all[..30]).await.expect("the store answers");
    for (device, since, until) in [
        (None, NOW, later(100_000)),
        (Some("sn-1"), NOW, later(100_000)),
        (None, later(1_200), later(3_600)),
        (Some("sn-2"), later(1_201), later(3_601)),
        (Some("sn-3"), NOW, later(100_000)),
    ] {
        let query = AuditQuery { device: device.map(id), since, until };
        let mut expected: Vec<_> = all.iter().filter(|entry| since <= entry.at && entry.at < until).collect();
        expected.retain(|entry| device.is_none_or(|device| entry.device == id(device)));
        expected.reverse();
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = trail.entries(&query, after.as_deref(), 4).await.expect("the store answers");
            assert!(page.entries.len() <= 4);
            found.extend(page.entries);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{query:?}");
    }
}

/// Fifty callers for one device at once.
pub async fn fifty_reservations_at_once<R: Registry + 'static>(registry: &R) {
    put(registry, &device("contended")).await;
    let csr = csr("contended");
    let attempts = (1..=50).map(|number| crate::fixture::attempt("contended", number, &csr, NOW));
    let tasks: Vec<_> = attempts
        .map(|attempt| {
            let registry = registry.clone();
            tokio::spawn(async move { registry.reserve(&attempt).await })
        })
        .collect();
    let mut held = 0;
    for task in tasks {
        held += usize::from(matches!(task.await.expect("no panic").expect("the store answers"), Reserve::Held(_)));
    }
    assert_eq!(held, 1);
}

async fn a_certificate_finds_its_device<R: Registry>(registry: &R, cases: &Cases) {
    for device in &cases.devices {
        put(registry, device).await;
        for certificate in [cases.credential.certificate, CertificateId::of(LEAF), CertificateId::of(OTHER_LEAF)] {
            let expected = (device.indexed_certificate() == Some(certificate))
                .then(|| CertificateOwner { device: device.id.clone(), used: device.is_used(&certificate) });
            assert_eq!(registry.device_of(&certificate).await.expect("the store answers"), expected, "{device:?}");
        }
    }
}

async fn what_is_unsettled_is_found<R: Registry>(registry: &R) {
    let key = csr("unsettled");
    let attempt = crate::fixture::attempt("unsettled", 1, &key, NOW);
    put(registry, &device("unsettled")).await;
    assert!(
        !registry.unsettled(1_000).await.expect("the store answers").iter().any(|there| there.id == id("unsettled"))
    );
    registry.reserve(&attempt).await.expect("the store answers");
    assert!(
        registry.unsettled(1_000).await.expect("the store answers").iter().any(|there| there.id == id("unsettled"))
    );
    registry.release(&attempt, &Leftover::Known(None), Remains::Nothing).await.expect("the store answers");
    assert!(
        !registry.unsettled(1_000).await.expect("the store answers").iter().any(|there| there.id == id("unsettled"))
    );
}

async fn a_reservation_by_claim_is_counted_with_it_or_not_made<R: Registry>(registry: &R) {
    let claim = Claim { quota: Some(2), ..Claim::new(CertificateId::of(b"counted claim"), NOW) };
    let group = GroupCredential::Claim(claim.certificate);
    let unclaimed = device("claimed");
    put(registry, &unclaimed).await;
    let reserved = |leaf: &[u8], from: &Device| {
        let proof = Proof::of_certificate(CertificateId::of(leaf), KeyFingerprint::of(leaf), group);
        let mut device = from.clone();
        device.reserve(&Attempt {
            id: AttemptId::of(&CertificateId::of(leaf)),
            device: from.id.clone(),
            proof,
            origin: origin(),
            now: later(u64::from(leaf[0])),
        });
        device
    };
    let first = reserved(b"1", &unclaimed);
    assert!(
        !registry.reserve_with_claim(&claim, &first, 1, &origin()).await.expect("the store answers"),
        "no such claim"
    );
    assert!(registry.put_claim(&claim, None).await.expect("the store answers"));
    assert!(registry.reserve_with_claim(&claim, &first, 1, &origin()).await.expect("the store answers"));
    assert!(
        !registry.reserve_with_claim(&claim, &first, 1, &origin()).await.expect("the store answers"),
        "that version is gone"
    );
    let (found, stored) = registry.look_up(&claim.certificate, &first.id).await.expect("the store answers");
    assert_eq!(found, Some(Claim { used: 1, ..claim.clone() }));
    assert_eq!(stored, Some(first.clone()));

    let second = reserved(b"d", &first);
    assert!(registry.reserve_with_claim(&claim, &second, first.version, &origin()).await.expect("the store answers"));
    let third = reserved(b"z", &device("claimed-too"));
    put(registry, &device("claimed-too")).await;
    assert!(
        !registry.reserve_with_claim(&claim, &third, 1, &origin()).await.expect("the store answers"),
        "it is used up"
    );
    let expired = Claim { quota: None, expires_at: Some(third.updated_at), ..claim.clone() };
    assert!(registry.put_claim(&expired, Some(&claim)).await.expect("the store answers"));
    assert!(
        !registry.reserve_with_claim(&claim, &third, 1, &origin()).await.expect("the store answers"),
        "it has expired"
    );
    let revoked = Claim { quota: None, status: Status::disabled("leaked".parse().ok(), NOW), ..claim.clone() };
    assert!(registry.put_claim(&revoked, Some(&claim)).await.expect("the store answers"));
    assert!(
        !registry.reserve_with_claim(&claim, &third, 1, &origin()).await.expect("the store answers"),
        "it is revoked"
    );
    let unchanged = registry.look_up(&claim.certificate, &third.id).await.expect("the store answers");
    assert_eq!(unchanged, (Some(Claim { used: 2, ..revoked }), Some(device("claimed-too"))));
    let nobody = registry.look_up(&CertificateId::of(b"nobody"), &id("nobody")).await.expect("the store answers");
    assert_eq!(nobody, (None, None));
}

async fn a_claim_is_made_out_with_its_device_or_not_at_all<R: Registry>(registry: &R) {
    let mut vouched = device("vouched");
    put(registry, &vouched).await;
    let user: TrustedUser = "installer@example.com".parse().expect("a user");
    let certificate = CertificateId::of(b"made out");
    vouched.vouch(TrustedUserClaim { certificate, user: user.clone(), expires_at: later(300) }, NOW);
    let claim = Claim {
        expires_at: Some(later(300)),
        made_out: Some(MadeOut { user, device: vouched.id.clone() }),
        ..Claim::new(certificate, NOW)
    };
    assert!(
        !registry.make_out(&claim, &vouched, 7, &origin()).await.expect("the store answers"),
        "that version never was"
    );
    assert_eq!(registry.find_claim(&certificate).await.expect("the store answers"), None);
    assert!(registry.make_out(&claim, &vouched, 1, &origin()).await.expect("the store answers"));
    assert_eq!(registry.find_claim(&certificate).await.expect("the store answers"), Some(claim.clone()));
    assert_eq!(stored(registry, &vouched).await, vouched);
    assert!(registry.claims().await.expect("the store answers").contains(&claim));
}

async fn an_operator_who_changes_a_claim_keeps_its_count<R: Registry>(registry: &R) {
    let claim = Claim::new(CertificateId::of(b"edited claim"), NOW);
    assert!(registry.put_claim(&claim, None).await.expect("the store answers"));
    let mut claimed = device("edited-claim");
    put(registry, &claimed).await;
    claimed.version += 1;
    assert!(registry.reserve_with_claim(&claim, &claimed, 1, &origin()).await.expect("the store answers"));
    for changed in [Claim { quota: Some(5), expires_at: Some(later(9)), ..claim.clone() }, claim.clone()] {
        assert!(registry.put_claim(&changed, Some(&claim)).await.expect("the store answers"));
        let expected = Claim { used: 1, ..changed };
        assert_eq!(registry.find_claim(&claim.certificate).await.expect("the store answers"), Some(expected));
    }
}

async fn nobody_undoes_a_revocation_that_they_did_not_see<R: Registry>(registry: &R) {
    let claim = Claim::new(CertificateId::of(b"raced claim"), NOW);
    assert!(!registry.put_claim(&claim, Some(&claim)).await.expect("the store answers"), "there is none to change");
    assert!(registry.put_claim(&claim, None).await.expect("the store answers"));
    assert!(!registry.put_claim(&claim, None).await.expect("the store answers"), "there is one by now");
    let revoked = |since| Claim { status: Status::disabled("leaked".parse().ok(), since), ..claim.clone() };
    assert!(registry.put_claim(&revoked(NOW), Some(&claim)).await.expect("the store answers"));
    let wider = Claim { quota: Some(9), ..claim.clone() };
    assert!(!registry.put_claim(&wider, Some(&claim)).await.expect("the store answers"), "it is revoked by now");
    assert_eq!(registry.find_claim(&claim.certificate).await.expect("the store answers"), Some(revoked(NOW)));
    assert!(registry.put_claim(&revoked(later(9)), Some(&revoked(NOW))).await.expect("the store answers"));
    assert!(!registry.put_claim(&wider, Some(&revoked(NOW))).await.expect("the store answers"), "and again");
    assert!(registry.put_claim(&wider, Some(&revoked(later(9)))).await.expect("the store answers"));
}

async fn a_user_has_so_many_claims_a_day<R: Registry>(registry: &R) {
    let (one, other) = ("one".parse().expect("a user"), "other".parse().expect("a user"));
    let mut counted = Vec::new();
    for (user, day, quota) in
        [(&one, 1, 2), (&one, 1, 2), (&one, 1, 2), (&other, 1, 2), (&one, 2, 2), (&one, 1, 3), (&other, 9, 0)]
    {
        counted.push(registry.count_claim(user, day, quota).await.expect("the store answers"));
    }
    assert_eq!(counted, [true, true, false, true, true, true, false]);
}

async fn a_place_is_kept_until_it_is_moved<R: Registry>(registry: &R) {
    for place in [None, Some("here"), Some("there"), None] {
        registry.move_to("contract", place).await.expect("the store answers");
        assert_eq!(registry.place("contract").await.expect("the store answers").as_deref(), place);
        assert_eq!(registry.place("another").await.expect("the store answers"), None);
    }
}
