use cvm_authority::{
    Authorities, Authority, AuthorityProfile, IssueError, RevocationReason, RevokedCertificate, SetError,
    SharedAuthorities, Signer, Tier, Unfit,
};
use cvm_provisioning::Timestamp;

use crate::support::{Bench, DAY, YEAR, below, device_key, id, named, now, p256, profile, root};

#[tokio::test]
async fn threat_55_what_was_issued_before_a_rotation_is_trusted_and_can_be_revoked_after_it() {
    let (root, bench) = (root().await, Bench::new());
    let mut authorities = Authorities::new(below(&root, "Devices 1").await, Vec::new()).unwrap();
    let before = authorities.issue(&profile(), &id(), &device_key(), now()).await.unwrap();
    authorities.rotate(below(&root, "Devices 2").await, now()).unwrap();
    let after = authorities.issue(&profile(), &id(), &device_key(), now()).await.unwrap();
    assert_ne!(before.issuer(), after.issuer());
    assert_eq!(after.issuer(), authorities.current().certificate().key());

    let trusted: String = authorities.trusted(now()).iter().map(|certificate| certificate.pem()).collect();
    assert_eq!(trusted.matches("BEGIN").count(), 3, "two that issued and one root");
    bench.write("trusted.pem", trusted);
    bench.write("before.pem", before.certificate().pem());
    bench.write("after.pem", after.certificate().pem());
    bench.openssl("verify -x509_strict -purpose sslclient -CAfile trusted.pem before.pem after.pem");

    let entry = RevokedCertificate {
        serial_number: before.serial_number().clone(),
        revoked_at: now(),
        reason: RevocationReason::Unspecified,
        not_after: before.certificate().not_after().into(),
    };
    let issuer = authorities.find(before.issuer()).unwrap();
    let list = issuer.sign_crl([entry], 1, 7 * DAY, now()).await.unwrap();
    assert!(!bench.trusts("before.pem", "trusted.pem", &list));
    let list = authorities.current().sign_crl(Vec::new(), 1, 7 * DAY, now()).await.unwrap();
    assert!(bench.trusts("after.pem", "trusted.pem", &list));
}

#[tokio::test]
async fn two_cas_of_one_name_or_key_are_no_set() {
    let root = root().await;
    let (first, namesake) = (below(&root, "Devices").await, below(&root, "Devices").await);
    let id = *first.certificate().id();
    let mut authorities = Authorities::new(first, Vec::new()).unwrap();
    assert_eq!(authorities.rotate(namesake, now()), Err(SetError::SameName { id }));
    assert_eq!(authorities.iter().count(), 1, "nothing has changed");

    let key = authorities.current().signer().to_pem(None).unwrap();
    let same = cvm_authority::LocalSigner::from_pem(&key, None).unwrap();
    let same = Authority::create(&named("Other", Tier::Issuing), same, now()).await.unwrap();
    assert_eq!(authorities.rotate(same, now()), Err(SetError::SameKey { id }));
    let [first, second] = [below(&root, "A").await, below(&root, "A").await];
    assert!(matches!(Authorities::new(first, vec![second]), Err(SetError::SameName { .. })));
}

#[tokio::test]
async fn a_ca_that_is_not_valid_is_not_rotated_to() {
    let root = root().await;
    let mut authorities = Authorities::new(below(&root, "Devices 1").await, Vec::new()).unwrap();
    let profile = AuthorityProfile { validity: DAY, ..named("Devices 2", Tier::Issuing) };
    let over = Authority::create(&profile, p256(), now().before(2 * DAY)).await.unwrap();
    assert!(matches!(authorities.rotate(over, now()), Err(SetError::Unfit(Unfit::Expired { .. }))));
    assert_eq!(authorities.iter().count(), 1);
}

#[tokio::test]
async fn threat_55_the_next_ca_is_trusted_before_it_issues_and_its_key_is_no_devices() {
    let root = root().await;
    let (first, next) = (below(&root, "Devices 1").await, below(&root, "Devices 2").await);
    let (key, id_of_next) = (next.signer().public_key().clone(), *next.certificate().id());
    let shared = SharedAuthorities::new(Authorities::new(first, vec![next]).unwrap());
    let before = shared.load();
    assert!(before.trusted(now()).iter().any(|certificate| *certificate.id() == id_of_next));
    assert!(matches!(before.issue(&profile(), &id(), &key, now()).await, Err(IssueError::OwnKey)));

    let other = shared.clone();
    other.store(Authorities::new(below(&root, "Devices 3").await, Vec::new()).unwrap());
    assert_eq!(shared.load().iter().count(), 1);
    assert_eq!(before.iter().count(), 2, "what is under way goes on with those it has");
}

#[tokio::test]
async fn threat_23_the_key_of_an_earlier_ca_is_no_devices() {
    let root = root().await;
    let mut authorities = Authorities::new(below(&root, "Devices 1").await, Vec::new()).unwrap();
    let old = authorities.current().signer().public_key().clone();
    authorities.rotate(below(&root, "Devices 2").await, now()).unwrap();
    let error = authorities.issue(&profile(), &id(), &old, now()).await.unwrap_err();
    assert!(matches!(error, IssueError::OwnKey), "{error}");
}

#[tokio::test]
async fn an_earlier_ca_is_forgotten_when_it_has_ended_and_not_before() {
    let root = root().await;
    let mut authorities = Authorities::new(below(&root, "Devices 1").await, Vec::new()).unwrap();
    let first = *authorities.current().certificate().key();
    let end = Timestamp::from(authorities.current().certificate().not_after());
    authorities.rotate(below(&root, "Devices 2").await, now()).unwrap();
    authorities.forget_expired(end);
    assert!(authorities.find(&first).is_some() && authorities.trusted(end).len() == 3);
    authorities.forget_expired(end.after(DAY));
    assert!(authorities.find(&first).is_none());
    assert_eq!(authorities.trusted(end.after(20 * YEAR)).len(), 0);
    assert_eq!(authorities.iter().count(), 1, "the current one stays, whatever the time");
}
