use cvm_provisioning::{DeviceId, OperationError, RegistryError};

use super::add::AddError;
use super::import::ImportError;
use crate::file::FileError;
use crate::operation;
use crate::registry::{self, NoTable};

/// Why the registry was not read or changed as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DeviceError {
    #[error(transparent)]
    Add(#[from] AddError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error(transparent)]
    NoTable(#[from] NoTable),
    #[error("device {id} is not in the registry")]
    NotFound { id: DeviceId },
    #[error("device {id} was not changed")]
    Operation { id: DeviceId, source: OperationError },
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl DeviceError {
    /// What became of an operation on this device.
    pub(crate) fn of(id: &DeviceId) -> impl Fn(OperationError) -> Self {
        move |error| match error {
            OperationError::NotFound => Self::NotFound { id: id.clone() },
            OperationError::Registry(error) => Self::Registry(error),
            source => Self::Operation { id: id.clone(), source },
        }
    }

    /// The stable word for it in JSON.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Add(error) => error.code(),
            Self::File(_) => "file",
            Self::Import(error) => error.code(),
            Self::NoTable(_) => "usage",
            Self::NotFound { .. } => "not-found",
            Self::Operation { source, .. } => source.code(),
            Self::Registry(_) => "registry",
        }
    }

    /// What to do next.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Add(error) => error.advice(),
            Self::File(error) => error.advice(),
            Self::Import(error) => error.advice(),
            Self::NoTable(_) => NoTable::ADVICE.to_owned(),
            Self::NotFound { id } => {
                format!("`cvm device add {id}` registers it, `cvm device list` has those there are")
            }
            Self::Operation { id, source } => operation::advice(id, source),
            Self::Registry(error) => registry::advice(error).to_owned(),
        }
    }

    /// Whether the command could never have worked.
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Self::Add(error) => error.is_usage(),
            Self::Import(error) => error.is_usage(),
            Self::NoTable(_) => true,
            _ => false,
        }
    }
}
