//! What a device is handed.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use cvm_provisioning::{Certificate, DeviceId, DeviceKey, KeyFingerprint, Vended};
use serde::Serialize;

use crate::Problem;
use crate::est::certs_only;
use crate::media::AnswerType;

/// What every device is handed beside what is its own.
#[derive(Clone, Debug)]
pub struct Handout {
    /// Where it connects to.
    pub endpoint: Endpoint,
    /// What it checks that address's certificate against.
    pub root_ca: RootCa,
    /// The CA certificates that it sends behind its own.
    pub chain: DeviceChain,
}

/// Finds the CA certificates that a device sends in TLS behind its own, its issuer's first and without the root, so that a
/// broker which trusts the root alone can verify it. The default finds none: AWS IoT needs none.
#[derive(Clone, Default)]
pub struct DeviceChain(Option<Arc<FindChain>>);

type FindChain = dyn Fn(&Certificate) -> Vec<Certificate> + Send + Sync;

impl DeviceChain {
    /// The chain that `find` finds for a device's certificate.
    pub fn new(find: impl Fn(&Certificate) -> Vec<Certificate> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(find)))
    }

    fn of(&self, leaf: &Certificate) -> Vec<Certificate> {
        self.0.as_ref().map(|find| find(leaf)).unwrap_or_default()
    }
}

impl fmt::Debug for DeviceChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeviceChain").field(&self.0.is_some()).finish()
    }
}

impl Handout {
    /// What devices are handed that connect to `endpoint`, verify it against `root_ca` and send no chain.
    pub fn new(endpoint: Endpoint, root_ca: RootCa) -> Self {
        Self { endpoint, root_ca, chain: DeviceChain::default() }
    }

    /// The answer to a vend.
    pub(crate) fn answer(&self, device: &DeviceId, vended: &Vended, answer: AnswerType) -> Result<Response, Problem> {
        let unreadable = |_| Problem::internal("ask again, and report it with the x-request-id if it stays");
        let leaf = Certificate::parse(&vended.credential.pem).map_err(unreadable)?;
        let chain: Vec<Certificate> = std::iter::once(leaf.clone()).chain(self.chain.of(&leaf)).collect();
        let chain_pem: String = chain.iter().map(Certificate::pem).collect();
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
                    certificate_pem: &chain_pem,
                    private_key_pem: private_key,
                    ca_pem: self.root_ca.pem(),
                    endpoint: self.endpoint.as_str(),
                    device_configuration: &credential.configuration,
                    not_after: credential.not_after.to_string(),
                }),
            )
                .into_response(),
            AnswerType::Pem => {
                let pem = [private_key.unwrap_or_default(), &chain_pem].concat();
                (status, [(CONTENT_TYPE, answer.media_type())], pem).into_response()
            }
            AnswerType::Der => (status, [(CONTENT_TYPE, answer.media_type())], leaf.der()).into_response(),
            AnswerType::Pkcs7 => (status, [(CONTENT_TYPE, answer.media_type())], certs_only(&chain)).into_response(),
        };
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
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
    /// The port of MQTT over TLS (IANA: secure-mqtt).
    const MQTT_PORT: u16 = 8883;

    /// The host and the port.
    pub fn host_and_port(&self) -> (&str, u16) {
        match self.0.split_once(':') {
            Some((host, port)) => (host, port.parse().unwrap_or(Self::MQTT_PORT)),
            None => (&self.0, Self::MQTT_PORT),
        }
    }

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
pub struct RootCa(Certificate);

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

    /// The certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.0
    }

    /// The certificate in PEM.
    pub fn pem(&self) -> &str {
        self.0.pem()
    }

    /// Its key, which no device may bring as its own.
    pub fn key(&self) -> &KeyFingerprint {
        self.0.key()
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
        Ok(Self(certificate))
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
