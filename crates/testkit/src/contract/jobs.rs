//! The contract of the store of jobs.

use cvm_bulk::{
    ExportRequest, ExportStanding, Folder, ImportRequest, ImportStanding, Job, JobId, JobStatus, JobStore, Summary,
    Upload, Work,
};
use cvm_interchange::{DefaultProof, Defaults, Format, Options};
use cvm_provisioning::{Actor, AttemptId, CertificateId, DeviceFilter, ImportMode, State};

use crate::fixture::{NOW, id, later};

/// Runs the contract of a store of jobs over an empty one.
pub async fn job_store<J: JobStore>(jobs: &J) {
    let (import, export) = (import(), export());
    assert_eq!(jobs.find(import.id).await.expect("the store answers"), None);
    assert_eq!(jobs.list().await.expect("the store answers"), []);
    assert!(!jobs.replace(&import, 1).await.expect("the store answers"), "a job that is not there is not made");
    for job in [&import, &export] {
        jobs.create(job).await.expect("the store answers");
        assert_eq!(jobs.find(job.id).await.expect("the store answers").as_ref(), Some(job));
    }
    // The answer of a creation may be lost, and it be asked for again when a worker has begun.
    let mut running = import.clone();
    running.version = 2;
    running.status = JobStatus::Running;
    assert!(jobs.replace(&running, 1).await.expect("the store answers"));
    jobs.create(&import).await.expect("the store answers");
    assert_eq!(jobs.find(import.id).await.expect("the store answers").as_ref(), Some(&running));
    let mut cancelled = import.clone();
    cancelled.version = 2;
    cancelled.end(JobStatus::Cancelled, later(9));
    assert!(!jobs.replace(&cancelled, 1).await.expect("the store answers"), "somebody else was faster");
    assert_eq!(jobs.find(import.id).await.expect("the store answers").as_ref(), Some(&running));
    cancelled.version = 3;
    assert!(jobs.replace(&cancelled, 2).await.expect("the store answers"));
    let mut all = jobs.list().await.expect("the store answers");
    all.sort_by_key(|job| job.id);
    assert_eq!(all, [cancelled, export]);
}

fn job(number: u128, work: Work) -> Job {
    let by = Actor::new("anna").expect("a name");
    Job::new(JobId::from(AttemptId::new(number)), work, by, NOW)
}

fn import() -> Job {
    let folder: Folder = "s3://fleet/monday".parse().expect("a folder");
    let options = Options {
        defaults: Defaults {
            mode: Some(ImportMode::CreateOrUpdateIfMatchETag),
            group: "berlin".parse().ok(),
            template: "camera".parse().ok(),
            proof: DefaultProof::Ca(CertificateId::of(b"a CA")),
        },
        columns: vec!["device=SN".parse().expect("a column")],
        ignore_unknown_columns: true,
        restore: true,
    };
    let request = ImportRequest {
        input: folder.object("devices.csv").expect("a name"),
        output: folder,
        format: Some(Format::Csv),
        options,
        dry_run: true,
    };
    let summary = Summary { checked: 1, created: 2, updated: 3, unchanged: 4, deleted: 5, failed: 6, twins: 7 };
    let standing = ImportStanding { records: 21, summary };
    job(1, Work::Import { request, standing, etag: Some("tag".to_owned()), begun: true })
}

fn export() -> Job {
    let folder: Folder = "s3://fleet".parse().expect("a folder");
    let filter = DeviceFilter {
        state: Some(State::Quarantined),
        enabled: Some(false),
        group: "berlin".parse().ok(),
        template: "camera".parse().ok(),
        changed_since: Some(NOW),
    };
    let output = folder.object("devices.txt").expect("a name");
    let request = ExportRequest { output, format: cvm_bulk::ExportFormat::Csv, digests: true, filter };
    let upload = Upload { id: "1".to_owned(), parts: vec!["a".to_owned()], after: Some(id("sn-1")), whole: true };
    let mut job = job(2, Work::Export { request, standing: ExportStanding { devices: 1, upload: Some(upload) } });
    job.started_at = Some(later(1));
    job.failure = Some("no reason".to_owned());
    job.progress = 99;
    job.end(JobStatus::Failed, later(2));
    job
}
