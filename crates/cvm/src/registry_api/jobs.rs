//! `cvm job` on a server.

use cvm_bulk::{JobId, JobStatus, Summary};
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::ask::{Ask, Repeat};
use super::{ApiError, RegistryApi};

/// A job as the server describes it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) told: JobTold,
    /// The same, as it came.
    pub(crate) json: Box<RawValue>,
}

/// What is shown of a job.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobTold {
    pub(crate) job_id: JobId,
    pub(crate) r#type: String,
    pub(crate) status: JobStatus,
    pub(crate) progress: u8,
    pub(crate) start_time_utc: String,
    pub(crate) end_time_utc: Option<String>,
    pub(crate) failure_reason: Option<String>,
    pub(crate) input_blob_container_uri: Option<String>,
    pub(crate) input_blob_name: Option<String>,
    pub(crate) output_blob_container_uri: String,
    pub(crate) output_blob_name: Option<String>,
    pub(crate) cvm: Extension,
}

/// What stands under `cvm`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Extension {
    pub(crate) created_by: String,
    /// What became of the lines of an import.
    pub(crate) lines: Option<Summary>,
    /// How many devices an export has.
    pub(crate) devices: Option<u64>,
}

impl RegistryApi<'_> {
    /// The jobs that the server knows, the latest first.
    pub(crate) async fn jobs(&self) -> Result<Vec<Job>, ApiError> {
        let ask = self.request(Method::GET, &["jobs"]);
        let jobs: Vec<Box<RawValue>> = self.ask(&ask, Repeat::Safe).await?.done()?.json()?;
        jobs.into_iter().map(Job::new).collect()
    }

    /// One job.
    pub(crate) async fn job(&self, id: JobId) -> Result<Job, ApiError> {
        self.job_answered(&self.request(Method::GET, &["jobs", &id.to_string()]), Repeat::Safe).await
    }

    /// Starts a job. Where the answer is lost, it is not known whether it was started.
    pub(crate) async fn start_job(&self, request: &Value) -> Result<Job, ApiError> {
        let ask = self.request(Method::POST, &["jobs", "create"]).json(request.to_string());
        self.job_answered(&ask, Repeat::Unsafe).await
    }

    /// Ends a job. One that is at its end stays as it is.
    pub(crate) async fn cancel_job(&self, id: JobId) -> Result<(), ApiError> {
        let ask = self.request(Method::DELETE, &["jobs", &id.to_string()]);
        self.ask(&ask, Repeat::Safe).await?.done().map(drop)
    }

    async fn job_answered(&self, ask: &Ask, repeat: Repeat) -> Result<Job, ApiError> {
        Job::new(self.ask(ask, repeat).await?.done()?.json()?)
    }
}

impl Job {
    fn new(json: Box<RawValue>) -> Result<Self, ApiError> {
        Ok(Self { told: serde_json::from_str(json.get()).map_err(ApiError::not_understood)?, json })
    }
}
