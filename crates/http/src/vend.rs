//! `POST /v1/certificates`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use cvm_provisioning::{
    AttemptId, Audit, AuditRecord, Origin, Outcome, ParametersError, Platform, PlatformError, RegistryError,
    Reservations, Timestamp, Vend, VendError, VendRequest,
};
use tower_http::catch_panic::CatchPanicLayer;

use crate::request::DeviceRequest;
use crate::{Handout, Problem};

/// Where the time comes from.
pub type Clock = fn() -> Timestamp;

/// Who called, as the platform in front of the router saw it; a request extension.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The request's id in that platform's logs.
    pub request_id: Option<String>,
    /// The network address that the connection came from. Never taken from a header that the caller could write.
    pub source: Option<String>,
}

/// The router of the vend.
pub fn router<R, P, A>(vend: Vend<R, P, A>, handout: Handout, clock: Clock) -> Router
where
    R: Reservations + 'static,
    P: Platform + 'static,
    A: Audit + 'static,
{
    let door = Arc::new(Door { clock, handout, vend });
    Router::new()
        .route("/v1/certificates", post(Door::<R, P, A>::certificate))
        .method_not_allowed_fallback(async || Problem::method_not_allowed("use POST"))
        .fallback(async || Problem::not_found("devices post to /v1/certificates"))
        .layer(DefaultBodyLimit::max(DeviceRequest::MAX_BODY))
        .layer(CatchPanicLayer::custom(|_| Problem::internal("ask again, and report it if it stays").into_response()))
        .with_state(door)
}

/// Parses a request as the door does and drops it: what a fuzz target can drive.
///
/// # Errors
///
/// The problem that the caller would be told.
pub fn parse(uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
    DeviceRequest::parse(uri, headers, body).map(drop)
}

/// The door: HTTP on one side, the decision on the other.
struct Door<R, P, A> {
    clock: Clock,
    handout: Handout,
    vend: Vend<R, P, A>,
}

impl<R: Reservations, P: Platform, A: Audit> Door<R, P, A> {
    async fn certificate(
        State(door): State<Arc<Self>>,
        caller: Option<axum::Extension<Caller>>,
        uri: Uri,
        headers: HeaderMap,
        body: Result<Bytes, BytesRejection>,
    ) -> Response {
        let Ok(attempt) = AttemptId::random() else {
            return Problem::internal("there is no randomness to be had").into_response();
        };
        let caller = caller.map(|extension| extension.0).unwrap_or_default();
        let request_id = caller.request_id.unwrap_or_else(|| attempt.to_string());
        let origin = Origin { door: "vend", request_id: request_id.clone(), source: caller.source };

        let mut response = match door.answer(attempt, origin, &uri, &headers, body).await {
            Ok(response) => response,
            Err(problem) => problem.into_response(),
        };
        if let Ok(request_id) = HeaderValue::try_from(request_id) {
            response.headers_mut().insert("x-request-id", request_id);
        }
        response
    }

    async fn answer(
        &self,
        attempt: AttemptId,
        origin: Origin,
        uri: &Uri,
        headers: &HeaderMap,
        body: Result<Bytes, BytesRejection>,
    ) -> Result<Response, Problem> {
        let request = body
            .map_err(|rejection| match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => {
                    Problem::body_too_large(format!("send at most {} bytes", DeviceRequest::MAX_BODY))
                }
                _ => Problem::body_invalid("the body did not arrive whole"),
            })
            .and_then(|body| DeviceRequest::parse(uri, headers, &body))
            .inspect_err(|problem| {
                let outcome = Outcome::Invalid { code: problem.code() };
                self.vend.audit.record(&AuditRecord { origin: &origin, device: None, key: None, outcome });
            })?;
        let DeviceRequest { answer, csr, device, parameters, token } = request;
        let now = (self.clock)();
        let request = VendRequest { attempt, device: device.clone(), csr, token, parameters, origin, now };
        match self.vend.vend(request).await {
            Ok(vended) => Ok(self.handout.answer(&device, &vended, answer)),
            Err(error) => Err(problem(&error, attempt, now)),
        }
    }
}

/// The longest that a device is told to wait for another attempt of its own. Most end within a second, and asking is
/// cheap.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The table of what a caller is told; what an operator is told is in the audit record and the log.
fn problem(error: &VendError, attempt: AttemptId, now: Timestamp) -> Problem {
    match error {
        VendError::InProgress { until } => {
            Problem::in_progress("ask again when it is over").retry_after(now.until(*until).min(LONGEST_WAIT))
        }
        VendError::KeyRefused => Problem::key_refused("make a new key and ask again"),
        VendError::Parameters(ParametersError::NotSettable) => {
            Problem::parameter_not_settable("leave it out, or have it allowed in the registry")
        }
        VendError::Parameters(error) => {
            log(error);
            Problem::parameters_invalid("leave the parameters out; if you sent none, the operator has to correct them")
        }
        VendError::Refused => Problem::refused("the operator's audit record of this request says why"),
        VendError::Platform(PlatformError::Throttled { .. }) | VendError::Registry(RegistryError::Throttled { .. }) => {
            log(error);
            Problem::throttled("ask again after the time in Retry-After").retry_after(spread(attempt))
        }
        VendError::Platform(PlatformError::Unavailable { .. })
        | VendError::Registry(RegistryError::Unavailable { .. }) => {
            log(error);
            Problem::unavailable("ask again after the time in Retry-After").retry_after(spread(attempt))
        }
        error => {
            log(error);
            Problem::internal("ask again, and report it with the x-request-id if it stays")
        }
    }
}

/// A delay of 3 to 12 seconds, so that devices that were turned away together do not come back together.
fn spread(attempt: AttemptId) -> Duration {
    Duration::from_secs(3 + attempt.spread(10))
}

/// Logs a failure once, with what caused it. The SDK's errors hold codes and messages of the service, and no request.
fn log(error: &(dyn std::error::Error + 'static)) {
    tracing::error!(error, "a vend could not be finished");
}
