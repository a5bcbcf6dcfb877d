//! `POST /v1/certificates` from the outside: what is taken, what is refused and how, and what is answered.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::{ACCEPT, ALLOW, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{Method, Request, Response, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cvm_http::{DeviceChain, Handout, Problem, RootCa, router};
use cvm_provisioning::{
    Certificate, Changes as _, Csr, Device, DeviceIdFrom, DeviceStore as _, KeyOrigin, RefusedKeys, Vend,
};
use cvm_testkit::fixture::{NOW, TOKEN, csr, device, id, origin, templates};
use cvm_testkit::{Fault, Faulty, MemoryAudit, MemoryPlatform, MemoryRegistry, Script};
use serde_json::{Value, json};
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
        Self::with_script(&Script::default()).await
    }

    async fn with_script(script: &Script) -> Self {
        Self::build(script, DeviceIdFrom::CommonName, || NOW, DeviceChain::default()).await
    }

    async fn build(script: &Script, device_id_from: DeviceIdFrom, clock: cvm_http::Clock, chain: DeviceChain) -> Self {
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
        let mut handout = Handout::new("mqtt.example.com".parse().unwrap(), RootCa::amazon().unwrap());
        handout.chain = chain;
        Self { audit, platform, registry, router: router(Arc::new(vend), handout, device_id_from, clock) }
    }

    async fn add(&self, device: &Device) {
        assert!(self.registry.add(device, &origin()).await.unwrap());
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        Answer::read(self.router.clone().oneshot(request).await.unwrap()).await
    }

    /// Sends a JSON body with the right token.
    async fn post(&self, body: &Value) -> Answer {
        self.send(post(body.to_string())).await
    }
}

fn post(body: impl Into<Body>) -> Request<Body> {
    Request::post("/v1/certificates")
        .header(CONTENT_TYPE, "application/json")
        .header(AUTHORIZATION, format!("Bearer {TOKEN}"))
        .body(body.into())
        .unwrap()
}

fn body(csr: &Csr) -> Value {
    let body = json!({"deviceId": "sn-1", "csr": csr.pem()});
    assert_valid(include_str!("../../../schemas/vend-request.schema.json"), &body);
    body
}

fn assert_valid(schema: &str, instance: &Value) {
    let validator = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    if let Err(error) = validator.validate(instance) {
        panic!("{error}: {instance}");
    }
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

    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }

    /// What a device got, after a look at its schema.
    fn vended(&self) -> Value {
        assert!(self.status().is_success(), "{self:?}");
        let answer = self.json();
        assert_valid(include_str!("../../../schemas/vend-answer.schema.json"), &answer);
        answer
    }

    /// The code of a problem, after a look at everything that a problem has to have.
    fn problem(&self) -> String {
        assert_eq!(self.header(CONTENT_TYPE), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_valid(include_str!("../../../schemas/problem.schema.json"), &problem);
        assert_eq!(problem["status"], self.status().as_u16());
        let code = problem["code"].as_str().unwrap().to_owned();
        assert_eq!(problem["type"], format!("urn:cvm:problem:{code}"));
        assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()));
        code
    }
}

#[tokio::test]
async fn a_device_gets_its_certificate_and_the_same_again_when_the_answer_was_lost() {
    let app = App::new().await;
    let key = csr("sn-1");
    let first = app.post(&body(&key)).await;
    assert_eq!(first.status(), StatusCode::CREATED, "{first:?}");
    assert_eq!(first.header("cache-control"), "no-store");
    assert_eq!(first.header("x-request-id").len(), 32);
    let answer = first.vended();
    assert_eq!(answer["deviceId"], "sn-1");
    assert_eq!(answer["thingName"], "sn-1");
    assert_eq!(answer["endpoint"], "mqtt.example.com");
    assert_eq!(answer["deviceConfiguration"], json!({"topic": "devices/sn-1"}));
    assert_eq!(answer["notAfter"], "2049-12-31T00:00:00Z");
    assert_eq!(answer["caPem"], RootCa::amazon().unwrap().pem());
    assert_eq!(answer.get("privateKeyPem"), None);

    let again = app.post(&body(&key)).await;
    assert_eq!(again.status(), StatusCode::OK);
    assert_eq!(again.vended(), answer);
    assert_eq!(app.platform.active(), 1);
}

#[tokio::test]
async fn curl_and_openssl_are_a_client() {
    let app = App::new().await;
    let key = csr("sn-1");
    let wrapped =
        STANDARD.encode(key.der()).as_bytes().chunks(64).map(|line| [line, b"\r\n"].concat()).collect::<Vec<_>>();
    for sent in [key.der().to_vec(), STANDARD.encode(key.der()).into_bytes(), wrapped.concat(), key.pem().into()] {
        let mut request = post(sent);
        request.headers_mut().insert(CONTENT_TYPE, "application/pkcs10".parse().unwrap());
        request.headers_mut().insert(ACCEPT, "application/x-pem-file".parse().unwrap());
        let answer = app.send(request).await;
        assert!(answer.status().is_success(), "{answer:?}");
        assert_eq!(answer.header(CONTENT_TYPE), "application/x-pem-file");
        assert!(answer.bytes.starts_with(b"-----BEGIN CERTIFICATE-----\n"));
        assert!(answer.bytes.ends_with(b"-----END CERTIFICATE-----\n"));
    }
    assert_eq!(app.platform.active(), 1);
}

#[tokio::test]
async fn the_issuing_ca_comes_behind_the_certificate_in_pem_and_in_der() {
    let issuer = RootCa::amazon().unwrap().certificate().clone();
    let chain = DeviceChain::new({
        let issuer = issuer.clone();
        move |_| vec![issuer.clone()]
    });
    let app = App::build(&Script::default(), DeviceIdFrom::CommonName, || NOW, chain).await;
    let key = csr("sn-1");
    let vended = app.post(&body(&key)).await.vended();
    let sent = Certificate::parse_chain(vended["certificatePem"].as_str().unwrap()).unwrap();
    assert_eq!((sent.len(), &sent[1]), (2, &issuer));
    let ask = async |body: Vec<u8>, accept: &str| {
        let mut request = post(body);
        request.headers_mut().insert(ACCEPT, accept.parse().unwrap());
        app.send(request).await
    };
    let with_csr = body(&key).to_string().into_bytes();
    let pem = ask(with_csr.clone(), "application/x-pem-file").await;
    assert_eq!(pem.bytes, vended["certificatePem"].as_str().unwrap().as_bytes());
    let der = ask(with_csr.clone(), "application/pkix-cert").await;
    assert_eq!((der.header(CONTENT_TYPE), &der.bytes[..]), ("application/pkix-cert", &sent[0].der()[..]));
    let pkcs7 = ask(with_csr, "application/pkcs7-mime").await;
    assert_eq!(pkcs7.header(CONTENT_TYPE), "application/pkcs7-mime; smime-type=certs-only");
    let both = [sent[0].der(), sent[1].der()].concat();
    assert!(pkcs7.bytes.windows(both.len()).any(|part| part == both), "both certificates, one behind the other");

    // A private key has no place in DER: the answer would be of no use, and asking again looks like a clone.
    let mut registered = device("sn-2");
    registered.key_origin = KeyOrigin::Service;
    app.add(&registered).await;
    for accept in ["application/pkix-cert", "application/pkcs7-mime"] {
        let refused = ask(br#"{"deviceId": "sn-2"}"#.to_vec(), accept).await;
        assert_eq!((refused.status(), refused.problem()), (StatusCode::NOT_ACCEPTABLE, "not-acceptable".to_owned()));
    }
    assert_eq!(app.platform.active(), 1);
}

#[tokio::test]
async fn a_key_proves_itself_where_it_is_registered() {
    let app = App::new().await;
    let key = csr("sn-2");
    let mut registered = device("sn-2");
    registered.attestation = cvm_provisioning::Attestation::PublicKey { key: *key.key().fingerprint() };
    app.add(&registered).await;
    let send = async |csr: &Csr| {
        let mut request = post(json!({"deviceId": "sn-2", "csr": csr.pem()}).to_string());
        request.headers_mut().remove(AUTHORIZATION);
        app.send(request).await
    };
    assert_eq!(send(&csr("sn-2")).await.problem(), "refused");
    assert_eq!(send(&key).await.status(), StatusCode::CREATED);
    assert_eq!(app.platform.active(), 1);
}

#[tokio::test]
async fn threat_58_a_key_made_here_comes_with_the_answer_and_never_again() {
    let app = App::new().await;
    let mut registered = device("sn-2");
    registered.key_origin = KeyOrigin::Service;
    app.add(&registered).await;
    let answer = app.post(&json!({"deviceId": "sn-2"})).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert!(answer.vended()["privateKeyPem"].as_str().unwrap().starts_with("-----BEGIN PRIVATE KEY-----\n"));
    // A device that makes its own key is not given one.
    assert_eq!(app.post(&json!({"deviceId": "sn-1"})).await.problem(), "refused");
}

#[tokio::test]
async fn threat_01_every_refusal_is_the_same_answer() {
    let app = App::new().await;
    let mut disabled = device("sn-disabled");
    disabled.disable("stolen".parse().ok(), NOW);
    app.add(&disabled).await;
    app.add(&device("sn-cloned")).await;
    let clone = async || app.post(&json!({"deviceId": "sn-cloned", "csr": csr("sn-cloned").pem()})).await;
    assert_eq!(clone().await.status(), StatusCode::CREATED);

    let ask = async |name: &str, token: &str| {
        let mut request = post(json!({"deviceId": name, "csr": csr(name).pem()}).to_string());
        request.headers_mut().insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        app.send(request).await
    };
    let wrong = "another-token-0123456789-0123456789";
    let answers = [
        ask("sn-unknown", TOKEN).await,
        ask("sn-1", wrong).await,
        ask("sn-disabled", TOKEN).await,
        clone().await,
        clone().await,
    ];
    for answer in &answers {
        assert_eq!(answer.problem(), "refused");
        assert_eq!(answer.bytes, answers[0].bytes);
        let names = |answer: &Answer| answer.response.headers().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(answer), names(&answers[0]));
    }
    let reasons = app.audit.take().join("\n");
    for reason in ["unknown-device", "wrong-proof", "disabled", "Quarantined", "quarantined"] {
        assert!(reasons.contains(reason), "{reason} is not in {reasons}");
    }
}

#[tokio::test]
async fn threats_14_to_26_bad_input_is_a_clear_problem_without_any_effect() {
    let script = Script::default();
    let app = App::with_script(&script).await;
    let key = csr("sn-1");
    let der = STANDARD.encode(key.der());
    let with_csr = |text: &str| json!({"deviceId": "sn-1", "csr": text}).to_string();
    let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    let pem = serde_json::to_string(key.pem()).unwrap();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("body-invalid", b"".into()),
        ("body-invalid", b"{".into()),
        ("body-invalid", b"null".into()),
        ("body-invalid", b"NaN".into()),
        ("body-invalid", b"\xff\xfe".into()),
        ("body-invalid", br#"{"deviceId": "sn-1", "csr": 1}"#.into()),
        ("body-invalid", br#"{"deviceId": "sn-1", "unknown": 1}"#.into()),
        ("body-invalid", br#"{"deviceId": "sn-1", "deviceId": "sn-2"}"#.into()),
        ("body-invalid", br#"{"deviceId": "sn-1", "parameters": {"a": "1", "a": "2"}}"#.into()),
        ("body-invalid", br#"{"deviceId": "sn-1", "parameters": {"a": {"b": 1}}}"#.into()),
        ("body-invalid", br#"{"deviceId": "sn-1"} {}"#.into()),
        ("body-invalid", format!(r#"{{"deviceId": "sn-1", "parameters": {deep}}}"#).into()),
        ("body-invalid", format!(r#"{{"csr": {pem}}}"#).into()),
        ("body-too-large", vec![b' '; 16 * 1024 + 1]),
        ("body-too-large", vec![b'['; 1 << 20]),
        ("device-id-invalid", br#"{"deviceId": "../sn-1"}"#.into()),
        ("device-id-invalid", br#"{"deviceId": ""}"#.into()),
        ("device-id-invalid", "{\"deviceId\": \"sn-1\u{200b}\"}".into()),
        ("device-id-mismatch", json!({"deviceId": "sn-2", "csr": key.pem()}).to_string().into()),
        ("csr-invalid", with_csr("").into()),
        ("csr-invalid", with_csr("hello").into()),
        ("csr-invalid", with_csr(&der[..der.len() - 8]).into()),
        ("csr-invalid", with_csr(&format!("{}{}", key.pem(), key.pem())).into()),
        ("csr-invalid", with_csr(&"A".repeat(9_000)).into()),
        ("private-key-sent", with_csr("-----BEGIN PRIVATE KEY-----\nMIG=\n-----END PRIVATE KEY-----\n").into()),
    ];
    for (code, bytes) in cases {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        assert_eq!(app.send(post(bytes)).await.problem(), code, "{shown}");
        assert_eq!(app.audit.take(), [format!("Invalid {{ code: {code:?} }}")], "{shown}");
    }
    assert_eq!(script.calls(), 0, "nobody was asked");
}

#[tokio::test]
async fn threat_26_what_is_not_asked_for_is_refused_with_a_stable_code() {
    let script = Script::default();
    let app = App::with_script(&script).await;
    let valid = body(&csr("sn-1")).to_string();
    let change = |change: &dyn Fn(&mut Request<Body>)| {
        let mut request = post(valid.clone());
        change(&mut request);
        request
    };
    let header = |name: &'static str, value: &'static str| {
        change(&|request| {
            request.headers_mut().insert(name, value.parse().unwrap());
        })
    };
    let cases = [
        ("method-not-allowed", change(&|request| *request.method_mut() = Method::GET)),
        ("not-found", change(&|request| *request.uri_mut() = "/v1/certificates/x".parse().unwrap())),
        ("not-found", change(&|request| *request.uri_mut() = "/v1/certificates//".parse().unwrap())),
        ("query-not-allowed", change(&|request| *request.uri_mut() = "/v1/certificates?token=x".parse().unwrap())),
        ("content-type-unsupported", header("content-type", "text/plain")),
        ("content-type-unsupported", header("content-encoding", "gzip")),
        ("content-type-unsupported", change(&|request| drop(request.headers_mut().remove(CONTENT_TYPE)))),
        ("not-acceptable", header("accept", "text/html")),
        ("authorization-invalid", header("authorization", "Basic c24tMTp4")),
        ("authorization-invalid", header("authorization", "Bearer short")),
        ("authorization-invalid", header("authorization", "Bearer")),
        (
            "header-repeated",
            change(&|request| {
                request.headers_mut().append(AUTHORIZATION, format!("Bearer {TOKEN}").parse().unwrap());
            }),
        ),
    ];
    for (code, request) in cases {
        let answer = app.send(request).await;
        assert_eq!(answer.problem(), code);
        if code == "method-not-allowed" {
            assert_eq!(answer.header(ALLOW), "POST");
        }
    }
    assert_eq!(script.calls(), 0, "nobody was asked");

    let json = header("content-type", "Application/JSON; charset=utf-8");
    assert_eq!(app.send(json).await.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn a_common_name_is_needed_where_nothing_else_names_the_device() {
    let app = App::new().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let csr = params.serialize_request(&key).unwrap();
    let mut request = post(csr.der().to_vec());
    request.headers_mut().insert(CONTENT_TYPE, "application/pkcs10".parse().unwrap());
    assert_eq!(app.send(request).await.problem(), "common-name-missing");
    let named = json!({"deviceId": "sn-1", "csr": csr.pem().unwrap()});
    assert_eq!(app.post(&named).await.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn the_subject_names_the_device_as_configured() {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = |common_name: &str, serial_number: &str| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        let kind = rcgen::DnType::CustomDnType(vec![2, 5, 4, 5]);
        params.distinguished_name.push(kind, serial_number);
        Csr::from_der(params.serialize_request(&key).unwrap().der()).unwrap()
    };
    let pkcs10 = |csr: &Csr| {
        let mut request = post(csr.der().to_vec());
        request.headers_mut().insert(CONTENT_TYPE, "application/pkcs10".parse().unwrap());
        request
    };
    for (from, csr, alone, with_id) in [
        (DeviceIdFrom::CommonName, request("Lumos", "sn-1"), "refused", "device-id-mismatch"),
        (DeviceIdFrom::CommonName, request("Fleet Provisioning Demo", "sn-1"), "csr-invalid", ""),
        (DeviceIdFrom::SerialNumber, request("Lumos", "sn-1"), "", ""),
        (DeviceIdFrom::SerialNumber, request("sn-1", "sn-2"), "refused", "device-id-mismatch"),
        (DeviceIdFrom::Either, request("Lumos", "sn-1"), "refused", ""),
        (DeviceIdFrom::Either, request("Acme 7", "sn-1"), "", ""),
        (DeviceIdFrom::None, request("Lumos", "sn-2"), "common-name-missing", ""),
    ] {
        let code = |answer: Answer| if answer.status().is_success() { String::new() } else { answer.problem() };
        let build = async || App::build(&Script::default(), from, || NOW, DeviceChain::default()).await;
        assert_eq!(code(build().await.send(pkcs10(&csr)).await), alone, "{from} {csr:?}");
        assert_eq!(code(build().await.post(&body(&csr)).await), with_id, "{from} {csr:?}");
    }
}

#[tokio::test]
async fn threat_26_a_body_is_an_object_and_no_array_of_its_values() {
    let app = App::new().await;
    let key = csr("sn-1");
    let answer = app.post(&json!(["sn-1", key.pem()])).await;
    assert_eq!((answer.problem().as_str(), app.platform.active()), ("body-invalid", 0));
    // A byte order mark, from a file that a Windows editor wrote.
    let marked = app.send(post(format!("\u{feff}{}", body(&key)))).await;
    assert_eq!(marked.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn an_address_may_end_with_a_slash() {
    let app = App::new().await;
    let mut request = post(body(&csr("sn-1")).to_string());
    *request.uri_mut() = "/v1/certificates/".parse().unwrap();
    assert_eq!(app.send(request).await.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn threat_43_a_throttle_is_503_with_a_time_and_the_retry_finishes() {
    for n in 1..=7 {
        let script = Script::fail(n, Fault::Throttle);
        let app = App::with_script(&script).await;
        let key = csr("sn-1");
        let throttled = app.post(&body(&key)).await;
        assert_eq!(throttled.status(), StatusCode::SERVICE_UNAVAILABLE, "call {n}");
        assert_eq!(throttled.problem(), "throttled");
        let delay: u64 = throttled.header(RETRY_AFTER).parse().unwrap();
        assert!((3..=12).contains(&delay));
        assert_eq!(app.post(&body(&key)).await.status(), StatusCode::CREATED, "call {n}");
        assert_eq!(app.platform.active(), 1, "call {n}");
    }
}

#[tokio::test]
async fn a_second_caller_is_told_when_the_first_is_over() {
    let script = Script::fail(3, Fault::Hold);
    let app = Arc::new(App::with_script(&script).await);
    let key = csr("sn-1");
    let first = tokio::spawn({
        let (app, body) = (app.clone(), body(&key));
        async move { app.post(&body).await }
    });
    script.held().await;
    let second = app.post(&body(&key)).await;
    assert_eq!(second.status(), StatusCode::CONFLICT);
    assert_eq!(second.problem(), "in-progress");
    assert_eq!(second.header(RETRY_AFTER), "5");
    script.resume();
    assert_eq!(first.await.unwrap().status(), StatusCode::CREATED);
    assert_eq!(app.registry.find(&id("sn-1")).await.unwrap().unwrap().credential.map(|_| ()), Some(()));
}

#[test]
fn the_openapi_document_has_every_problem_under_its_status() {
    let document: Value = serde_json::from_str(include_str!("../../../schemas/openapi.json")).unwrap();
    let doors = document["paths"].as_object().unwrap().values();
    let responses: Vec<_> = doors.map(|door| &door["post"]["responses"]).collect();
    for (code, status) in Problem::CODES {
        let names = |responses: &&Value| {
            let description = responses[status.as_str()]["description"].as_str().unwrap_or_default();
            description.split([' ', ',', ':']).any(|word| word == *code)
        };
        assert!(responses.iter().any(names), "{code} is not described under {status}");
    }
}

#[tokio::test]
async fn threat_24_a_panic_is_one_answer_and_not_the_process() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let clock = || match CALLS.fetch_add(1, Ordering::SeqCst) {
        0 => panic!("the clock has stopped"),
        _ => NOW,
    };
    let app = App::build(&Script::default(), DeviceIdFrom::CommonName, clock, DeviceChain::default()).await;
    let key = csr("sn-1");
    let broken = app.post(&body(&key)).await;
    assert_eq!(broken.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(broken.problem(), "internal");
    assert!(!String::from_utf8_lossy(&broken.bytes).contains("clock"));
    assert_eq!(app.post(&body(&key)).await.status(), StatusCode::CREATED);
}
