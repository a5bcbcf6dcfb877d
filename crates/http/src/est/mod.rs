//! Enrolment over Secure Transport (RFC 7030, clarified by RFC 8951): the same decision for clients that speak EST.
//!
//! `fullcmc` is optional (RFC 7030 section 3.2.2), and is not there: 404, as any address that nobody knows.

mod answer;
mod credential;
mod label;
mod request;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cvm_provisioning::{
    AttemptId, AuditRecord, Certificate, DeviceIdFrom, Door, Origin, Outcome, Timestamp, VendError, VendRequest,
    Vending,
};

pub(crate) use self::answer::certs_only;
pub use self::label::{EstLabel, InvalidEstLabel};

use self::answer::Base64;
use self::request::{EstRequest, Wanted};
use crate::Problem;
use crate::door::{Caller, Clock, Pace, read, router as door_router, with_request_id};

/// Where EST is (RFC 7030 section 3.2.2).
const BASE: &str = "/.well-known/est";

/// What EST needs beside the decision.
pub struct Est {
    /// The certificates of CAs that devices are to trust at this time, the one that issues first. It is asked each
    /// time, so that a rotation is seen.
    pub ca_certificates: Box<dyn Fn(Timestamp) -> Vec<Certificate> + Send + Sync>,
    /// Labels under which the same service is found: `/.well-known/est/{label}/…`, for firmware that has one built in.
    /// They choose nothing. Any other is not found.
    pub labels: Vec<EstLabel>,
}

impl fmt::Debug for Est {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Est").field("labels", &self.labels).finish_non_exhaustive()
    }
}

/// The router of EST. It has to be reached over TLS alone. Whose certificate the connection was made with is the
/// extension [`ClientCertificate`](crate::ClientCertificate), put there by whoever has verified it. `device_id_from` is how
/// signing requests name their device.
pub fn est_router<V: Vending + 'static>(vend: Arc<V>, est: Est, device_id_from: DeviceIdFrom, clock: Clock) -> Router {
    let Est { ca_certificates, labels } = est;
    let door = Arc::new(EstState { ca_certificates, clock, device_id_from, vend });
    let operations = Router::new()
        .route("/cacerts", get(EstState::<V>::ca_certificates))
        .route("/csrattrs", get(async |headers: HeaderMap| answer::csr_attributes(Base64::of(&headers))))
        .route("/serverkeygen", post(EstState::<V>::generate_key))
        .route("/simpleenroll", post(EstState::<V>::enroll))
        .route("/simplereenroll", post(EstState::<V>::enroll))
        .with_state(door);
    let mut routes = Router::new().nest(BASE, operations.clone());
    for label in labels {
        routes = routes.nest(&format!("{BASE}/{label}"), operations.clone());
    }
    let addresses = "cacerts, csrattrs, serverkeygen, simpleenroll and simplereenroll are below /.well-known/est";
    door_router(routes, addresses, EstRequest::MAX_BODY)
}

/// Parses a request as the door does, of whoever made it and for either kind of enrolment, and drops it: what a fuzz
/// target can drive.
///
/// # Errors
///
/// The problem that the caller would be told.
pub fn parse(uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
    let parse = |wanted| EstRequest::parse(wanted, DeviceIdFrom::Either, None, uri, headers, body);
    let parsed = [Wanted::Certificate, Wanted::Key].map(parse);
    parsed.into_iter().try_for_each(|parsed| parsed.map(drop))
}

/// The door: EST on one side, the decision on the other.
struct EstState<V> {
    ca_certificates: Box<dyn Fn(Timestamp) -> Vec<Certificate> + Send + Sync>,
    clock: Clock,
    device_id_from: DeviceIdFrom,
    vend: Arc<V>,
}

impl<V: Vending> EstState<V> {
    /// `cacerts` (RFC 7030 section 4.1): nobody has to say who they are.
    async fn ca_certificates(State(door): State<Arc<Self>>, headers: HeaderMap) -> Response {
        answer::ca_certificates(&(door.ca_certificates)((door.clock)()), Base64::of(&headers))
    }

    /// `simpleenroll` and `simplereenroll` (RFC 7030 section 4.2). Whether a device has a certificate that it may renew
    /// is for the decision to say, so both ask for the same.
    async fn enroll(State(door): State<Arc<Self>>, parts: Parts, body: Result<Bytes, BytesRejection>) -> Response {
        door.take(Wanted::Certificate, &parts, body).await
    }

    /// `serverkeygen` (RFC 7030 section 4.4).
    async fn generate_key(
        State(door): State<Arc<Self>>,
        parts: Parts,
        body: Result<Bytes, BytesRejection>,
    ) -> Response {
        door.take(Wanted::Key, &parts, body).await
    }

    async fn take(
        &self,
        wanted: Wanted,
        Parts { uri, headers, extensions, .. }: &Parts,
        body: Result<Bytes, BytesRejection>,
    ) -> Response {
        let Ok(attempt) = AttemptId::random() else {
            return Problem::internal("there is no randomness to be had").into_response();
        };
        let origin = extensions.get::<Caller>().cloned().unwrap_or_default().origin(Door::Est, attempt);
        let request_id = origin.request_id.clone();
        let request = read(body, EstRequest::MAX_BODY)
            .and_then(|body| EstRequest::parse(wanted, self.device_id_from, extensions.get(), uri, headers, &body))
            .inspect_err(|problem| {
                let outcome = Outcome::Invalid { code: problem.code() };
                self.vend.record(&AuditRecord { origin: &origin, device: None, key: None, outcome });
            });
        let answer = match request {
            Ok(request) => match Pace::allows(extensions.get(), &request.device) {
                Ok(()) => {
                    let base64 = Base64::of(headers);
                    self.answer(wanted, request, base64, extensions.get(), attempt, origin).await
                }
                Err(problem) => Err(problem),
            },
            Err(problem) => Err(problem),
        };
        let mut response = with_request_id(answer, request_id);
        if response.status() == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"cvm\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            // Bouncy Castle takes a body here for an error of the protocol.
            response.headers_mut().remove(CONTENT_TYPE);
            response.headers_mut().remove(CONTENT_LENGTH);
            *response.body_mut() = Body::empty();
        }
        response
    }

    async fn answer(
        &self,
        wanted: Wanted,
        request: EstRequest,
        base64: Base64,
        pace: Option<&Pace>,
        attempt: AttemptId,
        origin: Origin,
    ) -> Result<Response, Problem> {
        let EstRequest { device, csr, token, shown } = request;
        let now = (self.clock)();
        let parameters = Default::default();
        let request = VendRequest { attempt, device: device.clone(), csr, token, shown, parameters, origin, now };
        let answered = self.vend.vend(request).await;
        Pace::count(pace, &device, &answered)?;
        let error = match answered {
            Ok(vended) => return answer::enrolled(wanted, &vended, base64),
            Err(error) => error,
        };
        let problem = Problem::of_vend(&error, attempt, now);
        match error {
            // The client asks the same again (RFC 7030 section 4.2.3).
            VendError::InProgress { .. } => Ok(answer::later(problem)),
            _ => Err(problem),
        }
    }
}
