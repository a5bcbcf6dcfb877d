//! What happens to every request before and after its own work: who made it, and what is said beside each answer.

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, HeaderName};
use axum::middleware::Next;
use axum::response::Response;
use cvm_provisioning::{Actor, AttemptId, Door, Origin, Timestamp};

use super::failure::{Code, Failure};
use crate::door::{Caller, Clock};

/// The operator who made a request: an extension of the request, put there by whoever has checked it. A request without
/// one is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Operator(pub Actor);

/// The operator may not restore devices, whose certificates come with the request: an extension of the request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoRestore;

/// The operator's role did not allow the request: an extension of the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RoleRefused;

/// Why there is no operator: an extension of the request, put there by whoever has looked for one.
#[derive(Clone, Copy, Debug)]
pub struct NoOperator(pub &'static str);

/// A request that was let in.
#[derive(Clone, Debug)]
pub(super) struct Admitted {
    pub(super) may_restore: bool,
    pub(super) origin: Origin,
    pub(super) now: Timestamp,
}

/// Lets operators in, and nobody else; finishes every answer.
pub(super) async fn admit(
    State(clock): State<Clock>,
    caller: Option<Extension<Caller>>,
    operator: Option<Extension<Operator>>,
    mut request: Request,
    next: Next,
) -> Response {
    let now = clock();
    let tracking = AttemptId::random().unwrap_or(AttemptId::new(0));
    let mut origin = caller.map(|extension| extension.0).unwrap_or_default().origin(Door::Registry, tracking);
    let request_id = HeaderValue::try_from(&origin.request_id).ok();
    let mut response = match operator {
        Some(Extension(Operator(actor))) => {
            origin.actor = Some(actor);
            let may_restore = request.extensions_mut().remove::<NoRestore>().is_none();
            let (method, uri) = (request.method().clone(), request.uri().clone());
            request.extensions_mut().insert(Admitted { may_restore, origin: origin.clone(), now });
            let response = next.run(request).await;
            if response.extensions().get::<Failure>().is_some_and(Failure::is_for_another_role) {
                let Origin { request_id, source, actor, .. } = &origin;
                let (actor, path) = (actor.as_ref().map(Actor::as_str), uri.path());
                tracing::warn!(target: "audit", outcome = "refused", door = Door::Registry.name(), reason = "role", actor, %method, path, request_id, source);
            }
            response
        }
        None => {
            let why = request.extensions().get::<NoOperator>().map_or("unauthenticated", |NoOperator(why)| why);
            let Origin { request_id, source, .. } = &origin;
            // What somebody unknown writes is not logged.
            let method = request.method();
            tracing::warn!(target: "audit", outcome = "refused", door = Door::Registry.name(), reason = why, %method, request_id, source);
            let text =
                "send an operator's token in Authorization: Bearer, or on AWS sign the request (Signature Version 4)";
            Failure::new(Code::IotHubUnauthorizedAccess, text).answer(tracking, now)
        }
    };
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        let mut written = failure.answer(tracking, now);
        // Such as Allow, beside 405.
        for (name, value) in response.headers().iter().filter(|(name, _)| *name != "content-length") {
            written.headers_mut().entry(name).or_insert_with(|| value.clone());
        }
        if failure.is_for_another_role() {
            written.extensions_mut().insert(RoleRefused);
        }
        response = written;
    }
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(request_id) = request_id {
        headers.insert(HeaderName::from_static("x-request-id"), request_id);
    }
    response
}
