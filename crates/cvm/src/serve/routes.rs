//! What the server answers, and to whom.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use cvm_http::{Caller, DeviceRates, Pace, Problem};
use cvm_interchange::Object;
use cvm_provisioning::{AttemptId, DeviceId};
use tokio::sync::Notify;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;

use super::claims;
use super::metrics::{Metrics, count};
use super::operator_door::{OperatorDoor, admit_admin, admit_operator, admit_trusted_user, bearer_of};
use super::rates::Buckets;
use super::source::{Source, TrustedProxies};
use super::token_routes::token_routes;
use super::{OperatorTokens, TokenRecord};

/// The longest that a request may take.
const LONGEST: Duration = Duration::from_secs(30);
/// The largest body there is, in bytes; each route has a bound of its own below it.
const MAX_BODY: usize = 1024 * 1024;

/// What a platform has to offer.
pub(super) struct Doors {
    /// What devices ask, by whichever protocol.
    pub(super) devices: Router,
    /// What operators ask of the registry.
    pub(super) operators: Router,
    /// What operators ask as trusted users, where claims are made out.
    pub(super) claims: Option<Router>,
    /// What brokers ask of the CA, where that is ours.
    pub(super) authority: Router,
    /// What admins ask of the CA, where that is ours.
    pub(super) admins: Router,
    /// What certificates name, where they are ours: it can be read without TLS, because it is signed.
    pub(super) revocation: Router,
    /// Whether the server can do its work.
    pub(super) readiness: Router,
}

/// What the server has beside them.
pub(super) struct Services {
    pub(super) tokens: OperatorTokens,
    /// Told when an operator may have decided something.
    pub(super) woken: Arc<Notify>,
    pub(super) limits: Arc<Limits>,
    pub(super) metrics: Metrics,
}

/// How much may be asked, and by whom.
pub(super) struct Limits {
    pub(super) trusted: TrustedProxies,
    pub(super) sources: Arc<Buckets>,
    /// What devices ask with the right proof.
    pub(super) devices: Buckets,
    /// What is refused, by source and device.
    pub(super) refusals: Buckets,
    /// What operators ask, by their tokens.
    pub(super) operators: Buckets,
    /// Who is an operator.
    pub(super) tokens: OperatorTokens,
}

/// All of its addresses.
pub(super) fn router(doors: Doors, services: Services) -> Router {
    let Doors { devices, operators, claims, authority, admins, revocation, readiness } = doors;
    let Services { tokens, woken, limits, metrics } = services;
    let door = OperatorDoor { woken, sources: Arc::clone(&limits.sources), metrics: metrics.clone() };
    let admins = admins.merge(token_routes(tokens)).layer(from_fn_with_state(door.clone(), admit_admin));
    let claims = match claims {
        Some(claims) => claims.layer(from_fn_with_state(door.clone(), admit_trusted_user)),
        None => claims::nowhere(),
    };
    let operators = operators.layer(from_fn_with_state(door, admit_operator)).into_service::<axum::body::Body>();
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .merge(readiness)
        .merge(authority)
        .merge(revocation)
        .merge(admins)
        .route_service("/devices", operators.clone())
        .route_service("/devices/{*path}", operators.clone())
        .route_service("/statistics/{*path}", operators.clone())
        .route_service("/jobs", operators.clone())
        .route_service("/jobs/{*path}", operators.clone())
        .route_service("/audit", operators)
        .route_service("/v1/claims", claims.clone().into_service::<axum::body::Body>())
        .route_service("/v1/claims/", claims.into_service::<axum::body::Body>())
        .fallback_service(devices)
        .bounded(limits, metrics)
}

/// What can be read without TLS.
pub(super) fn plain_router(doors: &Doors, services: &Services) -> Router {
    doors.revocation.clone().bounded(Arc::clone(&services.limits), services.metrics.clone())
}

/// The bounds of every request.
trait Bounded {
    fn bounded(self, limits: Arc<Limits>, metrics: Metrics) -> Self;
}

impl Bounded for Router {
    fn bounded(self, limits: Arc<Limits>, metrics: Metrics) -> Self {
        let (count, admit) =
            (from_fn_with_state(metrics.clone(), count), from_fn_with_state((limits, metrics), admit_source));
        self.layer(RequestBodyLimitLayer::new(MAX_BODY))
            .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, LONGEST))
            .layer((count, admit))
    }
}

/// The request with where it came from, if no more has come from there than may. Nothing of it is taken from a header
/// that anybody could write.
async fn admit_source(
    State((limits, metrics)): State<(Arc<Limits>, Metrics)>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let Some(peer) = peer.map(|ConnectInfo(address)| address.ip()) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let client = limits.trusted.client(peer, request.headers());
    let source = Source::of(client);
    let operator = bearer_of(request.headers(), &limits.tokens);
    let (taken, bucket) = match (request.uri().path(), &operator) {
        // It asks nothing.
        ("/livez", _) => (Ok(()), "source"),
        // Counted apart: a source that vends at its limit still learns whether the server is ready.
        ("/readyz", _) => (limits.sources.take(&("/readyz", &source)), "source"),
        // Operators and the devices behind the same address do not keep each other waiting.
        (_, Some(TokenRecord { id, .. })) => (limits.operators.take(id), "operator"),
        (_, None) => (limits.sources.take(&source), "source"),
    };
    if let Err(wait) = taken {
        metrics.limited(bucket);
        return Problem::too_often(spread(wait)).into_response();
    }
    let extensions = request.extensions_mut();
    extensions.insert(Caller { request_id: None, source: Some(client.to_string()) });
    extensions.insert(Pace(Arc::new(FromSource { limits, metrics, source })));
    extensions.insert(source);
    if let Some(operator) = operator {
        extensions.insert(operator);
    }
    next.run(request).await
}

/// The rates of devices for requests from one source.
struct FromSource {
    limits: Arc<Limits>,
    metrics: Metrics,
    source: Source,
}

impl DeviceRates for FromSource {
    fn admit(&self, device: &DeviceId) -> Result<(), Duration> {
        self.limits.devices.look(device).map_err(|wait| self.limited(wait))
    }

    fn proved(&self, device: &DeviceId) {
        self.limits.devices.count(device);
    }

    fn refused(&self, device: &DeviceId) -> Result<(), Duration> {
        self.limits.refusals.take(&(&self.source, device)).map_err(|wait| self.limited(wait))
    }
}

impl FromSource {
    fn limited(&self, wait: Duration) -> Duration {
        self.metrics.limited("device");
        spread(wait)
    }
}

/// The object in a body. As a struct alone, serde would take an array of its values as well.
pub(super) fn object<T>(body: Result<Json<Object<T>>, JsonRejection>) -> Result<T, Problem> {
    match body {
        Ok(Json(Object(object))) => Ok(object),
        Err(error) => Err(Problem::body_invalid(error.body_text())),
    }
}

/// A while that is a little longer for some than for others, so that those who were turned away together do not come
/// back together.
fn spread(wait: Duration) -> Duration {
    let more = AttemptId::random().map_or(0, |attempt| attempt.spread(10));
    Duration::from_secs(wait.as_secs() + 1 + more)
}
