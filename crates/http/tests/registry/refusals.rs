//! What the API does not do: what nobody may ask, and what cannot be done just now.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use cvm_http::{Registry, registry_router};
use cvm_provisioning::Operations;
use cvm_testkit::fixture::NOW;
use cvm_testkit::{Fault, MemoryJobs, MemoryRegistry, MemoryTrail, Script};
use tower::ServiceExt as _;

use crate::api::{Api, desk};

#[tokio::test]
async fn threat_26_what_is_not_asked_for_is_refused_and_not_repeated() {
    let script = Script::default();
    let api = Api::new(&script);
    for (method, uri, headers, body, status, code) in [
        ("GET", "/devices/a%20secret", &[][..], "", 400, "ArgumentInvalid"),
        ("GET", "/devices/%ff", &[], "", 400, "ArgumentInvalid"),
        ("GET", "/devices?stat=enabled", &[], "", 400, "ArgumentInvalid"),
        ("GET", "/devices?top=1&top=2", &[], "", 400, "ArgumentInvalid"),
        ("GET", "/devices?top=1001", &[], "", 400, "ArgumentInvalid"),
        ("GET", "/devices?changedSince=yesterday", &[], "", 400, "ArgumentInvalid"),
        ("PUT", "/devices/sn-1", &[], r#"{"deviceId":"sn-2"}"#, 400, "ArgumentInvalid"),
        ("PUT", "/devices/sn-1", &[], r#"{"status":"enabled","status":"disabled"}"#, 400, "ArgumentInvalid"),
        ("PUT", "/devices/sn-1", &[], r#"{"status":"secret"}"#, 400, "ArgumentInvalid"),
        ("PUT", "/devices/sn-1", &[], r#"["sn-1"]"#, 400, "ArgumentInvalid"),
        ("PUT", "/devices/sn-1", &[], r#"{"authentication":[null,null,"sas"]}"#, 400, "ArgumentInvalid"),
        ("PUT", "/devices/sn-1", &[], r#"{"authentication":{"symmetricKey":[]}}"#, 400, "ArgumentInvalid"),
        ("PUT", "/devices/sn-1", &[], r#"{"capabilities":[true]}"#, 400, "ArgumentInvalid"),
        ("PUT", "/devices/sn-1", &[], r#"{"cvm":[]}"#, 400, "ArgumentInvalid"),
        ("PUT", "/devices/sn-1", &[], r#"{"cvm":{"attestation":["claim"]}}"#, 400, "ArgumentInvalid"),
        ("PUT", "/devices/sn-1/modules/m", &[], r#"{"authentication":[null,null,"sas"]}"#, 400, "ArgumentInvalid"),
        ("POST", "/devices", &[], r#"[["sn-1"]]"#, 400, "ArgumentInvalid"),
        ("POST", "/devices/sn-1/disable", &[], r#"["secret"]"#, 400, "ArgumentInvalid"),
        ("POST", "/jobs/create", &[], r#"{"type":"export","cvm":["json"]}"#, 400, "ArgumentInvalid"),
        ("PUT", "/devices/sn-1", &[("if-match", "*"), ("if-none-match", "*")], "{}", 400, "ArgumentInvalid"),
        ("PUT", "/devices/sn-1", &[("content-type", "text/plain")], "{}", 415, "GenericUnsupportedMediaType"),
        ("POST", "/devices/sn-1", &[], "{}", 405, "GenericMethodNotAllowed"),
        ("PATCH", "/devices/sn-1", &[], "{}", 405, "GenericMethodNotAllowed"),
        ("POST", "/devices/query", &[], r#"{"query":"SELECT secret FROM devices"}"#, 400, "ArgumentInvalid"),
        ("GET", "/elsewhere", &[], "", 404, "GenericNotFound"),
        ("GET", "/audit?since=2027-01-15T08:00:00Z&until=2027-01-15T08:00:00Z", &[], "", 400, "ArgumentInvalid"),
    ] {
        let answer = api.send(method, uri, headers, body.to_owned()).await;
        assert_eq!((answer.status, answer.header("iothub-errorcode")), (status, code), "{method} {uri} {body}");
        assert!(!answer.body.to_string().contains("secret"), "{}", answer.body);
    }
    let deep = "[".repeat(100_000);
    assert_eq!(api.send("PUT", "/devices/sn-1", &[], deep).await.status, 400);
    assert_eq!(api.send("PUT", "/devices/sn-1", &[], "x".repeat(600_000)).await.status, 413);
    assert_eq!(script.calls(), 0, "the registry was not asked");
}

#[tokio::test]
async fn nobody_but_an_operator_is_let_in() {
    let served = Registry {
        operations: Operations { registry: MemoryRegistry::default() },
        trail: MemoryTrail::default(),
        hears_of_connections: true,
    };
    let request = Request::get("/devices").header("x-operator", "anna").body(Body::empty()).unwrap();
    let jobs = desk(MemoryJobs::default());
    let response = registry_router(served, jobs.routes(), || NOW).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()["iothub-errorcode"], "IotHubUnauthorizedAccess");
}

#[tokio::test]
async fn threat_43_a_throttle_is_429_with_a_time() {
    let api = Api::new(&Script::fail(1, Fault::Throttle));
    let answer = api.get("/devices/sn-1").await;
    answer.is("Failure");
    assert_eq!((answer.status, answer.header("iothub-errorcode")), (429, "ThrottlingException"));
    assert!((3..=12).contains(&answer.header("retry-after").parse::<u64>().unwrap()));
}
