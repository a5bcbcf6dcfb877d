use crate::output::count;
use crate::registry_api::ApiError;

/// Why a job was not started, shown or ended, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum JobError {
    #[error("{} failed", count(*failed, "line"))]
    LinesFailed { failed: u64 },
    #[error("there is no server to ask")]
    NoServer,
    #[error("the job is {status}")]
    NotCompleted { status: &'static str },
    #[error(transparent)]
    Server(#[from] ApiError),
}

impl JobError {
    /// The stable word for it in JSON.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::LinesFailed { .. } => "lines-failed",
            Self::NoServer => "usage",
            Self::NotCompleted { .. } => "not-completed",
            Self::Server(error) => error.code(),
        }
    }

    /// What to do next.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::LinesFailed { .. } => {
                "the errors-*.jsonl in the job's folder say which and why: correct them, then import those lines"
                    .to_owned()
            }
            Self::NoServer => "give --server, the address of `cvm serve`, and --operator-token-file".to_owned(),
            Self::NotCompleted { .. } => "`cvm job show JOB` says why; what is done stays done".to_owned(),
            Self::Server(error) => error.advice(),
        }
    }

    /// Whether the command could never have worked.
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Self::NoServer => true,
            Self::Server(error) => error.is_usage(),
            _ => false,
        }
    }
}
