//! Lets operators in whose token allows what they ask.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use cvm_http::{NoRestore, Operator, Problem};
use cvm_provisioning::{Actor, TrustedUser};
use tokio::sync::Notify;

use super::rates::Buckets;
use super::source::Source;
use super::{OperatorTokens, Role, TokenRecord, now};

/// What a wrong token costs, in requests.
const WRONG_TOKEN: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// What is known of operators in front of their routes.
#[derive(Clone)]
pub(super) struct OperatorDoor {
    pub(super) tokens: OperatorTokens,
    /// Told when one of them may have decided something.
    pub(super) woken: Arc<Notify>,
    pub(super) sources: Arc<Buckets>,
}

impl OperatorDoor {
    /// Whose token the request has. A wrong one makes its source wait sooner.
    fn bearer(&self, request: &Request) -> Option<TokenRecord> {
        let token = bearer(request.headers())?;
        let found = self.tokens.bearer(token, now());
        if let Some(source) = request.extensions().get::<Source>().filter(|_| found.is_none()) {
            self.sources.spill(source, WRONG_TOKEN);
        }
        found
    }
}

/// In front of the registry: viewers look, and operators change.
pub(super) async fn admit_operator(State(door): State<OperatorDoor>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().remove::<Operator>();
    let Some(record) = door.bearer(&request) else {
        // Without an operator the registry says so itself, in its own form.
        let mut response = next.run(request).await;
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return response;
    };
    let only_looks = matches!(*request.method(), Method::GET | Method::HEAD);
    if !only_looks && record.role < Role::Operator {
        return Problem::not_allowed("this token lets you look; ask for one with the role operator").into_response();
    }
    if record.role < Role::Admin {
        request.extensions_mut().insert(NoRestore);
    }
    if let Some(actor) = Actor::new(&record.actor()) {
        request.extensions_mut().insert(Operator(actor));
    }
    let response = next.run(request).await;
    if !only_looks {
        door.woken.notify_one();
    }
    response
}

/// In front of claims: an operator vouches for devices as the trusted user of the token's name, whichever token it is.
pub(super) async fn admit_trusted_user(State(door): State<OperatorDoor>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().remove::<TrustedUser>();
    let Some(record) = door.bearer(&request) else {
        // Without a user the claims' door says so itself, and writes it down.
        return next.run(request).await;
    };
    if record.role < Role::Operator {
        return Problem::not_allowed("this token lets you look; ask for one with the role operator").into_response();
    }
    let Ok(user) = record.name.parse::<TrustedUser>() else {
        let text = "claims are counted by the token's name, so it has to be of ASCII characters without blanks; ask for \
                    a token with another name";
        return Problem::not_allowed(text).into_response();
    };
    request.extensions_mut().insert(user);
    next.run(request).await
}

/// In front of what admins alone may do. Who it is, is among the request's extensions.
pub(super) async fn admit_admin(State(door): State<OperatorDoor>, mut request: Request, next: Next) -> Response {
    let Some(record) = door.bearer(&request) else {
        return Problem::unauthenticated("send `Authorization: Bearer TOKEN`").into_response();
    };
    if record.role < Role::Admin {
        return Problem::not_allowed("ask for a token with the role admin").into_response();
    }
    request.extensions_mut().insert(record);
    next.run(request).await
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
