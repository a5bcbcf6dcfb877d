//! What becomes of signing requests: those of honest devices, and those in the threat list. `fixtures/README.md` says
//! how the files were made.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::time::{Duration, Instant};

use cvm_provisioning::{
    BadDer, BadKey, BadName, BadPem, BadSignature, Csr, CsrError, DeviceKey, InvalidDeviceId, KeyAlgorithm,
    KeyFingerprint,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("fixtures/", $name, ".pem"))
    };
}

fn refusal(text: &str) -> CsrError {
    Csr::parse(text).unwrap_err()
}

#[test]
fn requests_as_devices_send_them_are_accepted() {
    for (text, algorithm) in [
        (fixture!("p256"), KeyAlgorithm::P256),
        (fixture!("p256_sha512"), KeyAlgorithm::P256),
        (fixture!("p384"), KeyAlgorithm::P384),
        (fixture!("p521"), KeyAlgorithm::P521),
        (fixture!("p521_sha256"), KeyAlgorithm::P521),
        (fixture!("rsa_2048"), KeyAlgorithm::Rsa { bits: 2048 }),
        (fixture!("rsa_2056_sha384"), KeyAlgorithm::Rsa { bits: 2056 }),
        (fixture!("rsa_4096_sha512"), KeyAlgorithm::Rsa { bits: 4096 }),
    ] {
        let csr = Csr::parse(text).unwrap();
        assert_eq!(csr.key().algorithm(), algorithm);
        assert_eq!(csr.common_name().unwrap().as_str(), "sn-0001");
        assert_eq!(csr.pem(), text);
        assert_eq!(Csr::from_der(csr.der()), Ok(csr));
    }
}

#[test]
fn a_request_names_its_key_and_need_not_name_its_device() {
    let csr = Csr::parse(fixture!("no_subject")).unwrap();
    assert_eq!(csr.common_name(), None);
    assert_eq!(csr.key(), Csr::parse(fixture!("p256")).unwrap().key());

    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let csr = Csr::from_der(request.der()).unwrap();
    assert_eq!(csr.subject().common_name(), Err(BadName::CommonName(InvalidDeviceId::Character)));
    assert_eq!(csr.common_name(), None);
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "sn:1");
    let csr = Csr::from_der(params.serialize_request(&key).unwrap().der()).unwrap();
    assert_eq!(csr.key().fingerprint(), &KeyFingerprint::of(&key.subject_public_key_info()));
}

#[test]
fn threat_16_requested_extensions_are_wishes_that_do_not_matter() {
    assert_eq!(Csr::parse(fixture!("san_eku")).unwrap().key(), Csr::parse(fixture!("p256")).unwrap().key());
}

#[test]
fn threat_16_a_request_to_become_a_ca_is_refused() {
    for text in [fixture!("ca_true"), fixture!("key_cert_sign"), fixture!("crl_sign")] {
        assert_eq!(refusal(text), CsrError::Authority);
    }
}

#[test]
fn threat_17_two_common_names_are_refused() {
    assert_eq!(refusal(fixture!("two_cns")), CsrError::Name(BadName::Repeated));
    assert_eq!(refusal(fixture!("multi_valued_rdn")), CsrError::Name(BadName::MultiValued));
}

#[test]
fn threat_17_a_common_name_in_an_old_encoding_is_refused() {
    assert_eq!(refusal(fixture!("cn_bmp")), CsrError::Name(BadName::StringType { found: "BMPString" }));
    assert_eq!(refusal(fixture!("cn_teletex")), CsrError::Name(BadName::StringType { found: "TeletexString" }));
}

#[test]
fn threat_18_weak_and_odd_signature_algorithms_are_refused() {
    for (text, found) in [
        (fixture!("rsa_md5"), "RSA and MD5"),
        (fixture!("rsa_sha1"), "RSA and SHA-1"),
        (fixture!("rsa_pss"), "RSA-PSS"),
        (fixture!("ecdsa_sha1"), "ECDSA and SHA-1"),
        (fixture!("ecdsa_sha224"), "ECDSA and SHA-224"),
    ] {
        assert_eq!(refusal(text), CsrError::Signature(BadSignature::Algorithm { found }));
    }
}

/// The request with the last place where `from` stands replaced.
fn replaced(text: &str, from: &[u8], to: &[u8]) -> Result<Csr, CsrError> {
    assert_eq!(from.len(), to.len());
    let mut der = Csr::parse(text).unwrap().der().to_vec();
    let place = der.windows(from.len()).rposition(|window| window == from).unwrap();
    der[place..place + to.len()].copy_from_slice(to);
    Csr::from_der(&der)
}

#[test]
fn threat_18_a_signature_counts_for_its_key_bytes_and_algorithm_only() {
    let wrong = |error| Err(CsrError::Signature(error));
    let (p256, rsa) = (fixture!("p256"), fixture!("rsa_2048"));
    assert_eq!(replaced(p256, b"sn-0001", b"sn-0002"), wrong(BadSignature::Wrong));
    // ECDSA with SHA-384 rather than SHA-256, then with the same length but an RSA algorithm's meaning.
    let ecdsa = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    assert_eq!(replaced(p256, &ecdsa, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3]), wrong(BadSignature::Wrong));
    // NULL becomes an empty OCTET STRING.
    let sha256 = [0x86, 0xf7, 0x0d, 1, 1, 11, 5, 0];
    let octets = [0x86, 0xf7, 0x0d, 1, 1, 11, 4, 0];
    assert_eq!(replaced(rsa, &sha256, &octets), wrong(BadSignature::Parameters));
}

#[test]
fn threat_18_a_signature_algorithm_belongs_to_the_kind_of_key() {
    let rsa = Csr::parse(fixture!("rsa_2048")).unwrap();
    let ecdsa = Csr::parse(fixture!("p256")).unwrap();
    // The body of one and the algorithm and signature of the other.
    let info = |der: &[u8]| der[4..8 + usize::from(u16::from_be_bytes([der[6], der[7]]))].to_vec();
    let ecdsa_tail = ecdsa.der().windows(2).position(|window| window == [0x30, 0x0a]).unwrap();
    let content = [info(rsa.der()), ecdsa.der()[ecdsa_tail..].to_vec()].concat();
    let [.., high, low] = content.len().to_be_bytes();
    let mixed = [vec![0x30, 0x82, high, low], content].concat();
    assert_eq!(Csr::from_der(&mixed), Err(CsrError::Signature(BadSignature::OtherKey)));
}

#[test]
fn threat_19_keys_that_can_be_broken_are_refused() {
    for (text, error) in [
        (fixture!("rsa_1024"), BadKey::RsaTooSmall { bits: 1024 }),
        (fixture!("rsa_8192"), BadKey::RsaTooLarge { bits: 8192 }),
        (fixture!("rsa_exponent_3"), BadKey::RsaExponent { found: 3 }),
        (fixture!("rsa_roca"), BadKey::RsaRoca),
        (fixture!("rsa_close_primes"), BadKey::RsaClosePrimes),
    ] {
        assert_eq!(refusal(text), CsrError::Key(error));
    }
}

#[test]
fn threat_19_keys_that_aws_iot_does_not_take_are_refused() {
    for (text, error) in [
        (fixture!("p224"), BadKey::Curve { found: "P-224" }),
        (fixture!("secp256k1"), BadKey::Curve { found: "secp256k1" }),
        (fixture!("brainpool"), BadKey::Curve { found: "a Brainpool curve" }),
        (fixture!("explicit_curve"), BadKey::ExplicitCurve),
        (fixture!("compressed_point"), BadKey::CompressedPoint),
        (fixture!("ed25519"), BadKey::Algorithm { found: "Ed25519" }),
        (fixture!("ed448"), BadKey::Algorithm { found: "Ed448" }),
        (fixture!("dsa"), BadKey::Algorithm { found: "DSA" }),
        (fixture!("rsa_pss_key"), BadKey::Algorithm { found: "RSA restricted to PSS" }),
    ] {
        assert_eq!(refusal(text), CsrError::Key(error));
    }
}

#[test]
fn threat_21_a_request_is_sent_on_in_one_form_however_it_came() {
    let canonical = fixture!("p256");
    assert_eq!(Csr::parse(fixture!("new_label")).unwrap().key(), Csr::parse(canonical).unwrap().key());
    let bare: String = canonical.lines().filter(|line| !line.starts_with('-')).collect();
    for text in [
        canonical.replace('\n', "\r\n"),
        canonical.replace('\n', "\\n"),
        canonical.replace('\n', "\\r\\n"),
        canonical.replace('\n', ""),
        canonical.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"),
        bare,
    ] {
        assert_eq!(Csr::parse(&text).unwrap().pem(), canonical, "{text}");
    }
}

#[test]
fn threat_21_exactly_one_request_is_accepted() {
    let text = fixture!("p256");
    assert_eq!(refusal(&text.repeat(2)), CsrError::Pem(BadPem::SeveralBlocks));
    assert_eq!(refusal(&format!("Bag Attributes\n{text}")), CsrError::Pem(BadPem::TextAround));
    assert_eq!(refusal(fixture!("certificate")), CsrError::Pem(BadPem::Label));
    let der = Csr::parse(text).unwrap().der().to_vec();
    let trailing = CsrError::Encoding(BadDer::TrailingBytes { count: 1 });
    assert_eq!(Csr::from_der(&[&der[..], &[0]].concat()), Err(trailing));
    let twice = CsrError::Encoding(BadDer::TrailingBytes { count: der.len() });
    assert_eq!(Csr::from_der(&der.repeat(2)), Err(twice));
}

#[test]
fn threat_21_a_private_key_is_told_to_be_burnt_and_never_shown() {
    let (key, csr) = DeviceKey::generate(&"sn-0001".parse().unwrap()).unwrap();
    let bare: String = key.pem().lines().filter(|line| !line.starts_with('-')).collect();
    for text in [key.pem(), &bare, &format!("{}{}", csr.pem(), key.pem()), &key.pem().replace('\n', "\\n")] {
        let error = refusal(text);
        assert_eq!(error, CsrError::PrivateKey);
        assert!(error.to_string().contains("burnt"));
    }
    let body = csr.pem().lines().nth(1).unwrap();
    assert!(!format!("{csr:?}").contains(body));
}

#[test]
fn threat_22_the_size_is_bounded_before_anything_is_read() {
    for length in [Csr::MAX_DER + 1, 65_537] {
        assert_eq!(Csr::from_der(&vec![0x30; length]), Err(CsrError::TooLong { length }));
    }
    let (length, limit) = (Csr::MAX_TEXT + 1, Csr::MAX_TEXT);
    assert_eq!(refusal(&"A".repeat(length)), CsrError::Pem(BadPem::TooLong { length, limit }));
    assert_eq!(refusal(""), CsrError::Pem(BadPem::Empty));
    assert_eq!(Csr::from_der(&[]), Err(CsrError::Encoding(BadDer::Truncated)));
    assert_eq!(Csr::from_der(&[0x30]), Err(CsrError::Encoding(BadDer::Truncated)));
}

#[test]
fn the_longest_request_is_the_longest_that_aws_iot_takes() {
    let request = |padding: usize| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "sn-0001");
        params.distinguished_name.push(DnType::OrganizationName, "x".repeat(padding));
        let der = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        (der.len(), Csr::from_der(&der))
    };
    // An ECDSA signature's length varies by a few bytes, so the longest is approached from below.
    let longest = (2600..2800).filter_map(|padding| request(padding).1.ok()).max_by_key(|csr| csr.der().len()).unwrap();
    assert!((Csr::MAX_DER - 8..=Csr::MAX_DER).contains(&longest.der().len()));
    assert!((Csr::MAX_PEM - 12..=Csr::MAX_PEM).contains(&longest.pem().len()));
    let (length, result) = request(3000);
    assert_eq!(result, Err(CsrError::TooLong { length }));
}

#[test]
fn threat_22_hostile_encodings_are_refused_at_once() {
    let nested: Vec<u8> = (0..741)
        .rev()
        .flat_map(|depth: u16| {
            let [high, low] = (depth * 4).to_be_bytes();
            [0x30, 0x82, high, low]
        })
        .collect();
    for (der, error) in [
        (vec![0x30, 0x80, 0x00, 0x00], Some(BadDer::IndefiniteLength)),
        (vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff], Some(BadDer::Length)),
        (vec![0x30, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Some(BadDer::Length)),
        (vec![0x30, 0x82, 0xff, 0xff], Some(BadDer::Truncated)),
        (vec![0x30; Csr::MAX_DER], None),
        (vec![0xa0; Csr::MAX_DER], None),
        (nested, None),
    ] {
        let start = Instant::now();
        let refusals: Vec<CsrError> = (0..100).map(|_| Csr::from_der(&der).unwrap_err()).collect();
        assert!(start.elapsed() / 100 < Duration::from_millis(10));
        let refusal = refusals[0];
        assert!(matches!(refusal, CsrError::Encoding(found) if error.is_none_or(|error| error == found)), "{refusal}");
    }
}

#[test]
fn threat_22_what_is_nested_in_an_ignored_extension_is_not_entered() {
    let bomb = [0x30; 2000];
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "sn-0001");
    params.custom_extensions.push(rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], bomb.to_vec()));
    let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
    assert!(Csr::from_der(request.der()).is_ok());
}

#[test]
fn a_version_other_than_1_is_refused_with_its_encoding() {
    let mut der = Csr::parse(fixture!("p256")).unwrap().der().to_vec();
    let version = der.windows(3).position(|window| window == [2, 1, 0]).unwrap();
    for found in [1, 2] {
        der[version + 2] = found;
        let error = Csr::from_der(&der).unwrap_err();
        assert_eq!(error, CsrError::Version { found });
        assert!(error.to_string().contains(&format!("encoded as {found}: set it to 0")), "{error}");
    }
}

fn seeded() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(24), ..ProptestConfig::with_cases(2000) }
}

proptest! {
    #![proptest_config(seeded())]

    /// ECDSA signatures are malleable: a changed one may count, but only for the same bytes and so the same key.
    #[test]
    fn threat_24_a_changed_request_never_passes_with_another_key(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        for text in [fixture!("p256"), fixture!("rsa_2048"), fixture!("san_eku")] {
            let original = Csr::parse(text).unwrap();
            let mut der = original.der().to_vec();
            for (place, mask) in &flips {
                *place.get_mut(&mut der) ^= mask;
            }
            if let Some(end) = cut {
                der.truncate(end.index(der.len()));
            }
            if let Ok(changed) = Csr::from_der(&der) {
                prop_assert_eq!(changed.key(), original.key());
                prop_assert_eq!(changed.common_name(), original.common_name());
            }
        }
    }

    #[test]
    fn threat_24_no_text_makes_it_panic(
        begin in "(-----BEGIN CERTIFICATE REQUEST-----)?",
        body in r"[\\nrA-Za-z0-9+/=\s-]{0,200}",
        end in r"(-----END CERTIFICATE REQUEST-----)?\PC*",
    ) {
        prop_assert!(Csr::parse(&(begin + &body + &end)).is_err());
    }
}
