//! What a device is handed.

use std::collections::BTreeMap;
use std::str::FromStr;

use axum::Json;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use cvm_provisioning::{Certificate, DeviceId, DeviceKey, KeyFingerprint, Vended};
use serde::Serialize;

use crate::media::AnswerType;

/// What every device is handed beside what is its own.
#[derive(Clone, Debug)]
pub struct Handout {
    /// Where it connects to.
    pub endpoint: Endpoint,
    /// What it checks that address's certificate against.
    pub root_ca: RootCa,
}

impl Handout {
    /// The answer to a vend.
    pub(crate) fn answer(&self, device: &DeviceId, vended: &Vended, answer: AnswerType) -> Response {
        let status = if vended.replayed { StatusCode::OK } else { StatusCode::CREATED };
        let private_key = vended.private_key.as_ref().map(DeviceKey::pem);
        let credential = &vended.credential;
        let mut response = match answer {
            AnswerType::Json => (
                status,
                Json(Answer {
                    device_id: device,
                    thing_name: credential.thing.as_str(),
                    certificate_id: credential.certificate.to_string(),
                    certificate_pem: &credential.pem,
                    private_key_pem: private_key,
                    ca_pem: self.root_ca.pem(),
                    endpoint: self.endpoint.as_str(),
                    device_configuration: &credential.configuration,
                    not_after: credential.not_after.to_string(),
                }),
            )
                .into_response(),
            AnswerType::Pem => {
                let pem = [private_key.unwrap_or_default(), &credential.pem].concat();
                let pem_file = HeaderValue::from_static("application/x-pem-file");
                (status, [(CONTENT_TYPE, pem_file)], pem).into_response()
            }
        };
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    device_id: &'a DeviceId,
    thing_name: &'a str,
    certificate_id: String,
    certificate_pem: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    private_key_pem: Option<&'a str>,
    ca_pem: &'a str,
    endpoint: &'a str,
    device_configuration: &'a BTreeMap<String, String>,
    not_after: String,
}

/// Where devices connect to: a host name, and a port where it is not MQTT's 8883.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint(String);

impl Endpoint {
    /// `host` or `host:port`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let (host, port) = text.split_once(':').unwrap_or((text, "8883"));
        let host_character = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
        if host.is_empty() || host.len() > 253 || !host.bytes().all(host_character) || port.parse::<u16>().is_err() {
            return Err(InvalidEndpoint);
        }
        Ok(Self(text.to_owned()))
    }
}

/// A text is no [`Endpoint`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an endpoint is a host name with an optional :port and without a scheme")]
pub struct InvalidEndpoint;

/// The root certificates that devices check the endpoint against.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RootCa {
    key: KeyFingerprint,
    pem: String,
}

impl RootCa {
    /// Amazon Root CA 1, which AWS IoT's endpoints chain to; valid to 2038-01-17. Published at
    /// <https://www.amazontrust.com/repository/>.
    ///
    /// # Errors
    ///
    /// None in a build that has passed its tests.
    pub fn amazon() -> Result<Self, InvalidRootCa> {
        include_str!("amazon-root-ca-1.pem").parse()
    }

    /// The certificate in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its key, which no device may bring as its own.
    pub fn key(&self) -> &KeyFingerprint {
        &self.key
    }
}

impl FromStr for RootCa {
    type Err = InvalidRootCa;

    /// Reads one certificate in PEM, whose line ends may be escaped, as a variable on one line has them.
    fn from_str(pem: &str) -> Result<Self, InvalidRootCa> {
        let certificate = Certificate::parse(&pem.replace("\\n", "\n")).map_err(InvalidRootCa::Certificate)?;
        if !certificate.is_ca() {
            return Err(InvalidRootCa::NotACa);
        }
        Ok(Self { key: *certificate.key(), pem: certificate.pem().to_owned() })
    }
}

/// A text is no [`RootCa`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRootCa {
    /// Not a certificate.
    #[error("the root CA is not one certificate in PEM")]
    Certificate(#[source] cvm_provisioning::BadCertificate),
    /// A certificate, but not a CA's.
    #[error("the certificate is not a CA's")]
    NotACa,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_that_is_built_in_is_one() {
        let root = RootCa::amazon().unwrap();
        assert!(root.pem().starts_with("-----BEGIN CERTIFICATE-----\n"));
        // SHA-256 of the key, as published with the certificate's public key pin.
        assert_eq!(root.key().to_string(), "fbe3018031f9586bcbf41727e417b7d1c45c2f47f93be372a17b96b50757d5a2");
    }

    #[test]
    fn an_endpoint_is_a_host_and_no_url() {
        for good in ["localhost:18883", "a1b2-ats.iot.eu-central-1.amazonaws.com"] {
            assert_eq!(good.parse::<Endpoint>().unwrap().as_str(), good);
        }
        for bad in ["", "https://x", "x:", "x:70000", "x/y", "a b", ":8883"] {
            assert_eq!(bad.parse::<Endpoint>(), Err(InvalidEndpoint), "{bad:?}");
        }
    }
}
