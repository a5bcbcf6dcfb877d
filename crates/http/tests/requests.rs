//! Requests as clients of many kinds send them: which are accepted, and with which words the others are refused.
//! `requests/README.md` says what is special about each.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Request, StatusCode};
use cvm_http::{Handout, RootCa, router};
use cvm_provisioning::{Attestation, Changes as _, DeviceIdFrom, DeviceStore as _, RefusedKeys, Vend};
use cvm_testkit::fixture::{NOW, device, id, origin, templates};
use cvm_testkit::{MemoryAudit, MemoryPlatform, MemoryRegistry};
use tower::ServiceExt as _;

const JSON: &str = "application/json";
const PKCS10: &str = "application/pkcs10";

/// The file of each request, its type, the device that it is for, and the SHA-256 of its key.
const ACCEPTED: &[(&str, &str, &str, &str)] = &[
    (
        "begin-line-without-newline",
        PKCS10,
        "sn-0101",
        "b6520693b52c474c50baed360c9aade9b8526c2c20f2cb6e73be22c270fb6cbf",
    ),
    ("bare-base64-crlf-76", PKCS10, "sn-0103", "eea943630509cf2b96f6992838c1631007b85a387afec9870ecf47bc3a604d1c"),
    (
        "challenge-password-printable-string",
        PKCS10,
        "sn-0108",
        "e2859244c5bd30e631e20c49267f156cb8e539cd86de83f4c223b73d44dd2625",
    ),
    (
        "unknown-critical-extension",
        PKCS10,
        "sn-0109",
        "ce434748c6d0beebe716746f2a74fe9c9783982bd71ff46507fa25e0bf191660",
    ),
    (
        "rsa-signature-algorithm-without-null",
        PKCS10,
        "sn-0112",
        "221c72c194366a17edde5dd418ec04ce84fd802073ccdb6fa0015d950699cfb6",
    ),
    ("pem-with-byte-order-mark", PKCS10, "sn-0117", "5d85aac89585553b1a8001c2a11a59a3ed51b517ba2bee70926780cbf5fffe58"),
    ("indented-pem", PKCS10, "sn-0118", "9249898fbf8c9d1ae12e853ae80baae8d8685cde9b2ab37bff8005a9f76716ce"),
    (
        "product-in-cn-serial-in-serialnumber",
        JSON,
        "BLS-021",
        "704073821de32ed4e93376cacc0206c168bfa4a6e48dadd92dc4de713109e6de",
    ),
    ("cn-aws-iot-certificate", JSON, "sn-0123", "6cf96b0faae34d4b0a28f270d9610f467103996e100c5884a805c9b6c9cc55e6"),
    (
        "underscore-in-printable-string",
        PKCS10,
        "MP_0124",
        "e63de46d2a362b34ca4eaa429cc6bfca9b01a6f930e32c07eb85c130475b7b2c",
    ),
    (
        "empty-subject-and-device-in-json",
        JSON,
        "sn-0129",
        "a82eeb5f9806ac8b78fdf62a2274067b1003ff9b8117304aff4ab14e8942f617",
    ),
    ("empty-attribute-values", PKCS10, "sn-0130", "55085307e3575010cc4d7d681f565f4799b0aeb02aa988d00aedd7aa4e83f056"),
    ("keytool-rsa-3072-sha384", PKCS10, "sn-0136", "73fd273e9c48a87b9bab176aa623d340267430a9f8b4dda76d9f998dcf6107c8"),
    (
        "openssl-3-addext-san-eku-keyusage",
        PKCS10,
        "sn-0137",
        "a901cabf831c84c432aac050302a44cd21fdb84b4e7459651cf904113122a72b",
    ),
];

/// The file of each request that is refused, all of them `application/pkcs10`, and words in the reason.
const REFUSED: &[(&str, &str)] = &[
    ("version-2-wolfssl", "encoded as 2: set it to 0"),
    ("version-empty-integer", "INTEGER is empty"),
    ("der-with-trailing-bytes", "bytes follow"),
    ("rsa-key-without-null", "not NULL"),
    ("ecdsa-signature-raw-r-s", "signature"),
    ("latin1-in-printable-string", "common name"),
    ("common-name-t61string", "TeletexString"),
    ("file-path-instead-of-csr", "PEM"),
    ("plus-became-blank", "`+`"),
    ("ed25519", "Ed25519"),
    ("openssl-text-before-pem", "text around"),
    ("der-with-newline-at-end", "bytes follow"),
    ("pkijs-cn-and-c-in-one-rdn", "RDN"),
];

fn service(registry: &MemoryRegistry) -> Router {
    let vend = Vend {
        registry: registry.clone(),
        platform: MemoryPlatform::default(),
        audit: MemoryAudit::default(),
        templates: templates(),
        refused_keys: RefusedKeys::default(),
    };
    let handout = Handout::new("mqtt.example.com".parse().unwrap(), RootCa::amazon().unwrap());
    router(Arc::new(vend), handout, DeviceIdFrom::Either, || NOW)
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/requests")
}

/// The status of the response, and its body.
async fn send(service: &Router, name: &str, content_type: &str) -> (StatusCode, String) {
    let body = fs::read(folder().join(name)).unwrap();
    let request = Request::post("/v1/certificates").header(CONTENT_TYPE, content_type).body(Body::from(body)).unwrap();
    let response = service.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn requests_of_many_clients_are_accepted_with_their_key() {
    let registry = MemoryRegistry::default();
    let service = service(&registry);
    for (name, content_type, device_id, key) in ACCEPTED {
        let key = key.parse().unwrap();
        let mut registered = device(device_id);
        registered.attestation = Attestation::PublicKey { key };
        registry.add(&registered, &origin()).await.unwrap();
        let (status, body) = send(&service, name, content_type).await;
        assert_eq!(status, StatusCode::CREATED, "{name}: {body}");
        let credential = registry.find(&id(device_id)).await.unwrap().unwrap().credential.unwrap();
        assert_eq!(credential.key, key, "{name}");
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_used_is_refused_with_what_is_wrong() {
    let service = service(&MemoryRegistry::default());
    for (name, words) in REFUSED {
        let (status, body) = send(&service, name, PKCS10).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{name}: {body}");
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["code"], "csr-invalid", "{name}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{name}: {body}");
    }
}

#[test]
fn each_file_is_in_one_of_the_tables() {
    let mut files: Vec<_> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.retain(|name| name != "README.md");
    files.sort();
    let mut names: Vec<&str> = ACCEPTED.iter().map(|row| row.0).chain(REFUSED.iter().map(|row| row.0)).collect();
    names.sort_unstable();
    assert_eq!(files, names);
}
