//! What attempts do to a device: they reserve it, commit, release it and are refused.

use cvm_provisioning::{
    Attempt, AttemptId, Attestation, Beside, CertificateId, Changes as _, Claim, Credential, Csr, Decision, Denial,
    Device, GenerationId, GroupCredential, KeyFingerprint, Leftover, NotRestored, Proof, Put, Refusal, Remains,
    Reserve, State, Superseded,
};

use super::cases::{Cases, credential};
use super::{put, stored};
use crate::fixture::{NOW, csr, device, id, later, origin};
use crate::scenario::Registry;

pub(super) async fn a_reservation_follows_the_decision<R: Registry>(registry: &R, cases: &Cases) {
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

pub(super) async fn a_reservation_made_twice_is_one<R: Registry>(registry: &R, cases: &Cases) {
    let (device, attempt) = (&cases.devices[0], &cases.attempts[0]);
    put(registry, device).await;
    let first = registry.reserve(attempt).await.expect("the store answers");
    assert_eq!(registry.reserve(attempt).await.expect("the store answers"), first, "its answer was lost");
    let other = Attempt { id: AttemptId::new(99), ..attempt.clone() };
    let refused = registry.reserve(&other).await.expect("the store answers");
    assert!(matches!(refused, Reserve::Refused(Some(_))), "the same key in another attempt has to wait");
}

pub(super) async fn a_commit_is_the_holders<R: Registry>(registry: &R, cases: &Cases) {
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
            let superseded = if owner == 1 { cases.superseded.clone() } else { Vec::new() };
            let beside = Beside { superseded, remains };
            let outcome = expected.commit(attempt.id, credential.clone(), beside.clone(), attempt.now);
            assert_eq!(
                registry.commit(device, &attempt, credential, &beside).await.expect("the store answers"),
                outcome
            );
            assert_eq!(stored(registry, device).await, expected, "{owner}");
            if outcome.is_ok() {
                let again = registry.commit(device, &attempt, credential, &beside).await.expect("the store answers");
                assert_eq!(again, Ok(()), "its answer was lost");
                assert_eq!(stored(registry, device).await, expected);
            }
        }
    }
}

pub(super) async fn a_release_is_the_holders<R: Registry>(registry: &R, cases: &Cases) {
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
                registry.release(device, &attempt, left, remains).await.expect("the store answers");
                assert_eq!(stored(registry, device).await, expected, "{left:?}");
            }
        }
    }
}

pub(super) async fn a_refusal_is_written_down<R: Registry>(registry: &R, cases: &Cases) {
    for device in &cases.devices {
        for denial in Denial::ALL {
            // Which key was shown matters where there is a clone; elsewhere one is as good as two.
            let keys = if denial == Denial::Cloned { 2 } else { 1 };
            for attempt in &cases.attempts[..keys] {
                put(registry, device).await;
                let refusal = Refusal::new(denial, Some(device), attempt);
                let mut expected = device.clone();
                expected.refuse(&refusal);
                registry.refuse(&device.id, Some(device), &refusal, &origin()).await.expect("the store answers");
                assert_eq!(stored(registry, device).await, expected, "{denial:?}");
            }
        }
    }
}

pub(super) async fn counting_refusals_leaves_the_version<R: Registry>(registry: &R, cases: &Cases) {
    let (device, attempt) = (&cases.devices[0], &cases.attempts[1]);
    put(registry, device).await;
    let mut expected = device.clone();
    for (second, noted) in [(0, true), (1, false), (3_599, false), (3_600, true), (3_601, false)] {
        let attempt = Attempt { now: later(second), ..attempt.clone() };
        let refusal = Refusal::new(Denial::WrongProof, Some(&stored(registry, device).await), &attempt);
        assert_eq!(refusal.noted, noted, "{second}");
        expected.refuse(&refusal);
        registry.refuse(&device.id, Some(device), &refusal, &origin()).await.expect("the store answers");
    }
    assert_eq!(stored(registry, device).await, expected);
    assert_eq!((expected.wrong_proofs, expected.etag()), (5, device.etag()));
    assert!(expected != *device && expected.is_but_for_refusals(device), "an export of it is put back as unchanged");
    let last = expected.last_refusal.expect("it was refused");
    assert_eq!((last.noted_at, last.since_noted), (later(3_600), 1));
    let mut changed = device.clone();
    changed.disable(None, later(4_000));
    assert!(!changed.is_but_for_refusals(device));
    let replaced = registry.replace(&changed, device.version, &origin()).await.expect("the store answers");
    assert!(replaced, "an operator's change does not fail because somebody guesses");
}

pub(super) async fn an_unknown_device_is_not_made<R: Registry>(registry: &R, cases: &Cases) {
    let attempt = Attempt { device: id("nobody"), ..cases.attempts[0].clone() };
    assert_eq!(registry.reserve(&attempt).await.expect("the store answers"), Reserve::Refused(None));
    for denial in Denial::ALL {
        let refusal = Refusal::new(denial, None, &attempt);
        registry.refuse(&attempt.device, None, &refusal, &origin()).await.expect("the store answers");
    }
    let mut held = device("nobody");
    held.reserve(&attempt);
    let committed = registry.commit(&held, &attempt, &cases.credential, &Beside::NOTHING).await;
    assert!(committed.expect("the store answers").is_err());
    let released = registry.release(&held, &attempt, &Leftover::Unknown, Remains::Nothing).await;
    assert_eq!(released.expect("the store answers"), None);
    assert_eq!(registry.find(&attempt.device).await.expect("the store answers"), None);
}

/// No two devices have one key: neither one after the other nor at once, neither with the key that a device has nor with one
/// that it has had until its newer certificate is seen, by vend, claim and restore. The key of a deleted device is free.
pub async fn a_key_is_one_devices<R: Registry + 'static>(registry: &R) {
    let key = csr("first");
    let attempt = |name: &str, number, csr: &Csr| crate::fixture::attempt(name, number, csr, NOW);
    for name in ["first", "second"] {
        put(registry, &device(name)).await;
    }
    let reserve = async |attempt: &Attempt| registry.reserve(attempt).await.expect("the store answers");
    let first = attempt("first", 1, &key);
    assert!(matches!(reserve(&first).await, Reserve::Held(_)));
    let refused = |reserve: Reserve, name: &str| match reserve {
        Reserve::KeyInUse { owner, device } => assert_eq!((owner, device.id), (id("first"), id(name))),
        other => panic!("{other:?}"),
    };
    let second = attempt("second", 2, &key);
    refused(reserve(&second).await, "second");
    let refused_device = stored(registry, &device("second")).await;
    assert_eq!((refused_device.state, refused_device.keys().len()), (State::Registered, 0), "it is as it was");
    let wrong = Attempt { proof: Proof { token: None, ..second.proof.clone() }, ..second.clone() };
    assert!(matches!(reserve(&wrong).await, Reserve::Refused(Some(_))), "a stranger learns nothing of keys");

    let owner = async || registry.owner_of(key.key().fingerprint()).await.expect("the store answers");
    assert_eq!(owner().await, Some(id("first")));
    let made = credential(&device("first"), &first, &key).await;
    let held = stored(registry, &device("first")).await;
    registry
        .commit(&held, &first, &made, &Beside::NOTHING)
        .await
        .expect("the store answers")
        .expect("it holds the device");
    refused(reserve(&second).await, "second");

    let mut renewed = stored(registry, &device("first")).await;
    let version = renewed.version;
    let superseded = Superseded {
        certificate: made.certificate,
        certificate_name: made.certificate_name.clone(),
        key: made.key,
        thing: made.thing.clone(),
        since: NOW,
    };
    let other = *csr("first").key().fingerprint();
    renewed.credential = Some(Credential { key: other, certificate: CertificateId::of(b"newer"), ..made });
    renewed.superseded = vec![superseded];
    renewed.version += 1;
    assert!(registry.replace(&renewed, version, &origin()).await.expect("the store answers"));
    refused(reserve(&second).await, "second");
    assert_eq!(owner().await, Some(id("first")));
    let version = renewed.version;
    renewed.end_succession(later(1));
    assert!(registry.replace(&renewed, version, &origin()).await.expect("the store answers"));
    assert_eq!(owner().await, None);
    assert!(matches!(reserve(&second).await, Reserve::Held(_)), "the first device has it no more");
    assert_eq!(owner().await, Some(id("second")));

    let tombstone = stored(registry, &device("second")).await.bury(NOW);
    let version = tombstone.device.version - 1;
    assert!(registry.remove(&tombstone, version, &origin()).await.expect("the store answers"));
    put(registry, &device("third")).await;
    let third = attempt("third", 3, &key);
    assert!(matches!(reserve(&third).await, Reserve::Held(_)), "a deleted device has no key");

    let group = GroupCredential::Claim(CertificateId::of(b"a claim"));
    let claim = Claim::new(CertificateId::of(b"a claim"), NOW);
    assert!(registry.put_claim(&claim, None).await.expect("the store answers"));
    let claimed = |name: &str, leaf: &[u8], key: KeyFingerprint| {
        let proof = Proof::of_certificate(CertificateId::of(leaf), key, group);
        let mut claimed = device(name);
        claimed.reserve(&Attempt {
            id: AttemptId::of(&CertificateId::of(leaf)),
            proof,
            ..attempt(name, 9, &csr(name))
        });
        claimed
    };
    let reserve_with_claim = async |device: &Device| {
        registry.reserve_with_claim(&claim, device, 1, &origin()).await.expect("the store answers")
    };
    let key = *csr("third").key().fingerprint();
    put(registry, &device("claimed")).await;
    assert_eq!(reserve_with_claim(&claimed("claimed", b"1", key)).await, Put::Done);
    put(registry, &device("claimed-too")).await;
    let in_use = Put::KeyInUse { key, owner: id("claimed") };
    assert_eq!(reserve_with_claim(&claimed("claimed-too", b"2", key)).await, in_use);
    assert_eq!(stored(registry, &device("claimed-too")).await, device("claimed-too"), "it is as it was");
    let found = registry.find_claim(&claim.certificate).await.expect("the store answers").expect("it is there");
    assert_eq!(found.used, 1, "a refusal is not counted on the claim");
    let in_use = Put::KeyInUse { key: third.proof.key, owner: third.device.clone() };
    assert_eq!(reserve_with_claim(&claimed("claimed-too", b"2", third.proof.key)).await, in_use);

    let restore =
        async |device: &Device| registry.restore(device, &origin(), later(9)).await.expect("the store answers");
    let not_restored = NotRestored::KeyInUse { key, owner: id("claimed") };
    assert_eq!(restore(&claimed("restored", b"3", key)).await, Err(not_restored));
    assert_eq!(registry.find(&id("restored")).await.expect("the store answers"), None);
    let restored_key = *csr("restored").key().fingerprint();
    assert_eq!(restore(&claimed("restored", b"3", restored_key)).await, Ok(true));
    let another = Device { generation: GenerationId::new(77), ..claimed("restored", b"3", restored_key) };
    assert_eq!(restore(&another).await, Ok(false), "the id is taken");
    let in_use = Put::KeyInUse { key: restored_key, owner: id("restored") };
    assert_eq!(reserve_with_claim(&claimed("claimed-too", b"4", restored_key)).await, in_use);

    // A key that is a device's proof is that device's before it has asked for anything.
    let proof = csr("proved");
    let by_key =
        |name: &str| Device { attestation: Attestation::PublicKey { key: *proof.key().fingerprint() }, ..device(name) };
    put(registry, &by_key("proved")).await;
    put(registry, &device("thief")).await;
    let taken = reserve(&attempt("thief", 11, &proof)).await;
    assert!(matches!(&taken, Reserve::KeyInUse { owner, .. } if owner.as_str() == "proved"), "{taken:?}");
    let proved = Attempt {
        proof: Proof { token: None, ..attempt("proved", 12, &proof).proof },
        ..attempt("proved", 12, &proof)
    };
    assert!(matches!(reserve(&proved).await, Reserve::Held(_)));
    put(registry, &device("changed")).await;
    let mut changed = by_key("changed");
    changed.version += 1;
    assert!(registry.replace(&changed, changed.version - 1, &origin()).await.expect("the store answers"), "no harm");

    let shared = csr("many");
    let attempts: Vec<_> = (1..=20).map(|number| attempt(&format!("many-{number}"), number, &shared)).collect();
    for attempt in &attempts {
        put(registry, &device(attempt.device.as_str())).await;
    }
    let tasks: Vec<_> = attempts
        .into_iter()
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

/// Fifty callers for one device at once.
pub async fn fifty_reservations_at_once<R: Registry + 'static>(registry: &R) {
    one_reservation_by_many_servers(std::slice::from_ref(registry)).await;
}

/// Fifty callers for one device at once, by several servers that share one store.
pub async fn one_reservation_by_many_servers<R: Registry + 'static>(registries: &[R]) {
    put(&registries[0], &device("contended")).await;
    let csr = csr("contended");
    let attempts = (1..=50).map(|number| crate::fixture::attempt("contended", number, &csr, NOW));
    let tasks: Vec<_> = attempts
        .zip(registries.iter().cycle())
        .map(|(attempt, registry)| {
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
