//! Jobs, whatever happens to their workers.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::collections::BTreeMap;
use std::time::Duration;

use cvm_bulk::{
    ExportFormat, ExportRequest, ExportStanding, Folder, ImportRequest, ImportStanding, Job, JobId, JobStatus,
    JobStore, Objects, Portion, Work, WorkError, Worked, Worker,
};
use cvm_interchange::{DefaultProof, Defaults, Options};
use cvm_provisioning::{
    Actor, AttemptId, Attestation, DeviceFilter, DeviceStore, EnrolmentToken, ImportMode, Operations, Settings,
    Timestamp,
};
use cvm_testkit::fixture::{NOW, id, origin};
use cvm_testkit::{Fault, Faulty, MemoryJobs, MemoryObjects, MemoryRegistry, Script, contract};
use serde_json::Value;

/// Rows of the file that is imported, every fifth of which cannot be used.
const ROWS: usize = 15;
/// Lines of a portion.
const LINES: usize = 4;
const JOB: u128 = 0xab;

#[derive(Clone, Default)]
struct World {
    registry: MemoryRegistry,
    jobs: MemoryJobs,
    objects: MemoryObjects,
}

type FaultyWorker = Worker<Faulty<MemoryRegistry>, Faulty<MemoryJobs>, Faulty<MemoryObjects>>;

impl World {
    /// A worker whose calls follow a script.
    fn worker(&self, script: &Script) -> FaultyWorker {
        let registry = Faulty { inner: self.registry.clone(), script: script.clone() };
        Worker {
            operations: Operations { registry },
            jobs: Faulty { inner: self.jobs.clone(), script: script.clone() },
            objects: Faulty { inner: self.objects.clone(), script: script.clone() },
            clock: || NOW,
            portion: Portion { lines: LINES, bytes: 1_000, devices: 2 },
        }
    }

    /// A turn of a worker; `None` is one that died.
    async fn turn(&self, script: &Script) -> Option<Result<Worked, WorkError>> {
        script.run(self.worker(script).work(job_id(), || true)).await
    }

    /// Turns until the job is at its end.
    async fn finish(&self, context: &str) -> Job {
        for _ in 0..3 {
            let worked = self.turn(&Script::default()).await.unwrap().unwrap();
            if worked == Worked::Ended {
                return self.job().await;
            }
        }
        panic!("{context}: {:?}", self.job().await)
    }

    async fn job(&self) -> Job {
        self.jobs.find(job_id()).await.unwrap().unwrap()
    }

    async fn importing(mode: ImportMode) -> Self {
        let world = Self::default();
        let row = |row: usize| if row % 5 == 4 { "=1\n".to_owned() } else { format!("sn-{row}\n") };
        let text: String = (0..ROWS).map(row).collect();
        let folder = folder();
        let input = folder.object("devices.csv").unwrap();
        world.objects.put(&input, format!("serial\n{text}").into_bytes()).await.unwrap();
        let options = Options { defaults: Defaults { mode: Some(mode), ..Defaults::default() }, ..Options::default() };
        let request = ImportRequest { input, output: folder, format: None, options, dry_run: false };
        world.asked(Work::Import { request, standing: ImportStanding::default(), etag: None, begun: false }).await;
        world
    }

    /// Another request of the same import.
    async fn with(self, change: impl FnOnce(&mut ImportRequest)) -> Self {
        let mut job = self.job().await;
        if let Work::Import { request, .. } = &mut job.work {
            change(request);
        }
        assert!(self.jobs.replace(&job, 1).await.unwrap());
        self
    }

    async fn exporting() -> Self {
        let world = Self::default();
        let operations = Operations { registry: world.registry.clone() };
        for number in 0..12 {
            let settings = Settings { group: Some("berlin".parse().ok()), ..Settings::default() };
            operations.create(id(&format!("sn-{number:02}")), settings, &origin(), NOW).await.unwrap();
        }
        let request = ExportRequest {
            output: folder().object("devices.txt").unwrap(),
            format: ExportFormat::Json,
            digests: false,
            filter: DeviceFilter::default(),
        };
        world.asked(Work::Export { request, standing: ExportStanding::default() }).await;
        world
    }

    async fn asked(&self, work: Work) {
        self.jobs.create(&Job::new(job_id(), work, Actor::new("anna").unwrap(), NOW)).await.unwrap();
    }

    async fn cancel(&self) {
        let mut job = self.job().await;
        let version = job.version;
        job.version += 1;
        job.end(JobStatus::Cancelled, NOW);
        assert!(self.jobs.replace(&job, version).await.unwrap());
    }

    /// The lines of the objects of this kind, by the numbers of the lines they are about.
    fn lines(&self, kind: &str) -> BTreeMap<u64, Value> {
        let objects = self.objects.below(&format!("s3://fleet/monday/{}/{kind}-", job_id()));
        let lines = objects.values().flat_map(|text| text.lines());
        let mut all = BTreeMap::new();
        for line in lines.map(|line| serde_json::from_str::<Value>(line).unwrap()) {
            let number = line["line"].as_u64().unwrap();
            assert!(all.insert(number, line).is_none(), "{kind} has line {number} once");
        }
        all
    }

    /// Every device was written once and has the token that was kept for it, and every line that failed is told once.
    async fn is_imported(&self, context: &str) {
        let tokens = self.lines("tokens");
        let failed = self.lines("errors");
        for row in 0..ROWS {
            // The first row is the second line.
            let number = row as u64 + 2;
            if row % 5 == 4 {
                assert_eq!(failed[&number]["code"], "invalid", "{context}");
                continue;
            }
            let device = self.registry.find(&id(&format!("sn-{row}"))).await.unwrap().unwrap();
            assert_eq!(device.version, 1, "{context}: written once");
            let token: EnrolmentToken = tokens[&number]["token"].as_str().unwrap().parse().unwrap();
            let Attestation::Token { digest, .. } = device.attestation else { panic!("{context}") };
            assert_eq!(digest, token.digest(), "{context}: the token of row {row} is its own");
        }
        assert_eq!((tokens.len(), failed.len()), (ROWS - ROWS / 5, ROWS / 5), "{context}");
    }
}

fn job_id() -> JobId {
    AttemptId::new(JOB).into()
}

fn folder() -> Folder {
    "s3://fleet/monday".parse().unwrap()
}

/// Waits until the script holds a call, and says whether it does.
async fn is_held(script: &Script) -> bool {
    tokio::select! {
        biased;
        () = script.held() => true,
        () = tokio::time::sleep(Duration::from_secs(60)) => false,
    }
}

#[tokio::test]
async fn the_store_in_memory_keeps_the_contract() {
    contract::job_store(&MemoryJobs::default()).await;
}

#[tokio::test]
async fn the_objects_in_memory_keep_the_contract() {
    contract::objects(&MemoryObjects::default(), &folder()).await;
}

#[tokio::test]
async fn an_import_says_what_became_of_its_lines() {
    let world = World::importing(ImportMode::Create).await;
    let job = world.finish("").await;
    assert_eq!((job.status, job.progress), (JobStatus::Completed, 100));
    assert_eq!((job.started_at, job.ended_at), (Some(NOW), Some(NOW)));
    let Work::Import { standing, .. } = &job.work else { panic!("{job:?}") };
    assert_eq!((standing.records, standing.summary.created, standing.summary.failed), (15, 12, 3));
    world.is_imported("").await;
}

#[tokio::test]
async fn a_dry_run_writes_nothing_but_the_lines_that_failed() {
    let world = World::importing(ImportMode::Create).await.with(|request| request.dry_run = true).await;
    let job = world.finish("").await;
    let Work::Import { standing, .. } = &job.work else { panic!("{job:?}") };
    assert_eq!((standing.summary.checked, standing.summary.failed), (12, 3));
    assert_eq!(world.registry.count().await.unwrap().total, 0);
    assert_eq!((world.lines("tokens").len(), world.lines("errors").len()), (0, 3));
}

#[tokio::test]
async fn a_proof_that_is_no_token_makes_no_object_of_tokens() {
    let claim = |request: &mut ImportRequest| request.options.defaults.proof = DefaultProof::Claim;
    let world = World::importing(ImportMode::Create).await.with(claim).await;
    assert_eq!(world.finish("").await.status, JobStatus::Completed);
    assert_eq!(world.lines("tokens").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn threat_41_an_import_whose_worker_fails_anywhere_does_nothing_twice() {
    for mode in [ImportMode::Create, ImportMode::CreateOrUpdate] {
        for fault in Fault::FAILURES {
            for n in 1.. {
                let context = format!("{mode:?}, {fault:?} at call {n}");
                let world = World::importing(mode).await;
                let script = Script::fail(n, fault);
                let turn = world.turn(&script).await;
                let is_over = script.calls() < n;
                assert!(!is_over || matches!(turn, Some(Ok(Worked::Ended))), "{context}");
                assert_eq!(world.finish(&context).await.status, JobStatus::Completed, "{context}");
                world.is_imported(&context).await;
                if is_over {
                    break;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_import_whose_worker_sleeps_while_another_goes_on_does_nothing_twice() {
    for n in 1.. {
        let context = format!("asleep at call {n}");
        let world = World::importing(ImportMode::Create).await;
        let script = Script::fail(n, Fault::Hold);
        let other = async {
            is_held(&script).await;
            let job = world.finish(&context).await;
            script.resume();
            job
        };
        // What the sleeper makes of it is its own affair; what is there afterwards counts.
        let (_, job) = tokio::join!(world.turn(&script), other);
        assert_eq!(job.status, JobStatus::Completed, "{context}");
        assert_eq!(world.job().await, job, "{context}: nobody wrote it after its end");
        world.is_imported(&context).await;
        if script.calls() < n {
            break;
        }
    }
}

#[tokio::test]
async fn a_worker_whose_time_is_over_leaves_the_rest_to_the_next_one() {
    for world in [World::importing(ImportMode::Create).await, World::exporting().await] {
        let mut turns = 0;
        while world.worker(&Script::default()).work(job_id(), || false).await.unwrap() == Worked::Continues {
            assert_eq!(world.job().await.status, JobStatus::Running);
            turns += 1;
        }
        assert!(turns >= 3, "{turns}");
        assert_eq!(world.job().await.status, JobStatus::Completed);
    }
}

#[tokio::test(start_paused = true)]
async fn an_export_whose_worker_fails_anywhere_has_every_device_once() {
    for fault in Fault::FAILURES {
        for n in 1.. {
            let context = format!("{fault:?} at call {n}");
            let world = World::exporting().await;
            let script = Script::fail(n, fault);
            let _ = world.turn(&script).await;
            let job = world.finish(&context).await;
            assert_eq!(job.status, JobStatus::Completed, "{context}");
            let objects = world.objects.below("s3://fleet/monday/devices.txt");
            let lines = objects.values().flat_map(|text| text.lines());
            let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
            let mut names: Vec<_> = lines.iter().map(|line| line["id"].as_str().unwrap()).collect();
            names.sort_unstable();
            assert!(names.iter().copied().eq((0..12).map(|number| format!("sn-{number:02}"))), "{context}: {names:?}");
            let Work::Export { standing, .. } = &job.work else { panic!("{context}") };
            assert_eq!(standing.devices, 12, "{context}");
            if script.calls() < n {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_cancelled_at_any_moment_stops_and_leaves_no_upload() {
    for exports in [true, false] {
        for n in 1.. {
            let context = format!("cancelled at call {n}, exports: {exports}");
            let world = if exports { World::exporting().await } else { World::importing(ImportMode::Create).await };
            let script = Script::fail(n, Fault::Hold);
            let operator = async {
                let runs = is_held(&script).await && !world.job().await.status.has_ended();
                if runs {
                    world.cancel().await;
                }
                script.resume();
                runs
            };
            let (turn, is_cancelled) = tokio::join!(world.turn(&script), operator);
            assert!(matches!(turn, Some(Ok(_))), "{context}: {turn:?}");
            let job = world.finish(&context).await;
            let expected = if is_cancelled { JobStatus::Cancelled } else { JobStatus::Completed };
            assert_eq!(job.status, expected, "{context}");
            assert_eq!(world.objects.uploads(), 0, "{context}");
            if script.calls() < n {
                break;
            }
        }
    }
}

#[tokio::test]
async fn an_import_of_what_is_not_there_fails_with_the_reason() {
    let other = |request: &mut ImportRequest| request.input = folder().object("other.csv").unwrap();
    let job = World::importing(ImportMode::Create).await.with(other).await.finish("").await;
    assert_eq!(job.status, JobStatus::Failed);
    assert_eq!(job.failure.unwrap(), "s3://fleet/monday/other.csv: there is no such object");
}

#[tokio::test]
async fn a_file_that_is_changed_while_it_is_imported_is_not_gone_on_with() {
    let world = World::importing(ImportMode::Create).await;
    assert_eq!(world.worker(&Script::default()).work(job_id(), || false).await.unwrap(), Worked::Continues);
    let input = folder().object("devices.csv").unwrap();
    world.objects.put(&input, b"serial\nother\n".to_vec()).await.unwrap();
    let job = world.finish("").await;
    assert_eq!(job.failure.unwrap(), "s3://fleet/monday/devices.csv: the object was changed in the meantime");
}

#[tokio::test]
async fn a_job_that_gets_no_further_is_given_up() {
    let world = World::importing(ImportMode::Create).await;
    let mut job = world.job().await;
    job.status = JobStatus::Running;
    job.advanced_at = Timestamp::from_seconds(NOW.seconds() - 6 * 60 * 60 - 1);
    assert!(world.jobs.replace(&job, 1).await.unwrap());
    let job = world.finish("").await;
    assert_eq!(job.status, JobStatus::Failed);
    assert_eq!(world.registry.count().await.unwrap().total, 0);
}
