//! The certificates of an AWS IoT in this process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{post, put};
use axum::{Json, Router};
use cvm_aws::DynamoDbRegistry;
use cvm_provisioning::{CertificateId, ClaimStore as _, Csr};
use cvm_testkit::MemoryPlatform;
use serde_json::{Value, json};

/// What AWS IoT has, and how it behaves. It sees into the registry at each call.
#[derive(Clone)]
pub(crate) struct Iot {
    pub(crate) certificates: Arc<Mutex<BTreeMap<String, Certificate>>>,
    /// What was done, in order.
    pub(crate) calls: Arc<Mutex<Vec<String>>>,
    failing: Arc<Mutex<Option<Failing>>>,
    registry: DynamoDbRegistry,
}

#[derive(Clone, Default)]
pub(crate) struct Certificate {
    pub(crate) pem: String,
    pub(crate) status: String,
    pub(crate) policies: Vec<String>,
}

/// The call from now on that is answered with an error, and whether it is done all the same.
#[derive(Clone, Copy)]
pub(crate) struct Failing {
    pub(crate) call: usize,
    pub(crate) is_done: bool,
}

impl Iot {
    pub(crate) fn new(registry: DynamoDbRegistry) -> Self {
        let (certificates, calls, failing) = Default::default();
        Self { certificates, calls, failing, registry }
    }

    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/certificates", post(create))
            .route("/certificates/{id}", put(update).get(describe))
            .route("/target-policies/{policy}", put(attach))
            .with_state(self.clone())
    }

    pub(crate) fn add(&self, id: &CertificateId, pem: &str) {
        let certificate = Certificate { pem: pem.to_owned(), status: "ACTIVE".to_owned(), policies: Vec::new() };
        self.certificates.lock().unwrap().insert(id.to_string(), certificate);
    }

    pub(crate) fn fail(&self, failing: Option<Failing>) {
        *self.failing.lock().unwrap() = failing;
    }

    /// The ids of the certificates that are let in.
    pub(crate) fn active(&self) -> Vec<String> {
        let certificates = self.certificates.lock().unwrap();
        let active = certificates.iter().filter(|(_, certificate)| certificate.status == "ACTIVE");
        active.map(|(id, _)| id.clone()).collect()
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// Does what was asked unless it is to fail before.
    fn answer(&self, call: String, work: impl FnOnce() -> Response) -> Response {
        self.calls.lock().unwrap().push(call);
        let failing = {
            let mut failing = self.failing.lock().unwrap();
            let now = failing.filter(|failing| failing.call == 0);
            *failing = failing.and_then(|failing| Some(Failing { call: failing.call.checked_sub(1)?, ..failing }));
            now
        };
        match failing {
            None => work(),
            Some(failing) => {
                if failing.is_done {
                    work();
                }
                error(StatusCode::BAD_REQUEST, "UnauthorizedException")
            }
        }
    }
}

async fn create(State(iot): State<Iot>, uri: Uri, Json(body): Json<Value>) -> Response {
    let request = Csr::parse(body["certificateSigningRequest"].as_str().unwrap()).unwrap();
    let certificate = MemoryPlatform::default().issue(&request).await.unwrap().certificate;
    let active = uri.query().is_some_and(|query| query.contains("setAsActive=true"));
    iot.answer("create".to_owned(), || {
        let id = certificate.id().to_string();
        let made = Certificate {
            pem: certificate.pem().to_owned(),
            status: if active { "ACTIVE" } else { "INACTIVE" }.to_owned(),
            policies: Vec::new(),
        };
        iot.certificates.lock().unwrap().insert(id.clone(), made);
        Json(json!({ "certificateArn": arn(&id), "certificateId": id, "certificatePem": certificate.pem() }))
            .into_response()
    })
}

async fn describe(State(iot): State<Iot>, Path(id): Path<String>) -> Response {
    iot.answer("describe".to_owned(), || match iot.certificates.lock().unwrap().get(&id) {
        None => error(StatusCode::NOT_FOUND, "ResourceNotFoundException"),
        Some(Certificate { pem, status, .. }) => Json(json!({ "certificateDescription": {
            "certificateArn": arn(&id), "certificateId": id, "certificatePem": pem, "status": status,
        } }))
        .into_response(),
    })
}

/// The call tells whether the registry has the claim at this moment, and whether it claims.
async fn update(State(iot): State<Iot>, Path(id): Path<String>, uri: Uri) -> Response {
    let status = uri.query().unwrap().strip_prefix("newStatus=").unwrap().to_owned();
    let claim = iot.registry.find_claim(&id.parse().unwrap()).await.unwrap();
    let known = claim.map_or("unknown", |claim| claim.status.name());
    iot.answer(format!("{status} while {known}"), || match iot.certificates.lock().unwrap().get_mut(&id) {
        None => error(StatusCode::NOT_FOUND, "ResourceNotFoundException"),
        Some(certificate) => {
            certificate.status = status;
            Json(json!({})).into_response()
        }
    })
}

async fn attach(State(iot): State<Iot>, Path(policy): Path<String>, Json(body): Json<Value>) -> Response {
    iot.answer(format!("attach {policy}"), || {
        let target = body["target"].as_str().unwrap().to_owned();
        let mut certificates = iot.certificates.lock().unwrap();
        certificates.get_mut(target.rsplit('/').next().unwrap()).unwrap().policies.push(policy);
        Json(json!({})).into_response()
    })
}

fn arn(id: &str) -> String {
    format!("arn:aws:iot:eu-central-1:123456789012:cert/{id}")
}

fn error(status: StatusCode, code: &'static str) -> Response {
    (status, [("x-amzn-errortype", code)], Json(json!({ "message": "no" }))).into_response()
}
