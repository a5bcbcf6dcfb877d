//! Imports and exports, of which the API keeps what was asked for.

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use cvm_bulk::{JobStatus, JobStore as _, Work};
use cvm_http::{Jobs, Operator, Registry, jobs_elsewhere, registry_router};
use cvm_provisioning::{Actor, Operations};
use cvm_testkit::fixture::NOW;
use cvm_testkit::{MemoryJobs, MemoryRegistry, MemoryTrail, Script};
use serde_json::json;
use tower::ServiceExt as _;

use crate::api::{Answer, Api};

#[tokio::test]
async fn a_job_is_asked_for_read_listed_and_cancelled() {
    let api = Api::new(&Script::default());
    let import = json!({
        "type": "import",
        "inputBlobContainerUri": "s3://fleet/monday",
        "inputBlobName": "serials.csv",
        "outputBlobContainerUri": "s3://fleet/answers",
        "storageAuthenticationType": "keyBased",
        "cvm": {"format": "csv", "mode": "createorupdate", "group": "berlin", "proof": "claim", "columns": ["device=SN"]},
    });
    let made = api.post("/jobs/create", import).await;
    made.is("Job");
    assert_eq!((made.status, &made.body["status"], &made.body["progress"]), (200, &json!("enqueued"), &json!(0)));
    assert_eq!(made.body["inputBlobName"], "monday/serials.csv");
    let id = made.body["jobId"].as_str().unwrap();
    assert_eq!(made.body["outputBlobContainerUri"], format!("s3://fleet/answers/{id}/"));
    assert_eq!(made.body["cvm"]["createdBy"], "anna");
    let [kept] = &api.jobs.list().await.unwrap()[..] else { panic!("one job") };
    let Work::Import { request, .. } = &kept.work else { panic!("an import") };
    assert_eq!(request.options.defaults.group.as_ref().map(ToString::to_string).as_deref(), Some("berlin"));

    let export = json!({"type": "export", "excludeKeysInExport": true, "cvm": {"format": "csv", "status": "disabled"}});
    let export = api.post("/jobs/create", export).await;
    export.is("Job");
    let other = export.body["jobId"].as_str().unwrap();
    assert_eq!(export.body["outputBlobName"], format!("jobs/{other}/devices.txt"));
    assert_eq!(api.get("/jobs").await.body.as_array().unwrap().len(), 2);

    let uri = format!("/jobs/{id}");
    for _ in 0..2 {
        assert_eq!(api.send("DELETE", &uri, &[], "").await.status, 204);
    }
    let read = api.get(&uri).await;
    read.is("Job");
    assert_eq!((&read.body["status"], &read.body["endTimeUtc"]), (&json!("cancelled"), &json!("2027-01-15T08:00:00Z")));
    let unknown = format!("/jobs/{}", "0".repeat(32));
    for method in ["GET", "DELETE"] {
        assert_eq!(api.send(method, &unknown, &[], "").await.header("iothub-errorcode"), "JobNotFound");
    }
}

#[tokio::test]
async fn a_job_reads_and_writes_the_bucket_of_the_jobs_and_no_other() {
    let api = Api::new(&Script::default());
    for (body, code) in [
        (json!({"type": "import", "inputBlobContainerUri": "s3://other"}), "BlobContainerValidationError"),
        (json!({"type": "export", "outputBlobContainerUri": "s3://fleet2/a"}), "BlobContainerValidationError"),
        (json!({"type": "export", "outputBlobContainerUri": "https://fleet"}), "BlobContainerValidationError"),
        (json!({"type": "import", "inputBlobName": "../devices.txt"}), "BlobContainerValidationError"),
        (json!({"type": "import", "cvm": {"state": "registered"}}), "ArgumentInvalid"),
        (json!({"type": "import", "cvm": {"restore": true, "mode": "create"}}), "ArgumentInvalid"),
        (json!({"type": "import", "cvm": {"proof": "ca=1"}}), "ArgumentInvalid"),
        (json!({"type": "export", "cvm": {"mode": "create"}}), "ArgumentInvalid"),
        (json!({"type": "export", "cvm": {"changedSince": "yesterday"}}), "ArgumentInvalid"),
        (json!({"type": "export", "includeConfigurations": true}), "ArgumentInvalid"),
        (json!({"type": "restart"}), "ArgumentInvalid"),
        (json!({}), "ArgumentInvalid"),
    ] {
        let answer = api.post("/jobs/create", body.clone()).await;
        assert_eq!((answer.status, answer.header("iothub-errorcode")), (400, code), "{body}");
    }
    assert_eq!(api.jobs.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_job_of_a_server_reads_and_writes_its_folder_and_nothing_else() {
    let here = |jobs: MemoryJobs| Jobs { store: jobs, files: ".".parse().unwrap(), output: ".".parse().unwrap() };
    let api = Api::with(&Script::default(), here);
    let import = json!({"type": "import", "inputBlobContainerUri": "monday", "inputBlobName": "serials.csv"});
    let made = api.post("/jobs/create", import).await;
    made.is("Job");
    let place = |job: &Answer, name: &str| job.body[name].as_str().unwrap().to_owned();
    let id = place(&made, "jobId");
    assert_eq!(place(&made, "outputBlobContainerUri"), format!("./{id}/"));
    assert_eq!(
        (place(&made, "inputBlobContainerUri"), place(&made, "inputBlobName")),
        (".".into(), "monday/serials.csv".into())
    );
    let again = json!({
        "type": "import", "inputBlobContainerUri": place(&made, "inputBlobContainerUri"),
        "inputBlobName": place(&made, "inputBlobName"), "outputBlobContainerUri": place(&made, "outputBlobContainerUri"),
    });
    assert_eq!(api.post("/jobs/create", again).await.status, 200, "what is told can be asked for");
    let export = api.post("/jobs/create", json!({"type": "export"})).await;
    let id = place(&export, "jobId");
    assert_eq!(
        (place(&export, "outputBlobContainerUri"), place(&export, "outputBlobName")),
        (".".into(), format!("{id}/devices.txt"))
    );
    for container in
        ["", "/", "/etc", "../monday", "./..", "monday/../..", "s3://fleet", "file:///etc", ".cvm", "a\u{0}"]
    {
        for kind in ["import", "export"] {
            let body = json!({"type": kind, "inputBlobContainerUri": container, "outputBlobContainerUri": container});
            let refused = api.post("/jobs/create", body).await;
            let code = (refused.status, refused.header("iothub-errorcode"));
            assert_eq!(code, (400, "BlobContainerValidationError"), "{container}");
        }
    }
    for name in ["", "/etc/passwd", "../a", "a/../../b", ".cvm/id", "a//b", "a\nb"] {
        for body in
            [json!({"type": "import", "inputBlobName": name}), json!({"type": "export", "outputBlobName": name})]
        {
            assert_eq!(api.post("/jobs/create", body).await.status, 400, "{name}");
        }
    }
    assert_eq!(api.jobs.list().await.unwrap().len(), 3);
}

#[tokio::test]
async fn where_there_are_no_jobs_it_is_said_where_they_are() {
    let served = Registry {
        operations: Operations { registry: MemoryRegistry::default() },
        trail: MemoryTrail::default(),
        hears_of_connections: true,
    };
    let operator = Extension(Operator(Actor::new("anna").unwrap()));
    let router = registry_router(served, jobs_elsewhere("ask the stack"), || NOW).layer(operator);
    for (method, uri) in [("GET", "/jobs"), ("POST", "/jobs/create"), ("DELETE", "/jobs/0")] {
        let request = Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{uri}");
        let body = to_bytes(response.into_body(), 1_000).await.unwrap();
        assert!(String::from_utf8_lossy(&body).contains("ask the stack"), "{uri}");
    }
}

#[tokio::test]
async fn only_so_many_jobs_wait_at_once() {
    let api = Api::new(&Script::default());
    for _ in 0..16 {
        assert_eq!(api.post("/jobs/create", json!({"type": "import"})).await.status, 200);
    }
    let refused = api.post("/jobs/create", json!({"type": "import"})).await;
    assert_eq!((refused.status, refused.header("iothub-errorcode")), (403, "JobQuotaExceeded"));
    let mut job = api.jobs.list().await.unwrap().remove(0);
    job.version = 2;
    job.end(JobStatus::Completed, NOW);
    assert!(api.jobs.replace(&job, 1).await.unwrap());
    assert_eq!(api.post("/jobs/create", json!({"type": "import"})).await.status, 200);
}
