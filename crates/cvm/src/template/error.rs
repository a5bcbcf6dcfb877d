use std::path::PathBuf;

use cvm_provisioning::{InvalidParameter, TemplateError};

use crate::arguments::ArgumentError;
use crate::file::FileError;
use crate::output::{count, shell_word};

/// Why a template is not sound, or shows nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TemplateCommandError {
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    #[error("the template gives no device with these values")]
    Evaluation(#[source] TemplateError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the template needs values for {}", names.join(", "))]
    Missing { names: Vec<String> },
    #[error("a parameter cannot be used")]
    Parameter(#[from] InvalidParameter),
    #[error("{path} is no JSON object of texts, such as {{\"SerialNumber\": \"sn-0001\"}}", path = path.display())]
    ParametersFile { path: PathBuf },
    #[error("{path} has {}", count(*errors as u64, "problem"), path = path.display())]
    Problems { path: PathBuf, errors: usize },
    #[error("{path} is no template that can be evaluated", path = path.display())]
    Template { path: PathBuf, source: TemplateError },
}

impl TemplateCommandError {
    /// The stable word for it in JSON.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Argument(_) => "usage",
            Self::Evaluation(_) | Self::Missing { .. } | Self::Parameter(_) | Self::ParametersFile { .. } => {
                "parameters"
            }
            Self::File(_) => "file",
            Self::Problems { .. } => "problems",
            Self::Template { .. } => "template",
        }
    }

    /// What to do next.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Argument(_) => "see `cvm template render --help`".to_owned(),
            Self::Evaluation(_) | Self::Parameter(_) => "correct that value, or the template".to_owned(),
            Self::File(error) => error.advice(),
            Self::Missing { names } => {
                let options = names.iter().map(|name| format!("--parameter {}", shell_word(&format!("{name}=VALUE"))));
                format!("add {}", options.collect::<Vec<_>>().join(" "))
            }
            Self::ParametersFile { .. } => "correct the file, or give each value with --parameter".to_owned(),
            Self::Problems { .. } => "correct them, then run this again".to_owned(),
            Self::Template { path, .. } => {
                format!("correct it; `cvm template check {}` says more", shell_word(&path.to_string_lossy()))
            }
        }
    }

    /// Whether the command could never have worked.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, Self::Argument(_))
    }
}
