//! Claims, the devices that are reserved by them, and the users whom they are made out to.

use cvm_provisioning::{
    Attempt, AttemptId, CertificateId, Changes as _, Claim, Device, GroupCredential, KeyFingerprint, MadeOut, Proof,
    Put, Status, TrustedUser, TrustedUserClaim,
};

use super::{put, stored};
use crate::fixture::{NOW, device, id, later, origin};
use crate::scenario::Registry;

pub(super) async fn a_reservation_by_claim_is_counted_with_it_or_not_made<R: Registry>(registry: &R) {
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
            prepared: None,
        });
        device
    };
    let first = reserved(b"1", &unclaimed);
    let reserve = async |device: &Device, version| {
        registry.reserve_with_claim(&claim, device, version, &origin()).await.expect("the store answers")
    };
    assert_eq!(reserve(&first, 1).await, Put::Changed, "no such claim");
    assert!(registry.put_claim(&claim, None).await.expect("the store answers"));
    assert_eq!(reserve(&first, 1).await, Put::Done);
    assert_eq!(reserve(&first, 1).await, Put::Changed, "that version is gone");
    let (found, stored) = registry.look_up(&claim.certificate, &first.id).await.expect("the store answers");
    assert_eq!(found, Some(Claim { used: 1, ..claim.clone() }));
    assert_eq!(stored, Some(first.clone()));

    let second = reserved(b"d", &first);
    assert_eq!(reserve(&second, first.version).await, Put::Done);
    let third = reserved(b"z", &device("claimed-too"));
    put(registry, &device("claimed-too")).await;
    assert_eq!(reserve(&third, 1).await, Put::Changed, "it is used up");
    let expired = Claim { quota: None, expires_at: Some(third.updated_at), ..claim.clone() };
    assert!(registry.put_claim(&expired, Some(&claim)).await.expect("the store answers"));
    assert_eq!(reserve(&third, 1).await, Put::Changed, "it has expired");
    let revoked = Claim { quota: None, status: Status::disabled("leaked".parse().ok(), NOW), ..claim.clone() };
    assert!(registry.put_claim(&revoked, Some(&claim)).await.expect("the store answers"));
    assert_eq!(reserve(&third, 1).await, Put::Changed, "it is revoked");
    let unchanged = registry.look_up(&claim.certificate, &third.id).await.expect("the store answers");
    assert_eq!(unchanged, (Some(Claim { used: 2, ..revoked }), Some(device("claimed-too"))));
    let nobody = registry.look_up(&CertificateId::of(b"nobody"), &id("nobody")).await.expect("the store answers");
    assert_eq!(nobody, (None, None));
}

pub(super) async fn a_claim_is_made_out_with_its_device_or_not_at_all<R: Registry>(registry: &R) {
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

pub(super) async fn an_operator_who_changes_a_claim_keeps_its_count<R: Registry>(registry: &R) {
    let claim = Claim::new(CertificateId::of(b"edited claim"), NOW);
    assert!(registry.put_claim(&claim, None).await.expect("the store answers"));
    let mut claimed = device("edited-claim");
    put(registry, &claimed).await;
    claimed.version += 1;
    let reserved = registry.reserve_with_claim(&claim, &claimed, 1, &origin()).await.expect("the store answers");
    assert_eq!(reserved, Put::Done);
    for changed in [Claim { quota: Some(5), expires_at: Some(later(9)), ..claim.clone() }, claim.clone()] {
        assert!(registry.put_claim(&changed, Some(&claim)).await.expect("the store answers"));
        let expected = Claim { used: 1, ..changed };
        assert_eq!(registry.find_claim(&claim.certificate).await.expect("the store answers"), Some(expected));
    }
}

pub(super) async fn nobody_undoes_a_revocation_that_they_did_not_see<R: Registry>(registry: &R) {
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

pub(super) async fn a_user_has_so_many_claims_a_day<R: Registry>(registry: &R) {
    let (one, other) = ("one".parse().expect("a user"), "other".parse().expect("a user"));
    let mut counted = Vec::new();
    for (user, day, quota) in
        [(&one, 1, 2), (&one, 1, 2), (&one, 1, 2), (&other, 1, 2), (&one, 2, 2), (&one, 1, 3), (&other, 9, 0)]
    {
        counted.push(registry.count_claim(user, day, quota).await.expect("the store answers"));
    }
    assert_eq!(counted, [true, true, false, true, true, true, false]);
}
