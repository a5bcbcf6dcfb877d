use cvm_provisioning::{CertificateId, DeviceId, NotQuarantined, RegistryError};

use super::add::AddError;
use crate::registry::{self, NoTable};

/// Why the registry was not read or changed as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DeviceError {
    #[error(transparent)]
    Add(#[from] AddError),
    #[error("device {id} is being changed by others all the time")]
    Contended { id: DeviceId },
    #[error("device {id} has the live certificate {certificate}, which stays active on AWS IoT when the item is gone")]
    LiveCertificate { id: DeviceId, certificate: CertificateId },
    #[error(transparent)]
    NoTable(#[from] NoTable),
    #[error("device {id} is not in the registry")]
    NotFound { id: DeviceId },
    #[error("there is nothing to approve for device {id}")]
    NotQuarantined { id: DeviceId, source: NotQuarantined },
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("a vend for device {id} is under way or has died, and may have left a certificate")]
    Unsettled { id: DeviceId },
}

impl DeviceError {
    /// The stable word for it in JSON.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Add(error) => error.code(),
            Self::Contended { .. } => "contended",
            Self::LiveCertificate { .. } => "live-certificate",
            Self::NoTable(_) => "usage",
            Self::NotFound { .. } => "not-found",
            Self::NotQuarantined { .. } => "not-quarantined",
            Self::Registry(_) => "registry",
            Self::Unsettled { .. } => "unsettled",
        }
    }

    /// What to do next.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Add(error) => error.advice(),
            Self::Contended { id } => format!("look at it with `cvm device show {id}`, then run this again"),
            Self::LiveCertificate { id, certificate } => {
                format!("{}, then `cvm device delete {id} --force`", deactivate(certificate))
            }
            Self::NoTable(_) => NoTable::ADVICE.to_owned(),
            Self::NotFound { id } => {
                format!("`cvm device add {id}` registers it, `cvm device list` has those there are")
            }
            Self::NotQuarantined { id, .. } => format!("`cvm device show {id}` has its state"),
            Self::Registry(error) => registry::advice(error).to_owned(),
            Self::Unsettled { id } => {
                format!(
                    "let the device ask again, or look at its thing's certificates, then `cvm device delete {id} --force`"
                )
            }
        }
    }

    /// Whether the command could never have worked.
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Self::Add(error) => error.is_usage(),
            Self::NoTable(_) => true,
            _ => false,
        }
    }
}

/// The command that takes its power from a certificate.
pub(super) fn deactivate(certificate: &CertificateId) -> String {
    format!("`aws iot update-certificate --new-status INACTIVE --certificate-id {certificate}` cuts it off")
}
