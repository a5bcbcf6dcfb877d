//! Lets operators in whose token allows what they ask.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use cvm_http::{Caller, NoOperator, NoRestore, Operator, Problem, RoleRefused};
use cvm_provisioning::{Actor, AttemptId, TrustedUser};
use tokio::sync::Notify;

use super::metrics::Metrics;
use super::rates::Buckets;
use super::source::Source;
use super::{OperatorTokens, Role, TokenRecord, now};

/// What a wrong token costs, in requests.
const WRONG_TOKEN: NonZeroU32 = NonZeroU32::new(20).unwrap();
const NOT_AN_OPERATOR: &str = "this token lets you look; ask for one with the role operator";
/// The longest path that is logged, in characters.
const MAX_PATH: usize = 256;

/// What is known of operators in front of their routes.
#[derive(Clone)]
pub(super) struct OperatorDoor {
    /// Told when one of them may have decided something.
    pub(super) woken: Arc<Notify>,
    pub(super) sources: Arc<Buckets>,
    pub(super) metrics: Metrics,
}

/// Why an operator's request is refused before it is looked at.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    /// The token's name is not one of a trusted user.
    Name,
    /// No token came.
    NoToken,
    /// The token's role does not allow it.
    Role,
    /// The token is not one of this server, has expired, or was revoked.
    WrongToken,
}

impl Refusal {
    const fn reason(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::NoToken => "no-token",
            Self::Role => "role",
            Self::WrongToken => "wrong-token",
        }
    }
}

impl OperatorDoor {
    /// Whose token the request has, as [`bearer_of`] found. A wrong one makes its source wait sooner.
    fn bearer(&self, request: &Request) -> Result<TokenRecord, Refusal> {
        if let Some(record) = request.extensions().get::<TokenRecord>() {
            return Ok(record.clone());
        }
        if bearer(request.headers()).is_none() {
            return Err(Refusal::NoToken);
        }
        if let Some(source) = request.extensions().get::<Source>() {
            self.sources.spill(source, WRONG_TOKEN);
        }
        Err(Refusal::WrongToken)
    }

    /// Counts and logs a refusal, and adds the id to the answer by which the log has it.
    fn refuse(&self, request: &Request, refusal: Refusal, record: Option<&TokenRecord>, problem: Problem) -> Response {
        self.metrics.operator_refused(refusal.reason());
        let request_id = AttemptId::random().map(|id| id.to_string()).unwrap_or_default();
        let source = request.extensions().get::<Caller>().and_then(|caller| caller.source.as_deref());
        // What somebody without a token writes is not logged.
        let path = record.map(|_| request.uri().path().chars().take(MAX_PATH).collect::<String>());
        tracing::warn!(
            target: "audit",
            outcome = "refused",
            door = "operator",
            reason = refusal.reason(),
            actor = record.map(TokenRecord::actor),
            role = record.map(|record| record.role.name()),
            method = %request.method(),
            path,
            request_id,
            source,
        );
        let mut response = problem.into_response();
        if let Ok(request_id) = HeaderValue::try_from(request_id) {
            response.headers_mut().insert("x-request-id", request_id);
        }
        response
    }
}

/// In front of the registry: viewers look, and operators change.
pub(super) async fn admit_operator(State(door): State<OperatorDoor>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().remove::<Operator>();
    let record = match door.bearer(&request) {
        Ok(record) => record,
        Err(refusal) => {
            door.metrics.operator_refused(refusal.reason());
            request.extensions_mut().insert(NoOperator(refusal.reason()));
            // Without an operator the registry refuses the request itself, in its own form, and logs it.
            let mut response = next.run(request).await;
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return response;
        }
    };
    let only_looks = matches!(*request.method(), Method::GET | Method::HEAD);
    if !only_looks && record.role < Role::Operator {
        return door.refuse(&request, Refusal::Role, Some(&record), Problem::not_allowed(NOT_AN_OPERATOR));
    }
    if record.role < Role::Admin {
        request.extensions_mut().insert(NoRestore);
    }
    if let Some(actor) = Actor::new(&record.actor()) {
        request.extensions_mut().insert(Operator(actor));
    }
    let response = next.run(request).await;
    if response.extensions().get::<RoleRefused>().is_some() {
        door.metrics.operator_refused(Refusal::Role.reason());
    }
    if !only_looks {
        door.woken.notify_one();
    }
    response
}

/// In front of claims: an operator vouches for devices as the trusted user of the token's name, whichever token it is.
pub(super) async fn admit_trusted_user(State(door): State<OperatorDoor>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().remove::<TrustedUser>();
    let record = match door.bearer(&request) {
        Ok(record) => record,
        Err(refusal) => {
            door.metrics.operator_refused(refusal.reason());
            // Without a user the claims' door refuses the request itself, and records it.
            return next.run(request).await;
        }
    };
    if record.role < Role::Operator {
        return door.refuse(&request, Refusal::Role, Some(&record), Problem::not_allowed(NOT_AN_OPERATOR));
    }
    let Ok(user) = record.name.parse::<TrustedUser>() else {
        let text = "claims are counted by the token's name, so it has to be of ASCII characters without blanks; ask for \
                    a token with another name";
        return door.refuse(&request, Refusal::Name, Some(&record), Problem::not_allowed(text));
    };
    request.extensions_mut().insert(user);
    next.run(request).await
}

/// In front of what admins alone may do. Who it is, is among the request's extensions.
pub(super) async fn admit_admin(State(door): State<OperatorDoor>, mut request: Request, next: Next) -> Response {
    let record = match door.bearer(&request) {
        Ok(record) => record,
        Err(refusal) => {
            let problem = Problem::unauthenticated("send `Authorization: Bearer TOKEN`");
            return door.refuse(&request, refusal, None, problem);
        }
    };
    if record.role < Role::Admin {
        let problem = Problem::not_allowed("ask for a token with the role admin");
        return door.refuse(&request, Refusal::Role, Some(&record), problem);
    }
    request.extensions_mut().insert(record);
    next.run(request).await
}

/// Whose token a request has, if it is an operator's.
pub(super) fn bearer_of(headers: &HeaderMap, tokens: &OperatorTokens) -> Option<TokenRecord> {
    tokens.bearer(bearer(headers)?, now())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
