//! `POST /v1/certificates`.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use cvm_provisioning::{AttemptId, AuditRecord, DeviceIdFrom, Door, Origin, Outcome, VendRequest, Vending};

use crate::door::{Caller, ClientCertificate, Clock, Pace, read, router as door_router, with_request_id};
use crate::request::DeviceRequest;
use crate::{Handout, Problem};

/// The router of the vend, which other doors may share. `device_id_from` is how signing requests name their device.
pub fn router<V: Vending + 'static>(
    vend: Arc<V>,
    handout: Handout,
    device_id_from: DeviceIdFrom,
    clock: Clock,
) -> Router {
    let door = Arc::new(VendState { clock, device_id_from, handout, vend });
    let certificate = post(VendState::<V>::certificate);
    // Some clients end every address with a slash.
    let routes = Router::new().route("/v1/certificates", certificate.clone()).route("/v1/certificates/", certificate);
    let routes = routes.with_state(door);
    door_router(routes, "devices post to /v1/certificates", DeviceRequest::MAX_BODY)
}

/// Parses a request as the door does and drops it: what a fuzz target can drive.
///
/// # Errors
///
/// The problem that the caller would be told.
pub fn parse(uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
    DeviceRequest::parse(DeviceIdFrom::Either, uri, headers, body).map(drop)
}

/// The door: HTTP on one side, the decision on the other.
struct VendState<V> {
    clock: Clock,
    device_id_from: DeviceIdFrom,
    handout: Handout,
    vend: Arc<V>,
}

impl<V: Vending> VendState<V> {
    async fn certificate(State(door): State<Arc<Self>>, parts: Parts, body: Result<Bytes, BytesRejection>) -> Response {
        let Ok(attempt) = AttemptId::random() else {
            return Problem::internal("there is no randomness to be had").into_response();
        };
        let origin = parts.extensions.get::<Caller>().cloned().unwrap_or_default().origin(Door::Vend, attempt);
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
            .and_then(|body| DeviceRequest::parse(self.device_id_from, uri, headers, &body))
            .inspect_err(|problem| {
                let outcome = Outcome::Invalid { code: problem.code() };
                self.vend.record(&AuditRecord { origin: &origin, device: None, key: None, outcome });
            })?;
        let DeviceRequest { answer, csr, device, parameters, token } = request;
        Pace::allows(extensions.get(), &device)?;
        let now = (self.clock)();
        let shown = extensions.get().map(|ClientCertificate(certificate)| Arc::clone(certificate));
        let request = VendRequest { attempt, device: device.clone(), csr, token, shown, parameters, origin, now };
        let answered = self.vend.vend(request).await;
        Pace::count(extensions.get(), &device, &answered)?;
        match answered {
            Ok(vended) => self.handout.answer(&device, &vended, answer),
            Err(error) => Err(Problem::of_vend(&error, attempt, now)),
        }
    }
}
