use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use cvm_authority::{
    Authority, AuthorityProfile, Defect, IssueError, LocalSigner, Profile, Signer, SigningError, Tier, Unfit,
};
use cvm_provisioning::{Csr, CsrError, DeviceId, KeyFingerprint, PublicKey, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PublicKeyData, RsaKeySize, SanType,
};

use crate::support::{
    Bench, DAY, Elsewhere, YEAR, below, device_key, id, issuing, look, named, now, p256, profile, root,
};

#[tokio::test]
async fn a_devices_certificate_is_a_tls_clients_and_nothing_else() {
    let (root, bench, key) = (root().await, Bench::new(), device_key());
    let authority = below(&root, "Devices").await;
    let issued = authority.issue(&profile(), &id(), &key, now()).await.unwrap();
    bench.write("root.pem", root.certificate().pem());
    bench.write("chain.pem", issued.chain());
    let verify = "verify -x509_strict -purpose sslclient -CAfile root.pem -untrusted chain.pem chain.pem";
    assert_eq!(bench.openssl(verify), "chain.pem: OK\n");
    assert!(!bench.ask(&verify.replace("sslclient", "sslserver")).0, "it is no server's");

    let text = bench.openssl("x509 -in chain.pem -noout -text -nameopt RFC2253");
    for expected in [
        "Version: 3 (0x2)",
        "Signature Algorithm: ecdsa-with-SHA256",
        "Issuer: CN=Devices,O=Example",
        "Subject: CN=sn-0001\n",
        "X509v3 Basic Constraints: critical\n                CA:FALSE",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "X509v3 Extended Key Usage: \n                TLS Web Client Authentication\n",
        "X509v3 Subject Key Identifier",
        "X509v3 Authority Key Identifier",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert_eq!(text.matches("X509v3 ").count(), 6, "five extensions and their heading: {text}");
    assert_eq!(issued.chain().matches("BEGIN CERTIFICATE").count(), 2, "the root is at hand where it is trusted");
    assert!(issued.chain().starts_with(issued.certificate().pem()));
    look(issued.certificate().pem(), |leaf| {
        assert_eq!(leaf.public_key().raw, key.spki());
        assert_eq!(
            leaf.raw_serial().strip_prefix(&[0]).unwrap_or_else(|| leaf.raw_serial()),
            issued.serial_number().as_bytes()
        );
    });
    assert_eq!(issued.issuer(), authority.certificate().key());
}

#[tokio::test]
async fn a_certificate_has_the_uri_and_the_addresses_of_its_profile_and_no_others() {
    let (authority, bench) = (issuing().await, Bench::new());
    let profile = profile()
        .with_uri_prefix("spiffe://example.org/device/".parse().unwrap())
        .with_revocation("http://pki.example.org/cvm/".parse().unwrap());
    let name = authority.published_name();
    let longest: DeviceId = "x".repeat(64).parse().unwrap();
    for id in [id(), longest] {
        let issued = authority.issue(&profile, &id, &device_key(), now()).await.unwrap();
        bench.write("leaf.pem", issued.certificate().pem());
        let text = bench.openssl("x509 -in leaf.pem -noout -text");
        assert!(
            text.contains(&format!("Alternative Name: \n                URI:spiffe://example.org/device/{id}\n")),
            "{text}"
        );
        for expected in [
            &format!("URI:http://pki.example.org/cvm/crl/{name}.crl\n"),
            "OCSP - URI:http://pki.example.org/cvm/ocsp\n",
            &format!("CA Issuers - URI:http://pki.example.org/cvm/ca/{name}.cer\n"),
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert_eq!(text.matches("URI:").count(), 4);
    }
}

#[tokio::test]
async fn a_certificate_never_outlives_its_issuer() {
    let authority = issuing().await;
    let end = Timestamp::from(authority.certificate().not_after());
    let issue = async |profile: Profile, now: Timestamp| {
        let issued = authority.issue(&profile, &id(), &device_key(), now).await?;
        Ok::<_, IssueError>(Timestamp::from(issued.certificate().not_after()))
    };
    assert_eq!(issue(Profile::new(90 * DAY), now()).await.unwrap(), now().after(90 * DAY - Duration::from_secs(1)));
    // Exactly as long as the issuer, and a second longer.
    let exactly = end.before(90 * DAY - Duration::from_secs(1));
    assert_eq!(issue(Profile::new(90 * DAY), exactly).await.unwrap(), end);
    let later = exactly.after(Duration::from_secs(1));
    let error = issue(Profile::new(90 * DAY), later).await.unwrap_err();
    assert!(matches!(error, IssueError::EndsTooSoon { at } if at == end), "{error}");
    // Where that is wanted, it ends with it.
    assert_eq!(issue(Profile::new(90 * DAY).at_least(DAY), later).await.unwrap(), end);
    assert_eq!(
        issue(Profile::new(90 * DAY).at_least(DAY), end.before(DAY - Duration::from_secs(1))).await.unwrap(),
        end
    );
    assert!(issue(Profile::new(90 * DAY).at_least(DAY), end.before(DAY - Duration::from_secs(2))).await.is_err());
    assert_eq!(issue(Profile::new(Duration::MAX).at_least(DAY), now()).await.unwrap(), end);
    assert!(matches!(issue(Profile::new(Duration::ZERO), now()).await, Err(IssueError::NoValidity)));
}

#[tokio::test]
async fn a_certificate_is_good_on_a_clock_that_is_five_minutes_slow_but_not_before_its_issuer() {
    let authority = issuing().await;
    let begin = Timestamp::from(authority.certificate().not_before());
    let at = now().after(DAY);
    let issued = authority.issue(&profile(), &id(), &device_key(), at).await.unwrap();
    assert_eq!(Timestamp::from(issued.certificate().not_before()), at.before(Duration::from_secs(300)));
    let issued = authority.issue(&profile(), &id(), &device_key(), begin.after(Duration::from_secs(7))).await.unwrap();
    assert_eq!(Timestamp::from(issued.certificate().not_before()), begin);
}

#[tokio::test]
async fn threat_38_and_54_an_authority_that_is_not_valid_now_does_not_issue() {
    let authority = issuing().await;
    let later = now().after(10 * YEAR);
    let error = authority.issue(&profile(), &id(), &device_key(), later).await.unwrap_err();
    assert!(matches!(error, IssueError::Unfit(Unfit::Expired { .. })), "{error}");
    let earlier = now().before(10 * YEAR);
    let error = authority.issue(&profile(), &id(), &device_key(), earlier).await.unwrap_err();
    assert!(matches!(error, IssueError::Unfit(Unfit::NotYet { .. })), "{error}");
    for never in [i64::MIN, i64::MAX] {
        assert!(authority.issue(&profile(), &id(), &device_key(), Timestamp::from_seconds(never)).await.is_err());
    }
}

/// Everything that a device could wish to be.
fn wishes(is_ca: bool) -> CertificateParams {
    let mut wishes = CertificateParams::default();
    wishes.distinguished_name = DistinguishedName::new();
    wishes.distinguished_name.push(DnType::OrganizationName, "Evil");
    wishes.distinguished_name.push(DnType::CommonName, "sn-9999");
    wishes.subject_alt_names = vec![
        SanType::DnsName("admin.example.org".try_into().unwrap()),
        SanType::URI("urn:example:device:sn-0002".try_into().unwrap()),
        SanType::Rfc822Name("root@example.org".try_into().unwrap()),
        SanType::IpAddress([10, 0, 0, 1].into()),
    ];
    wishes.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    wishes.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::Any,
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::CodeSigning,
        ExtendedKeyUsagePurpose::OcspSigning,
    ];
    let mut policy = CustomExtension::from_oid_content(&[2, 5, 29, 32], vec![0x30, 6, 0x30, 4, 6, 2, 0x2a, 3]);
    policy.set_criticality(true);
    wishes.custom_extensions =
        vec![policy, CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99], b"\x0c\x04evil".to_vec())];
    if is_ca {
        wishes.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wishes.key_usages.extend([KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign]);
    }
    wishes
}

#[tokio::test]
async fn threat_16_nothing_that_a_request_wishes_gets_into_the_certificate() {
    let (authority, bench) = (issuing().await, Bench::new());
    for is_ca in [false, true] {
        let pair = KeyPair::generate().unwrap();
        let request = wishes(is_ca).serialize_request(&pair).unwrap();
        bench.write("request.der", request.der());
        let asked = bench.openssl("req -inform DER -in request.der -noout -text");
        assert!(asked.contains("admin.example.org") && asked.contains("Any Extended Key Usage"), "{asked}");
        let key = match Csr::from_der(request.der()) {
            Ok(csr) => csr.key().clone(),
            // The domain refuses it; and if it did not, the key would still be all that is taken.
            Err(CsrError::Authority) if is_ca => PublicKey::from_spki(&pair.subject_public_key_info()).unwrap(),
            Err(error) => panic!("{error}"),
        };
        let plain = authority.issue(&profile(), &id(), &device_key(), now()).await.unwrap();
        let issued = authority.issue(&profile(), &id(), &key, now()).await.unwrap();
        let said = [plain, issued].map(|issued| {
            bench.write("leaf.pem", issued.certificate().pem());
            let text =
                bench.openssl("x509 -in leaf.pem -noout -text -certopt no_sigdump,no_pubkey,no_serial,no_validity");
            let own = bench.openssl("x509 -in leaf.pem -noout -ext subjectKeyIdentifier");
            text.replace(own.lines().last().unwrap().trim(), "OWN KEY")
        });
        assert_eq!(said[0], said[1], "it says the same as one for a key without wishes");
        let said = said[1].to_lowercase();
        for wish in
            ["evil", "sn-9999", "admin", "root@", "any extended", "server", "ca:true", "policies", "alternative"]
        {
            assert!(!said.contains(wish), "{wish}: {said}");
        }
    }
}

#[tokio::test]
async fn every_key_that_the_domain_takes_is_certified_by_every_ca_key() {
    let mut keys: Vec<KeyPair> =
        [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ECDSA_P521_SHA512]
            .map(|algorithm| KeyPair::generate_for(algorithm).unwrap())
            .into();
    keys.push(KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap());
    let bench = Bench::new();
    for authority_key in &keys {
        let signer = LocalSigner::from_pem(&authority_key.serialize_pem(), None).unwrap();
        assert_eq!(*signer.public_key().fingerprint(), KeyFingerprint::of(&authority_key.subject_public_key_info()));
        let authority = Authority::create(&named("Devices", Tier::Issuing), signer, now()).await.unwrap();
        bench.write("ca.pem", authority.certificate().pem());
        for key in keys.iter().filter(|key| key.public_key_raw() != authority_key.public_key_raw()) {
            let key = PublicKey::from_spki(&key.subject_public_key_info()).unwrap();
            let issued = authority.issue(&profile(), &id(), &key, now()).await.unwrap();
            bench.write("leaf.pem", issued.certificate().pem());
            bench.openssl("verify -x509_strict -purpose sslclient -CAfile ca.pem leaf.pem");
        }
    }
}

#[tokio::test]
async fn threat_23_the_key_of_a_ca_or_of_one_above_it_is_no_devices() {
    let root = root().await;
    let authority = below(&root, "Devices").await;
    for key in [root.signer().public_key(), authority.signer().public_key()] {
        let error = authority.issue(&profile(), &id(), key, now()).await.unwrap_err();
        assert!(matches!(error, IssueError::OwnKey), "{error}");
    }
}

#[tokio::test]
async fn an_id_that_no_common_name_can_have_is_refused_and_not_cut() {
    let long: DeviceId = "x".repeat(65).parse().unwrap();
    let error = issuing().await.issue(&profile(), &long, &device_key(), now()).await.unwrap_err();
    assert!(matches!(error, IssueError::LongName { length: 65 }), "{error}");
}

#[tokio::test]
async fn a_key_elsewhere_that_fails_or_signs_wrongly_issues_nothing() {
    let copy = |signer: &LocalSigner| LocalSigner::from_pem(&signer.to_pem(None).unwrap(), None).unwrap();
    let signer = p256();
    let made = Authority::create(&named("Devices", Tier::Issuing), copy(&signer), now()).await.unwrap();
    let certificate = made.certificate().clone();
    let elsewhere = |signs_with, left| Elsewhere { signer: copy(&signer), signs_with, left: AtomicUsize::new(left) };
    let authority = Authority::new(certificate.clone(), Vec::new(), elsewhere(copy(&signer), 1)).unwrap();
    assert!(authority.issue(&profile(), &id(), &device_key(), now()).await.is_ok());
    let error = authority.issue(&profile(), &id(), &device_key(), now()).await.unwrap_err();
    assert!(matches!(&error, IssueError::Signing(signing) if signing.is_for_now()), "{error}");
    let authority = Authority::new(certificate, Vec::new(), elsewhere(p256(), 1)).unwrap();
    let error = authority.issue(&profile(), &id(), &device_key(), now()).await.unwrap_err();
    assert!(matches!(error, IssueError::Signing(SigningError::Defect(Defect::Signature))), "{error}");
}

#[tokio::test]
async fn serial_numbers_and_signatures_of_the_same_request_differ() {
    let (authority, key, now) = (issuing().await, device_key(), now());
    let first = authority.issue(&profile(), &id(), &key, now).await.unwrap();
    let second = authority.issue(&profile(), &id(), &key, now).await.unwrap();
    assert_ne!(first.serial_number(), second.serial_number());
    assert!(first.serial_number().as_bytes().len() >= 16, "128 bits and more, but for a chance of 2^-24");
}

#[tokio::test]
async fn possession_of_a_cas_key_is_proved_for_a_day_by_a_key_that_nobody_has() {
    let authority = issuing().await;
    let proof = authority.prove_possession(&"66cdc109d6afd663".parse().unwrap(), now()).await.unwrap();
    assert_ne!(proof.key(), authority.certificate().key());
    assert!(Timestamp::from(proof.not_after()) < now().after(DAY));
    assert_eq!(proof.common_name().unwrap().unwrap().as_str(), "66cdc109d6afd663");
    let short = AuthorityProfile { validity: Duration::from_secs(60), ..named("Devices", Tier::Issuing) };
    let authority = Authority::create(&short, p256(), now()).await.unwrap();
    let proof = authority.prove_possession(&"66cdc109d6afd663".parse().unwrap(), now()).await.unwrap();
    assert_eq!(proof.not_after(), authority.certificate().not_after());
}

#[test]
fn issuing_can_be_waited_for_on_any_thread() {
    fn is_send<T: Send>(future: T) -> T {
        future
    }
    let issue = async {
        let authority = issuing().await;
        is_send(authority.issue(&profile(), &id(), &device_key(), now())).await.unwrap();
        is_send(authority.sign_crl(Vec::new(), 1, DAY, now())).await.unwrap();
    };
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(issue);
}
