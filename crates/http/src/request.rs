//! A vend request out of HTTP: parsed once, here, into what the domain takes.

use std::collections::BTreeMap;
use std::fmt;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Uri};
use cvm_provisioning::{Csr, CsrError, DeviceId, DeviceIdFrom, EnrolmentToken, Subject};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::Problem;
use crate::door::without_query;
use crate::json::json_object;
use crate::media::{AnswerType, BodyType, single};

/// What a device said, as far as it can be understood without the registry.
#[derive(Debug)]
pub(crate) struct DeviceRequest {
    pub(crate) answer: AnswerType,
    pub(crate) csr: Option<Csr>,
    pub(crate) device: DeviceId,
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) token: Option<EnrolmentToken>,
}

impl DeviceRequest {
    /// The largest body taken, in bytes: a CSR of 4,096 characters, escaped at its worst, and as much again for the
    /// rest.
    pub(crate) const MAX_BODY: usize = 16 * 1024;

    pub(crate) fn parse(from: DeviceIdFrom, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Result<Self, Problem> {
        without_query(uri)?;
        let answer = AnswerType::of(headers)?;
        let token = bearer_token(headers)?;
        let (device, csr, parameters) = match BodyType::of(headers)? {
            BodyType::Json => from_json(from, body)?,
            BodyType::Pkcs10 => from_pkcs10(from, body)?,
        };
        if csr.is_none() && !answer.carries_key() {
            return Err(Problem::not_acceptable(
                "without a CSR the answer has a private key: accept application/json or application/x-pem-file",
            ));
        }
        Ok(Self { answer, csr, device, parameters: parameters.0, token })
    }
}

/// The body of `application/json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    device_id: String,
    #[serde(default)]
    csr: Option<String>,
    #[serde(default)]
    parameters: DistinctParameters,
}

/// A map of strings in which no name comes twice.
#[derive(Default)]
struct DistinctParameters(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for DistinctParameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parameters;

        impl<'de> Visitor<'de> for Parameters {
            type Value = DistinctParameters;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut parameters = BTreeMap::new();
                while let Some((name, value)) = map.next_entry()? {
                    if parameters.insert(name, value).is_some() {
                        return Err(A::Error::custom("a parameter comes twice"));
                    }
                }
                Ok(DistinctParameters(parameters))
            }
        }

        deserializer.deserialize_map(Parameters)
    }
}

fn from_json(from: DeviceIdFrom, body: &[u8]) -> Result<(DeviceId, Option<Csr>, DistinctParameters), Problem> {
    let body: Body = json_object(body).map_err(|error| Problem::body_invalid(error.to_string()))?;
    let device: DeviceId =
        body.device_id.parse().map_err(|error| Problem::device_id_invalid(format!("deviceId: {error}")))?;
    let csr = body.csr.map(|text| Csr::parse(&text)).transpose().map_err(csr_problem)?;
    if let Some(csr) = &csr {
        expect_subject(from, csr.subject(), &device)?;
    }
    Ok((device, csr, body.parameters))
}

fn from_pkcs10(from: DeviceIdFrom, body: &[u8]) -> Result<(DeviceId, Option<Csr>, DistinctParameters), Problem> {
    let csr = pkcs10(body, Csr::from_der, Csr::parse)?;
    let named = from.device(csr.subject()).map_err(|error| csr_problem(error.into()))?;
    let device = named.cloned().ok_or_else(|| {
        Problem::common_name_missing(match from {
            DeviceIdFrom::CommonName => "make the device id the CSR's common name, or send application/json",
            DeviceIdFrom::SerialNumber => "make the device id the CSR's serialNumber, or send application/json",
            DeviceIdFrom::Either => {
                "make the device id the CSR's common name or serialNumber, or send application/json"
            }
            DeviceIdFrom::None => "send application/json with a deviceId: names in the CSR are ignored here",
        })
    })?;
    Ok((device, Some(csr), DistinctParameters::default()))
}

/// Refuses a CSR that names another device than the request does: it may have been mixed up on its way.
pub(crate) fn expect_subject(from: DeviceIdFrom, subject: &Subject, device: &DeviceId) -> Result<(), Problem> {
    if from.allows(subject, device) {
        return Ok(());
    }
    Err(Problem::device_id_mismatch(match from {
        DeviceIdFrom::SerialNumber => "leave the CSR's serialNumber out, or make it the device id",
        _ => "leave the CSR's common name out, or make it the device id",
    }))
}

/// What a body of `application/pkcs10` has: DER (RFC 5967), base64 of it, or PEM.
pub(crate) fn pkcs10<T>(
    body: &[u8],
    from_der: fn(&[u8]) -> Result<T, CsrError>,
    from_text: fn(&str) -> Result<T, CsrError>,
) -> Result<T, Problem> {
    // A DER sequence of more than 127 bytes begins so; no text does.
    let read = match body {
        [0x30, 0x80..=0xff, ..] => from_der(body),
        _ => std::str::from_utf8(body)
            .map_err(|_| Problem::csr_invalid("the body is neither DER nor base64"))
            .map(from_text)?,
    };
    read.map_err(csr_problem)
}

/// The token of `Authorization: Bearer` (RFC 6750), where there is one.
fn bearer_token(headers: &HeaderMap) -> Result<Option<EnrolmentToken>, Problem> {
    let Some(value) = single(headers, &AUTHORIZATION)? else { return Ok(None) };
    let wanted = || Problem::authorization_invalid("send `Authorization: Bearer TOKEN`, or no such header");
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(wanted)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(wanted());
    }
    token.trim_start().parse().map(Some).map_err(|error| Problem::authorization_invalid(format!("{error}")))
}

fn csr_problem(error: CsrError) -> Problem {
    match error {
        CsrError::PrivateKey => Problem::private_key_sent(error.to_string()),
        error => Problem::csr_invalid(error.to_string()),
    }
}
