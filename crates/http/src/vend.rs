//! `POST /v1/certificates`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use cvm_provisioning::{
    AttemptId, Audit, AuditRecord, Origin, Outcome, ParametersError, Platform, PlatformError, RegistryError,
    Reservations, Timestamp, Vend, VendError, VendRequest,
};

use crate::door::{Caller, ClientCertificate, Clock, Pace, read, router as door_router, spread, with_request_id};
use crate::request::DeviceRequest;
use crate::{Handout, Problem};

/// The router of the vend.
pub fn router<R, P, A>(vend: Vend<R, P, A>, handout: Handout, clock: Clock) -> Router
where
    R: Reservations + 'static,
    P: Platform + 'static,
    A: Audit + 'static,
{
    let door = Arc::new(Door { clock, handout, vend });
    let routes = Router::new().route("/v1/certificates", post(Door::<R, P, A>::certificate)).with_state(door);
    door_router(routes, "devices post to /v1/certificates", DeviceRequest::MAX_BODY)
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
    async fn certificate(State(door): State<Arc<Self>>, parts: Parts, body: Result<Bytes, BytesRejection>) -> Response {
        let Ok(attempt) = AttemptId::random() else {
            return Problem::internal("there is no randomness to be had").into_response();
        };
        let origin = parts.extensions.get::<Caller>().cloned().unwrap_or_default().origin("vend", attempt);
        let request_id = origin.request_id.clone();
        with_request_id(door.answer(attempt, origin, &parts, body).await, request_id)
    }

    async fn answer(
        &self,
        attempt: AttemptId,
        origin: Origin,
        Parts { uri, headers, extensions, .. }: &Parts,
        body: Result<Bytes, BytesRejection>,
    ) -> Result<Response, Problem> {
        let request = read(body, DeviceRequest::MAX_BODY)
            .and_then(|body| DeviceRequest::parse(uri, headers, &body))
            .inspect_err(|problem| {
                let outcome = Outcome::Invalid { code: problem.code() };
                self.vend.audit.record(&AuditRecord { origin: &origin, device: None, key: None, outcome });
            })?;
        let DeviceRequest { answer, csr, device, parameters, token } = request;
        Pace::allows(extensions.get(), &device)?;
        let now = (self.clock)();
        let shown = extensions.get().map(|ClientCertificate(certificate)| *certificate.id());
        let request = VendRequest { attempt, device: device.clone(), csr, token, shown, parameters, origin, now };
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

/// Logs a failure once, with what caused it. The SDK's errors hold codes and messages of the service, and no request.
fn log(error: &(dyn std::error::Error + 'static)) {
    tracing::error!(error, "a vend could not be finished");
}
