//! `/jobs`: imports and exports that go on when nobody waits for them.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use cvm_bulk::{
    ExportFormat, ExportRequest, ExportStanding, Folder, ImportRequest, ImportStanding, InvalidLocation, Job, JobId,
    JobStatus, JobStore, ObjectPath, Summary, Work,
};
use cvm_interchange::{ColumnMapping, DefaultProof, Defaults, Format, Object, Options};
use cvm_provisioning::{
    AttemptId, DeviceFilter, DeviceId, GroupName, ImportMode, State as DeviceState, TemplateName, Timestamp,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::call::{Call, moment};
use super::failure::{Code, Failure};

/// The jobs that operators ask for.
#[derive(Clone, Debug)]
pub struct Jobs<J> {
    /// Where they are kept.
    pub store: J,
    /// The one bucket, or the folder of a server, that their files are in.
    pub files: Folder,
    /// The folder in it that they write to where nothing is said, each into one of its own.
    pub output: Folder,
}

/// The most jobs that are not at their end.
const MAX_OPEN: usize = 16;
/// The most jobs that are listed, the latest first.
const MAX_LISTED: usize = 1_000;
/// The most columns of other names.
const MAX_COLUMNS: usize = 64;
/// Lost races before an operator is told to come back: a worker writes a job every few seconds.
const TRIES: usize = 8;
/// The file that an import reads and an export writes where none is named, as the identity registry has it.
const USUAL_NAME: &str = "devices.txt";

/// What is asked for. What other tools say about accounts of theirs is left alone.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    r#type: Kind,
    input_blob_container_uri: Option<String>,
    input_blob_name: Option<String>,
    output_blob_container_uri: Option<String>,
    output_blob_name: Option<String>,
    #[serde(default)]
    exclude_keys_in_export: Option<bool>,
    #[serde(default)]
    include_configurations: Option<bool>,
    #[serde(default)]
    cvm: Option<Value>,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Export,
    Import,
}

/// What an import is asked for that the identity registry has no word for.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct ImportOptions {
    format: Option<Format>,
    mode: Option<ImportMode>,
    group: Option<GroupName>,
    template: Option<TemplateName>,
    proof: DefaultProof,
    columns: Vec<ColumnMapping>,
    ignore_unknown_columns: bool,
    restore: bool,
    dry_run: bool,
}

/// The same of an export.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct ExportOptions {
    format: ExportFormat,
    state: Option<DeviceState>,
    status: Option<StatusName>,
    group: Option<GroupName>,
    template: Option<TemplateName>,
    changed_since: Option<String>,
    prefix: Option<DeviceId>,
    refused_since: Option<String>,
    expires_before: Option<String>,
}

#[derive(Clone, Copy, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum StatusName {
    Enabled,
    Disabled,
}

/// A job as it is told.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JobDocument {
    job_id: JobId,
    r#type: Kind,
    status: JobStatus,
    progress: u8,
    start_time_utc: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time_utc: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_blob_container_uri: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_blob_name: Option<String>,
    output_blob_container_uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_blob_name: Option<String>,
    exclude_keys_in_export: bool,
    cvm: Told,
}

/// What stands under `cvm`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    created_by: String,
    created_at: String,
    /// When it last got any further.
    updated_at: String,
    /// What became of the lines of an import.
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<Summary>,
    /// How many devices an export has.
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<u64>,
}

impl<J: JobStore + 'static> Jobs<J> {
    /// Their routes, for [`registry_router`](super::registry_router).
    pub fn routes(self) -> Router {
        Router::new()
            .route("/jobs", get(Self::list))
            .route("/jobs/create", post(Self::create))
            .route("/jobs/{job}", get(Self::read).delete(Self::cancel))
            .with_state(Arc::new(self))
    }
}

/// The routes of jobs where there are none, and what is said there.
pub fn jobs_elsewhere(instead: &'static str) -> Router {
    let nowhere = any(async move || Failure::new(Code::GenericNotFound, instead));
    Router::new().route("/jobs", nowhere.clone()).route("/jobs/{*path}", nowhere)
}

impl<J: JobStore> Jobs<J> {
    pub(super) async fn create(State(jobs): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        call.takes(&[])?;
        let request: Request = call.json()?;
        let id = AttemptId::random().map(JobId::from);
        let id = id.map_err(|_| Failure::new(Code::ServerError, "the system has no randomness to give"))?;
        let work = jobs.work(request, id)?;
        call.check_restore(matches!(&work, Work::Import { request, .. } if request.options.restore))?;
        let actor = call.origin.actor.clone();
        let actor = actor.ok_or_else(|| Failure::new(Code::ServerError, "nobody asks for the job"))?;
        let open = jobs.store.list().await?.iter().filter(|job| !job.status.has_ended()).count();
        if open >= MAX_OPEN {
            let text = format!("{MAX_OPEN} jobs are not at their end; wait for one, or DELETE it");
            return Err(Failure::new(Code::JobQuotaExceeded, text));
        }
        let job = Job::new(id, work, actor, call.now);
        jobs.store.create(&job).await?;
        let action = match &job.work {
            Work::Export { request, .. } if request.digests => "export-with-digests",
            Work::Export { .. } => "export",
            Work::Import { .. } => "import",
        };
        call.log_job(action, id);
        Ok(Json(JobDocument::of(&job)).into_response())
    }

    pub(super) async fn list(State(jobs): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        call.takes(&[])?;
        let mut all = jobs.store.list().await?;
        all.sort_by_key(|job| (std::cmp::Reverse(job.created_at), job.id));
        Ok(Json(all.iter().take(MAX_LISTED).map(JobDocument::of).collect::<Vec<_>>()).into_response())
    }

    pub(super) async fn read(State(jobs): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        call.takes(&[])?;
        Ok(Json(JobDocument::of(&jobs.find(call.job()?).await?)).into_response())
    }

    /// Ends a job, if it is not at its end: what it has done stays done.
    pub(super) async fn cancel(State(jobs): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        call.takes(&[])?;
        let id = call.job()?;
        for _ in 0..TRIES {
            let mut job = jobs.find(id).await?;
            if job.status.has_ended() {
                return Ok(StatusCode::NO_CONTENT.into_response());
            }
            let version = job.version;
            job.version += 1;
            job.end(JobStatus::Cancelled, call.now);
            if jobs.store.replace(&job, version).await? {
                call.log_job("cancel", id);
                return Ok(StatusCode::NO_CONTENT.into_response());
            }
        }
        Err(Failure::new(Code::ServiceUnavailable, "a worker keeps writing the job; ask again"))
    }

    async fn find(&self, id: JobId) -> Result<Job, Failure> {
        let found = self.store.find(id).await?;
        found.ok_or_else(|| Failure::new(Code::JobNotFound, "there is no such job; one is forgotten after 30 days"))
    }

    fn work(&self, request: Request, id: JobId) -> Result<Work, Failure> {
        if request.include_configurations == Some(true) {
            return Err(Failure::argument("configurations are not kept here; leave includeConfigurations out"));
        }
        let output_folder = request.output_blob_container_uri.as_deref().map(|uri| self.folder(uri)).transpose()?;
        match request.r#type {
            Kind::Import => {
                let input = request.input_blob_container_uri.as_deref().map(|uri| self.folder(uri)).transpose()?;
                let input = input.unwrap_or_else(|| self.files.clone());
                let input = input.object(request.input_blob_name.as_deref().unwrap_or(USUAL_NAME)).map_err(name)?;
                let output = output_folder.unwrap_or_else(|| self.output.clone());
                let request = options::<ImportOptions>(request.cvm)?.request(input, output)?;
                Ok(Work::Import { request, standing: ImportStanding::default(), etag: None, begun: false })
            }
            Kind::Export => {
                let folder = output_folder.unwrap_or_else(|| self.output.folder(id));
                let output = folder.object(request.output_blob_name.as_deref().unwrap_or(USUAL_NAME)).map_err(name)?;
                let options = options::<ExportOptions>(request.cvm)?;
                let digests = !request.exclude_keys_in_export.unwrap_or(false);
                let request = ExportRequest { output, format: options.format, digests, filter: options.filter()? };
                Ok(Work::Export { request, standing: ExportStanding::default() })
            }
        }
    }

    /// The folder that a request names, which has to be beside ours: another bucket is not ours to read and write for
    /// whoever asks.
    fn folder(&self, uri: &str) -> Result<Folder, Failure> {
        let folder = uri.parse::<Folder>().ok().filter(|folder| folder.is_beside(&self.files));
        folder.ok_or_else(|| {
            let text = format!("the files of jobs are at {} or in a folder there", self.files);
            Failure::new(Code::BlobContainerValidationError, text)
        })
    }
}

fn name(error: InvalidLocation) -> Failure {
    Failure::new(Code::BlobContainerValidationError, error.to_string())
}

fn options<T: Default + DeserializeOwned>(value: Option<Value>) -> Result<T, Failure> {
    let options = value.map(serde_json::from_value::<Object<T>>).transpose();
    options
        .map(|options| options.map(|Object(options)| options).unwrap_or_default())
        .map_err(|error| Failure::argument(format!("cvm: {error}")))
}

impl ImportOptions {
    fn request(self, input: ObjectPath, output: Folder) -> Result<ImportRequest, Failure> {
        if self.restore && (self.mode.is_some() || self.group.is_some() || self.template.is_some()) {
            return Err(Failure::argument(
                "restore puts devices back as they were: leave mode, group and template out",
            ));
        }
        if self.columns.len() > MAX_COLUMNS {
            return Err(Failure::argument(format!("name at most {MAX_COLUMNS} columns")));
        }
        let Self { format, mode, group, template, proof, columns, ignore_unknown_columns, restore, dry_run } = self;
        let defaults = Defaults { mode, group, template, proof };
        let options = Options { defaults, columns, ignore_unknown_columns, restore };
        Ok(ImportRequest { input, output, format, options, dry_run })
    }
}

impl ExportOptions {
    fn filter(self) -> Result<DeviceFilter, Failure> {
        Ok(DeviceFilter {
            state: self.state,
            enabled: self.status.map(|status| status == StatusName::Enabled),
            group: self.group,
            template: self.template,
            changed_since: self.changed_since.map(|text| moment("changedSince", &text)).transpose()?,
            prefix: self.prefix,
            refused_since: self.refused_since.map(|text| moment("refusedSince", &text)).transpose()?,
            expires_before: self.expires_before.map(|text| moment("expiresBefore", &text)).transpose()?,
        })
    }
}

impl JobDocument {
    fn of(job: &Job) -> Self {
        let text = |moment: Timestamp| moment.to_string();
        let mut document = Self {
            job_id: job.id,
            r#type: Kind::Export,
            status: job.status,
            progress: job.progress,
            start_time_utc: text(job.started_at.unwrap_or(job.created_at)),
            end_time_utc: job.ended_at.map(text),
            failure_reason: job.failure.clone(),
            input_blob_container_uri: None,
            input_blob_name: None,
            output_blob_container_uri: String::new(),
            output_blob_name: None,
            exclude_keys_in_export: false,
            cvm: Told {
                created_by: job.by.as_str().to_owned(),
                created_at: text(job.created_at),
                updated_at: text(job.advanced_at),
                lines: None,
                devices: None,
            },
        };
        match &job.work {
            Work::Import { request, standing, .. } => {
                document.r#type = Kind::Import;
                document.input_blob_container_uri = Some(request.input.container());
                document.input_blob_name = Some(request.input.key.clone());
                document.output_blob_container_uri = request.output.folder(job.id).to_string();
                document.cvm.lines = Some(standing.summary.clone());
            }
            Work::Export { request, standing } => {
                document.output_blob_container_uri = request.output.container();
                document.output_blob_name = Some(request.output.key.clone());
                document.exclude_keys_in_export = !request.digests;
                document.cvm.devices = Some(standing.devices);
            }
        }
        document
    }
}
