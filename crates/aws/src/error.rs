//! What an SDK's error means to the domain: classified by its code, never by its HTTP status, because AWS IoT answers a
//! throttled call with 400.

use std::error::Error;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use cvm_provisioning::{PlatformError, RegistryError};

/// Error codes that ask for a slower pace.
const THROTTLES: [&str; 7] = [
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
];

/// Error codes of a service in trouble, which may have done what it was asked.
const TROUBLES: [&str; 9] = [
    "DependencyTimeoutException",
    "InternalFailureException",
    "InternalFailure",
    "InternalServerError",
    "KMSInternalException",
    "KeyUnavailableException",
    "RequestTimeout",
    "ServiceUnavailable",
    "ServiceUnavailableException",
];

pub(crate) fn registry_error<E, R>(error: SdkError<E, R>) -> RegistryError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    match error.as_service_error().and_then(ProvideErrorMetadata::code) {
        Some(code) if THROTTLES.contains(&code) => RegistryError::Throttled { source: error.into() },
        _ => RegistryError::Unavailable { source: error.into() },
    }
}

pub(crate) fn platform_error<E, R>(action: &'static str) -> impl Fn(SdkError<E, R>) -> PlatformError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    move |error| match error.as_service_error().map(|service| service.code().unwrap_or_default()) {
        Some(code) if THROTTLES.contains(&code) => PlatformError::Throttled { action, source: error.into() },
        Some(code) if !TROUBLES.contains(&code) && !code.is_empty() => {
            PlatformError::Refused { action, source: error.into() }
        }
        _ => PlatformError::Unavailable { action, source: error.into() },
    }
}
