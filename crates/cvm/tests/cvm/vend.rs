use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, LOCATION, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use cvm_provisioning::{Attestation, Certificate, Changes as _, Device, KeyFingerprint, KeyOrigin};
use cvm_testkit::fixture::{TOKEN, csr, device, origin};
use cvm_testkit::{MemoryPlatform, MemoryRegistry};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};

use crate::support::{Cvm, api, mode, serve};

const FILES: [&str; 4] = ["private.key", "certificate.pem", "root-ca.pem", "device.json"];

/// The command beside an API that knows this device.
async fn cvm_and(device: Device, around: impl FnOnce(Router) -> Router) -> Cvm {
    let registry = MemoryRegistry::default();
    assert!(registry.add(&device, &origin()).await.unwrap());
    Cvm::new().with("CVM_URL", serve(around(api(registry))).await)
}

/// The same, with the token of the device in the environment.
async fn cvm_with_token(around: impl FnOnce(Router) -> Router) -> Cvm {
    cvm_and(device("sn-0001"), around).await.with("CVM_TOKEN", TOKEN)
}

/// Has the first so many requests served by `instead`, which may have the API serve them first.
fn first<F>(
    requests: usize,
    instead: impl Fn(Request, Next) -> F + Clone + Send + Sync + 'static,
) -> impl FnOnce(Router) -> Router
where
    F: Future<Output = Response> + Send + 'static,
{
    let seen = Arc::new(AtomicUsize::new(0));
    move |api: Router| {
        api.layer(from_fn(move |request: Request, next: Next| {
            let (seen, instead) = (seen.clone(), instead.clone());
            async move {
                if seen.fetch_add(1, Ordering::Relaxed) < requests {
                    instead(request, next).await
                } else {
                    next.run(request).await
                }
            }
        }))
    }
}

/// Has every answer of the API changed before it is sent.
fn tampered(change: impl Fn(&mut Value) + Clone + Send + Sync + 'static) -> impl FnOnce(Router) -> Router {
    first(usize::MAX, move |request, next| {
        let change = change.clone();
        async move {
            let (mut parts, body) = next.run(request).await.into_parts();
            let mut answer: Value = serde_json::from_slice(&to_bytes(body, 1 << 20).await.unwrap()).unwrap();
            change(&mut answer);
            parts.headers.remove(CONTENT_LENGTH);
            Response::from_parts(parts, Body::from(answer.to_string()))
        }
    })
}

/// An answer that must not be believed.
struct Forgery {
    /// What the command says about it.
    expected: &'static str,
    change: Arc<dyn Fn(&mut Value) + Send + Sync>,
}

impl Forgery {
    fn new(expected: &'static str, change: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        Self { expected, change: Arc::new(change) }
    }
}

fn key_of(private_key_pem: &str) -> KeyFingerprint {
    KeyFingerprint::of(&KeyPair::from_pem(private_key_pem).unwrap().subject_public_key_info())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vend_leaves_private_files_that_belong_together() {
    let cvm = cvm_with_token(|api| api).await;
    let text = cvm.run("vend --device sn-0001").text();
    for file in FILES {
        assert_eq!(mode(&cvm.path("sn-0001").join(file)), 0o600, "{file}");
    }
    assert_eq!(mode(&cvm.path("sn-0001")), 0o700);
    let certificate = Certificate::parse(&cvm.read("sn-0001/certificate.pem")).unwrap();
    assert_eq!(*certificate.key(), key_of(&cvm.read("sn-0001/private.key")));
    assert!(Certificate::parse(&cvm.read("sn-0001/root-ca.pem")).unwrap().is_ca());
    let device: Value = serde_json::from_str(&cvm.read("sn-0001/device.json")).unwrap();
    assert_eq!(
        device,
        json!({
            "deviceId": "sn-0001",
            "thingName": "sn-0001",
            "certificateId": certificate.id().to_string(),
            "endpoint": "localhost:18883",
            "notAfter": "2049-12-31T00:00:00Z",
            "deviceConfiguration": { "topic": "devices/sn-0001" },
        })
    );
    assert!(text.contains("✔ made a P-256 key"), "{text}");
    assert!(text.contains("mosquitto_pub -h localhost -p 18883 -i sn-0001 -t devices/sn-0001/hello"), "{text}");
    assert!(text.contains("--key sn-0001/private.key"), "{text}");
    assert!(!text.contains(TOKEN) && !text.contains('\x1b'), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_loses_no_key_and_the_same_certificate_comes_again() {
    // The API does all of its work, and then the connection breaks.
    let lose = |request, next: Next| async move {
        next.run(request).await;
        std::panic::resume_unwind(Box::new("the connection breaks"))
    };
    let cvm = cvm_with_token(first(1, lose)).await;
    let failure = cvm.run("vend --device sn-0001").failure_after("✔ made a P-256 key");
    assert!(failure.contains("run the same command again"), "{failure}");
    let key = cvm.read("sn-0001/private.key");
    assert_eq!(mode(&cvm.path("sn-0001/private.key")), 0o600);
    assert!(!cvm.path("sn-0001/certificate.pem").exists());

    let vended = cvm.run("vend --device sn-0001 --output json").json();
    assert_eq!(cvm.read("sn-0001/private.key"), key);
    assert_eq!(cvm.run("vend --device sn-0001 --output json").json(), vended, "as often as asked");
    let certificate = Certificate::parse(vended["certificatePem"].as_str().unwrap()).unwrap();
    assert_eq!(*certificate.key(), key_of(&key));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_for_this_device_and_key_is_refused_and_not_kept() {
    let other = MemoryPlatform::default().issue(&csr("sn-0001")).await.unwrap().certificate;
    let (other_pem, other_id) = (other.pem().to_owned(), other.id().to_string());
    let private_key = KeyPair::generate().unwrap().serialize_pem();
    let padding = "x".repeat(300 * 1024);
    let forgeries = [
        Forgery::new("certificate is for the key", {
            let (pem, id) = (other_pem.clone(), other_id.clone());
            move |answer| {
                answer["certificatePem"] = json!(pem);
                answer["certificateId"] = json!(id);
            }
        }),
        Forgery::new("certificateId is not", move |answer| answer["certificateId"] = json!(other_id)),
        Forgery::new("another device", |answer| answer["deviceId"] = json!("sn-0002")),
        Forgery::new("thing name", |answer| answer["thingName"] = json!("$(reboot)")),
        Forgery::new("endpoint", |answer| answer["endpoint"] = json!("localhost;reboot")),
        Forgery::new("not a CA's", move |answer| answer["caPem"] = json!(other_pem)),
        Forgery::new("nobody asked for", move |answer| answer["privateKeyPem"] = json!(private_key)),
        Forgery::new("more than", move |answer| answer["padding"] = json!(padding)),
        Forgery::new("JSON object", |answer| *answer = json!([])),
    ];
    for Forgery { expected, change } in forgeries {
        let cvm = cvm_with_token(tampered(move |answer| change(answer))).await;
        let run = cvm.run("vend --device sn-0001 --output json");
        assert_eq!(run.code, 1, "{expected}");
        assert_eq!(serde_json::from_str::<Value>(&run.stderr).unwrap()["error"]["code"], "answer", "{}", run.stderr);
        let text = cvm.run("vend --device sn-0001").stderr;
        assert!(text.contains(expected), "{expected}: {text}");
        let left: Vec<_> =
            std::fs::read_dir(cvm.path("sn-0001")).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(left, ["private.key"], "{expected}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_api_is_asked_again_when_it_says_so() {
    let busy = |_, _| async { (StatusCode::CONFLICT, [(RETRY_AFTER, "1")], "").into_response() };
    let cvm = cvm_with_token(first(2, busy)).await;
    let run = cvm.run("vend --device sn-0001 --output json");
    assert_eq!(run.stderr.lines().count(), 2, "{}", run.stderr);
    assert!(run.stderr.contains("asking again in 1 s (try 3 of 6)"), "{}", run.stderr);
    run.json();

    // A pause that nobody would wait for is not waited for.
    let closed = |_, _| async { (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "86400")], "").into_response() };
    let cvm = cvm_with_token(first(usize::MAX, closed)).await;
    assert!(cvm.run("vend --device sn-0001 --output json").failure().contains("503"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_device_learns_whom_to_ask() {
    let cvm = cvm_and(device("sn-0001"), |api| api).await;
    let wrong = "a-token-that-is-long-enough-but-wrong";
    let run = cvm.run_with(["vend", "--device", "sn-0001", "--token-file", "-"], wrong);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("cvm device show sn-0001") && !run.stderr.contains(wrong), "{}", run.stderr);
    let run = cvm.run("vend --device sn-0001 --output json").failure();
    let failure: Value = serde_json::from_str(&run).unwrap();
    assert_eq!(failure["error"]["code"], "refused");
    assert!(failure["error"]["message"].as_str().unwrap().contains("request id"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_elsewhere_stays_where_it_is() {
    let pair = KeyPair::generate().unwrap();
    let key = KeyFingerprint::of(&pair.subject_public_key_info());
    let registered = Device { attestation: Attestation::PublicKey { key }, ..device("sn-0001") };
    let cvm = cvm_and(registered, |api| api).await;
    cvm.write("device.key", pair.serialize_pem());
    let text = cvm.run("vend --device sn-0001 --key device.key --out files").text();
    assert!(text.contains("--key device.key"), "{text}");
    assert!(!cvm.path("files/private.key").exists());
    assert_eq!(*Certificate::parse(&cvm.read("files/certificate.pem")).unwrap().key(), key);

    cvm.write("files/private.key", KeyPair::generate().unwrap().serialize_pem());
    assert!(cvm.run("vend --device sn-0001 --key device.key --out files").failure().contains("another key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_made_by_the_service_is_kept_and_not_asked_for_twice() {
    let registered = Device { key_origin: KeyOrigin::Service, ..device("sn-0001") };
    let cvm = cvm_and(registered, |api| api).await.with("CVM_TOKEN", TOKEN);
    let run = cvm.run("vend --device sn-0001 --service-key --output json");
    assert!(!run.stdout.contains("PRIVATE KEY"), "it is in its file and nowhere else");
    run.json();
    assert_eq!(mode(&cvm.path("sn-0001/private.key")), 0o600);
    let certificate = Certificate::parse(&cvm.read("sn-0001/certificate.pem")).unwrap();
    assert_eq!(*certificate.key(), key_of(&cvm.read("sn-0001/private.key")));
    assert!(cvm.run("vend --device sn-0001 --service-key").failure().contains("quarantine"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_of_one_device() {
    let cvm = cvm_with_token(|api| api).await;
    cvm.run("vend --device sn-0001 --out files").text();
    let certificate = cvm.read("files/certificate.pem");
    let failure = cvm.run("vend --device sn-0002 --out files").failure();
    assert!(failure.contains("another device"), "{failure}");
    assert_eq!(cvm.read("files/certificate.pem"), certificate);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_does_not_follow_a_redirect() {
    let away = |_, _| async {
        let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
        response.headers_mut().insert(LOCATION, HeaderValue::from_static("/v1/certificates"));
        response
    };
    let cvm = cvm_with_token(first(1, away)).await;
    assert!(cvm.run("vend --device sn-0001 --output json").failure().contains("check --url"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_is_sent_and_only_where_it_may_be_set() {
    let mut registered = device("sn-0001");
    registered.settable_parameters.insert("Site".to_owned());
    let cvm = cvm_and(registered, |api| api).await.with("CVM_TOKEN", TOKEN);
    let failure = cvm.run("vend --device sn-0001 --parameter Other=1 --output json").failure();
    assert!(failure.contains("parameter-not-settable") && failure.contains("--settable"), "{failure}");
    cvm.run("vend --device sn-0001 --parameter Site=berlin").text();
}

#[test]
fn nobody_at_the_address_is_no_answer() {
    let cvm = Cvm::new().with("CVM_TOKEN", TOKEN);
    let failure = cvm.run("vend --url http://127.0.0.1:1 --device sn-0001 --output json").failure();
    assert!(failure.contains("no-answer") && failure.contains("check --url"), "{failure}");
    cvm.write("root.pem", "no certificate");
    let failure = cvm.run("vend --url https://127.0.0.1:1 --device sn-0001 --root-ca root.pem --output json").failure();
    assert!(failure.contains("root.pem holds no CA"), "{failure}");
}
