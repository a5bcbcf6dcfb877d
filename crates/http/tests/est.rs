//! EST from the outside: what is taken, what is refused and how, and what is answered.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Method, Request, Response, StatusCode};
use axum::{Extension, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cvm_http::{ClientCertificate, Est, est_router};
use cvm_provisioning::{
    Attestation, Certificate, Changes as _, Csr, Device, DeviceIdFrom, DeviceKey, DeviceStore as _, KeyFingerprint,
    KeyOrigin, RefusedKeys, Vend, encode_der,
};
use cvm_testkit::fixture::{NOW, TOKEN, csr, device, id, origin, templates};
use cvm_testkit::{Fault, Faulty, MemoryAudit, MemoryPlatform, MemoryRegistry, Script};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData as _};
use tower::ServiceExt as _;

/// The service with devices `sn-1` (token) and whatever else a test adds.
struct App {
    audit: MemoryAudit,
    platform: MemoryPlatform,
    registry: MemoryRegistry,
    router: Router,
}

impl App {
    async fn new() -> Self {
        Self::with(&Script::default(), &[]).await
    }

    async fn with(script: &Script, labels: &[&str]) -> Self {
        let (registry, platform, audit) =
            (MemoryRegistry::default(), MemoryPlatform::default(), MemoryAudit::default());
        registry.add(&device("sn-1"), &origin()).await.unwrap();
        let vend = Vend {
            registry: Faulty { inner: registry.clone(), script: script.clone() },
            platform: Faulty { inner: platform.clone(), script: script.clone() },
            audit: audit.clone(),
            templates: templates(),
            refused_keys: RefusedKeys::default(),
        };
        let est = Est {
            ca_certificates: Box::new(|now| {
                assert_eq!(now, NOW);
                vec![certificate("issuing"), certificate("root")]
            }),
            labels: labels.iter().map(|label| label.parse().unwrap()).collect(),
        };
        let router = est_router(Arc::new(vend), est, DeviceIdFrom::CommonName, || NOW);
        Self { audit, platform, registry, router }
    }

    async fn add(&self, device: &Device) {
        assert!(self.registry.add(device, &origin()).await.unwrap());
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        Answer::read(self.router.clone().oneshot(request).await.unwrap()).await
    }

    /// As a connection that was made with this certificate sends it.
    async fn send_with(&self, certificate: &Certificate, request: Request<Body>) -> Answer {
        let router = self.router.clone().layer(Extension(ClientCertificate(Arc::new(certificate.clone()))));
        Answer::read(router.oneshot(request).await.unwrap()).await
    }

    async fn get(&self, operation: &str) -> Answer {
        self.send(Request::get(format!("/.well-known/est/{operation}")).body(Body::empty()).unwrap()).await
    }
}

/// A self-signed certificate of this name.
fn certificate(name: &str) -> Certificate {
    static KEY: std::sync::LazyLock<KeyPair> = std::sync::LazyLock::new(|| KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Certificate::from_der(params.self_signed(&*KEY).unwrap().der()).unwrap()
}

fn credential(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A request with the right token of this device.
fn post(operation: &str, user: &str, body: impl Into<Body>) -> Request<Body> {
    let mut request = anonymous(operation, body);
    request.headers_mut().insert(AUTHORIZATION, credential(user, TOKEN).parse().unwrap());
    request
}

fn anonymous(operation: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(format!("/.well-known/est/{operation}"))
        .header(CONTENT_TYPE, "application/pkcs10")
        .body(body.into())
        .unwrap()
}

fn base64(csr: &Csr) -> String {
    STANDARD.encode(csr.der())
}

#[derive(Debug)]
struct Answer {
    response: Response<()>,
    bytes: Vec<u8>,
}

impl Answer {
    async fn read(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 1 << 20).await.unwrap().to_vec();
        Self { response: Response::from_parts(parts, ()), bytes }
    }

    fn status(&self) -> StatusCode {
        self.response.status()
    }

    fn header(&self, name: impl axum::http::header::AsHeaderName) -> &str {
        self.response.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks that it asks for credentials, and has no body: Bouncy Castle takes one for an error.
    fn asks_for_credentials(&self) {
        assert_eq!((self.status(), self.bytes.len()), (StatusCode::UNAUTHORIZED, 0), "{self:?}");
        assert_eq!(self.header(WWW_AUTHENTICATE), "Basic realm=\"cvm\"");
        assert_eq!(self.header(CONTENT_TYPE), "");
        assert_eq!(self.header("x-request-id").len(), 32);
    }

    /// The code of a problem, after a look at whether the OpenAPI document has it under its status.
    fn problem(&self) -> String {
        assert_eq!(self.header(CONTENT_TYPE), "application/problem+json", "{self:?}");
        let problem: serde_json::Value = serde_json::from_slice(&self.bytes).unwrap();
        assert_eq!(problem["status"], self.status().as_u16());
        let code = problem["code"].as_str().unwrap().to_owned();
        let document: serde_json::Value =
            serde_json::from_str(include_str!("../../../schemas/est.openapi.json")).unwrap();
        let responses = &document["paths"]["/simpleenroll"]["post"]["responses"];
        let description = responses[self.status().as_str()]["description"].as_str().unwrap_or_default();
        assert!(description.split([' ', ',', ':']).any(|word| word == code), "{code} under {}", self.status());
        code
    }

    /// The one certificate that a device got.
    fn enrolled(&self) -> Certificate {
        assert_eq!(self.status(), StatusCode::OK, "{self:?}");
        assert_eq!(self.header(CONTENT_TYPE), "application/pkcs7-mime; smime-type=certs-only");
        assert_eq!(self.header("cache-control"), "no-store");
        assert_eq!(self.header("x-request-id").len(), 32);
        one(&certificates(&self.bytes))
    }
}

fn one(certificates: &[Certificate]) -> Certificate {
    assert_eq!(certificates.len(), 1, "RFC 7030 section 4.2.3: containing only the certificate that was issued");
    certificates[0].clone()
}

/// The certificates of a certs-only PKCS #7 whose base64 is on one line, in their order.
fn certificates(body: &[u8]) -> Vec<Certificate> {
    assert!(body.iter().all(u8::is_ascii_graphic), "the base64 is not on one line");
    let der = STANDARD.decode(body).unwrap();
    let ([0x30], content_info) = value(&der) else { panic!("no SEQUENCE") };
    let rest = content_info.strip_prefix(&encode_der(6, &[b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02"])[..]).unwrap();
    let ([0xa0], explicit) = value(rest) else { panic!("no [0]") };
    let ([0x30], signed_data) = value(explicit) else { panic!("no SignedData") };
    let data = encode_der(0x30, &[&encode_der(6, &[b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01"])]);
    let head = [&[2, 1, 1, 0x31, 0][..], &data].concat();
    let rest = signed_data.strip_prefix(&head[..]).unwrap();
    let mut left = rest.strip_suffix(&[0x31, 0][..]).unwrap();
    let ([0xa0], content) = value(left) else { panic!("no certificates") };
    left = content;
    let mut found = Vec::new();
    while !left.is_empty() {
        let (_, content) = value_at(left);
        found.push(Certificate::from_der(&left[..left.len() - content.len()]).unwrap());
        left = content;
    }
    found
}

/// The tag and the content of the one value that these bytes are.
fn value(der: &[u8]) -> (&[u8], &[u8]) {
    let (content, rest) = value_at(der);
    assert!(rest.is_empty());
    (&der[..1], content)
}

/// The content of the first value, and what follows it.
fn value_at(der: &[u8]) -> (&[u8], &[u8]) {
    let (length, header) = match der[1] {
        length @ 0..=0x7f => (usize::from(length), 2),
        0x81 => (usize::from(der[2]), 3),
        _ => (usize::from(der[2]) << 8 | usize::from(der[3]), 4),
    };
    der[header..].split_at(length)
}

#[tokio::test]
async fn the_cas_certificates_are_given_to_anybody_in_their_order() {
    let app = App::new().await;
    let answer = app.get("cacerts").await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.header(CONTENT_TYPE), "application/pkcs7-mime");
    let names: Vec<_> =
        certificates(&answer.bytes).iter().map(|found| found.common_name().unwrap().unwrap().to_string()).collect();
    assert_eq!(names, ["issuing", "root"]);
}

#[tokio::test]
async fn a_device_gets_its_certificate_and_the_same_again_when_the_answer_was_lost() {
    let app = App::new().await;
    let key = csr("sn-1");
    let first = app.send(post("simpleenroll", "sn-1", base64(&key))).await.enrolled();
    assert_eq!(first.key(), key.key().fingerprint());
    assert_eq!(app.send(post("simpleenroll", "sn-1", base64(&key))).await.enrolled(), first);
    assert_eq!(app.send(post("simplereenroll", "sn-1", base64(&key))).await.enrolled(), first);
    assert_eq!(app.platform.active(), 1);
}

#[tokio::test]
async fn a_request_is_taken_in_every_form_that_clients_send() {
    let app = App::new().await;
    let key = csr("sn-1");
    let lines = base64(&key).as_bytes().chunks(64).map(|line| [line, b"\r\n"].concat()).collect::<Vec<_>>().concat();
    for body in [base64(&key).into_bytes(), lines, key.der().to_vec(), key.pem().into()] {
        for transfer_encoding in [None, Some("base64"), Some("binary")] {
            let mut request = post("simpleenroll", "sn-1", body.clone());
            if let Some(encoding) = transfer_encoding {
                request.headers_mut().insert("content-transfer-encoding", encoding.parse().unwrap());
            }
            app.send(request).await.enrolled();
        }
    }
    assert_eq!(app.platform.active(), 1);
}

#[tokio::test]
async fn who_shows_no_credential_is_asked_for_one_and_nothing_is_counted() {
    let script = Script::default();
    let app = App::with(&script, &[]).await;
    let key = csr("sn-1");
    let digest = "Digest username=\"sn-1\"";
    for scheme in [None, Some(digest), Some("Bearer test-token-with-enough-entropy-0123456789")] {
        for operation in ["simpleenroll", "simplereenroll", "serverkeygen"] {
            let mut request = anonymous(operation, base64(&key));
            if let Some(scheme) = scheme {
                request.headers_mut().insert(AUTHORIZATION, scheme.parse().unwrap());
            }
            let answer = app.send(request).await;
            answer.asks_for_credentials();
            assert_eq!(app.audit.take(), ["Invalid { code: \"unauthenticated\" }"]);
        }
    }
    assert_eq!(script.calls(), 0, "a first request without a credential is no wrong proof");
}

#[tokio::test]
async fn threat_01_every_refusal_is_the_same_answer() {
    let app = App::new().await;
    let mut disabled = device("sn-disabled");
    disabled.disable("stolen".parse().ok(), NOW);
    app.add(&disabled).await;
    app.add(&device("sn-cloned")).await;
    let clone = async || app.send(post("simpleenroll", "sn-cloned", base64(&csr("sn-cloned")))).await;
    clone().await.enrolled();

    let wrong_password = async |operation: &str, name: &str, password: &str| {
        let mut request = post(operation, name, base64(&csr(name)));
        request.headers_mut().insert(AUTHORIZATION, credential(name, password).parse().unwrap());
        app.send(request).await
    };
    let wrong = |operation, name| wrong_password(operation, name, "another-token-0123456789-0123456789");
    let answers = [
        app.send(post("simpleenroll", "sn-unknown", base64(&csr("sn-unknown")))).await,
        wrong("simpleenroll", "sn-1").await,
        wrong("serverkeygen", "sn-1").await,
        app.send(post("simpleenroll", "sn-disabled", base64(&csr("sn-disabled")))).await,
        // A device that makes its own key is not given one.
        app.send(post("serverkeygen", "sn-1", base64(&csr("sn-1")))).await,
        app.send_with(&certificate("sn-1"), anonymous("simplereenroll", base64(&csr("sn-1")))).await,
        app.send_with(&certificate("sn-unknown"), anonymous("simplereenroll", base64(&csr("sn-unknown")))).await,
        clone().await,
        clone().await,
        // Passwords that no token can be.
        wrong_password("simpleenroll", "sn-1", "short").await,
        wrong_password("simpleenroll", "sn-1", "with blanks and \u{e9}").await,
        wrong_password("simpleenroll", "sn-1", &"x".repeat(300)).await,
    ];
    for answer in &answers {
        assert_eq!(answer.problem(), "refused");
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        assert_eq!(answer.bytes, answers[0].bytes);
        let names = |answer: &Answer| answer.response.headers().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(answer), names(&answers[0]));
    }
    let reasons = app.audit.take().join("\n");
    for reason in ["unknown-device", "wrong-proof", "disabled", "key-required", "Quarantined", "quarantined"] {
        assert!(reasons.contains(reason), "{reason} is not in {reasons}");
    }
}

#[tokio::test]
async fn a_key_proves_itself_where_it_is_registered_and_the_password_is_empty() {
    let app = App::new().await;
    let key = csr("sn-2");
    let mut registered = device("sn-2");
    registered.attestation = Attestation::PublicKey { key: *key.key().fingerprint() };
    app.add(&registered).await;
    let send = async |csr: &Csr| {
        let mut request = anonymous("simpleenroll", base64(csr));
        request.headers_mut().insert(AUTHORIZATION, credential("sn-2", "").parse().unwrap());
        app.send(request).await
    };
    assert_eq!(send(&csr("sn-2")).await.problem(), "refused");
    assert_eq!(send(&key).await.enrolled().key(), key.key().fingerprint());
}

#[tokio::test]
async fn an_id_with_colons_is_a_user_name() {
    let app = App::new().await;
    app.add(&device("00:1A:2B:3C:4D:5E")).await;
    let key = csr("00:1A:2B:3C:4D:5E");
    let enrolled = app.send(post("simpleenroll", "00:1A:2B:3C:4D:5E", base64(&key))).await.enrolled();
    assert_eq!(enrolled.key(), key.key().fingerprint());
}

#[tokio::test]
async fn the_certificate_of_the_connection_names_the_device_and_reaches_the_decision() {
    let app = App::new().await;
    let shown = certificate("sn-1");
    let mut registered = device("sn-2");
    let key = csr("sn-2");
    registered.attestation = Attestation::PublicKey { key: *key.key().fingerprint() };
    app.add(&registered).await;
    let enrolled = app.send_with(&certificate("sn-2"), anonymous("simpleenroll", base64(&key))).await.enrolled();
    assert_eq!(enrolled.key(), key.key().fingerprint());
    // Whatever else there is says the same.
    let other = app.send_with(&shown, anonymous("simplereenroll", base64(&csr("sn-2")))).await;
    assert_eq!(other.problem(), "device-id-mismatch");
    let other = app.send_with(&shown, post("simplereenroll", "sn-2", base64(&csr("sn-2")))).await;
    assert_eq!(other.problem(), "device-id-mismatch");
    app.send_with(&shown, post("simplereenroll", "sn-1", base64(&csr("sn-1")))).await.enrolled();
    // A certificate that names no device is no credential.
    let nameless = certificate("AWS IoT Certificate");
    let answer = app.send_with(&nameless, anonymous("simplereenroll", base64(&csr("sn-1")))).await;
    answer.asks_for_credentials();
}

#[tokio::test]
async fn a_csr_without_a_name_is_that_of_whoever_asks() {
    let app = App::new().await;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let nameless = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let enrolled = app.send(post("simpleenroll", "sn-1", nameless.der().to_vec())).await.enrolled();
    let stored = app.registry.find(&id("sn-1")).await.unwrap().unwrap().credential.unwrap();
    assert_eq!(stored.certificate, *enrolled.id());
}

#[tokio::test]
async fn threat_58_a_key_made_here_comes_with_its_certificate_and_once() {
    let app = App::new().await;
    let mut registered = device("sn-2");
    registered.key_origin = KeyOrigin::Service;
    app.add(&registered).await;
    // The key in the request is a makeshift, and its signature too.
    let mut makeshift = csr("sn-2").der().to_vec();
    *makeshift.last_mut().unwrap() ^= 1;
    let answer = app.send(post("serverkeygen", "sn-2", STANDARD.encode(makeshift))).await;
    assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store");
    let boundary = answer.header(CONTENT_TYPE).strip_prefix("multipart/mixed; boundary=").unwrap();
    let body = std::str::from_utf8(&answer.bytes).unwrap();
    let body = body.strip_suffix(&format!("\r\n--{boundary}--\r\n")).unwrap();
    let parts: Vec<_> = body.split(&format!("--{boundary}\r\n")).collect();
    let [before, key, certified] = parts[..] else { panic!("{} parts", parts.len()) };
    assert_eq!(before, "");
    let content = |part: &str, content_type: &str| {
        let head = format!("Content-Type: {content_type}\r\nContent-Transfer-Encoding: base64\r\n\r\n");
        part.strip_prefix(&head).unwrap().trim_end_matches("\r\n").to_owned()
    };
    let key = STANDARD.decode(content(key, "application/pkcs8")).unwrap();
    let key = KeyPair::try_from(key).unwrap();
    let certified = content(certified, "application/pkcs7-mime; smime-type=certs-only");
    let certified = one(&certificates(certified.as_bytes()));
    assert_eq!(*certified.key(), KeyFingerprint::of(&key.subject_public_key_info()));

    // The second one is another key; the first certificate has lost its power.
    let again = app.send(post("serverkeygen", "sn-2", base64(&csr("sn-2")))).await;
    assert_eq!(again.status(), StatusCode::OK);
    assert_ne!(again.bytes, answer.bytes);
    assert_eq!(app.platform.active(), 1);
    assert!(!app.audit.take().join("\n").contains("PRIVATE"));
}

#[tokio::test]
async fn a_client_is_told_to_ask_the_same_again_while_another_attempt_is_under_way() {
    let script = Script::fail(3, Fault::Hold);
    let app = Arc::new(App::with(&script, &[]).await);
    let key = csr("sn-1");
    let first = tokio::spawn({
        let (app, body) = (app.clone(), base64(&key));
        async move { app.send(post("simpleenroll", "sn-1", body)).await }
    });
    script.held().await;
    let second = app.send(post("simpleenroll", "sn-1", base64(&key))).await;
    assert_eq!(second.status(), StatusCode::ACCEPTED);
    assert_eq!(second.header(RETRY_AFTER), "5");
    assert!(second.bytes.is_empty());
    script.resume();
    let enrolled = first.await.unwrap().enrolled();
    assert_eq!(app.send(post("simpleenroll", "sn-1", base64(&key))).await.enrolled(), enrolled);
}

#[tokio::test]
async fn threat_43_a_throttle_is_503_with_a_time_and_the_retry_finishes() {
    for n in 1..=7 {
        let app = App::with(&Script::fail(n, Fault::Throttle), &[]).await;
        let key = csr("sn-1");
        let throttled = app.send(post("simpleenroll", "sn-1", base64(&key))).await;
        assert_eq!((throttled.status(), throttled.problem().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "throttled"));
        assert!((3..=12).contains(&throttled.header(RETRY_AFTER).parse::<u64>().unwrap()));
        app.send(post("simpleenroll", "sn-1", base64(&key))).await.enrolled();
        assert_eq!(app.platform.active(), 1, "call {n}");
    }
}

#[tokio::test]
async fn threats_14_to_26_bad_input_is_a_clear_problem_without_any_effect() {
    let script = Script::default();
    let app = App::with(&script, &[]).await;
    let key = csr("sn-1");
    let whole = base64(&key);
    let (private_key, _) = DeviceKey::generate(&id("sn-1")).unwrap();
    let send = |body: Vec<u8>| post("simpleenroll", "sn-1", body);
    let header = |name: &'static str, value: &str| {
        let mut request = send(whole.clone().into());
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    };
    let authorization = |value: &str| header("authorization", value);
    let mut twice = send(whole.clone().into());
    twice.headers_mut().append(AUTHORIZATION, credential("sn-1", TOKEN).parse().unwrap());
    let mut query = send(whole.clone().into());
    *query.uri_mut() = format!("/.well-known/est/simpleenroll?token={TOKEN}").parse().unwrap();
    let cases = [
        ("csr-invalid", send(b"".into())),
        ("csr-invalid", send(b"0".into())),
        ("csr-invalid", send(b"\xff\xfe".into())),
        ("csr-invalid", send(whole.as_bytes()[..whole.len() - 8].into())),
        ("csr-invalid", send([key.der(), &[0]].concat())),
        ("csr-invalid", send(key.pem().repeat(2).into())),
        ("csr-invalid", send(vec![b'A'; Csr::MAX_TEXT])),
        ("csr-invalid", post("serverkeygen", "sn-1", whole[..whole.len() - 8].to_owned())),
        ("private-key-sent", send(private_key.pem().into())),
        ("private-key-sent", post("serverkeygen", "sn-1", private_key.pem().to_owned())),
        ("body-too-large", send(vec![b'A'; Csr::MAX_TEXT + 1])),
        ("body-too-large", send(vec![0x30; 1 << 20])),
        ("device-id-mismatch", send(base64(&csr("sn-2")).into())),
        ("device-id-mismatch", post("serverkeygen", "sn-1", base64(&csr("sn-2")))),
        ("content-type-unsupported", header("content-type", "application/json")),
        ("content-type-unsupported", header("content-encoding", "gzip")),
        ("authorization-invalid", authorization("Basic")),
        ("authorization-invalid", authorization("Basic !")),
        ("authorization-invalid", authorization("Basic c24tMQ==")),
        ("device-id-invalid", authorization(&credential("../sn-1", TOKEN))),
        ("device-id-invalid", authorization(&credential("", TOKEN))),
        ("header-repeated", twice),
        ("query-not-allowed", query),
    ];
    for (number, (code, request)) in cases.into_iter().enumerate() {
        let answer = app.send(request).await;
        assert_eq!(answer.problem(), code, "case {number}");
        assert_eq!(app.audit.take(), [format!("Invalid {{ code: {code:?} }}")], "case {number}");
        assert!(!String::from_utf8_lossy(&answer.bytes).contains(TOKEN));
    }
    assert_eq!(script.calls(), 0, "nobody was asked");
}

#[tokio::test]
async fn threat_26_what_est_does_not_have_is_not_found() {
    let app = App::new().await;
    let request = post("fullcmc", "sn-1", Vec::new());
    assert_eq!(app.send(request).await.problem(), "not-found");
    for operation in ["", "cacerts/", "CACERTS", "label/cacerts", "cacerts/cacerts"] {
        assert_eq!(app.get(operation).await.problem(), "not-found", "{operation}");
    }
    let answer = app.get("simpleenroll").await;
    assert_eq!((answer.problem().as_str(), answer.header(ALLOW)), ("method-not-allowed", "POST"));
    let mut request = post("cacerts", "sn-1", Vec::new());
    *request.method_mut() = Method::DELETE;
    let answer = app.send(request).await;
    assert_eq!((answer.problem().as_str(), answer.header(ALLOW)), ("method-not-allowed", "GET,HEAD"));
}

#[tokio::test]
async fn a_label_of_the_configuration_is_another_address_and_any_other_is_none() {
    let app = App::with(&Script::default(), &["factory", "v1.2"]).await;
    for label in ["factory", "v1.2"] {
        assert_eq!(certificates(&app.get(&format!("{label}/cacerts")).await.bytes).len(), 2);
    }
    let key = csr("sn-1");
    let first = app.send(post("factory/simpleenroll", "sn-1", base64(&key))).await.enrolled();
    assert_eq!(app.send(post("simpleenroll", "sn-1", base64(&key))).await.enrolled(), first);
    for other in ["Factory", "v1", "factory/factory"] {
        assert_eq!(app.get(&format!("{other}/cacerts")).await.problem(), "not-found");
    }
}

#[tokio::test]
async fn the_attributes_ask_for_a_key_on_p256_and_a_signature_with_sha256() {
    let answer = App::new().await.get("csrattrs").await;
    assert_eq!(answer.header(CONTENT_TYPE), "application/csrattrs");
    // As `openssl asn1parse` reads it: SEQUENCE { SEQUENCE { id-ecPublicKey, SET { prime256v1 } }, ecdsa-with-SHA256 }.
    let expected =
        b"\x30\x21\x30\x15\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x31\x0a\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\
                     \x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
    assert_eq!(STANDARD.decode(&answer.bytes).unwrap(), expected);
}

#[tokio::test]
async fn the_openapi_document_has_the_operations_that_there_are() {
    let app = App::new().await;
    let document: serde_json::Value = serde_json::from_str(include_str!("../../../schemas/est.openapi.json")).unwrap();
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 5);
    for (path, operations) in paths {
        for (method, expected) in [("get", StatusCode::OK), ("post", StatusCode::UNAUTHORIZED)] {
            let mut request = anonymous(path.trim_start_matches('/'), Vec::new());
            *request.method_mut() = method.to_uppercase().parse().unwrap();
            let status = app.send(request).await.status();
            let is_there = operations.get(method).is_some();
            assert_eq!(status, if is_there { expected } else { StatusCode::METHOD_NOT_ALLOWED }, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn libest_gets_base64_on_lines_and_others_get_it_on_one() {
    let app = App::new().await;
    let key = csr("sn-1");
    let request = |client: &str, method: Method, operation: &str| {
        let mut request = post(operation, "sn-1", base64(&key));
        *request.method_mut() = method;
        request.headers_mut().insert("user-agent", client.parse().unwrap());
        request
    };
    // Each answer of `cacerts` has other signatures here.
    let (wrapped, line) = (request("libest client 1.0", Method::GET, "cacerts"), app.get("cacerts").await.bytes);
    assert!(app.send(wrapped).await.bytes.contains(&b'\n') && !line.contains(&b'\n'));
    for (method, operation) in [(Method::GET, "csrattrs"), (Method::POST, "simpleenroll")] {
        let wrapped = app.send(request("libest client 1.0", method.clone(), operation)).await.bytes;
        assert!(wrapped.ends_with(b"\n") && wrapped.split(|byte| *byte == b'\n').all(|line| line.len() <= 64));
        for other in ["strongSwan/5.9", "curl/8 libest"] {
            let line = app.send(request(other, method.clone(), operation)).await.bytes;
            let joined: Vec<u8> = wrapped.iter().copied().filter(|byte| *byte != b'\n').collect();
            assert_eq!(line, joined, "{operation} for {other}");
        }
    }
}

#[tokio::test]
async fn the_type_of_a_body_that_is_asked_for_is_that_of_est() {
    let app = App::new().await;
    for content_type in ["text/plain", "application/json"] {
        let mut request = post("simpleenroll", "sn-1", base64(&csr("sn-1")));
        request.headers_mut().insert(CONTENT_TYPE, content_type.parse().unwrap());
        let answer = app.send(request).await;
        assert_eq!(answer.problem(), "content-type-unsupported");
        let text = String::from_utf8(answer.bytes).unwrap();
        assert!(
            text.contains("application/pkcs10") && !text.contains("json\"") && !text.contains("application/json"),
            "{text}"
        );
    }
}
