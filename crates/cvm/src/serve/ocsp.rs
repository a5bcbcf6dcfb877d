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
/// The alphabet of RFC 4648 section 4, whose `=` at the end some leave out. Others use that of section 5 (base64url).
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
    // Parameters mean nothing here, and some clients send a charset.
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/ocsp-request") {
        let text = "send the request with Content-Type: application/ocsp-request\n";
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, text).into_response();
    }
    response(&responder.answer(&body, now()).await, "no-store")
}

async fn gotten(State(responder): State<Responder>, Path(request): Path<String>) -> Response {
    let request = base64_of(&request);
    response(&responder.answer(&request, now()).await, CACHED)
}

/// The request behind `/ocsp/`, which may begin with a second slash: the address that a certificate names ends with one for
/// some clients. What is no base64 is no request, and is answered as such.
fn base64_of(path: &str) -> Vec<u8> {
    // A request begins with the tag of a SEQUENCE, so its base64 begins with `M`, and never with a slash.
    let text = path.trim_start_matches('/').replace('-', "+").replace('_', "/");
    BASE64.decode(text).unwrap_or_default()
}

fn response(answer: &OcspResponse, cache: &'static str) -> Response {
    let cache = if answer.is_cacheable() { cache } else { "no-store" };
    let headers = [(CONTENT_TYPE, "application/ocsp-response"), (CACHE_CONTROL, cache)];
    (headers, answer.der().to_vec()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_in_an_address_is_base64_or_base64url_with_or_without_its_end() {
        let der = [0x30, 0x03, 0x02, 0x01, 0xff, 0xef, 0xbe, 0xff];
        for text in ["MAMCAf/vvv8=", "/MAMCAf/vvv8=", "//MAMCAf/vvv8", "MAMCAf_vvv8", "MAMCAf_vvv8="] {
            assert_eq!(base64_of(text), der, "{text}");
        }
        assert!(base64_of("MAMC*").is_empty());
    }
}
