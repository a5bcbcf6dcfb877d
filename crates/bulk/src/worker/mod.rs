//! The worker: goes on with a job until it is done, or until its own time is over.

mod export;
mod import;

use std::time::Duration;

use cvm_provisioning::{DeviceStore, Operations, RegistryError, Timestamp};

use crate::{Job, JobId, JobStatus, JobStore, ObjectError, Objects, Work};

/// How long a job may get no further before it is given up.
const GIVE_UP: Duration = Duration::from_secs(6 * 60 * 60);

/// The worker, with what it needs.
///
/// It writes down how far it has come after each part of the work, which is done again where it dies in between. As every
/// write of a job has a worker called, one is to come as long as the job is not at its end. Any number of them may be
/// there at once: who claimed the job last goes on, and the others find at their next write that it is not theirs.
#[derive(Clone, Debug)]
pub struct Worker<R, J, O> {
    /// The registry, and what is done with it.
    pub operations: Operations<R>,
    /// Where jobs are kept.
    pub jobs: J,
    /// Where their files are.
    pub objects: O,
    /// What time it is.
    pub clock: fn() -> Timestamp,
    /// How much is done before it is written down.
    pub portion: Portion,
}

/// How much a worker does before it writes down how far it has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Portion {
    /// Lines of an import. It is also how many tokens are in one object.
    pub lines: usize,
    /// Bytes of an export. S3 takes no less than 5 MiB, and no more than 10,000 portions (Amazon S3 User Guide,
    /// "Multipart upload limits").
    pub bytes: usize,
    /// Devices that are read for it at once.
    pub devices: u16,
}

impl Default for Portion {
    fn default() -> Self {
        Self { lines: 2_048, bytes: 8 * 1024 * 1024, devices: 1_000 }
    }
}

/// What became of a job at one turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Worked {
    /// The time was over: there has to be another turn.
    Continues,
    /// The job is at its end, whichever one that is.
    Ended,
    /// There is no such job, or it is another worker's.
    Left,
}

/// Why a turn did not come to its end. The job is as it was: the same turn is to be taken again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkError {
    /// A file of the job.
    #[error("{object}")]
    Object {
        /// Which.
        object: String,
        /// What went wrong.
        source: ObjectError,
    },
    /// The registry of devices, or that of jobs.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Why the work on a job stops.
enum Stop {
    /// It cannot be done.
    Failed(String),
    /// It is not this worker's any more.
    Lost,
    /// It cannot be done now.
    Now(WorkError),
}

impl From<RegistryError> for Stop {
    fn from(error: RegistryError) -> Self {
        Self::Now(error.into())
    }
}

impl Stop {
    /// What an error at this object means for the job.
    fn at(object: impl ToString) -> impl FnOnce(ObjectError) -> Self {
        move |source| match source.is_for_now() {
            true => Self::Now(WorkError::Object { object: object.to_string(), source }),
            false => Self::Failed(format!("{}: {}", object.to_string(), with_causes(&source))),
        }
    }
}

/// The error with everything that caused it.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

impl<R: DeviceStore, J: JobStore, O: Objects> Worker<R, J, O> {
    /// Goes on with this job for as long as `go_on` says so; it is asked after each part of the work.
    ///
    /// # Errors
    ///
    /// [`WorkError`].
    pub async fn work(&self, id: JobId, mut go_on: impl FnMut() -> bool) -> Result<Worked, WorkError> {
        let Some(mut job) = self.jobs.find(id).await? else { return Ok(Worked::Left) };
        if job.status.has_ended() {
            self.clear_away(&job).await?;
            return Ok(Worked::Ended);
        }
        match self.take_turn(&mut job, &mut go_on).await {
            Ok(worked) => Ok(worked),
            Err(Stop::Now(error)) => Err(error),
            Err(Stop::Lost) => {
                let now_is = self.jobs.find(id).await?;
                if now_is.is_none_or(|there| there.status.has_ended()) {
                    self.clear_away(&job).await?;
                }
                Ok(Worked::Left)
            }
            Err(Stop::Failed(reason)) => {
                job.failure = Some(reason);
                job.end(JobStatus::Failed, (self.clock)());
                match self.keep(&mut job).await {
                    Ok(()) | Err(Stop::Failed(_) | Stop::Lost) => {}
                    Err(Stop::Now(error)) => return Err(error),
                }
                self.clear_away(&job).await?;
                Ok(Worked::Ended)
            }
        }
    }

    async fn take_turn(&self, job: &mut Job, go_on: &mut impl FnMut() -> bool) -> Result<Worked, Stop> {
        let now = (self.clock)();
        if job.status == JobStatus::Enqueued {
            job.status = JobStatus::Running;
            job.started_at = Some(now);
            job.advanced_at = now;
        }
        if job.advanced_at.until(now) > GIVE_UP {
            return Err(Stop::Failed("it got no further for six hours; the worker's log says why".to_owned()));
        }
        let again = match &mut job.work {
            Work::Import { begun, .. } => std::mem::replace(begun, true),
            Work::Export { .. } => false,
        };
        self.keep(job).await?;
        let is_done = match &job.work {
            Work::Import { .. } => self.import(job, again, go_on).await?,
            Work::Export { .. } => self.export(job, go_on).await?,
        };
        if is_done {
            job.progress = 100;
            job.end(JobStatus::Completed, (self.clock)());
        }
        self.advance(job).await?;
        Ok(if is_done { Worked::Ended } else { Worked::Continues })
    }

    /// Writes down how far the job has come.
    async fn advance(&self, job: &mut Job) -> Result<(), Stop> {
        job.advanced_at = (self.clock)();
        self.keep(job).await
    }

    async fn keep(&self, job: &mut Job) -> Result<(), Stop> {
        let version = job.version;
        job.version += 1;
        match self.jobs.replace(job, version).await? {
            true => Ok(()),
            false => Err(Stop::Lost),
        }
    }

    /// Gives up what a job that has ended leaves behind.
    async fn clear_away(&self, job: &Job) -> Result<(), WorkError> {
        let Work::Export { request, standing } = &job.work else { return Ok(()) };
        let Some(upload) = standing.upload.as_ref().filter(|_| job.status != JobStatus::Completed) else {
            return Ok(());
        };
        let failed = |source| WorkError::Object { object: request.output.to_string(), source };
        self.objects.abort(&request.output, &upload.id).await.map_err(failed)
    }
}
