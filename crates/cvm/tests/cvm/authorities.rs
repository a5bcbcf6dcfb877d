//! `cvm ca register`, `list` and `deactivate`, against the CAs of an AWS IoT in this process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cvm_provisioning::Certificate;
use serde_json::{Value, json};
use x509_parser::pem::parse_x509_pem;

use crate::support::{Cvm, serve};

const CODE: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";
const CA: &str = "--ca-cert factory/ca.pem --ca-key factory/ca.key";
const ROLE: &str = "arn:aws:iam::123456789012:role/jitp";

/// The CAs of an AWS IoT, as it describes them, and the calls that were made to change them.
#[derive(Clone, Default)]
struct Iot {
    cas: Arc<Mutex<BTreeMap<String, Value>>>,
    changes: Arc<Mutex<Vec<String>>>,
}

impl Iot {
    fn router(&self) -> Router {
        Router::new()
            .route("/registrationcode", get(|| async { Json(json!({ "registrationCode": CODE })) }))
            .route("/cacertificate", post(register))
            .route("/cacertificate/{id}", get(describe).put(update))
            .route("/cacertificates", get(list))
            .with_state(self.clone())
    }

    fn changes(&self) -> Vec<String> {
        std::mem::take(&mut *self.changes.lock().unwrap())
    }
}

async fn register(State(iot): State<Iot>, uri: Uri, Json(body): Json<Value>) -> Response {
    let query = uri.query().unwrap_or_default().to_owned();
    let ca_pem = body["caCertificate"].as_str().unwrap();
    let id = Certificate::parse(ca_pem).unwrap().id().to_string();
    if iot.cas.lock().unwrap().contains_key(&id) {
        return error(StatusCode::CONFLICT, "ResourceAlreadyExistsException");
    }
    if !is_proof(ca_pem, body["verificationCertificate"].as_str().unwrap()) {
        return error(StatusCode::BAD_REQUEST, "RegistrationCodeValidationException");
    }
    let ca = json!({
        "certificateDescription": {
            "certificateId": id,
            "certificatePem": ca_pem,
            "status": if query.contains("setAsActive=true") { "ACTIVE" } else { "INACTIVE" },
            "autoRegistrationStatus": if query.contains("allowAutoRegistration=true") { "ENABLE" } else { "DISABLE" },
            "validity": { "notBefore": 1_800_000_000, "notAfter": 1_900_000_000 },
        },
        "registrationConfig": body.get("registrationConfig").cloned().unwrap_or_else(|| json!({})),
    });
    iot.cas.lock().unwrap().insert(id.clone(), ca);
    iot.changes.lock().unwrap().push(format!("register {query}"));
    Json(json!({ "certificateId": id })).into_response()
}

/// Whether a certificate of the registration code is signed by the CA.
fn is_proof(ca_pem: &str, verification_pem: &str) -> bool {
    let (ca, verification) =
        (parse_x509_pem(ca_pem.as_bytes()).unwrap().1, parse_x509_pem(verification_pem.as_bytes()).unwrap().1);
    let (ca, verification) = (ca.parse_x509().unwrap(), verification.parse_x509().unwrap());
    verification.verify_signature(Some(ca.public_key())).is_ok()
        && verification.subject().to_string() == format!("CN={CODE}")
}

async fn describe(State(iot): State<Iot>, Path(id): Path<String>) -> Response {
    match iot.cas.lock().unwrap().get(&id) {
        Some(ca) => Json(ca.clone()).into_response(),
        None => error(StatusCode::NOT_FOUND, "ResourceNotFoundException"),
    }
}

async fn update(State(iot): State<Iot>, Path(id): Path<String>, uri: Uri, body: String) -> Response {
    let body: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
    let mut cas = iot.cas.lock().unwrap();
    let ca = cas.get_mut(&id).unwrap();
    for pair in uri.query().unwrap_or_default().split('&') {
        match pair.split_once('=') {
            Some(("newStatus", status)) => ca["certificateDescription"]["status"] = json!(status),
            Some(("newAutoRegistrationStatus", status)) => {
                ca["certificateDescription"]["autoRegistrationStatus"] = json!(status);
            }
            _ => {}
        }
    }
    if body["removeAutoRegistration"] == json!(true) {
        ca["registrationConfig"] = json!({});
        ca["certificateDescription"]["autoRegistrationStatus"] = json!("DISABLE");
    }
    if body["registrationConfig"].is_object() {
        ca["registrationConfig"] = body["registrationConfig"].clone();
    }
    iot.changes.lock().unwrap().push("update".to_owned());
    Json(json!({})).into_response()
}

/// One CA a page.
async fn list(State(iot): State<Iot>, uri: Uri) -> Response {
    let query = uri.query().unwrap_or_default();
    let marker = query.split('&').find_map(|pair| pair.strip_prefix("marker="));
    let at: usize = marker.map_or(0, |marker| marker.parse().unwrap());
    let cas = iot.cas.lock().unwrap();
    let certificates: Vec<Value> = cas.keys().skip(at).take(1).map(|id| json!({ "certificateId": id })).collect();
    let next = (at + 1 < cas.len()).then(|| (at + 1).to_string());
    Json(json!({ "certificates": certificates, "nextMarker": next })).into_response()
}

fn error(status: StatusCode, code: &'static str) -> Response {
    (status, [("x-amzn-errortype", code)], Json(json!({ "message": "no" }))).into_response()
}

/// The command beside an AWS IoT and a CA that it made.
async fn cvm_and_iot() -> (Cvm, Iot) {
    let iot = Iot::default();
    let cvm = Cvm::on(&serve(iot.router()).await);
    cvm.run_with(["ca", "create", "--name", "Factory 1", "--out", "factory"], "").text();
    (cvm, iot)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_is_registered_once_and_made_what_was_asked_each_time() {
    let (cvm, iot) = cvm_and_iot().await;
    let id = Certificate::parse(&cvm.read("factory/ca.pem")).unwrap().id().to_string();
    for (options, change, calls, status, template) in [
        ("--inactive", "registered", 1, "inactive", Value::Null),
        ("", "updated", 1, "active", Value::Null),
        ("", "none", 0, "active", Value::Null),
        (&format!("--jitp fleet --role-arn {ROLE}"), "updated", 1, "active", json!("fleet")),
        (&format!("--jitp fleet --role-arn {ROLE}"), "none", 0, "active", json!("fleet")),
        ("", "updated", 2, "active", Value::Null),
        ("", "none", 0, "active", Value::Null),
    ] {
        let registered = cvm.run(&format!("ca register {CA} {options} --output json")).json();
        assert_eq!(registered["change"], change, "{options}");
        assert_eq!((&registered["caId"], &registered["name"]), (&json!(id), &json!("Factory 1")));
        assert_eq!(iot.changes().len(), calls, "{options}");
        let listed: Value = serde_json::from_str(&cvm.run("ca list --output json").text()).unwrap();
        assert_eq!((&listed["status"], &listed["template"]), (&json!(status), &template), "{options}");
        assert_eq!(listed["autoRegistration"], true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cas_of_every_page_are_listed() {
    let (cvm, _) = cvm_and_iot().await;
    assert!(cvm.run("ca list").stderr.contains("no CA is registered"));
    cvm.run("ca create --name Bench --out bench").text();
    cvm.run(&format!("ca register {CA}")).text();
    cvm.run("ca register --ca-cert bench/ca.pem --ca-key bench/ca.key --inactive").text();
    let text = cvm.run("ca list").text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("CA  "), "{text}");
    for words in [["Factory 1", " active"], ["Bench", "inactive"]] {
        assert!(lines.iter().any(|line| words.iter().all(|word| line.contains(word))), "{text}");
    }
    assert_eq!(cvm.run("ca list --output json").text().lines().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deactivated_ca_registers_no_devices_and_says_what_still_works() {
    let (cvm, iot) = cvm_and_iot().await;
    let id = Certificate::parse(&cvm.read("factory/ca.pem")).unwrap().id().to_string();
    let failure = cvm.run(&format!("ca deactivate {id}")).failure();
    assert!(failure.contains("not registered") && failure.contains("cvm ca list"), "{failure}");
    cvm.run(&format!("ca register {CA}")).text();
    iot.changes();
    for calls in [1, 0] {
        let run = cvm.run(&format!("ca deactivate {id} --output json"));
        assert!(run.stderr.contains("that are active stay so"), "{}", run.stderr);
        let ca = run.json();
        assert_eq!((&ca["status"], &ca["autoRegistration"]), (&json!("inactive"), &json!(false)));
        assert_eq!(iot.changes().len(), calls);
    }
    assert!(cvm.run(&format!("ca deactivate {id}")).text().contains("inactive already"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_aws_iot_is_given_in_its_words() {
    let refuse = |_: Uri| async { error(StatusCode::FORBIDDEN, "UnauthorizedException") };
    let cvm = Cvm::on(&serve(Router::new().fallback(refuse)).await);
    let failure: Value = serde_json::from_str(&cvm.run("ca list --output json").failure()).unwrap();
    assert_eq!(failure["error"]["code"], "refused");
    assert!(failure["error"]["message"].as_str().unwrap().contains("UnauthorizedException"), "{failure}");
}
