//! The decision, over every state that a device can be in and every key that can be shown for it.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use cvm_provisioning::{
    Attempt, Decision, Denial, Device, DeviceStore as _, KeyOrigin, Proof, ShownCertificate, State, Verdict,
};
use cvm_testkit::fixture::{NOW, attempt, csr, device, id, later, request};
use cvm_testkit::scenario::World;
use cvm_testkit::{MemoryRegistry, Script};

/// A device that has its certificate, and the attempt that got it.
async fn provisioned(key_origin: KeyOrigin) -> (Device, Attempt) {
    let world = World::new(MemoryRegistry::default(), Device { key_origin, ..device("sn-1") }).await;
    let key = csr("sn-1");
    let sent = (key_origin == KeyOrigin::Device).then_some(&key);
    let vended = world.vend(&Script::default()).vend(request("sn-1", 1, sent, NOW)).await.unwrap();
    let device = world.registry.find(&id("sn-1")).await.unwrap().unwrap();
    let proof = Proof { key: vended.credential.key, ..attempt("sn-1", 1, &key, NOW).proof };
    (device, Attempt { proof, ..attempt("sn-1", 2, &key, later(1)) })
}

/// What is decided for the device's own key, another key, and a key made here.
fn decisions(device: &Device, own: &Attempt) -> [Decision; 3] {
    let other = attempt("sn-1", 3, &csr("sn-1"), own.now);
    let made_here = Attempt { proof: Proof { key_made_here: true, ..other.proof.clone() }, ..other.clone() };
    [device.decide(own), device.decide(&other), device.decide(&made_here)]
}

#[tokio::test]
async fn every_state_decides_about_every_key() {
    let (provisioned, own) = provisioned(KeyOrigin::Device).await;
    let replay = Decision::Replay(provisioned.credential.clone().unwrap());
    let denied = |denial: Denial| Decision::Deny(denial);
    let key_required = denied(Denial::KeyRequired);
    for state in State::ALL {
        let device = Device { state, ..provisioned.clone() };
        let expected = match state {
            State::Registered | State::Reserved => [Decision::Provision, Decision::Provision, key_required.clone()],
            State::Provisioned => [replay.clone(), Decision::Quarantine, key_required.clone()],
            State::Quarantined => [denied(Denial::Quarantined), denied(Denial::Quarantined), key_required.clone()],
            State::Revoked => [denied(Denial::Revoked), denied(Denial::Revoked), key_required.clone()],
        };
        assert_eq!(decisions(&device, &own), expected, "{state:?}");

        let mut disabled = device;
        disabled.disable("stolen".parse().ok(), NOW);
        assert_eq!(decisions(&disabled, &own), [(); 3].map(|()| denied(Denial::Disabled)), "{state:?}");
    }
}

#[tokio::test]
async fn a_reservation_keeps_everybody_else_waiting_until_its_lease_ends() {
    let mut device = device("sn-1");
    let (first, second) = (attempt("sn-1", 1, &csr("sn-1"), NOW), attempt("sn-1", 2, &csr("sn-1"), later(29)));
    device.reserve(&first);
    assert_eq!(device.decide(&first), Decision::Provision, "it is the holder's own");
    assert_eq!(device.decide(&second), Decision::Wait { until: later(30) });
    assert_eq!(device.decide(&Attempt { now: later(30), ..second }), Decision::Provision);
}

#[tokio::test]
async fn threat_38_a_lease_of_a_clock_that_was_ahead_keeps_nobody_waiting() {
    let mut device = device("sn-1");
    let year = 365 * 24 * 60 * 60;
    device.reserve(&attempt("sn-1", 1, &csr("sn-1"), later(year)));
    assert_eq!(device.decide(&attempt("sn-1", 2, &csr("sn-1"), NOW)), Decision::Provision);
    // Another server's clock may be ahead by a little.
    let waits = device.decide(&attempt("sn-1", 2, &csr("sn-1"), later(year - 60)));
    assert_eq!(waits, Decision::Wait { until: later(year + 30) });
}

#[tokio::test]
async fn threat_04_a_renewal_that_died_opens_no_door_to_a_clone() {
    let (provisioned, own) = provisioned(KeyOrigin::Device).await;
    let credential = provisioned.credential.clone().unwrap();
    let shown = Some(ShownCertificate { id: credential.certificate, renewable: false });
    let renewal = attempt("sn-1", 3, &csr("sn-1"), later(1));
    let renewal = Attempt { proof: Proof { shown, token: None, ..renewal.proof }, ..renewal };
    assert_eq!(provisioned.decide(&renewal), Decision::Provision);
    let mut reserved = provisioned;
    reserved.reserve(&renewal);
    let clone = attempt("sn-1", 4, &csr("sn-1"), later(100));
    assert!(matches!(reserved.decide(&clone), Decision::Wait { .. }), "it is decided when the renewal is settled");
    assert_eq!(reserved.decide(&Attempt { now: later(100), ..own }), Decision::Replay(credential));
    let again = attempt("sn-1", 5, &csr("sn-1"), later(100));
    let again = Attempt { proof: Proof { shown, ..again.proof }, ..again };
    assert_eq!(reserved.decide(&again), Decision::Provision);
    reserved.abandon(later(400));
    assert_eq!(reserved.decide(&Attempt { now: later(401), ..clone }), Decision::Quarantine);
}

#[tokio::test]
async fn a_key_made_here_replaces_only_its_like_and_only_in_time() {
    let (made_here, own) = provisioned(KeyOrigin::Service).await;
    let asked = |now| {
        let again = attempt("sn-1", 3, &csr("sn-1"), now);
        made_here.decide(&Attempt { proof: Proof { key_made_here: true, ..again.proof.clone() }, ..again })
    };
    assert_eq!(asked(later(299)), Decision::Provision);
    assert_eq!(asked(later(300)), Decision::Quarantine);
    assert_eq!(made_here.decide(&attempt("sn-1", 3, &csr("sn-1"), own.now)), Decision::Quarantine, "a key of its own");
}

#[tokio::test]
async fn a_device_is_revoked_for_good_unless_it_has_nothing_or_is_about_to_get_something() {
    let (provisioned, own) = provisioned(KeyOrigin::Device).await;
    for state in State::ALL {
        let mut device = Device { state, ..provisioned.clone() };
        let revoked = device.revoke("key leaked".parse().unwrap(), later(2));
        assert_eq!(revoked.is_ok(), state != State::Reserved, "{state:?}");
        if revoked.is_ok() {
            assert_eq!(device.state, State::Revoked);
            assert_eq!(decisions(&device, &own)[..2], [(); 2].map(|()| Decision::Deny(Denial::Revoked)));
            device.renew(later(3)).unwrap_err();
            device.enable(None, later(4));
            assert_eq!(decisions(&device, &own)[..2], [(); 2].map(|()| Decision::Deny(Denial::Revoked)));
        } else {
            assert_eq!(device, Device { state, ..provisioned.clone() });
        }
    }
    device("sn-1").revoke("key leaked".parse().unwrap(), NOW).unwrap_err();
}

#[test]
fn only_a_quarantine_can_be_decided_by_a_person() {
    for state in State::ALL {
        for (verdict, after) in
            [(Verdict::AdmitNextKey, State::Registered), (Verdict::KeepCertificate, State::Provisioned)]
        {
            let mut device = Device { state, ..device("sn-1") };
            let decided = device.approve(verdict, NOW);
            assert_eq!(decided.is_ok(), state == State::Quarantined, "{state:?}");
            assert_eq!(device.state, if decided.is_ok() { after } else { state });
        }
    }
}
