//! Answers of EST: certificates in PKCS #7, and keys beside them.
//!
//! `Content-Transfer-Encoding` is said for clients of RFC 7030; those of RFC 8951 ignore it.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER, USER_AGENT};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cvm_provisioning::{Certificate, DeviceKey, Vended, encode_der};

use super::request::Wanted;
use crate::Problem;

const CERTIFICATES: &str = "application/pkcs7-mime";
const ONE_CERTIFICATE: &str = "application/pkcs7-mime; smime-type=certs-only";
/// It has characters that base64 has not.
const BOUNDARY: &str = "cvm-est-part";

/// How base64 is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Base64 {
    /// On one line: strongSwan, est-ca and others fail on more.
    OneLine,
    /// On lines of 64 characters, each with its end: OpenSSL, with which libest decodes, reads nothing else.
    Wrapped,
}

impl Base64 {
    /// The form that this client reads. libest says who it is as `libest client 1.0`.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let client = headers.get(USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
        match client.get(..6).is_some_and(|name| name.eq_ignore_ascii_case(b"libest")) {
            true => Self::Wrapped,
            false => Self::OneLine,
        }
    }

    fn encode(self, der: &[u8]) -> String {
        match self {
            Self::OneLine => STANDARD.encode(der),
            Self::Wrapped => der.chunks(48).map(|line| STANDARD.encode(line) + "\n").collect(),
        }
    }
}

/// The answer to `cacerts` (RFC 7030 section 4.1.3).
pub(super) fn ca_certificates(certificates: &[Certificate], base64: Base64) -> Response {
    base64_body(CERTIFICATES, base64.encode(&certs_only(certificates)))
}

/// The answer to an enrolment (RFC 7030 sections 4.2.3 and 4.4.2). The certificate is alone in it, which is the RFC's
/// word: those above it are what `cacerts` is for.
pub(super) fn enrolled(wanted: Wanted, vended: &Vended, base64: Base64) -> Result<Response, Problem> {
    let unusable = || Problem::internal("ask again, and report it with the x-request-id if it stays");
    let certificate = Certificate::parse(&vended.credential.pem).map_err(|_| unusable())?;
    let certificate = base64.encode(&certs_only(&[certificate]));
    let mut response = match wanted {
        Wanted::Certificate => base64_body(ONE_CERTIFICATE, certificate),
        Wanted::Key => with_key(vended.private_key.as_ref().ok_or_else(unusable)?, &certificate, base64),
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The answer to who has to ask the same again (RFC 7030 section 4.2.3).
pub(super) fn later(problem: Problem) -> Response {
    let mut response = StatusCode::ACCEPTED.into_response();
    if let Some(delay) = problem.into_response().headers_mut().remove(RETRY_AFTER) {
        response.headers_mut().insert(RETRY_AFTER, delay);
    }
    response
}

/// The answer to `csrattrs` (RFC 7030 section 4.5.2): a key on P-256, and a signature with SHA-256. It is a wish, and
/// other keys are taken, too.
pub(super) fn csr_attributes(base64: Base64) -> Response {
    let key =
        encode_der(SEQUENCE, &[&encode_der(OID, &[EC_PUBLIC_KEY]), &encode_der(SET, &[&encode_der(OID, &[P256])])]);
    let attributes = encode_der(SEQUENCE, &[&key, &encode_der(OID, &[ECDSA_WITH_SHA256])]);
    base64_body("application/csrattrs", base64.encode(&attributes))
}

fn base64_body(content_type: &'static str, body: String) -> Response {
    let transfer_encoding = HeaderName::from_static("content-transfer-encoding");
    ([(CONTENT_TYPE, content_type), (transfer_encoding, "base64")], body).into_response()
}

/// Two parts, the key and its certificate. The text of the key goes into the body and nowhere else.
fn with_key(key: &DeviceKey, certificate: &str, base64: Base64) -> Response {
    let mut body = String::with_capacity(key.pem().len() + certificate.len() + 512);
    let part = |content_type| {
        ["--", BOUNDARY, "\r\nContent-Type: ", content_type, "\r\nContent-Transfer-Encoding: base64\r\n\r\n"]
    };
    body.extend(part("application/pkcs8"));
    // PEM has lines of 64 characters.
    for line in key.pem().lines().filter(|line| !line.starts_with('-')) {
        body.push_str(line);
        body.push_str(if base64 == Base64::Wrapped { "\n" } else { "" });
    }
    body.push_str("\r\n");
    body.extend(part(ONE_CERTIFICATE));
    body.extend([certificate, "\r\n--", BOUNDARY, "--\r\n"]);
    ([(CONTENT_TYPE, format!("multipart/mixed; boundary={BOUNDARY}"))], body).into_response()
}

/// A `SignedData` without signers, which carries certificates and nothing else (RFC 5652 section 5.1, *certs-only* of
/// RFC 8551 section 3.2.2), in the order that they have here.
pub(crate) fn certs_only(certificates: &[Certificate]) -> Vec<u8> {
    let certificates: Vec<u8> = certificates.iter().flat_map(Certificate::der).collect();
    let signed_data = encode_der(
        SEQUENCE,
        &[
            &encode_der(INTEGER, &[&[1]]),
            &encode_der(SET, &[]),
            &encode_der(SEQUENCE, &[&encode_der(OID, &[DATA])]),
            &encode_der(CONTEXT_0, &[&certificates]),
            &encode_der(SET, &[]),
        ],
    );
    encode_der(SEQUENCE, &[&encode_der(OID, &[SIGNED_DATA]), &encode_der(CONTEXT_0, &[&signed_data])])
}

const INTEGER: u8 = 0x02;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0]`, constructed.
const CONTEXT_0: u8 = 0xa0;
/// id-data, 1.2.840.113549.1.7.1.
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// id-signedData, 1.2.840.113549.1.7.2.
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
/// id-ecPublicKey, 1.2.840.10045.2.1.
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// secp256r1, 1.2.840.10045.3.1.7.
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// ecdsa-with-SHA256, 1.2.840.10045.4.3.2.
const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
