//! What can go wrong, in the form of the identity registry of Azure IoT Hub: a code of its table, and a message.

use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use axum::Json;
use axum::http::header::{HeaderName, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use cvm_interchange::{InvalidAuthentication, InvalidExtension};
use cvm_provisioning::{AttemptId, InvalidSettings, OperationError, RegistryError, Timestamp};
use serde::Serialize;
use time::OffsetDateTime;
use time::macros::format_description;

/// The header with the code's name.
const ERROR_CODE: HeaderName = HeaderName::from_static("iothub-errorcode");

/// The longest message, in characters. What a caller sent may be in it, to be read by that caller alone.
const MAX_MESSAGE: usize = 300;

/// Why a request was not done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Failure {
    pub(super) code: Code,
    pub(super) message: Cow<'static, str>,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        /// What went wrong, by the names of the identity registry (Azure IoT Hub, "error codes").
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(super) enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// The name, as tools know it.
            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// The number of the same: the status of the answer, and three digits more.
            const fn number(self) -> u32 {
                match self { $(Self::$name => $number,)* }
            }
        }
    };
}

codes! {
    /// What was sent is not what is taken.
    ArgumentInvalid = 400_004;
    /// The container of a job is none, or none for jobs.
    BlobContainerValidationError = 400_008;
    /// Nobody is known to have sent the request.
    IotHubUnauthorizedAccess = 401_002;
    /// The operator may not do that.
    GenericForbidden = 403_000;
    /// Too many jobs are not at their end.
    JobQuotaExceeded = 403_003;
    /// There is nothing at this address.
    GenericNotFound = 404_000;
    /// There is no such device.
    DeviceNotFound = 404_001;
    /// There is no such job.
    JobNotFound = 404_002;
    /// There is no such module.
    ModuleNotFound = 404_010;
    /// The method is not allowed here.
    GenericMethodNotAllowed = 405_000;
    /// The device is in another state than the request is for.
    GenericConflict = 409_000;
    /// The id is taken.
    DeviceAlreadyExists = 409_001;
    /// The module's id is taken.
    ModuleAlreadyExistsOnDevice = 409_301;
    /// It has changed since its entity tag was read, or no tag came where one has to.
    PreconditionFailed = 412_001;
    /// The body is too large.
    MessageTooLarge = 413_001;
    /// Too many entries at once.
    TooManyDevices = 413_002;
    /// The device has as many modules as one may have.
    TooManyModulesOnDevice = 413_003;
    /// The body is of another type.
    GenericUnsupportedMediaType = 415_000;
    /// The store asks for a slower pace.
    ThrottlingException = 429_001;
    /// Something is wrong on our side.
    ServerError = 500_001;
    /// A service that this one needs did not answer.
    ServiceUnavailable = 503_001;
}

impl Code {
    /// The status of the answer.
    pub(super) fn status(self) -> StatusCode {
        let status = u16::try_from(self.number() / 1000).ok().and_then(|status| StatusCode::from_u16(status).ok());
        status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Whether the same request may be done a little later.
    pub(super) const fn is_for_now(self) -> bool {
        matches!(self, Self::ThrottlingException | Self::ServiceUnavailable)
    }
}

/// The body of an answer that is a failure.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Body {
    message: String,
    exception_message: String,
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        let message = match message.char_indices().nth(MAX_MESSAGE) {
            Some((end, _)) => format!("{}…", &message[..end]).into(),
            None => message,
        };
        Self { code, message }
    }

    /// Whether the operator's role does not allow it.
    pub(super) fn is_for_another_role(&self) -> bool {
        self.code == Code::GenericForbidden
    }

    /// What was sent is not what is taken.
    pub(super) fn argument(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::ArgumentInvalid, message)
    }

    /// The answer. The tracking id and the time in it are the request's.
    pub(super) fn answer(&self, tracking: AttemptId, now: Timestamp) -> Response {
        let form = format_description!("[month]/[day]/[year] [hour]:[minute]:[second]");
        let moment = OffsetDateTime::from_unix_timestamp(now.seconds()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let body = Body {
            message: format!("ErrorCode:{};{}", self.code.name(), self.message),
            exception_message: format!(
                "Tracking ID:{}-G:1-TimeStamp:{}",
                tracking.to_string().to_ascii_uppercase(),
                moment.format(form).unwrap_or_default()
            ),
        };
        let mut response = (self.code.status(), Json(body)).into_response();
        response.headers_mut().insert(ERROR_CODE, HeaderValue::from_static(self.code.name()));
        if self.code.is_for_now() {
            // 3 to 12 seconds, so that those who were turned away together do not come back together.
            let delay = Duration::from_secs(3 + tracking.spread(10));
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(delay.as_secs()));
        }
        response
    }
}

/// The failure travels as an extension of an empty answer to where the request's id is known: [`super::door`] writes it
/// out.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<OperationError> for Failure {
    fn from(error: OperationError) -> Self {
        let code = match error {
            OperationError::Registry(error) => return error.into(),
            OperationError::Contended => Code::ServiceUnavailable,
            OperationError::Exists => Code::DeviceAlreadyExists,
            OperationError::ModuleExists => Code::ModuleAlreadyExistsOnDevice,
            OperationError::ModuleNotFound => Code::ModuleNotFound,
            OperationError::NotFound => Code::DeviceNotFound,
            OperationError::NothingToRevoke(_)
            | OperationError::KeyInUse { .. }
            | OperationError::NotProvisioned(_)
            | OperationError::NotQuarantined(_) => Code::GenericConflict,
            OperationError::PreconditionFailed => Code::PreconditionFailed,
            OperationError::TooManyModules => Code::TooManyModulesOnDevice,
            OperationError::NotRestored(_) | OperationError::Settings(_) => Code::ArgumentInvalid,
            _ => Code::ServerError,
        };
        Self::new(code, error.to_string())
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        let cause: &dyn Error = &error;
        tracing::error!(error = cause, "the registry did not do its part");
        match error {
            RegistryError::Throttled { .. } => {
                Self::new(Code::ThrottlingException, "too much at once; ask again after the time in Retry-After")
            }
            RegistryError::Unavailable { .. } => {
                Self::new(Code::ServiceUnavailable, "ask again after the time in Retry-After")
            }
            _ => Self::new(Code::ServerError, "report it with the x-request-id if it stays"),
        }
    }
}

impl From<InvalidSettings> for Failure {
    fn from(error: InvalidSettings) -> Self {
        Self::argument(error.to_string())
    }
}

impl From<InvalidAuthentication> for Failure {
    fn from(error: InvalidAuthentication) -> Self {
        match error {
            InvalidAuthentication::Randomness => Self::new(Code::ServerError, error.to_string()),
            error => Self::argument(error.to_string()),
        }
    }
}

impl From<InvalidExtension> for Failure {
    fn from(error: InvalidExtension) -> Self {
        Self::argument(error.to_string())
    }
}
