use cvm_authority::{
    Authorities, Authority, InvalidOcspRequest, LocalSigner, OcspRequest, OcspResponder, SharedAuthorities,
};
use cvm_provisioning::{Certificate, CertificateLedger, LedgerEntry, Standing, ThingName};
use cvm_testkit::MemoryLedger;

use crate::support::{Bench, DAY, below, device_key, id, now, profile, root};

/// A CA with a ledger, and OpenSSL as the one who asks.
struct World {
    bench: Bench,
    responder: OcspResponder<LocalSigner, MemoryLedger>,
    authorities: SharedAuthorities<LocalSigner>,
    ledger: MemoryLedger,
}

impl World {
    async fn new() -> Self {
        let root = root().await;
        let authorities =
            SharedAuthorities::new(Authorities::new(below(&root, "Devices 1").await, Vec::new()).unwrap());
        let (bench, ledger) = (Bench::new(), MemoryLedger::default());
        bench.write("root.pem", root.certificate().pem());
        bench.write("issuing.pem", authorities.load().current().certificate().pem());
        let responder = OcspResponder::new(authorities.clone(), ledger.clone());
        Self { bench, responder, authorities, ledger }
    }

    /// Issues a certificate and enters it into the ledger.
    async fn issue(&self, name: &str) -> Certificate {
        let issued = self.authorities.load().issue(&profile(), &id(), &device_key(), now()).await.unwrap();
        let certificate = issued.certificate().clone();
        self.bench.write(name, certificate.pem());
        let entry = LedgerEntry {
            id: *certificate.id(),
            issuer: issued.issuer().to_string(),
            serial: issued.serial_number().to_string(),
            pem: certificate.pem().to_owned(),
            thing: ThingName::try_from("sn-0001".to_owned()).unwrap(),
            not_after: certificate.not_after().into(),
            standing: Standing::Active,
            since: now(),
        };
        self.ledger.enter(&entry).await.unwrap();
        certificate
    }

    /// What OpenSSL asks with these words.
    fn request(&self, words: &str) -> Vec<u8> {
        self.bench.openssl(&format!("ocsp -issuer issuing.pem {words} -reqout request.der"));
        std::fs::read(self.bench.path().join("request.der")).unwrap()
    }

    /// What OpenSSL makes of the answer to the last request, after it has verified it.
    async fn ask(&self, words: &str) -> String {
        let request = self.request(words);
        let answer = self.responder.answer(&request, now()).await;
        self.bench.write("response.der", answer.der());
        // It compares the nonces; without the first word it would put another one into the request that it reads.
        let words = words.replace("-no_nonce", "");
        let files = "-reqin request.der -respin response.der -issuer issuing.pem -CAfile root.pem";
        self.bench.openssl(&format!("ocsp -no_nonce {files} {words}"))
    }
}

#[tokio::test]
async fn threat_56_openssl_believes_what_is_said_of_a_certificate_by_either_hash() {
    let world = World::new().await;
    let certificate = world.issue("device.pem").await;
    for words in ["-cert device.pem", "-sha256 -cert device.pem", "-no_nonce -cert device.pem"] {
        assert!(world.ask(words).await.contains("device.pem: good"), "{words}");
    }
    let set = async |standing| world.ledger.set_standing(certificate.id(), standing, now()).await.unwrap();
    set(Standing::Inactive).await;
    let held = world.ask("-cert device.pem").await;
    assert!(held.contains("device.pem: revoked") && held.contains("certificateHold"), "{held}");
    set(Standing::Active).await;
    assert!(world.ask("-cert device.pem").await.contains("device.pem: good"));
    set(Standing::Revoked).await;
    let revoked = world.ask("-cert device.pem").await;
    assert!(revoked.contains("device.pem: revoked") && !revoked.contains("Reason"), "{revoked}");
}

#[tokio::test]
async fn a_number_that_was_never_issued_is_unknown_and_each_of_several_has_its_own_answer() {
    let world = World::new().await;
    let revoked = world.issue("first.pem").await;
    world.issue("second.pem").await;
    world.ledger.set_standing(revoked.id(), Standing::Revoked, now()).await.unwrap();
    let said = world.ask("-cert first.pem -cert second.pem -serial 0xC0FFEE").await;
    assert!(said.contains("first.pem: revoked") && said.contains("second.pem: good"), "{said}");
    assert!(said.contains("0xC0FFEE: unknown"), "{said}");
}

#[tokio::test]
async fn threat_55_a_ca_that_was_rotated_away_from_goes_on_answering_with_its_own_key() {
    let world = World::new().await;
    world.issue("device.pem").await;
    // The one before is made again from its own key, as a server does that reads its folder.
    let before = world.authorities.load();
    let key = LocalSigner::from_pem(&before.current().signer().to_pem(None).unwrap(), None).unwrap();
    let above = before.current().above().to_vec();
    let before = Authority::new(before.current().certificate().clone(), above, key).unwrap();
    let other_root = root().await;
    world.authorities.store(Authorities::new(below(&other_root, "Devices 2").await, vec![before]).unwrap());
    assert!(world.ask("-cert device.pem").await.contains("device.pem: good"));
}

#[tokio::test]
async fn what_cannot_be_answered_says_so_without_a_signature() {
    let world = World::new().await;
    world.issue("device.pem").await;
    let failure = |code: u8| vec![0x30, 3, 0x0a, 1, code];
    let good = world.request("-cert device.pem");
    for length in 0..good.len() {
        assert_eq!(world.responder.answer(&good[..length], now()).await.der(), failure(1), "{length}");
    }
    let more = [good.as_slice(), &[0]].concat();
    assert_eq!(world.responder.answer(&more, now()).await.der(), failure(1));
    // Somebody else's certificate.
    let stranger = root().await;
    world.bench.write("stranger.pem", stranger.certificate().pem());
    world.bench.openssl("ocsp -issuer stranger.pem -serial 1 -reqout strange.der");
    let strange = std::fs::read(world.bench.path().join("strange.der")).unwrap();
    let answer = world.responder.answer(&strange, now()).await;
    assert!(answer.der() == failure(6) && !answer.is_cacheable());
    // No byte of a request can be changed so that the answer is about another certificate and still passes for one.
    for position in 0..good.len() {
        let mut changed = good.clone();
        changed[position] ^= 1;
        world.responder.answer(&changed, now()).await;
    }
}

#[tokio::test]
async fn a_request_is_bounded_in_every_direction() {
    let world = World::new().await;
    let serials = |count: usize| (1..=count).map(|number| format!("-serial {number} ")).collect::<String>();
    let most = world.request(&serials(OcspRequest::MAX_CERTIFICATES));
    assert_eq!(OcspRequest::parse(&most).unwrap().certificates().len(), OcspRequest::MAX_CERTIFICATES);
    let more = world.request(&serials(OcspRequest::MAX_CERTIFICATES + 1));
    assert_eq!(OcspRequest::parse(&more), Err(InvalidOcspRequest::TooMany));
    let long = vec![0x30; OcspRequest::MAX_LENGTH + 1];
    assert!(matches!(OcspRequest::parse(&long), Err(InvalidOcspRequest::TooLong { .. })));
    let sha512 = world.request("-sha512 -serial 1");
    assert_eq!(OcspRequest::parse(&sha512), Err(InvalidOcspRequest::Hash));
    assert!(OcspRequest::parse(&world.request("-serial 0")).is_err());

    assert_eq!(OcspRequest::parse(&world.request("-serial 1")).unwrap().nonce().map(<[u8]>::len), Some(16));
    assert_eq!(OcspRequest::parse(&world.request("-no_nonce -serial 1")).unwrap().nonce(), None);
}

#[test]
fn what_must_not_be_passed_over_is_refused() {
    let nonce = |length: usize| extension(NONCE, &[], &tlv(0x04, &[&vec![7; length]]));
    let (plain, version_2) = (request(&[], &[]), tlv(0xa0, &[&[0x02, 1, 1]]));
    assert_eq!(OcspRequest::parse(&plain).unwrap().certificates()[0].serial_number().to_string(), "01");
    assert_eq!(OcspRequest::parse(&request(&version_2, &[])), Err(InvalidOcspRequest::Version));
    for length in [1, 32, 33, 64, 127, 128] {
        let request = OcspRequest::parse(&request(&[], &nonce(length))).unwrap();
        assert_eq!(request.nonce(), Some(vec![7; length].as_slice()));
    }
    for bad in [nonce(0), nonce(129), [nonce(1), nonce(1)].concat()] {
        assert_eq!(OcspRequest::parse(&request(&[], &bad)), Err(InvalidOcspRequest::Nonce));
    }
    let critical = [0x01, 1, 0xff];
    assert!(OcspRequest::parse(&request(&[], &extension(UNKNOWN, &[], &[]))).is_ok());
    let refused = OcspRequest::parse(&request(&[], &extension(UNKNOWN, &critical, &[])));
    assert_eq!(refused, Err(InvalidOcspRequest::Extension));
}

/// A request for the certificate 1 of some CA, with a version and extensions.
fn request(version: &[u8], extensions: &[u8]) -> Vec<u8> {
    let hash = tlv(0x30, &[&[0x06, 5, 0x2b, 0x0e, 3, 2, 0x1a]]);
    let certificate = tlv(0x30, &[&hash, &tlv(0x04, &[&[0; 20]]), &tlv(0x04, &[&[1; 20]]), &[0x02, 1, 1]]);
    let list = tlv(0x30, &[&tlv(0x30, &[&certificate])]);
    let extensions = if extensions.is_empty() { Vec::new() } else { tlv(0xa2, &[&tlv(0x30, &[extensions])]) };
    tlv(0x30, &[&tlv(0x30, &[version, &list, &extensions])])
}

fn extension(name: &[u8], critical: &[u8], value: &[u8]) -> Vec<u8> {
    tlv(0x30, &[&tlv(0x06, &[name]), critical, &tlv(0x04, &[value])])
}

/// A value in DER of at most 255 octets.
fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u8::try_from(content.len()).unwrap();
    let long: &[u8] = if length < 0x80 { &[] } else { &[0x81] };
    [&[tag], long, &[length], &content].concat()
}

/// 1.3.6.1.5.5.7.48.1.2.
const NONCE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 2];
/// 1.3.6.1.5.5.7.48.1.99.
const UNKNOWN: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 99];

#[tokio::test]
async fn an_answer_is_believed_for_an_hour_and_one_that_repeats_a_nonce_is_nobody_elses() {
    let world = World::new().await;
    let request = world.request("-no_nonce -serial 1");
    let answer = world.responder.answer(&request, now()).await;
    assert!(answer.is_cacheable());
    assert!(!world.responder.answer(&world.request("-serial 1"), now()).await.is_cacheable());
    let old = world.responder.answer(&request, now().before(DAY)).await;
    world.bench.write("old.der", old.der());
    let said = world.bench.openssl("ocsp -no_nonce -issuer issuing.pem -serial 1 -respin old.der -CAfile root.pem");
    assert!(said.contains("WARNING: Status times invalid"), "{said}");
}
