//! The API over a registry in memory, as an operator has it.

use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, Request};
use axum::{Extension, Router};
use cvm_http::{Jobs, Operator, Registry, RoleRefused, registry_router, unknown_devices};
use cvm_provisioning::{Actor, Device, DeviceStore as _, Operations, UnknownDevices};
use cvm_testkit::fixture::{NOW, id};
use cvm_testkit::{Faulty, MemoryJobs, MemoryRegistry, MemoryTrail, Script};
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// Jobs as a stack has them.
pub(crate) fn desk(store: MemoryJobs) -> Jobs<MemoryJobs> {
    Jobs { store, files: "s3://fleet".parse().unwrap(), output: "s3://fleet/jobs".parse().unwrap() }
}

/// The API over a registry in memory, as an operator has it.
pub(crate) struct Api {
    pub(crate) registry: MemoryRegistry,
    pub(crate) trail: MemoryTrail,
    pub(crate) jobs: MemoryJobs,
    pub(crate) unknown: Arc<Mutex<UnknownDevices>>,
    pub(crate) router: Router,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    /// Whether whoever counts refusals is told that the operator's role did not allow it.
    pub(crate) is_for_another_role: bool,
}

impl Answer {
    /// The body, which is what the OpenAPI document says of it.
    pub(crate) fn is(&self, name: &str) {
        let document: Value = serde_json::from_str(include_str!("../../../../schemas/registry.openapi.json")).unwrap();
        let schema = json!({"$ref": format!("#/components/schemas/{name}"), "components": document["components"]});
        jsonschema::validator_for(&schema).unwrap().validate(&self.body).unwrap();
    }

    /// The body, which is a list of what the document says.
    pub(crate) fn is_list_of(&self, name: &str) {
        for body in self.body.as_array().unwrap() {
            Self { body: body.clone(), headers: HeaderMap::new(), ..*self }.is(name);
        }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Api {
    pub(crate) fn new(script: &Script) -> Self {
        Self::with(script, desk)
    }

    pub(crate) fn with(script: &Script, desk: fn(MemoryJobs) -> Jobs<MemoryJobs>) -> Self {
        let (registry, trail) = (MemoryRegistry::default(), MemoryTrail::default());
        let faulty = Faulty { inner: registry.clone(), script: script.clone() };
        let operations = Operations { registry: faulty };
        let served = Registry { operations, trail: trail.clone(), hears_of_connections: true };
        let operator = Operator(Actor::new("anna").unwrap());
        let jobs = MemoryJobs::default();
        let desk = desk(jobs.clone());
        let unknown = Arc::<Mutex<UnknownDevices>>::default();
        let kept = Arc::clone(&unknown);
        let more = desk.routes().merge(unknown_devices(move || std::future::ready(Ok(kept.lock().unwrap().clone()))));
        let router = registry_router(served, more, || NOW).layer(Extension(operator));
        Self { registry, trail, jobs, unknown, router }
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let is_for_another_role = response.extensions().get::<RoleRefused>().is_some();
        let (status, headers) = (response.status(), response.headers().clone());
        assert_eq!(headers[CACHE_CONTROL], "no-store");
        assert!(headers.contains_key("x-request-id"));
        let bytes = to_bytes(response.into_body(), 8 << 20).await.unwrap();
        let body: Value = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        if status.is_client_error() && body.get("isSuccessful").is_none() {
            let code = headers["iothub-errorcode"].to_str().unwrap();
            assert!(body["Message"].as_str().unwrap().starts_with(&format!("ErrorCode:{code};")));
            assert!(body["ExceptionMessage"].as_str().unwrap().ends_with("-G:1-TimeStamp:01/15/2027 08:00:00"));
        }
        Answer { status: status.as_u16(), headers, body, is_for_another_role }
    }

    pub(crate) async fn get(&self, uri: &str) -> Answer {
        self.send("GET", uri, &[], Body::empty()).await
    }

    pub(crate) async fn put(&self, uri: &str, if_match: Option<&str>, body: Value) -> Answer {
        let headers: Vec<_> = if_match.iter().map(|tag| ("if-match", *tag)).collect();
        self.send("PUT", uri, &headers, body.to_string()).await
    }

    pub(crate) async fn post(&self, uri: &str, body: Value) -> Answer {
        self.send("POST", uri, &[("content-type", "application/json; charset=utf-8")], body.to_string()).await
    }

    pub(crate) async fn device(&self, name: &str) -> Device {
        self.registry.find(&id(name)).await.unwrap().unwrap()
    }
}
