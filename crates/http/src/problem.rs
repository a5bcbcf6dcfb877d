//! Everything that can go wrong, as the caller sees it: RFC 9457 `application/problem+json` with a stable code.

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// A problem, as RFC 9457 has it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Problem {
    /// `urn:cvm:problem:` and the code.
    r#type: String,
    /// What this kind of problem is, in words that never change.
    title: &'static str,
    /// The status of the answer.
    #[serde(serialize_with = "as_number")]
    status: StatusCode,
    /// What happened this time, and what to do next.
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: Cow<'static, str>,
    /// The stable word for it.
    code: &'static str,
    #[serde(skip)]
    retry_after: Option<Duration>,
}

/// The longest detail, in characters. What a caller sent may be in it, to be read by that caller alone.
const MAX_DETAIL: usize = 300;

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident = $status:ident, $code:literal, $title:literal;)*) => {
        impl Problem {
            $(
                #[doc = concat!($title, ".")]
                $(#[$doc])*
                pub fn $name(detail: impl Into<Cow<'static, str>>) -> Self {
                    Self::new(StatusCode::$status, $code, $title, detail.into())
                }
            )*

            /// Every code there is, with its status.
            pub const CODES: &'static [(&'static str, StatusCode)] = &[$(($code, StatusCode::$status)),*];
        }
    };
}

problems! {
    authorization_invalid = BAD_REQUEST, "authorization-invalid", "The Authorization header is not what this address takes";
    belongs_to_device = UNPROCESSABLE_ENTITY, "belongs-to-device", "The certificate is the one that a device has";
    body_invalid = BAD_REQUEST, "body-invalid", "The body is not what this address takes";
    body_too_large = PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large";
    common_name_missing = BAD_REQUEST, "common-name-missing", "The certificate signing request names no device";
    content_type_unsupported = UNSUPPORTED_MEDIA_TYPE, "content-type-unsupported", "The body is of a type that is not taken here";
    csr_invalid = BAD_REQUEST, "csr-invalid", "The certificate signing request cannot be used";
    device_id_invalid = BAD_REQUEST, "device-id-invalid", "The device id is not one";
    device_id_mismatch = BAD_REQUEST, "device-id-mismatch", "The body and the certificate signing request name two devices";
    header_repeated = BAD_REQUEST, "header-repeated", "A header came twice";
    host_invalid = BAD_REQUEST, "host-invalid", "The request does not name its host once";
    in_progress = CONFLICT, "in-progress", "Another attempt for this device is under way";
    internal = INTERNAL_SERVER_ERROR, "internal", "Something is wrong on our side";
    key_refused = BAD_REQUEST, "key-refused", "This key must not be used";
    method_not_allowed = METHOD_NOT_ALLOWED, "method-not-allowed", "The method is not allowed here";
    not_acceptable = NOT_ACCEPTABLE, "not-acceptable", "No type of answer that you accept can be given";
    not_allowed = FORBIDDEN, "not-allowed", "Your role does not allow this";
    not_found = NOT_FOUND, "not-found", "There is nothing at this address";
    parameter_not_settable = BAD_REQUEST, "parameter-not-settable", "A parameter was sent that this device may not set";
    parameters_invalid = UNPROCESSABLE_ENTITY, "parameters-invalid", "The device cannot be provisioned with these parameters";
    private_key_sent = BAD_REQUEST, "private-key-sent", "A private key was sent";
    query_not_allowed = BAD_REQUEST, "query-not-allowed", "The address takes no query";
    quota_reached = TOO_MANY_REQUESTS, "quota-reached", "You have had as many claims as you may have today";
    rate_limited = TOO_MANY_REQUESTS, "rate-limited", "You ask too often";
    refused = FORBIDDEN, "refused", "The device was refused";
    throttled = SERVICE_UNAVAILABLE, "throttled", "Too many devices at once";
    unauthenticated = UNAUTHORIZED, "unauthenticated", "Nobody is known to have sent the request";
    unavailable = SERVICE_UNAVAILABLE, "unavailable", "A service that this one needs did not answer";
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, title: &'static str, detail: Cow<'static, str>) -> Self {
        let detail = match detail.char_indices().nth(MAX_DETAIL) {
            Some((end, _)) => format!("{}…", &detail[..end]).into(),
            None => detail,
        };
        Self { r#type: format!("urn:cvm:problem:{code}"), title, status, detail, code, retry_after: None }
    }

    /// The same problem, with the time after which to ask again.
    pub(crate) fn retry_after(self, delay: Duration) -> Self {
        Self { retry_after: Some(delay), ..self }
    }

    /// The caller asks more often than is allowed, and may ask again after `delay`.
    pub fn too_often(delay: Duration) -> Self {
        Self::rate_limited("ask again after the time in Retry-After").retry_after(delay)
    }

    /// The stable word for it.
    pub const fn code(&self) -> &'static str {
        self.code
    }
}

impl IntoResponse for Problem {
    /// The answer, with the problem itself among its extensions, for whoever counts them.
    fn into_response(self) -> Response {
        let (status, retry_after) = (self.status, self.retry_after);
        let mut response = (status, Json(&self)).into_response();
        response.extensions_mut().insert(self);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            // No 401 goes without one (RFC 9110 section 11.6.1); a door that takes another scheme says so itself.
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(delay) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(delay.as_secs().max(1)));
        }
        response
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn as_number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}
