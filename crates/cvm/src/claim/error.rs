use cvm_provisioning::{CertificateId, RegistryError};

use super::create::CreateError;
use crate::aws::AwsError;
use crate::certificate::CertificateError;
use crate::registry::{self, NoTable};

/// Why a claim is not what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ClaimError {
    #[error("more than one claim begins with {name}")]
    Ambiguous { name: String },
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("claim {id} is being changed by others all the time")]
    Contended { id: CertificateId },
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error("claim {id} is revoked in the registry, and its certificate is not on AWS IoT")]
    HalfRevoked { id: CertificateId, source: AwsError },
    #[error(transparent)]
    NoTable(#[from] NoTable),
    #[error("there is no claim {name} in the registry")]
    NotFound { name: String },
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl ClaimError {
    /// The stable word for it in JSON.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Ambiguous { .. } => "ambiguous",
            Self::Certificate(CertificateError::File(_)) => "file",
            Self::Certificate(_) => "certificate",
            Self::Contended { .. } => "contended",
            Self::Create(error) => error.code(),
            Self::HalfRevoked { .. } => "half-revoked",
            Self::NoTable(_) => "usage",
            Self::NotFound { .. } => "not-found",
            Self::Registry(_) => "registry",
        }
    }

    /// What to do next.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Ambiguous { .. } => "give more digits; `cvm claim list --output json` has them all".to_owned(),
            Self::Certificate(error) => error.advice(),
            Self::Contended { .. } => "look at it with `cvm claim list`, then run this again".to_owned(),
            Self::Create(error) => error.advice(),
            Self::HalfRevoked { source, .. } => format!(
                "nothing is claimed with it any more, but it may still connect: {}, then run this again",
                source.advice()
            ),
            Self::NoTable(_) => NoTable::ADVICE.to_owned(),
            Self::NotFound { .. } => {
                "`cvm claim list` has those there are; what the registry does not know claims nothing".to_owned()
            }
            Self::Registry(error) => registry::advice(error).to_owned(),
        }
    }

    /// Whether the command could never have worked.
    pub(crate) const fn is_usage(&self) -> bool {
        matches!(self, Self::NoTable(_))
    }
}
