//! `/tokens`: operators' tokens, for admins.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get};
use axum::{Extension, Json, Router};
use cvm_http::Problem;
use cvm_interchange::Object;
use serde::Deserialize;
use serde_json::{Value, json};

use super::routes::object;
use super::{OperatorTokens, OwnerName, Role, ServeError, TokenRecord, now};
use crate::arguments::TimeToLive;

/// What is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Wanted {
    name: String,
    role: Role,
    #[serde(default)]
    valid_for: Option<String>,
}

pub(super) fn token_routes(tokens: OperatorTokens) -> Router {
    Router::new().route("/tokens", get(list).post(create)).route("/tokens/{id}", delete(revoke)).with_state(tokens)
}

async fn list(State(tokens): State<OperatorTokens>) -> Result<Response, Problem> {
    let all = tokens.list().map_err(|error| problem(&error))?;
    Ok(Json(all.iter().map(shown).collect::<Vec<_>>()).into_response())
}

async fn create(
    State(tokens): State<OperatorTokens>,
    Extension(admin): Extension<TokenRecord>,
    wanted: Result<Json<Object<Wanted>>, JsonRejection>,
) -> Result<Response, Problem> {
    let Wanted { name, role, valid_for } = object(wanted)?;
    let name = name.parse::<OwnerName>().map_err(|error| Problem::body_invalid(format!("name: {error}")))?;
    let valid_for = valid_for.map(|text| text.parse::<TimeToLive>()).transpose();
    let valid_for = valid_for.map_err(|error| Problem::body_invalid(format!("validFor: {error}")))?;
    let expires_at = valid_for.map(|time| now().after(time.duration()));
    let (record, token) = tokens.create(name.as_str(), role, expires_at, now()).map_err(|error| problem(&error))?;
    tracing::info!(actor = admin.actor(), token = record.id, role = role.name(), "an operator's token was made");
    let mut body = shown(&record);
    body["token"] = token.into();
    Ok((StatusCode::CREATED, [(CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

async fn revoke(
    State(tokens): State<OperatorTokens>,
    Extension(admin): Extension<TokenRecord>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    tokens.revoke(&id).map_err(|error| problem(&error))?;
    tracing::info!(actor = admin.actor(), token = id, "an operator's token was revoked");
    Ok(StatusCode::NO_CONTENT)
}

fn shown(record: &TokenRecord) -> Value {
    json!({
        "id": record.id,
        "name": record.name,
        "role": record.role,
        "createdAt": record.created_at.to_string(),
        "expiresAt": record.expires_at.map(|end| end.to_string()),
    })
}

fn problem(error: &ServeError) -> Problem {
    match error {
        ServeError::NoToken { .. } => Problem::not_found("there is no such token; GET /tokens has those there are"),
        error => {
            let cause: &dyn std::error::Error = error;
            tracing::error!(error = cause, "a token could not be kept or read");
            Problem::internal("the server's log says why")
        }
    }
}
