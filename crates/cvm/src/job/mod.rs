//! `cvm job`: imports and exports that a server does while nobody waits.

use std::time::Duration;

use clap::{Args, Subcommand};
use cvm_bulk::{JobId, JobStatus};

mod error;
mod start;

pub(crate) use error::JobError;

use self::start::{ExportArguments, ImportArguments};
use crate::error::CommandError;
use crate::facts::Facts;
use crate::output::{Output, count, printable};
use crate::registry_api::{Job, RegistryApi, ServerArguments};
use crate::table::{Table, minute};

/// Start, watch and end jobs: imports and exports that a server does in the background
///
/// Their files are in the server's job folder (docs/serve.md, Jobs). `cvm device import` and `cvm device export` do the same
/// with files on this machine.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct JobArguments {
    #[command(flatten)]
    server: ServerArguments,
    #[command(subcommand)]
    verb: JobVerb,
}

#[derive(Debug, Subcommand)]
enum JobVerb {
    List(ListArguments),
    Show(ShowArguments),
    Import(Box<ImportArguments>),
    Export(ExportArguments),
    Cancel(CancelArguments),
}

const EXAMPLES: &str = "\
Examples:
  cvm job import serials.csv --wait
  cvm job list
  cvm job show 0123456789abcdef0123456789abcdef
  cvm job cancel 0123456789abcdef0123456789abcdef";

/// List jobs, the latest first
///
/// With `--output json` each job is one line of JSON (NDJSON), as the API describes it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cvm job list --output json | jq 'select(.status == \"running\")'")]
struct ListArguments {}

/// Show a job: how far it has come, and where its files are
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cvm job show 0123456789abcdef0123456789abcdef --wait")]
struct ShowArguments {
    /// The job's id
    #[arg(value_name = "JOB")]
    id: JobId,
    /// Wait until the job has ended; the exit code is 1 if it failed or was cancelled
    #[arg(long)]
    wait: bool,
}

/// End a job; what it has done stays done
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cvm job cancel 0123456789abcdef0123456789abcdef")]
struct CancelArguments {
    /// The job's id
    #[arg(value_name = "JOB")]
    id: JobId,
}

/// Between two looks at a job that is waited for.
const INTERVAL: Duration = Duration::from_secs(2);

/// Runs `cvm job ...`.
pub(crate) async fn run(arguments: JobArguments, output: &Output) -> Result<(), CommandError> {
    let server = arguments.server.open(output).map_err(JobError::from)?.ok_or(JobError::NoServer)?;
    match arguments.verb {
        JobVerb::List(ListArguments {}) => list(&server, output).await,
        JobVerb::Show(ShowArguments { id, wait }) => {
            let job = server.job(id).await.map_err(JobError::from)?;
            follow(job, wait, &server, output).await
        }
        JobVerb::Import(arguments) => {
            let job = server.start_job(&arguments.request()).await.map_err(JobError::from)?;
            follow(job, arguments.wait, &server, output).await
        }
        JobVerb::Export(arguments) => {
            let job = server.start_job(&arguments.request()).await.map_err(JobError::from)?;
            follow(job, arguments.wait, &server, output).await
        }
        JobVerb::Cancel(CancelArguments { id }) => {
            server.cancel_job(id).await.map_err(JobError::from)?;
            show(&server.job(id).await.map_err(JobError::from)?, output)
        }
    }
}

async fn list(server: &RegistryApi<'_>, output: &Output) -> Result<(), CommandError> {
    let jobs = server.jobs().await.map_err(JobError::from)?;
    let mut table = Table::new(["JOB", "TYPE", "STATUS", "DONE", "STARTED"], output.width());
    let rows: Vec<_> = jobs.iter().map(row).collect();
    table.fit(&rows);
    if rows.is_empty() {
        output.note("there is no job; one is forgotten 30 days after its end")?;
    } else {
        output.headline(&table.header())?;
    }
    for (job, row) in jobs.iter().zip(&rows) {
        output.json_line(&job.json)?;
        output.say(table.line(row))?;
    }
    Ok(())
}

fn row(Job { told, .. }: &Job) -> [String; 5] {
    let done = match (&told.cvm.lines, told.cvm.devices) {
        (Some(lines), _) => count(lines.lines(), "line"),
        (None, Some(devices)) => count(devices, "device"),
        (None, None) => "-".to_owned(),
    };
    let cells = [
        told.job_id.to_string(),
        told.r#type.clone(),
        name(told.status).to_owned(),
        done,
        minute(&told.start_time_utc),
    ];
    cells.map(|cell| printable(&cell))
}

/// Shows a job, at its end where that is to be waited for.
async fn follow(mut job: Job, wait: bool, server: &RegistryApi<'_>, output: &Output) -> Result<(), CommandError> {
    while wait && !job.told.status.has_ended() {
        output.redraw(format_args!("{}, {} %", name(job.told.status), job.told.progress))?;
        tokio::time::sleep(INTERVAL).await;
        job = server.job(job.told.job_id).await.map_err(JobError::from)?;
    }
    output.redraw("")?;
    show(&job, output)?;
    let status = job.told.status;
    let failed_lines = job.told.cvm.lines.as_ref().map_or(0, |lines| lines.failed);
    match status {
        _ if !wait => Ok(()),
        JobStatus::Failed | JobStatus::Cancelled => Err(JobError::NotCompleted { status: name(status) }.into()),
        _ if failed_lines > 0 => Err(JobError::LinesFailed { failed: failed_lines }.into()),
        _ => Ok(()),
    }
}

fn show(Job { told, json }: &Job, output: &Output) -> Result<(), CommandError> {
    output.json_line(json)?;
    let path = |folder: &str, name: &str| if name.is_empty() { folder.to_owned() } else { format!("{folder}/{name}") };
    let mut facts = Facts::default();
    facts.add("job", told.job_id);
    facts.add("type", printable(&told.r#type));
    facts.add("status", format_args!("{}, {} %", name(told.status), told.progress));
    facts.add("started", printable(&format!("{} by {}", told.start_time_utc, told.cvm.created_by)));
    if let Some(end) = &told.end_time_utc {
        facts.add("ended", printable(end));
    }
    if let Some(reason) = &told.failure_reason {
        facts.add("failure", printable(reason));
    }
    if let (Some(folder), Some(name)) = (&told.input_blob_container_uri, &told.input_blob_name) {
        facts.add("reads", printable(&path(folder, name)));
    }
    let written = told.output_blob_name.as_deref().unwrap_or_default();
    facts.add("writes", printable(&path(&told.output_blob_container_uri, written)));
    if let Some(lines) = &told.cvm.lines {
        facts.add(
            "lines",
            format_args!(
                "{} created, {} updated, {} unchanged, {} deleted, {} checked, {} failed",
                lines.created, lines.updated, lines.unchanged, lines.deleted, lines.checked, lines.failed
            ),
        );
    }
    if let Some(devices) = told.cvm.devices {
        facts.add("devices", devices);
    }
    for line in facts.0 {
        output.say(line)?;
    }
    Ok(())
}

const fn name(status: JobStatus) -> &'static str {
    match status {
        JobStatus::Enqueued => "enqueued",
        JobStatus::Running => "running",
        JobStatus::Completed => "completed",
        JobStatus::Failed => "failed",
        JobStatus::Cancelled => "cancelled",
    }
}
