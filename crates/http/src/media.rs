//! Media types of requests and answers.

use axum::http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use axum::http::{HeaderMap, HeaderValue};

use crate::Problem;

/// What a request's body is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BodyType {
    Json,
    /// RFC 5967; DER, or base64 of it.
    Pkcs10,
}

impl BodyType {
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        Self::one_of(headers, "application/json or application/pkcs10")
    }

    /// The same for a door that takes other types, which it names.
    pub(crate) fn one_of(headers: &HeaderMap, types: &str) -> Result<Self, Problem> {
        if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Err(Problem::content_type_unsupported("send the body without a Content-Encoding"));
        }
        match single(headers, &CONTENT_TYPE)?.map(essence).as_deref() {
            Some("application/json") => Ok(Self::Json),
            Some("application/pkcs10") => Ok(Self::Pkcs10),
            _ => Err(Problem::content_type_unsupported(format!("send the body as {types}"))),
        }
    }
}

/// What the caller wants the answer to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AnswerType {
    Json,
    /// The certificates alone, in PEM: the device's, then those of the CAs behind it.
    Pem,
    /// The device's certificate alone, in DER (RFC 2585 section 4.1).
    Der,
    /// The same certificates as [`AnswerType::Pem`], in DER: PKCS #7 with certificates only (RFC 8551 section 3.2.2).
    Pkcs7,
}

impl AnswerType {
    /// The first type of `Accept` that can be given; JSON where the caller does not care. Weights are not compared:
    /// a device names the type it wants.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        if !headers.contains_key(ACCEPT) {
            return Ok(Self::Json);
        }
        let ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        ranges
            .flat_map(|value| value.split(','))
            .find_map(|range| match essence_of(range).as_str() {
                "application/x-pem-file" => Some(Self::Pem),
                "application/pkix-cert" => Some(Self::Der),
                "application/pkcs7-mime" => Some(Self::Pkcs7),
                "application/json" | "application/*" | "*/*" => Some(Self::Json),
                _ => None,
            })
            .ok_or_else(|| {
                Problem::not_acceptable(
                    "accept application/json, application/x-pem-file, application/pkix-cert or application/pkcs7-mime",
                )
            })
    }

    /// The `Content-Type` of the answer.
    pub(crate) const fn media_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json => "application/json",
            Self::Pem => "application/x-pem-file",
            Self::Der => "application/pkix-cert",
            Self::Pkcs7 => "application/pkcs7-mime; smime-type=certs-only",
        })
    }

    /// Whether the answer can carry a private key beside the certificate.
    pub(crate) const fn carries_key(self) -> bool {
        match self {
            Self::Json | Self::Pem => true,
            Self::Der | Self::Pkcs7 => false,
        }
    }
}

/// A header that may come once at most.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(Problem::header_repeated(format!("send {name} once"))),
    }
}

fn essence(value: &HeaderValue) -> String {
    essence_of(value.to_str().unwrap_or_default())
}

/// A media type without its parameters, in lower case.
fn essence_of(value: &str) -> String {
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}
