//! `POST /v1/claims` from the outside: who may ask, what is taken, and what is answered.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Method, Request, StatusCode};
use axum::{Extension, Router};
use cvm_http::{Handout, RootCa, claim_router};
use cvm_provisioning::{Attestation, Changes as _, Device, TrustedUser, TrustedUsers};
use cvm_testkit::fixture::{NOW, device, origin};
use cvm_testkit::{Fault, Faulty, MemoryAudit, MemoryPlatform, MemoryRegistry, Script};
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// The service with the device `sn-1`, which waits for a trusted user, as a caller has it whom an authorizer let in.
async fn app(user: Option<&str>, script: &Script) -> (Router, MemoryAudit) {
    let (registry, audit) = (MemoryRegistry::default(), MemoryAudit::default());
    let waiting = Device { attestation: Attestation::TrustedUser { claim: None }, ..device("sn-1") };
    assert!(registry.add(&waiting, &origin()).await.unwrap());
    let users = TrustedUsers {
        registry: Faulty { inner: registry, script: script.clone() },
        platform: Faulty { inner: MemoryPlatform::default(), script: script.clone() },
        audit: audit.clone(),
        default_template: "fleet".parse().unwrap(),
        claims_per_day: 2,
    };
    let handout = Handout::new("mqtt.example.com".parse().unwrap(), RootCa::amazon().unwrap());
    let router = claim_router(users, handout, || NOW);
    let router = match user {
        Some(user) => router.layer(Extension(user.parse::<TrustedUser>().unwrap())),
        None => router,
    };
    (router, audit)
}

fn request(body: impl Into<Body>) -> Request<Body> {
    Request::post("/v1/claims").header(CONTENT_TYPE, "application/json").body(body.into()).unwrap()
}

fn for_device(id: &str) -> Request<Body> {
    request(json!({ "deviceId": id }).to_string())
}

async fn send(router: &Router, request: Request<Body>) -> (StatusCode, String, Value) {
    let response = router.clone().oneshot(request).await.unwrap();
    let retry_after = response.headers().get(RETRY_AFTER).map_or("", |value| value.to_str().unwrap()).to_owned();
    let (status, bytes) = (response.status(), to_bytes(response.into_body(), 1 << 20).await.unwrap());
    let body = serde_json::from_slice(&bytes).unwrap();
    let schema: Value = serde_json::from_str(match status.is_success() {
        true => include_str!("../../../schemas/claim-answer.schema.json"),
        false => include_str!("../../../schemas/problem.schema.json"),
    })
    .unwrap();
    jsonschema::validator_for(&schema).unwrap().validate(&body).unwrap();
    (status, retry_after, body)
}

#[tokio::test]
async fn a_trusted_user_gets_a_claim_until_the_day_is_used_up() {
    let (router, _) = app(Some("anna"), &Script::default()).await;
    for _ in 0..2 {
        let (status, _, claim) = send(&router, for_device("sn-1")).await;
        assert_eq!((status, &claim["template"]), (StatusCode::CREATED, &json!("fleet")));
        assert_eq!(claim["expiresAt"], "2027-01-15T08:05:00Z");
    }
    let (status, retry_after, problem) = send(&router, for_device("sn-1")).await;
    assert_eq!((status, &problem["code"]), (StatusCode::TOO_MANY_REQUESTS, &json!("quota-reached")));
    assert_eq!(retry_after, (16 * 60 * 60).to_string(), "tomorrow, in UTC");
}

#[tokio::test]
async fn a_request_that_nobody_is_known_to_have_sent_is_refused() {
    let script = Script::default();
    let (router, audit) = app(None, &script).await;
    let mut forged = for_device("sn-1");
    forged.headers_mut().insert("x-user", "anna".parse().unwrap());
    let challenged = router.clone().oneshot(for_device("sn-1")).await.unwrap();
    assert_eq!(challenged.headers()[WWW_AUTHENTICATE], "Bearer");
    let (status, _, problem) = send(&router, forged).await;
    assert_eq!((status, &problem["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthenticated")));
    assert!(audit.take().concat().contains("unauthenticated"));
    assert_eq!(script.calls(), 0);
}

#[tokio::test]
async fn threat_01_every_device_that_may_not_is_told_the_same() {
    let (router, audit) = app(Some("anna"), &Script::default()).await;
    let unknown = send(&router, for_device("sn-2")).await;
    assert_eq!((unknown.0, &unknown.2["code"]), (StatusCode::FORBIDDEN, &json!("refused")));
    assert!(audit.take().concat().contains("unknown-device"));
}

#[tokio::test]
async fn threat_26_what_is_not_asked_for_is_refused_with_a_stable_code() {
    let with = |method: Method, uri: &str, content_type: &str, body: &str| {
        let request = Request::builder().method(method).uri(uri).header(CONTENT_TYPE, content_type);
        request.body(Body::from(body.to_owned())).unwrap()
    };
    let (json, good) = ("application/json", r#"{"deviceId": "sn-1"}"#);
    let script = Script::default();
    let (router, _) = app(Some("anna"), &script).await;
    for (request, status, code) in [
        (with(Method::GET, "/v1/claims", json, ""), 405, "method-not-allowed"),
        (with(Method::POST, "/v1/claim", json, good), 404, "not-found"),
        (with(Method::POST, "/v1/claims?deviceId=sn-1", json, good), 400, "query-not-allowed"),
        (with(Method::POST, "/v1/claims", "text/plain", good), 415, "content-type-unsupported"),
        (with(Method::POST, "/v1/claims", "application/pkcs10", good), 415, "content-type-unsupported"),
        (with(Method::POST, "/v1/claims", json, ""), 400, "body-invalid"),
        (with(Method::POST, "/v1/claims", json, r#"{"deviceId": "sn-1", "user": "bert"}"#), 400, "body-invalid"),
        (with(Method::POST, "/v1/claims", json, r#"{"deviceId": "a", "deviceId": "b"}"#), 400, "body-invalid"),
        (with(Method::POST, "/v1/claims", json, r#"{"deviceId": "../x"}"#), 400, "device-id-invalid"),
        (with(Method::POST, "/v1/claims", json, &"x".repeat(3_000)), 413, "body-too-large"),
    ] {
        let described = format!("{request:?}");
        let (answered, _, problem) = send(&router, request).await;
        assert_eq!((answered.as_u16(), &problem["code"]), (status, &json!(code)), "{described}");
    }
    assert_eq!(script.calls(), 0, "nobody was asked");
}

#[tokio::test]
async fn threat_43_a_throttle_is_503_with_a_time() {
    for n in 1..=4 {
        let (router, _) = app(Some("anna"), &Script::fail(n, Fault::Throttle)).await;
        let (status, retry_after, problem) = send(&router, for_device("sn-1")).await;
        assert_eq!((status, &problem["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("throttled")), "call {n}");
        assert!((3..=12).contains(&retry_after.parse::<u64>().unwrap()), "{retry_after}");
        assert_eq!(send(&router, for_device("sn-1")).await.0, StatusCode::CREATED, "call {n}");
    }
}
