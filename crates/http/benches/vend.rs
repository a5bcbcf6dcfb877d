//! What a vend costs in this process, HTTP and JSON included and AWS excluded: the ports answer at once. The floor is
//! the one signature check, measured beside it.

#![expect(clippy::expect_used, reason = "a panic is a failed benchmark")]

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use cvm_http::{Handout, RootCa, router};
use cvm_provisioning::{
    Changes as _, Csr, DeviceIdFrom, IssuedCertificate, LogAudit, Platform, PlatformError, PolicyName, RefusedKeys,
    RegisteredCertificate, Thing, ThingGroupName, ThingName, ThingPrincipalType, Vend,
};
use cvm_testkit::fixture::{NOW, TOKEN, device, origin, templates};
use cvm_testkit::{MemoryPlatform, MemoryRegistry};
use futures_util::FutureExt as _;
use tower::ServiceExt as _;

/// A platform that has made its one certificate already.
#[derive(Clone)]
struct Answering(IssuedCertificate);

impl Platform for Answering {
    async fn issue(&self, _: &Csr, _: &ThingName) -> Result<IssuedCertificate, PlatformError> {
        Ok(self.0.clone())
    }

    async fn ensure_thing(&self, _: &Thing) -> Result<(), PlatformError> {
        Ok(())
    }

    async fn attach_thing(&self, _: &ThingName, _: &str, _: ThingPrincipalType) -> Result<(), PlatformError> {
        Ok(())
    }

    async fn attach_policy(&self, _: &PolicyName, _: &str) -> Result<(), PlatformError> {
        Ok(())
    }

    async fn join_group(&self, _: &ThingName, _: &ThingGroupName) -> Result<(), PlatformError> {
        Ok(())
    }

    async fn certificates_of(&self, _: &ThingName) -> Result<Vec<RegisteredCertificate>, PlatformError> {
        Ok(Vec::new())
    }

    async fn retire(&self, _: &ThingName, _: &str) -> Result<(), PlatformError> {
        Ok(())
    }
}

fn request(name: &str, csr: &Csr) -> Request<Body> {
    let body = serde_json::json!({"deviceId": name, "csr": csr.pem()}).to_string();
    Request::post("/v1/certificates")
        .header(CONTENT_TYPE, "application/json")
        .header(AUTHORIZATION, format!("Bearer {TOKEN}"))
        .body(body.into())
        .expect("the request is one")
}

fn vend(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("the test machine has threads");
    // No common name, so that one key serves devices of every name.
    let key = rcgen::KeyPair::generate().expect("the test machine has randomness");
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let csr = Csr::from_der(params.serialize_request(&key).expect("rcgen encodes").der()).expect("the CSR is one");
    let issued = runtime.block_on(MemoryPlatform::default().issue(&csr)).expect("the platform in memory issues");

    let registry = MemoryRegistry::default();
    let handout = Handout::new(
        "mqtt.example.com".parse().expect("an endpoint"),
        RootCa::amazon().expect("the root that is built in is one"),
    );
    let vend = Vend {
        registry: registry.clone(),
        platform: Answering(issued),
        audit: LogAudit,
        templates: templates(),
        refused_keys: RefusedKeys::default(),
    };
    let router = router(Arc::new(vend), handout, DeviceIdFrom::default(), || NOW);

    criterion.bench_function("csr: parse and verify", |bencher| {
        bencher.iter(|| Csr::parse(csr.pem()).expect("the CSR is one"));
    });
    let mut number = 0;
    criterion.bench_function("vend: fresh", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            || {
                number += 1;
                let name = format!("sn-{number}");
                let added = registry.add(&device(&name), &origin()).now_or_never();
                added.expect("memory does not wait").expect("memory answers");
                (router.clone(), request(&name, &csr))
            },
            async |(router, request)| {
                let response = router.oneshot(request).await.expect("a router does not fail");
                assert_eq!(response.status(), 201);
            },
            BatchSize::SmallInput,
        );
    });
    criterion.bench_function("vend: replay", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            || (router.clone(), request("sn-1", &csr)),
            async |(router, request)| {
                let response = router.oneshot(request).await.expect("a router does not fail");
                assert_eq!(response.status(), 200);
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, vend);
criterion_main!(benches);
