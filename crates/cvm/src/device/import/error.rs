//! Why an import did not do all that it was asked, and what to do next.

use std::io;
use std::path::PathBuf;

use cvm_bulk::ImportError as BulkError;
use cvm_interchange::{LineError, UnreadableFile};

use crate::device::DeviceError;
use crate::output::count;

/// Why an import did not do all that it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ImportError {
    #[error("an earlier import of this file was cut off; {path} says how far it came", path = path.display())]
    CutOff { path: PathBuf },
    #[error("{} failed", count(*failed, "line"))]
    Failed { failed: u64, file: Option<PathBuf> },
    #[error("interrupted")]
    Interrupted { dry_run: bool, is_pipe: bool, can_be_resumed: bool },
    #[error("{path} is the journal of another file, or none", path = path.display())]
    Journal { path: PathBuf },
    #[error(transparent)]
    Line(LineError),
    #[error("tokens are made for these devices, and there is no file to keep them in")]
    NoTokens,
    #[error("what comes through a pipe cannot be gone on with")]
    Pipe,
    #[error("{path} cannot be read", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Unreadable(#[from] UnreadableFile),
    #[error("{path} cannot be written", path = path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl ImportError {
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::CutOff { .. } => "cut-off",
            Self::Failed { .. } => "lines-failed",
            Self::Interrupted { .. } => "interrupted",
            Self::Journal { .. } | Self::Line(_) | Self::Read { .. } | Self::Write { .. } => "file",
            Self::NoTokens | Self::Pipe => "usage",
            Self::Unreadable(_) => "format",
        }
    }

    pub(crate) fn advice(&self) -> String {
        match self {
            Self::CutOff { path } => format!("go on with --resume, or delete {} to begin anew", path.display()),
            Self::Failed { file: Some(file), .. } => format!("{} says which and why", file.display()),
            Self::Failed { file: None, .. } => "add --errors FILE to have them all in a file".to_owned(),
            Self::Interrupted { can_be_resumed: true, .. } => {
                "run the same command again with --resume: what is done is not done again".to_owned()
            }
            Self::Interrupted { dry_run: false, is_pipe: true, .. } => {
                "a part of the lines may be done: `cvm device list` shows it; an import from a file can be resumed"
                    .to_owned()
            }
            Self::Interrupted { .. } => "nothing was written: run the command again".to_owned(),
            Self::Journal { path } => format!("delete {} to begin anew", path.display()),
            Self::NoTokens => "give --tokens FILE, or another --proof".to_owned(),
            Self::Pipe => "write it to a file, and import that".to_owned(),
            Self::Unreadable(_) => "see `cvm device import --help` for --column, --format and the formats".to_owned(),
            Self::Line(_) | Self::Read { .. } => "check that it is the file you mean".to_owned(),
            Self::Write { .. } => "give a file that is not there yet, in a folder that you may write to".to_owned(),
        }
    }

    /// Whether the user stopped it.
    pub(crate) const fn is_interrupted(&self) -> bool {
        matches!(self, Self::Interrupted { .. })
    }

    pub(crate) const fn is_usage(&self) -> bool {
        matches!(self, Self::NoTokens | Self::Pipe)
    }
}

impl<R: std::error::Error + Into<Self>> From<BulkError<ImportError, R>> for DeviceError {
    fn from(error: BulkError<ImportError, R>) -> Self {
        match error {
            BulkError::File(error) => ImportError::Line(error).into(),
            BulkError::Files(error) => error.into(),
            BulkError::Registry(error) => error.into(),
        }
    }
}
