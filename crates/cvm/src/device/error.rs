use std::io;

use cvm_interchange::UnknownDeviceTold;
use cvm_provisioning::{DeviceId, OperationError, RegistryError};

use super::add::AddError;
use super::bulk::BulkError;
use super::import::ImportError;
use crate::file::FileError;
use crate::operation;
use crate::registry::{self, PlaceError, WhichRegistry};
use crate::registry_api::ApiError;
use crate::unknown;

/// Why the registry was not read or changed as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DeviceError {
    #[error(transparent)]
    Add(#[from] AddError),
    #[error(transparent)]
    Bulk(#[from] BulkError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error("device {id} is not in the registry")]
    NotFound { id: DeviceId },
    #[error("{}", unknown::sentence(asked))]
    NotRegistered { asked: UnknownDeviceTold },
    #[error("device {id} was not changed")]
    Operation { id: DeviceId, source: OperationError },
    #[error("the output cannot be written")]
    Output(#[source] io::Error),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Server(ApiError),
    #[error("device {id} is registered, and cannot be read")]
    Unread { id: DeviceId, source: Box<Self> },
    #[error(transparent)]
    Which(#[from] WhichRegistry),
}

impl From<PlaceError> for DeviceError {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::Api(error) => error.into(),
            PlaceError::Which(error) => error.into(),
        }
    }
}

impl From<ApiError> for DeviceError {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::File(error) => Self::File(error),
            error => Self::Server(error),
        }
    }
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
            Self::Bulk(error) => error.code(),
            Self::File(_) => "file",
            Self::Import(error) => error.code(),
            Self::NotFound { .. } | Self::NotRegistered { .. } => "not-found",
            Self::Operation { source, .. } => source.code(),
            Self::Output(_) => "output",
            Self::Registry(_) => "registry",
            Self::Server(error) => error.code(),
            Self::Unread { source, .. } => source.code(),
            Self::Which(_) => "usage",
        }
    }

    /// What to do next.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Add(error) => error.advice(),
            Self::Bulk(error) => error.advice(),
            Self::File(error) => error.advice(),
            Self::Import(error) => error.advice(),
            Self::NotFound { id } => {
                format!("`cvm device add {id}` registers it, `cvm device list` has those there are")
            }
            Self::NotRegistered { asked: UnknownDeviceTold { device_id, .. } } => format!(
                "`cvm device add {device_id}` registers it; if it is mistyped, correct the device, `cvm device list` has \
                 those there are"
            ),
            Self::Operation { id, source } => operation::advice(id, source),
            Self::Output(_) => "check where the output goes".to_owned(),
            Self::Registry(error) => registry::advice(error).to_owned(),
            Self::Server(error) => error.advice(),
            Self::Unread { id, .. } => {
                format!("`cvm device show {id}` shows it; if its token was not kept, delete it and add it again")
            }
            Self::Which(error) => error.advice().to_owned(),
        }
    }

    /// Whether it is certain that nothing was done.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Output(_) | Self::Registry(_) | Self::Unread { .. } => false,
            Self::Server(error) => error.is_refusal(),
            _ => true,
        }
    }

    /// Whether the user stopped the command.
    pub(crate) const fn is_interrupted(&self) -> bool {
        matches!(self, Self::Import(error) if error.is_interrupted())
    }

    /// Whether the command could never have worked.
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Self::Add(error) => error.is_usage(),
            Self::Bulk(error) => error.is_usage(),
            Self::Import(error) => error.is_usage(),
            Self::Server(error) => error.is_usage(),
            Self::Which(_) => true,
            _ => false,
        }
    }
}
