//! Answers with what has an entity tag.

use axum::Json;
use axum::http::header::ETAG;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use cvm_provisioning::ETag;
use serde::Serialize;

use super::conditions;
use super::failure::Failure;

/// An answer with what has this entity tag.
pub(super) fn tagged(etag: &ETag, document: impl Serialize) -> Response {
    with_tag(Json(document).into_response(), etag)
}

/// The answer to a GET: nothing, where the caller has the very state already (RFC 9110 section 15.4.5).
pub(super) fn read(headers: &HeaderMap, etag: &ETag, document: impl Serialize) -> Result<Response, Failure> {
    match conditions::is_known(headers, etag)? {
        true => Ok(with_tag(StatusCode::NOT_MODIFIED.into_response(), etag)),
        false => Ok(tagged(etag, document)),
    }
}

fn with_tag(mut response: Response, etag: &ETag) -> Response {
    if let Ok(value) = HeaderValue::try_from(format!("\"{etag}\"")) {
        response.headers_mut().insert(ETAG, value);
    }
    response
}
