//! The imports and exports that operators ask for, and the worker that does them.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use cvm_bulk::{Folder, FolderObjects, Job, JobId, JobStore, Portion, Worker};
use cvm_http::{Jobs, jobs_elsewhere};
use cvm_provisioning::{Operations, RegistryError};
use cvm_sql::{SqlJobs, SqlRegistry};
use tokio::runtime;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::arguments::ServeArguments;
use super::{ServeError, now};
use crate::file;

/// Where the files are, in the folder of it all, if nothing else is said.
const FOLDER: &str = "jobs";
/// How often it is looked whether there is something to do, where nobody says so.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long another server has that began with a job, until that is taken over. A portion takes a few seconds.
const LEASE: Duration = Duration::from_secs(30);
/// How long an end waits for the portion that is under way. One that takes longer is done again, as after a crash.
const LAST: Duration = Duration::from_secs(5);
/// Jobs that were written and not looked at yet, at most. One more is found by the next look, all the same.
const WRITTEN: usize = 64;

/// The routes of the jobs beside this registry, and who does them. `decided` is told when a job may have decided something
/// about devices.
pub(super) fn open(
    arguments: &ServeArguments,
    registry: &SqlRegistry,
    decided: &Arc<Notify>,
) -> Result<(Router, JobWorker), ServeError> {
    let path = arguments.job_folder.clone().unwrap_or_else(|| arguments.data.join(FOLDER));
    file::private_folder(&path)?;
    // A file there may have tokens in it, or be the next import.
    file::take_permissions(&path, if arguments.job_folder.is_some() { 0o022 } else { 0o077 })?;
    let objects = FolderObjects::open(path.clone()).map_err(|source| ServeError::JobFolder { path, source })?;
    let jobs = SqlJobs::new(registry.clone(), objects.id());
    let (tell, written) = mpsc::channel(WRITTEN);
    let routes =
        Jobs { store: ToldJobs { jobs: jobs.clone(), tell }, files: Folder::of_server(), output: Folder::of_server() }
            .routes();
    let worker = Worker {
        operations: Operations { registry: registry.clone() },
        jobs,
        objects,
        clock: now,
        portion: Portion::default(),
    };
    let lease = if registry.is_shared() { LEASE } else { Duration::ZERO };
    Ok((routes, JobWorker { worker, written, lease, seen: HashMap::new(), decided: Arc::clone(decided) }))
}

/// What is said where the registry is a stack's, whose jobs have their files in its bucket.
pub(super) fn of_the_stack() -> Router {
    jobs_elsewhere("the stack of this table has the jobs: ask at its output RegistryUrl")
}

/// Jobs whose worker is told what operators have written.
#[derive(Clone, Debug)]
struct ToldJobs {
    jobs: SqlJobs,
    tell: mpsc::Sender<JobId>,
}

impl ToldJobs {
    fn tell(&self, job: &Job) {
        // Where there are too many, they are looked for.
        let _ = self.tell.try_send(job.id);
    }
}

impl JobStore for ToldJobs {
    async fn create(&self, job: &Job) -> Result<(), RegistryError> {
        self.jobs.create(job).await?;
        self.tell(job);
        Ok(())
    }

    async fn find(&self, id: JobId) -> Result<Option<Job>, RegistryError> {
        self.jobs.find(id).await
    }

    async fn replace(&self, job: &Job, version: u64) -> Result<bool, RegistryError> {
        let replaced = self.jobs.replace(job, version).await?;
        self.tell(job);
        Ok(replaced)
    }

    async fn list(&self) -> Result<Vec<Job>, RegistryError> {
        self.jobs.list().await
    }
}

/// Does the jobs, one at a time and the oldest first, on a thread of its own: what waits for the disk there keeps no device
/// waiting.
pub(super) struct JobWorker {
    worker: Worker<SqlRegistry, SqlJobs, FolderObjects>,
    /// What operators have written.
    written: mpsc::Receiver<JobId>,
    /// How long a job is another server's that began with it.
    lease: Duration,
    /// The jobs that somebody began with: in which version they were seen first, and when.
    seen: HashMap<JobId, (u64, Instant)>,
    /// Told when devices may have been disabled or deleted.
    decided: Arc<Notify>,
}

/// A worker at its work.
pub(super) struct Working {
    end: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
}

impl JobWorker {
    pub(super) fn start(self) -> io::Result<Working> {
        let (end, told_to_end) = watch::channel(false);
        let (at_its_end, ended) = oneshot::channel::<()>();
        let runtime = runtime::Builder::new_current_thread().enable_time().build()?;
        thread::Builder::new().name("jobs".to_owned()).spawn(move || {
            runtime.block_on(Box::pin(self.work(told_to_end)));
            drop(at_its_end);
        })?;
        Ok(Working { end, ended })
    }

    async fn work(mut self, mut told_to_end: watch::Receiver<bool>) {
        if let Err(error) = self.begin_anew().await {
            log(&error, "the jobs cannot be read");
        }
        loop {
            self.work_off(&told_to_end).await;
            tokio::select! {
                Some(job) = self.written.recv() => self.clear_away(job).await,
                () = tokio::time::sleep(INTERVAL) => {}
                // Who could say so may be gone.
                _ = told_to_end.wait_for(|end| *end) => return,
            }
        }
    }

    /// While no server ran, no job could get any further, and none is to be given up for that.
    async fn begin_anew(&self) -> Result<(), RegistryError> {
        // With others it is not known whether one ran.
        if !self.lease.is_zero() {
            return Ok(());
        }
        for mut job in self.worker.jobs.open().await? {
            let version = job.version;
            (job.version, job.advanced_at) = (version + 1, now());
            self.worker.jobs.replace(&job, version).await?;
        }
        Ok(())
    }

    /// Goes on with every job that is not at its end.
    async fn work_off(&mut self, told_to_end: &watch::Receiver<bool>) {
        let open = match self.worker.jobs.open().await {
            Ok(open) => open,
            Err(error) => return log(&error, "the jobs cannot be read; it is tried again"),
        };
        self.seen.retain(|id, _| open.iter().any(|job| job.id == *id));
        for job in &open {
            if is_taken(&mut self.seen, job, self.lease, Instant::now()) {
                continue;
            }
            if *told_to_end.borrow() {
                return;
            }
            match self.worker.work(job.id, || !*told_to_end.borrow()).await {
                Ok(worked) => tracing::info!(job = %job.id, ?worked, "a job was worked on"),
                Err(error) => log(&error, "a turn of a job did not come to its end; it is tried again"),
            }
            self.decided.notify_one();
        }
    }

    /// What a job that an operator ended has left behind, if nobody was at it.
    async fn clear_away(&self, id: JobId) {
        let cleared = match self.worker.jobs.find(id).await {
            Ok(Some(job)) if job.status.has_ended() => self.worker.work(id, || false).await.map(drop),
            found => found.map(drop).map_err(Into::into),
        };
        if let Err(error) = cleared {
            log(&error, "what a job has left behind was not removed; a start after a day does so");
        }
    }
}

/// Whether another server may be at this job: it has written it a short while ago, by our own clock.
fn is_taken(seen: &mut HashMap<JobId, (u64, Instant)>, job: &Job, lease: Duration, now: Instant) -> bool {
    if job.started_at.is_none() {
        return false;
    }
    let (version, since) = seen.entry(job.id).or_insert((job.version, now));
    if *version != job.version {
        (*version, *since) = (job.version, now);
    }
    now.duration_since(*since) < lease
}

impl Working {
    /// Tells it to end after the portion that is under way.
    pub(super) fn end(&self) {
        self.end.send_replace(true);
    }

    /// Returns when it has ended, or takes too long.
    pub(super) async fn ended(self) {
        self.end();
        if tokio::time::timeout(LAST, self.ended).await.is_err() {
            tracing::warn!("a portion of a job is cut off; the next start does it again");
        }
    }
}

fn log(error: &(dyn Error + 'static), message: &'static str) {
    tracing::error!(error, "{message}");
}

#[cfg(test)]
mod tests {
    use cvm_bulk::{ExportFormat, ExportRequest, ExportStanding, Work};
    use cvm_provisioning::{Actor, AttemptId, DeviceFilter};

    use super::*;

    #[test]
    fn a_job_is_another_servers_for_as_long_as_that_writes_it() {
        let request = ExportRequest {
            output: Folder::of_server().object("devices.txt").unwrap(),
            format: ExportFormat::Json,
            digests: false,
            filter: DeviceFilter::default(),
        };
        let work = Work::Export { request, standing: ExportStanding::default() };
        let mut job = Job::new(AttemptId::new(1).into(), work, Actor::new("anna").unwrap(), now());
        let (mut seen, begin) = (HashMap::new(), Instant::now());
        let mut is_taken = |job: &Job, seconds| is_taken(&mut seen, job, LEASE, begin + Duration::from_secs(seconds));
        assert!(!is_taken(&job, 0), "nobody has begun with it");
        job.started_at = Some(now());
        assert!(is_taken(&job, 0) && is_taken(&job, 29) && !is_taken(&job, 30));
        job.version += 1;
        assert!(is_taken(&job, 30) && is_taken(&job, 59) && !is_taken(&job, 60));
        assert!(
            !super::is_taken(&mut HashMap::new(), &job, Duration::ZERO, begin),
            "a server that is alone waits for none"
        );
    }
}
