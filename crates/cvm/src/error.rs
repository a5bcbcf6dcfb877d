use std::error::Error;
use std::io;

use crate::audit::AuditError;
use crate::backup::BackupError;
use crate::broker::BrokerError;
use crate::ca::CaError;
use crate::claim::ClaimError;
use crate::device::DeviceError;
use crate::job::JobError;
use crate::serve::ServeError;
use crate::template::TemplateCommandError;
use crate::vend::VendError;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CommandError {
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("the output cannot be written")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Job(#[from] JobError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Template(#[from] TemplateCommandError),
    #[error(transparent)]
    Vend(#[from] VendError),
}

impl CommandError {
    /// The stable word for it in JSON.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Audit(error) => error.code(),
            Self::Backup(error) => error.code(),
            Self::Broker(error) => error.code(),
            Self::Ca(error) => error.code(),
            Self::Claim(error) => error.code(),
            Self::Device(error) => error.code(),
            Self::Io(_) => "output",
            Self::Job(error) => error.code(),
            Self::Serve(error) => error.code(),
            Self::Template(error) => error.code(),
            Self::Vend(error) => error.code(),
        }
    }

    /// What to do next.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Audit(error) => error.advice(),
            Self::Backup(error) => error.advice(),
            Self::Broker(error) => error.advice(),
            Self::Ca(error) => error.advice(),
            Self::Claim(error) => error.advice(),
            Self::Device(error) => error.advice(),
            Self::Io(_) => "check where the output goes".to_owned(),
            Self::Job(error) => error.advice(),
            Self::Serve(error) => error.advice(),
            Self::Template(error) => error.advice(),
            Self::Vend(error) => error.advice(),
        }
    }

    /// 2 for a command that could never have worked, 130 for one that the user stopped, as shells have it, and 1 for
    /// everything else.
    pub(crate) fn exit_code(&self) -> u8 {
        if matches!(self, Self::Device(error) if error.is_interrupted()) {
            return 130;
        }
        let usage = match self {
            Self::Audit(error) => error.is_usage(),
            Self::Broker(error) => error.is_usage(),
            Self::Ca(error) => error.is_usage(),
            Self::Claim(error) => error.is_usage(),
            Self::Device(error) => error.is_usage(),
            Self::Backup(_) | Self::Io(_) => false,
            Self::Job(error) => error.is_usage(),
            Self::Serve(error) => error.is_usage(),
            Self::Template(error) => error.is_usage(),
            Self::Vend(error) => error.is_usage(),
        };
        if usage { 2 } else { 1 }
    }
}

/// The error in one line with everything that caused it, where a cause has something to add.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Self>>,
    }

    #[test]
    fn a_cause_that_was_said_already_is_not_said_again() {
        let root = Layer { text: "no such table", source: None };
        let middle = Layer { text: "refused: no such table", source: Some(root.into()) };
        let error = Layer { text: "the registry did not answer", source: Some(middle.into()) };
        assert_eq!(with_causes(&error), "the registry did not answer: refused: no such table");
    }
}
