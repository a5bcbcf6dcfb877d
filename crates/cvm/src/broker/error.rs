use std::io;
use std::path::PathBuf;

use crate::file::FileError;
use crate::own_ca::OwnCaError;

/// Why the configuration of a broker was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum BrokerError {
    #[error(transparent)]
    Ca(#[from] OwnCaError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path} is the root of another CA", path = path.display())]
    OtherCa { path: PathBuf },
    #[error("{path} has a character that cannot be in mosquitto.conf or a shell script", path = path.display())]
    Path { path: PathBuf },
    #[error("the output cannot be written")]
    Output(#[from] io::Error),
}

impl BrokerError {
    /// The stable word for it in JSON.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Ca(error) => error.code(),
            Self::File(_) => "file",
            Self::OtherCa { .. } => "exists",
            Self::Path { .. } => "usage",
            Self::Output(_) => "output",
        }
    }

    /// What to do next.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Ca(error) => error.advice(),
            Self::File(error) => error.advice(),
            Self::OtherCa { .. } => "give another --out, or move that folder away".to_owned(),
            Self::Path { .. } => "use a path without line breaks, quotes, backslashes and dollar signs".to_owned(),
            Self::Output(_) => "check where the output goes".to_owned(),
        }
    }

    /// Whether the command could never have worked.
    pub(crate) const fn is_usage(&self) -> bool {
        matches!(self, Self::Path { .. })
    }
}
