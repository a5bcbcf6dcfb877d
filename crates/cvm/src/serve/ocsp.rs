//! The door for those who ask whether a certificate is revoked (RFC 6960 appendix A, RFC 5019).

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use cvm_authority::{OcspRequest, OcspResponder, OcspResponse};
use cvm_sql::SqlRegistry;

use super::now;
use crate::ca_key::CaKey;

type Responder = OcspResponder<CaKey, SqlRegistry>;

/// For how long whoever stands between may give the same answer again. A device that an operator keeps out is out then at
/// the latest, while the answer itself says for how long it can be believed where nobody is reached.
const CACHED: &str = "max-age=300, public, no-transform, must-revalidate";
/// The alphabet of RFC 4648 section 4, whose `=` at the end some leave out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// `POST /ocsp`, and `GET /ocsp/` with the request behind it in base64.
pub(super) fn router(responder: Responder) -> Router {
    Router::new()
        .route("/ocsp", post(posted))
        .route("/ocsp/{*request}", get(gotten))
        .layer(DefaultBodyLimit::max(OcspRequest::MAX_LENGTH))
        .with_state(responder)
}

async fn posted(State(responder): State<Responder>, headers: HeaderMap, body: Bytes) -> Response {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.trim().eq_ignore_ascii_case("application/ocsp-request") {
        let text = "send the request with Content-Type: application/ocsp-request\n";
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, text).into_response();
    }
    response(&responder.answer(&body, now()).await, "no-store")
}

async fn gotten(State(responder): State<Responder>, Path(request): Path<String>) -> Response {
    // What is no base64 is no request, and is answered as such.
    let request = BASE64.decode(request).unwrap_or_default();
    response(&responder.answer(&request, now()).await, CACHED)
}

fn response(answer: &OcspResponse, cache: &'static str) -> Response {
    let cache = if answer.is_cacheable() { cache } else { "no-store" };
    let headers = [(CONTENT_TYPE, "application/ocsp-response"), (CACHE_CONTROL, cache)];
    (headers, answer.der().to_vec()).into_response()
}
