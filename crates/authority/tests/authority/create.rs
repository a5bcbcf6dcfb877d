use std::time::Duration;

use cvm_authority::{Authority, AuthorityProfile, CreateError, Curve, LocalSigner, Signer, Tier, Unfit};
use cvm_provisioning::{Certificate, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose};

use crate::support::{Bench, YEAR, below, device_key, id, issuing, named, now, p256, profile, root};

#[tokio::test]
async fn a_root_and_an_issuing_ca_have_the_profiles_of_theirs() {
    let (root, bench) = (root().await, Bench::new());
    let authority = below(&root, "Devices 2026").await;
    bench.write("root.pem", root.certificate().pem());
    bench.write("issuing.pem", authority.certificate().pem());
    assert_eq!(bench.openssl("verify -x509_strict -CAfile root.pem root.pem issuing.pem").matches("OK").count(), 2);
    for (file, length, extensions) in [("root.pem", 1, 4), ("issuing.pem", 0, 5)] {
        let text = bench.openssl(&format!("x509 -in {file} -noout -text -nameopt RFC2253"));
        assert!(
            text.contains(&format!("Constraints: critical\n                CA:TRUE, pathlen:{length}\n")),
            "{text}"
        );
        assert!(text.contains("Key Usage: critical\n                Certificate Sign, CRL Sign\n"), "{text}");
        assert_eq!(text.matches("X509v3 ").count(), extensions, "{text}");
        assert!(text.contains("Issuer: CN=Root,O=Example\n"), "{text}");
    }
}

#[tokio::test]
async fn a_ca_ends_when_it_was_said_and_not_after_the_year_9999() {
    let end = |authority: &Authority<LocalSigner>| Timestamp::from(authority.certificate().not_after());
    let at = now();
    let authority = Authority::create(&named("Root", Tier::Root), p256(), at).await.unwrap();
    assert_eq!(end(&authority), at.after(20 * YEAR).before(Duration::from_secs(1)));
    let forever = AuthorityProfile { validity: Duration::MAX, ..named("Root", Tier::Root) };
    assert_eq!(end(&Authority::create(&forever, p256(), at).await.unwrap()).to_string(), "9999-12-31T23:59:59Z");
    let never = AuthorityProfile { validity: Duration::ZERO, ..named("Root", Tier::Root) };
    assert!(matches!(Authority::create(&never, p256(), at).await, Err(CreateError::NoValidity)));
}

#[tokio::test]
async fn a_ca_below_another_is_bounded_by_it() {
    let (root, key) = (root().await, p256());
    let certify = async |authority: &Authority<LocalSigner>, profile: AuthorityProfile| {
        authority.certify_authority(&profile, key.public_key(), now()).await.map(|_| ())
    };
    let long = AuthorityProfile { validity: 21 * YEAR, ..named("Devices", Tier::Issuing) };
    assert!(matches!(certify(&root, long).await, Err(CreateError::Outlives { .. })));
    assert!(matches!(certify(&root, named("Root 2", Tier::Root)).await, Err(CreateError::PathLength)));
    assert!(matches!(certify(&root, named("Root", Tier::Issuing)).await, Err(CreateError::Itself)));
    assert!(matches!(certify(&issuing().await, named("More", Tier::Issuing)).await, Err(CreateError::PathLength)));
    let own = root.certify_authority(&named("Devices", Tier::Issuing), root.signer().public_key(), now()).await;
    assert!(matches!(own, Err(CreateError::Itself)));
    assert!(certify(&root, named("Devices", Tier::Issuing)).await.is_ok());
}

#[tokio::test]
async fn threat_54_a_ca_whose_certificates_do_not_fit_does_not_start() {
    let (root, other) = (root().await, root().await);
    let authority = below(&root, "Devices").await;
    let reopen = |certificate: &Certificate, above: &[&Certificate], key: &LocalSigner| {
        let key = LocalSigner::from_pem(&key.to_pem(None).unwrap(), None).unwrap();
        Authority::new(certificate.clone(), above.iter().map(|certificate| (*certificate).clone()).collect(), key)
            .map(|_| ())
    };
    let (certificate, key) = (authority.certificate(), authority.signer());
    assert_eq!(reopen(certificate, &[root.certificate()], key), Ok(()));
    assert_eq!(reopen(certificate, &[], key), Ok(()), "the root may be elsewhere");
    assert_eq!(reopen(certificate, &[], other.signer()), Err(Unfit::OtherKey));
    assert_eq!(reopen(certificate, &[other.certificate()], key), Err(Unfit::Chain { position: 0 }), "of the same name");
    let twice = [root.certificate(), certificate];
    assert_eq!(reopen(certificate, &twice, key), Err(Unfit::Chain { position: 1 }));
    let leaf = p256();
    let issued = authority.issue(&profile(), &id(), leaf.public_key(), now()).await.unwrap();
    assert_eq!(reopen(issued.certificate(), &[certificate, root.certificate()], &leaf), Err(Unfit::NoAuthority));
}

#[tokio::test]
async fn threat_54_a_path_that_is_too_long_is_no_chain() {
    // A root that allows no CA below it has one all the same.
    let now = time::OffsetDateTime::now_utc();
    let params = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        (params.not_before, params.not_after) = (now - time::Duration::DAY, now + time::Duration::DAY);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    };
    let (root_key, key) = (KeyPair::generate().unwrap(), p256());
    let pair = KeyPair::from_pem(&key.to_pem(None).unwrap()).unwrap();
    let root = Certificate::parse(&params("Root").self_signed(&root_key).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(params("Root"), &root_key);
    let certificate = Certificate::parse(&params("Devices").signed_by(&pair, &issuer).unwrap().pem()).unwrap();
    assert_eq!(Authority::new(certificate, vec![root], key).map(|_| ()).unwrap_err(), Unfit::Chain { position: 0 });
}

#[tokio::test]
async fn a_ca_of_openssl_issues_and_signs_lists_too() {
    let bench = Bench::new();
    bench.openssl("ecparam -name secp384r1 -genkey -out ca.key");
    let open = |subject: &str| {
        bench.openssl(&format!("req -x509 -new -key ca.key -multivalue-rdn -subj {subject} -days 9 -out ca.pem"));
        let read = |name: &str| std::fs::read_to_string(bench.path().join(name)).unwrap();
        let certificate = Certificate::parse(&read("ca.pem")).unwrap();
        Authority::new(certificate, Vec::new(), LocalSigner::from_pem(&read("ca.key"), None).unwrap())
    };
    let authority = open("/C=DE/O=Example/OU=Devices/CN=Factory").unwrap();
    let profile = profile().at_least(Duration::from_secs(1));
    let issued = authority.issue(&profile, &id(), &device_key(), now()).await.unwrap();
    bench.write("leaf.pem", issued.certificate().pem());
    let crl = authority.sign_crl(Vec::new(), 1, YEAR, now()).await.unwrap();
    bench.write("crl.pem", crl.pem());
    bench.openssl("verify -purpose sslclient -crl_check -CAfile ca.pem -CRLfile crl.pem leaf.pem");

    assert_eq!(open("/OU=One/OU=Two/CN=Factory").unwrap_err(), Unfit::NameBytes);
    assert_eq!(open("/OU=One+CN=Factory").unwrap_err(), Unfit::Name);
}

#[tokio::test]
async fn a_ca_may_have_a_key_on_p384() {
    let bench = Bench::new();
    let key = LocalSigner::generate(Curve::P384).unwrap();
    let authority = Authority::create(&named("Devices", Tier::Issuing), key, now()).await.unwrap();
    bench.write("ca.pem", authority.certificate().pem());
    assert!(bench.openssl("x509 -in ca.pem -noout -text").contains("ecdsa-with-SHA384"));
    bench.openssl("verify -x509_strict -CAfile ca.pem ca.pem");
}
