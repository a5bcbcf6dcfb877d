//! `POST /v1/claims`: a trusted user asks for a claim for a device.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use cvm_provisioning::{
    AttemptId, Audit, AuditRecord, ClaimError, ClaimIssuer, ClaimRequest, ClaimStore, DeviceId, DeviceStore, Door,
    MadeOutClaim, Origin, Outcome, PlatformError, RegistryError, Timestamp, TrustedUser, TrustedUsers,
};
use serde::{Deserialize, Serialize};

use crate::door::{Caller, Clock, read, router as door_router, spread, with_request_id, without_query};
use crate::json::json_object;
use crate::media::BodyType;
use crate::{Handout, Problem};

/// The largest body taken, in bytes: a device id, escaped at its worst.
const MAX_BODY: usize = 2 * 1024;

/// The router of the claims for trusted users. Who asks is an extension of the request, put there by whoever has
/// checked it; a request without one is refused.
pub fn claim_router<R, P, A>(users: TrustedUsers<R, P, A>, handout: Handout, clock: Clock) -> Router
where
    R: ClaimStore + DeviceStore + 'static,
    P: ClaimIssuer + 'static,
    A: Audit + 'static,
{
    let door = Arc::new(ClaimState { clock, handout, users });
    let claim = post(ClaimState::<R, P, A>::claim);
    let routes = Router::new().route("/v1/claims", claim.clone()).route("/v1/claims/", claim).with_state(door);
    door_router(routes, "trusted users post to /v1/claims", MAX_BODY)
}

/// The door: HTTP on one side, the decision on the other.
struct ClaimState<R, P, A> {
    clock: Clock,
    handout: Handout,
    users: TrustedUsers<R, P, A>,
}

/// The body of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    device_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    device_id: &'a DeviceId,
    claim_certificate_id: String,
    certificate_pem: &'a str,
    private_key_pem: &'a str,
    ca_pem: &'a str,
    endpoint: &'a str,
    template: &'a str,
    expires_at: String,
}

impl<R: ClaimStore + DeviceStore, P: ClaimIssuer, A: Audit> ClaimState<R, P, A> {
    async fn claim(
        State(door): State<Arc<Self>>,
        caller: Option<Extension<Caller>>,
        user: Option<Extension<TrustedUser>>,
        uri: Uri,
        headers: HeaderMap,
        body: Result<Bytes, BytesRejection>,
    ) -> Response {
        let Ok(attempt) = AttemptId::random() else {
            return Problem::internal("there is no randomness to be had").into_response();
        };
        let origin = caller.map(|extension| extension.0).unwrap_or_default().origin(Door::Claim, attempt);
        let request_id = origin.request_id.clone();
        let answer = match user {
            Some(Extension(user)) => door.answer(attempt, origin, user, &uri, &headers, body).await,
            None => {
                let problem = Problem::unauthenticated(
                    "send an operator's token in Authorization: Bearer, or on AWS sign the request (Signature Version 4)",
                );
                door.invalid(&origin, &problem);
                Err(problem)
            }
        };
        with_request_id(answer, request_id)
    }

    async fn answer(
        &self,
        attempt: AttemptId,
        origin: Origin,
        user: TrustedUser,
        uri: &Uri,
        headers: &HeaderMap,
        body: Result<Bytes, BytesRejection>,
    ) -> Result<Response, Problem> {
        let device = read(body, MAX_BODY)
            .and_then(|body| device(uri, headers, &body))
            .inspect_err(|problem| self.invalid(&origin, problem))?;
        let now = (self.clock)();
        let request = ClaimRequest { user, device, origin, now };
        match self.users.make_out(&request).await {
            Ok(made_out) => Ok(self.handout.claim(&request.device, &made_out)),
            Err(error) => Err(problem(&error, attempt, now)),
        }
    }

    fn invalid(&self, origin: &Origin, problem: &Problem) {
        let outcome = Outcome::Invalid { code: problem.code() };
        self.users.audit.record(&AuditRecord { origin, device: None, key: None, outcome });
    }
}

impl Handout {
    fn claim(&self, device: &DeviceId, MadeOutClaim { claim, template }: &MadeOutClaim) -> Response {
        let answer = Answer {
            device_id: device,
            claim_certificate_id: claim.certificate.to_string(),
            certificate_pem: &claim.pem,
            private_key_pem: &claim.private_key,
            ca_pem: self.root_ca.pem(),
            endpoint: self.endpoint.as_str(),
            template: template.as_str(),
            expires_at: claim.expires_at.to_string(),
        };
        let mut response = (StatusCode::CREATED, Json(answer)).into_response();
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

fn device(uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Result<DeviceId, Problem> {
    without_query(uri)?;
    if BodyType::of(headers)? != BodyType::Json {
        return Err(Problem::content_type_unsupported("send application/json"));
    }
    let body: Body = json_object(body).map_err(|error| Problem::body_invalid(error.to_string()))?;
    body.device_id.parse().map_err(|error| Problem::device_id_invalid(format!("deviceId: {error}")))
}

/// The table of what a trusted user is told; what an operator is told is in the audit record and the log.
fn problem(error: &ClaimError, attempt: AttemptId, now: Timestamp) -> Problem {
    match error {
        ClaimError::Refused => Problem::refused("the operator's audit record of this request says why"),
        ClaimError::TooMany { until } => {
            Problem::quota_reached("ask again tomorrow, or have the operator raise the quota")
                .retry_after(now.until(*until))
        }
        ClaimError::Contended => Problem::in_progress("ask again").retry_after(spread(attempt)),
        ClaimError::Platform(PlatformError::Throttled { .. })
        | ClaimError::Registry(RegistryError::Throttled { .. }) => {
            Problem::throttled("ask again after the time in Retry-After").retry_after(spread(attempt))
        }
        ClaimError::Platform(PlatformError::Unavailable { .. })
        | ClaimError::Registry(RegistryError::Unavailable { .. }) => {
            Problem::unavailable("ask again after the time in Retry-After").retry_after(spread(attempt))
        }
        _ => Problem::internal("ask again, and report it with the x-request-id if it stays"),
    }
}
