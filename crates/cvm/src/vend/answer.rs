use std::collections::BTreeMap;
use std::str::FromStr;

use cvm_provisioning::{
    BadCertificate, Certificate, CertificateDefect, Csr, DeviceId, InvalidName, KeyFingerprint, ThingName, Timestamp,
};
use serde::{Deserialize, Serialize};

use super::key::fingerprint_of;

/// What the API handed out, after everything in it that can be checked was found to be right.
#[derive(Debug)]
pub(super) struct Answer {
    device: DeviceId,
    thing: ThingName,
    certificate: Certificate,
    /// The CA certificates that the device sends behind its own.
    above: Vec<Certificate>,
    root_ca: Certificate,
    endpoint: Endpoint,
    configuration: BTreeMap<String, String>,
    private_key_pem: Option<PrivateKeyPem>,
}

/// The body of the answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    device_id: String,
    thing_name: String,
    certificate_id: String,
    certificate_pem: String,
    private_key_pem: Option<String>,
    ca_pem: String,
    endpoint: String,
    device_configuration: BTreeMap<String, String>,
}

/// What `device.json` says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceFile {
    pub(super) device_id: String,
    pub(super) thing_name: String,
    pub(super) certificate_id: String,
    pub(super) endpoint: String,
    pub(super) not_after: String,
    pub(super) device_configuration: BTreeMap<String, String>,
}

impl Answer {
    /// Reads the answer to a request by `device` with `csr`, or for a key made by the service.
    pub(super) fn check(body: &[u8], device: &DeviceId, csr: Option<&Csr>) -> Result<Self, BadAnswer> {
        let body: Body = serde_json::from_slice(body).map_err(|_| BadAnswer::Shape)?;
        if body.device_id != device.as_str() {
            return Err(BadAnswer::OtherDevice);
        }
        let key = match (csr, &body.private_key_pem) {
            (Some(csr), None) => *csr.key().fingerprint(),
            (None, Some(pem)) => fingerprint_of(pem).ok_or(BadAnswer::PrivateKey)?,
            (Some(_), Some(_)) => return Err(BadAnswer::PrivateKeyUnasked),
            (None, None) => return Err(BadAnswer::NoPrivateKey),
        };
        let (certificate, above) = certificates_for(&key, &body)?;
        let root_ca = Certificate::parse(&body.ca_pem).map_err(BadAnswer::RootCa)?;
        if !root_ca.is_ca() {
            return Err(BadAnswer::NotACa);
        }
        Ok(Self {
            device: device.clone(),
            thing: ThingName::try_from(body.thing_name).map_err(BadAnswer::Thing)?,
            certificate,
            above,
            root_ca,
            endpoint: body.endpoint.parse()?,
            configuration: body.device_configuration,
            private_key_pem: body.private_key_pem.map(PrivateKeyPem),
        })
    }

    /// The certificate and those of the CAs behind it in PEM, as the device sends them in TLS.
    pub(super) fn chain_pem(&self) -> String {
        std::iter::once(&self.certificate).chain(&self.above).map(Certificate::pem).collect()
    }

    pub(super) fn root_ca(&self) -> &Certificate {
        &self.root_ca
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The only copy of a key that was made by the service.
    pub(super) fn private_key_pem(&self) -> Option<&str> {
        self.private_key_pem.as_ref().map(|pem| pem.0.as_str())
    }

    /// What the device's topics begin with: what its configuration says, else what template.yaml's policy allows.
    pub(super) fn topic_prefix(&self) -> String {
        self.configuration.get("topicPrefix").cloned().unwrap_or_else(|| format!("devices/{}", self.thing))
    }

    pub(super) fn device_file(&self) -> DeviceFile {
        DeviceFile {
            device_id: self.device.to_string(),
            thing_name: self.thing.to_string(),
            certificate_id: self.certificate.id().to_string(),
            endpoint: self.endpoint.0.clone(),
            not_after: Timestamp::from(self.certificate.not_after()).to_string(),
            device_configuration: self.configuration.clone(),
        }
    }
}

/// The certificate in the answer, which has to be for this key, and the CA certificates behind it.
fn certificates_for(key: &KeyFingerprint, body: &Body) -> Result<(Certificate, Vec<Certificate>), BadAnswer> {
    let mut chain = Certificate::parse_chain(&body.certificate_pem).map_err(BadAnswer::Certificate)?;
    let certificate = chain.remove(0);
    certificate.lint(key).map_err(BadAnswer::Defect)?;
    if !chain.iter().all(Certificate::is_ca) {
        return Err(BadAnswer::Chain);
    }
    if body.certificate_id != certificate.id().to_string() {
        return Err(BadAnswer::CertificateId);
    }
    Ok((certificate, chain))
}

/// A private key in PEM, which is not shown.
struct PrivateKeyPem(String);

impl std::fmt::Debug for PrivateKeyPem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKeyPem(..)")
    }
}

/// Where the device connects to: `host` or `host:port`. It ends up on a command line, so it is nothing else.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Endpoint(String);

impl Endpoint {
    /// The host and the port, which is MQTT over TLS's own where none is given.
    pub(super) fn host_and_port(&self) -> (&str, &str) {
        self.0.split_once(':').unwrap_or((&self.0, "8883"))
    }
}

impl FromStr for Endpoint {
    type Err = BadAnswer;

    fn from_str(text: &str) -> Result<Self, BadAnswer> {
        let endpoint = Self(text.to_owned());
        let (host, port) = endpoint.host_and_port();
        let in_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
        let good = !host.is_empty() && host.len() <= 253 && !host.starts_with('-') && host.bytes().all(in_host);
        if good && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok() {
            Ok(endpoint)
        } else {
            Err(BadAnswer::Endpoint)
        }
    }
}

/// What is wrong with an answer that says it is good.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum BadAnswer {
    #[error("its certificate cannot be read")]
    Certificate(#[source] BadCertificate),
    #[error("a certificate behind the device's is not a CA's")]
    Chain,
    #[error("its certificateId is not the one of its certificate")]
    CertificateId,
    #[error("its certificate cannot be used")]
    Defect(#[source] CertificateDefect),
    #[error("its endpoint is no host name with an optional port")]
    Endpoint,
    #[error("its private key is missing, which cannot be got a second time")]
    NoPrivateKey,
    #[error("its root CA is not a CA's certificate")]
    NotACa,
    #[error("it is for another device")]
    OtherDevice,
    #[error("its private key cannot be read")]
    PrivateKey,
    #[error("it holds a private key that nobody asked for")]
    PrivateKeyUnasked,
    #[error("its root CA cannot be read")]
    RootCa(#[source] BadCertificate),
    #[error("it is not the JSON object that a vending API sends")]
    Shape,
    #[error("its thing name is none")]
    Thing(#[source] InvalidName),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_cannot_say_more_than_where() {
        let endpoint = |text: &str| text.parse::<Endpoint>();
        assert_eq!(endpoint("a-ats.iot.eu-central-1.amazonaws.com").unwrap().host_and_port().1, "8883");
        assert_eq!(endpoint("localhost:18883").unwrap().host_and_port(), ("localhost", "18883"));
        for bad in ["", "x;reboot", "$(reboot)", "x y", "-h", "x:", "x:+1", "x:70000", "x:1:2", "https://x"] {
            assert_eq!(endpoint(bad), Err(BadAnswer::Endpoint), "{bad:?}");
        }
    }
}
