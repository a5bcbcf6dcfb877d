//! The contract of the store of jobs, and that of the place where their files are.

use std::io::{Read as _, Seek as _};

use cvm_bulk::{
    ExportRequest, ExportStanding, Folder, ImportRequest, ImportStanding, Job, JobId, JobStatus, JobStore, ObjectError,
    Objects, Summary, Upload, Work,
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

/// Runs the contract of the place where files are over an empty folder of it.
pub async fn objects<O: Objects>(objects: &O, folder: &Folder) {
    let object = |name: &str| folder.object(name).expect("a name");
    let there = async |name: &str| objects.get(&object(name)).await.expect("the place answers");
    let id = JobId::from(AttemptId::new(7));

    let text = object("monday/a.txt");
    let mut file = tempfile::tempfile().expect("a file");
    assert!(matches!(objects.fetch(&text, None, &mut file).await, Err(ObjectError::NotFound)));
    assert_eq!(there("monday/a.txt").await, None);
    assert!(objects.put_new(&text, b"one".to_vec()).await.expect("it is put"));
    assert!(!objects.put_new(&text, b"two".to_vec()).await.expect("it is not put"), "something is there");
    assert_eq!(there("monday/a.txt").await.as_deref(), Some(&b"one"[..]));
    let fetched = objects.fetch(&text, None, &mut file).await.expect("it is fetched");
    file.rewind().expect("a file");
    let mut read = String::new();
    file.read_to_string(&mut read).expect("a file");
    assert_eq!((fetched.length, read.as_str()), (3, "one"));
    let again = objects.fetch(&text, Some(&fetched.etag), &mut file).await.expect("it is the same");
    assert_eq!(again, fetched);
    objects.put(&text, b"two".to_vec()).await.expect("it is put");
    assert_eq!(there("monday/a.txt").await.as_deref(), Some(&b"two"[..]));
    let changed = objects.fetch(&text, Some(&fetched.etag), &mut file).await;
    assert!(matches!(changed, Err(ObjectError::Changed)), "{changed:?}");

    // S3 takes no smaller part but the last one.
    let first = vec![b'1'; 5 * 1024 * 1024];
    let large = object("tuesday/large.txt");
    let upload = objects.begin(&large, id).await.expect("it is begun");
    let part = async |number, bytes: &[u8]| {
        objects.part(&large, &upload, number, bytes.to_vec()).await.expect("the part is written")
    };
    part(1, &vec![b'0'; 5 * 1024 * 1024]).await;
    let tags = [part(1, &first).await, part(2, b"end").await];
    assert_eq!(there("tuesday/large.txt").await, None, "it is there when it is complete");
    for _ in 0..2 {
        objects.complete(&large, &upload, &tags, id).await.expect("again is the same as once");
        assert_eq!(there("tuesday/large.txt").await, Some([&first[..], b"end"].concat()));
    }
    let empty = object("empty.txt");
    let upload = objects.begin(&empty, id).await.expect("it is begun");
    let tag = objects.part(&empty, &upload, 1, Vec::new()).await.expect("the part is written");
    objects.complete(&empty, &upload, &[tag], id).await.expect("it is complete");
    assert_eq!(there("empty.txt").await.as_deref(), Some(&b""[..]));

    let none = object("wednesday/none.txt");
    let upload = objects.begin(&none, id).await.expect("it is begun");
    let tag = objects.part(&none, &upload, 1, first).await.expect("the part is written");
    for _ in 0..2 {
        objects.abort(&none, &upload).await.expect("again is the same as once");
    }
    assert!(objects.part(&none, &upload, 2, b"end".to_vec()).await.is_err(), "it was given up");
    assert!(objects.complete(&none, &upload, &[tag], id).await.is_err(), "it was given up");
    assert_eq!(there("wednesday/none.txt").await, None);
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
        prefix: "sn-".parse().ok(),
        refused_since: Some(NOW),
        expires_before: Some(NOW),
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
