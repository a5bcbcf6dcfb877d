use std::error::Error;
use std::io;
use std::path::PathBuf;

use cvm_authority::{CreateError, IssueError as NotIssued, KeyError};
use cvm_provisioning::{CertificateId, PlatformError};

use super::authority::AuthorityError;
use super::issue::IssueError;
use crate::certificate::CertificateError;
use crate::clock::ImplausibleClock;
use crate::file::FileError;
use crate::own_ca::OwnCaError;
use crate::registry_api::ApiError;

/// Why a CA is not what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CaError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Clock(#[from] ImplausibleClock),
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error("no key could be made")]
    KeyGeneration(#[from] KeyError),
    #[error("the CA {id} is not registered with AWS IoT")]
    NotFound { id: CertificateId },
    #[error("there is no server to ask")]
    NoServer,
    #[error(transparent)]
    Own(#[from] OwnCaError),
    #[error("AWS IoT gave a registration code of another form than 1 to 64 hexadecimal digits")]
    RegistrationCode,
    #[error("AWS IoT refuses to {action}")]
    Refused { action: &'static str, source: Box<dyn Error + Send + Sync> },
    #[error(transparent)]
    Signing(#[from] NotIssued),
    #[error("there is a CA in {path} already", path = path.display())]
    There { path: PathBuf },
    #[error("AWS IoT asks for a slower pace: {action}")]
    Throttled { action: &'static str, source: Box<dyn Error + Send + Sync> },
    #[error("AWS IoT did not answer: {action}")]
    Unavailable { action: &'static str, source: Box<dyn Error + Send + Sync> },
    #[error("the CA was deregistered while it was being registered")]
    Vanished,
}

impl CaError {
    /// The stable word for it in JSON.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Api(error) => error.code(),
            Self::Authority(error) => error.code(),
            Self::Certificate(_) => "certificate",
            Self::Clock(_) => "clock",
            Self::File(_) => "file",
            Self::Issue(error) => error.code(),
            Self::KeyGeneration(_) => "key",
            Self::NotFound { .. } => "not-found",
            Self::NoServer => "usage",
            Self::Own(error) => error.code(),
            Self::RegistrationCode | Self::Refused { .. } => "refused",
            Self::Create(_) | Self::Signing(_) => "signing",
            Self::There { .. } => "exists",
            Self::Throttled { .. } => "throttled",
            Self::Unavailable { .. } => "no-answer",
            Self::Vanished => "vanished",
        }
    }

    /// What to do next.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Api(error) => return error.advice(),
            Self::Authority(error) => return error.advice(),
            Self::Certificate(error) => return error.advice(),
            Self::File(error) => return error.advice(),
            Self::Issue(error) => return error.advice(),
            Self::Own(error) => return error.advice(),
            Self::Clock(_) => ImplausibleClock::ADVICE,
            Self::NotFound { .. } => "`cvm ca list` has those there are; check the region and the account too",
            Self::NoServer => "give --server, the address of `cvm serve`, and --operator-token-file",
            Self::RegistrationCode => "check where AWS_ENDPOINT_URL points to",
            Self::Refused { .. } => {
                "its words say why; check the template and role of --jitp, and your credentials' rights"
            }
            Self::Signing(NotIssued::OwnKey) => "have the device make a key of its own, and its request with that",
            Self::Create(_) | Self::KeyGeneration(_) | Self::Signing(_) | Self::Vanished => {
                "run the same command again"
            }
            Self::There { .. } => "give another --out: a CA's key is never overwritten",
            Self::Throttled { .. } => {
                "run this again in a minute; if it stays so, look at the account's AWS IoT quotas"
            }
            Self::Unavailable { .. } => {
                "check AWS_REGION and your credentials; with single sign-on, first run \
                 `eval \"$(aws configure export-credentials --format env)\"`"
            }
        }
        .to_owned()
    }

    /// Whether the command could never have worked.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, Self::NoServer) || matches!(self, Self::Issue(error) if error.is_usage())
    }

    /// What went wrong with the output, if that did.
    pub(crate) fn output(error: io::Error) -> Self {
        Self::Issue(IssueError::Output(error))
    }
}

impl From<PlatformError> for CaError {
    fn from(error: PlatformError) -> Self {
        match error {
            PlatformError::Refused { action, source } => Self::Refused { action, source },
            PlatformError::Throttled { action, source } => Self::Throttled { action, source },
            PlatformError::Unavailable { action, source } => Self::Unavailable { action, source },
            other => Self::Unavailable { action: "work on the CA", source: other.into() },
        }
    }
}
