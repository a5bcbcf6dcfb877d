//! What every door on HTTP shares.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use cvm_provisioning::{AttemptId, Certificate, DeviceId, Door, Origin, Timestamp, VendError};
use tower_http::catch_panic::CatchPanicLayer;

use crate::Problem;

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

/// The certificate with which the caller made the connection, as the TLS in front of the router has verified it; a
/// request extension.
#[derive(Clone, Debug)]
pub struct ClientCertificate(pub Arc<Certificate>);

/// How often one device may ask; a request extension.
#[derive(Clone)]
pub struct Pace(pub Arc<dyn DeviceRates>);

/// Rate limits by device. Only a device with the right proof uses up what the device may ask, so that others cannot keep
/// it out; whoever has a wrong proof uses up what their source may ask for this device.
pub trait DeviceRates: Send + Sync {
    /// Looks whether the device may ask, before anything is done for it.
    ///
    /// # Errors
    ///
    /// The time to wait.
    fn admit(&self, device: &DeviceId) -> Result<(), Duration>;

    /// Counts a request that the device has proved to be its own.
    fn proved(&self, device: &DeviceId);

    /// Counts a request that was refused.
    ///
    /// # Errors
    ///
    /// The time to wait; the caller is told this instead of the refusal.
    fn refused(&self, device: &DeviceId) -> Result<(), Duration>;
}

impl Pace {
    /// Whether the device may ask now, as far as that is counted.
    pub(crate) fn allows(pace: Option<&Self>, device: &DeviceId) -> Result<(), Problem> {
        pace.map_or(Ok(()), |Self(rates)| rates.admit(device)).map_err(Problem::too_often)
    }

    /// Counts what became of a request.
    pub(crate) fn count<T>(
        pace: Option<&Self>,
        device: &DeviceId,
        answer: &Result<T, VendError>,
    ) -> Result<(), Problem> {
        let Some(Self(rates)) = pace else { return Ok(()) };
        match answer {
            Ok(_) | Err(VendError::InProgress { .. } | VendError::Parameters(_)) => rates.proved(device),
            Err(VendError::Refused | VendError::KeyRefused) => {
                rates.refused(device).map_err(Problem::too_often)?;
            }
            // What failed says nothing of who asked.
            Err(_) => {}
        }
        Ok(())
    }
}

impl Caller {
    /// The origin of a request at this door; one that the platform has given no id takes that of its attempt.
    pub(crate) fn origin(self, door: Door, attempt: AttemptId) -> Origin {
        let request_id = self.request_id.unwrap_or_else(|| attempt.to_string());
        Origin { source: self.source, ..Origin::new(door, request_id) }
    }
}

/// The routes of a door, with what is said beside them and the bounds of what is read.
pub(crate) fn router(routes: Router, address: &'static str, max_body: usize) -> Router {
    routes
        .method_not_allowed_fallback(async || {
            Problem::method_not_allowed("the header Allow says what can be done here")
        })
        .fallback(async move || Problem::not_found(address))
        .layer((
            CatchPanicLayer::custom(|_| Problem::internal("ask again, and report it if it stays").into_response()),
            DefaultBodyLimit::max(max_body),
        ))
}

/// Refuses what is in a query, because addresses are written into logs.
pub(crate) fn without_query(uri: &Uri) -> Result<(), Problem> {
    match uri.query() {
        None | Some("") => Ok(()),
        Some(_) => Err(Problem::query_not_allowed("put everything into the body and the headers")),
    }
}

/// The body, where it arrived whole and within bounds.
pub(crate) fn read(body: Result<Bytes, BytesRejection>, max_body: usize) -> Result<Bytes, Problem> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::body_too_large(format!("send at most {max_body} bytes")),
        _ => Problem::body_invalid("the body did not arrive whole"),
    })
}

/// The answer with the id by which an operator finds it.
pub(crate) fn with_request_id(answer: Result<Response, Problem>, request_id: String) -> Response {
    let mut response = answer.unwrap_or_else(Problem::into_response);
    if let Ok(request_id) = HeaderValue::try_from(request_id) {
        response.headers_mut().insert("x-request-id", request_id);
    }
    response
}

/// A delay of 3 to 12 seconds, so that devices that were turned away together do not come back together.
pub(crate) fn spread(attempt: AttemptId) -> Duration {
    Duration::from_secs(3 + attempt.spread(10))
}
