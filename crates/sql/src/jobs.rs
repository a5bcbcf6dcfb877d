//! Imports and exports that go on when nobody waits for them.

use cvm_bulk::{Job, JobId, JobStore};
use cvm_provisioning::{RegistryError, Timestamp};

use crate::SqlRegistry;
use crate::connection::{Row, Value};
use crate::error::SqlError;

/// The jobs beside a registry, for those who have this folder with their files. Nobody is called when one is written: a
/// worker looks for those that are [open](Self::open).
#[derive(Clone, Debug)]
pub struct SqlJobs {
    registry: SqlRegistry,
    folder: String,
}

impl SqlJobs {
    /// The jobs beside this registry, by a server whose folder of files has this name, which no other has.
    pub fn new(registry: SqlRegistry, folder: impl Into<String>) -> Self {
        Self { registry, folder: folder.into() }
    }

    /// The jobs that are not at their end and whose files are in this folder, the oldest first.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn open(&self) -> Result<Vec<Job>, RegistryError> {
        let folder = self.folder.clone();
        self.registry
            .read(move |connection| {
                let statement = "SELECT record, id FROM jobs WHERE ended_at IS NULL AND folder = ?";
                let rows = connection.query(statement, &[(&folder).into()])?;
                let mut jobs = rows.iter().map(job).collect::<Result<Vec<_>, _>>()?;
                jobs.sort_by_key(|job| (job.created_at, job.id));
                Ok(jobs)
            })
            .await
    }
}

impl JobStore for SqlJobs {
    /// Forgets, beside that, those that ended long ago.
    async fn create(&self, job: &Job) -> Result<(), RegistryError> {
        let (id, version, ended, record) = columns(job)?;
        let (folder, forgotten) = (self.folder.clone(), job.created_at.seconds() - Job::KEPT.as_secs() as i64);
        self.registry
            .write(move |connection| {
                connection.execute("DELETE FROM jobs WHERE ended_at < ?", &[Value::Integer(forgotten)])?;
                // One that is there is the same one: its id is random.
                if connection.query("SELECT id FROM jobs WHERE id = ?", &[(&id).into()])?.is_empty() {
                    let values = [(&id).into(), version, (&folder).into(), ended, (&record).into()];
                    let statement = "INSERT INTO jobs (id, version, folder, ended_at, record) VALUES (?, ?, ?, ?, ?)";
                    connection.execute(statement, &values)?;
                }
                Ok(())
            })
            .await
    }

    async fn find(&self, id: JobId) -> Result<Option<Job>, RegistryError> {
        let id = id.to_string();
        self.registry
            .read(move |connection| {
                let rows = connection.query("SELECT record, id FROM jobs WHERE id = ?", &[(&id).into()])?;
                rows.first().map(job).transpose()
            })
            .await
    }

    async fn replace(&self, job: &Job, version: u64) -> Result<bool, RegistryError> {
        let (id, new, ended, record) = columns(job)?;
        let version = integer(version)?;
        self.registry
            .write(move |connection| {
                let values = [new, ended, (&record).into(), (&id).into(), version];
                let statement = "UPDATE jobs SET version = ?, ended_at = ?, record = ? WHERE id = ? AND version = ?";
                Ok(connection.execute(statement, &values)? == 1)
            })
            .await
    }

    async fn list(&self) -> Result<Vec<Job>, RegistryError> {
        self.registry
            .read(|connection| {
                let rows = connection.query("SELECT record, id FROM jobs", &[])?;
                rows.iter().map(job).collect()
            })
            .await
    }
}

/// What stands in the columns of its row.
fn columns(job: &Job) -> Result<(String, Value<'static>, Value<'static>, String), RegistryError> {
    let id = job.id.to_string();
    let record = serde_json::to_string(job);
    let record = record.map_err(|error| RegistryError::Corrupt { device: id.clone(), source: error.into() })?;
    Ok((id, integer(job.version)?, job.ended_at.map(Timestamp::seconds).into(), record))
}

fn integer(version: u64) -> Result<Value<'static>, RegistryError> {
    let number = i64::try_from(version);
    number.map(Value::Integer).map_err(|error| RegistryError::Unavailable { source: error.into() })
}

fn job(row: &Row) -> Result<Job, SqlError> {
    let corrupt = |key: &str, error: serde_json::Error| SqlError::Corrupt { key: key.to_owned(), source: error.into() };
    serde_json::from_str(row.text(0)?).map_err(|error| corrupt(row.text(1).unwrap_or_default(), error))
}
