//! What the server answers, and to whom.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use cvm_authority::{LocalSigner, OcspResponder, OwnPlatform};
use cvm_http::{Caller, Handout, Operator, Registry, registry_router};
use cvm_provisioning::{Actor, DeviceStore as _, LogAudit, Vend};
use cvm_sql::SqlRegistry;
use tokio::sync::Notify;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;

use super::enforcement::Revocations;
use super::{OperatorTokens, Role, now};

pub(super) type Platform = OwnPlatform<LocalSigner, SqlRegistry>;

/// The longest that a request may take.
const LONGEST: Duration = Duration::from_secs(30);
/// The largest body there is, in bytes; each route has a bound of its own below it.
const MAX_BODY: usize = 1024 * 1024;

/// What the server has to offer.
pub(super) struct Services {
    pub(super) vend: Vend<SqlRegistry, Platform, LogAudit>,
    pub(super) handout: Handout,
    pub(super) operators: Registry<SqlRegistry, SqlRegistry>,
    pub(super) tokens: OperatorTokens,
    pub(super) revocations: Revocations,
    pub(super) responder: OcspResponder<LocalSigner, SqlRegistry>,
    /// Told when an operator may have decided something.
    pub(super) woken: Arc<Notify>,
    pub(super) registry: SqlRegistry,
}

/// All of its addresses.
pub(super) fn router(services: Services) -> Router {
    let Services { vend, handout, operators, tokens, revocations, responder, woken, registry } = services;
    let devices = cvm_http::router(vend, handout, now);
    let door = Door { tokens, woken };
    let operators = registry_router(operators, Router::new(), now).layer(from_fn_with_state(door, admit));
    let operators = operators.into_service::<axum::body::Body>();
    let health = Router::new().route("/livez", get(async || "ok\n")).route("/readyz", get(ready)).with_state(registry);
    let authority = Router::new()
        .route("/ca.pem", get(async |State(lists): State<Revocations>| pem(lists.bundle())))
        .route("/crl.pem", get(async |State(lists): State<Revocations>| pem(lists.pem())))
        .with_state(revocations);
    Router::new()
        .merge(health)
        .merge(authority)
        .merge(super::ocsp::router(responder))
        .route_service("/devices", operators.clone())
        .route_service("/devices/{*path}", operators.clone())
        .route_service("/statistics/{*path}", operators.clone())
        .route_service("/audit", operators)
        .fallback_service(devices)
        .layer(from_fn(with_caller))
        .layer(RequestBodyLimitLayer::new(MAX_BODY))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, LONGEST))
}

fn pem(text: String) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/x-pem-file")], text)
}

/// Whether the registry answers: whoever spreads the load sends none here otherwise.
async fn ready(State(registry): State<SqlRegistry>) -> Response {
    match registry.list(&Default::default(), None, 1).await {
        Ok(_) => "ok\n".into_response(),
        Err(error) => {
            let cause: &dyn std::error::Error = &error;
            tracing::error!(error = cause, "the registry does not answer");
            (StatusCode::SERVICE_UNAVAILABLE, "the registry does not answer\n").into_response()
        }
    }
}

/// The request with where it came from; nothing of it is taken from a header.
async fn with_caller(mut request: Request, next: Next) -> Response {
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let source = address.map(|ConnectInfo(address)| address.ip().to_string());
    request.extensions_mut().insert(Caller { request_id: None, source });
    next.run(request).await
}

#[derive(Clone)]
struct Door {
    tokens: OperatorTokens,
    woken: Arc<Notify>,
}

/// Lets operators in whose token allows what they ask.
async fn admit(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().remove::<Operator>();
    let Some(record) = bearer(request.headers()).and_then(|token| door.tokens.bearer(token, now())) else {
        // Without an operator the registry says so itself, in its own form.
        let mut response = next.run(request).await;
        response.headers_mut().insert(WWW_AUTHENTICATE, axum::http::HeaderValue::from_static("Bearer"));
        return response;
    };
    let only_looks = matches!(*request.method(), Method::GET | Method::HEAD);
    if !only_looks && record.role < Role::Operator {
        let text = "this token lets its owner look and not change; ask for one with the role operator\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let actor = Actor::new(&format!("{}:{}", record.id, record.name)).map(Operator);
    if let Some(operator) = actor {
        request.extensions_mut().insert(operator);
    }
    let response = next.run(request).await;
    if !only_looks {
        door.woken.notify_one();
    }
    response
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
