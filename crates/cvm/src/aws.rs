//! What AWS IoT answers to an operator, who has no log to look into.

use std::error::Error;

use cvm_provisioning::PlatformError;

/// AWS IoT did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AwsError {
    #[error("AWS IoT made a certificate that cannot be read")]
    Defective { source: Box<dyn Error + Send + Sync> },
    #[error("AWS IoT refuses to {action}")]
    Refused { action: &'static str, source: Box<dyn Error + Send + Sync> },
    #[error("AWS IoT asks for a slower pace: {action}")]
    Throttled { action: &'static str, source: Box<dyn Error + Send + Sync> },
    #[error("AWS IoT did not answer: {action}")]
    Unavailable { action: &'static str, source: Box<dyn Error + Send + Sync> },
}

impl From<PlatformError> for AwsError {
    fn from(error: PlatformError) -> Self {
        match error {
            PlatformError::Refused { action, source } => Self::Refused { action, source },
            PlatformError::Throttled { action, source } => Self::Throttled { action, source },
            PlatformError::Unavailable { action, source } => Self::Unavailable { action, source },
            other => Self::Defective { source: other.into() },
        }
    }
}

impl AwsError {
    /// The stable word for it in JSON.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Defective { .. } | Self::Refused { .. } => "refused",
            Self::Throttled { .. } => "throttled",
            Self::Unavailable { .. } => "no-answer",
        }
    }

    /// What to do next.
    pub(crate) const fn advice(&self) -> &'static str {
        match self {
            Self::Defective { .. } => "check where AWS_ENDPOINT_URL points to",
            Self::Refused { .. } => "its words say why; check the names that you gave and your credentials' rights",
            Self::Throttled { .. } => "wait a minute; if it stays so, look at the account's AWS IoT quotas",
            Self::Unavailable { .. } => {
                "check AWS_REGION and your credentials; with single sign-on, first run \
                 `eval \"$(aws configure export-credentials --format env)\"`"
            }
        }
    }
}
