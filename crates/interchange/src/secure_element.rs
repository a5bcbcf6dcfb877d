//! An element of a manifest of secure elements by Microchip (Microchip online documentation, "Secure Element Manifest
//! Format"): a `SignedSecureElement`, which is a JWS in flattened JSON (RFC 7515 section 7.2.2), or the `SecureElement`
//! within it alone. The signature is not checked: the manifest is as good as the way that it came.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use cvm_provisioning::{
    Attestation, BadCertificate, BadKey, Certificate, ImportEntry, ImportMode, InvalidDeviceId, PublicKey, Settings,
};
use serde::Deserialize;

use crate::Object;
use crate::excerpt::excerpt;
use crate::object::{object, object_list};

/// One secure element, signed or not.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum ManifestElement {
    Signed { payload: String },
    Plain(SecureElement),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecureElement {
    unique_id: String,
    #[serde(default, deserialize_with = "object")]
    public_key_set: PublicKeySet,
}

#[derive(Default, Deserialize)]
struct PublicKeySet {
    #[serde(default, deserialize_with = "object_list")]
    keys: Vec<PublicJwk>,
}

#[derive(Deserialize)]
struct PublicJwk {
    #[serde(default)]
    kid: String,
    kty: String,
    crv: String,
    x: String,
    y: String,
    #[serde(default)]
    x5c: Vec<String>,
}

/// The SubjectPublicKeyInfo of a P-256 key up to its point (RFC 5480 section 2).
const P256_PREFIX: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
/// Base64url, with padding or without.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl ManifestElement {
    /// What the element asks for: a device with the unique id as its id, that proves itself with the certificate of its
    /// device key, or with that key where it has no certificate.
    pub(crate) fn entry(self, mode: ImportMode) -> Result<ImportEntry, InvalidSecureElement> {
        let element = match self {
            Self::Plain(element) => element,
            Self::Signed { payload } => {
                let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| InvalidSecureElement::Base64)?;
                let Object(element) = serde_json::from_slice(&payload).map_err(|_| InvalidSecureElement::Payload)?;
                element
            }
        };
        let keys = &element.public_key_set.keys;
        // The device's own key is in slot 0; the others have other uses.
        let own = keys.iter().find(|key| key.kid == "0").or_else(|| keys.first());
        let attestation = own.ok_or(InvalidSecureElement::NoKey)?.attestation()?;
        let settings = Settings { attestation: Some(attestation), ..Settings::default() };
        let invalid = |problem| InvalidSecureElement::Id { value: excerpt(&element.unique_id), problem };
        let id = element.unique_id.parse().map_err(invalid)?;
        Ok(ImportEntry { id, module: None, etag: None, mode, settings })
    }
}

impl PublicJwk {
    fn attestation(&self) -> Result<Attestation, InvalidSecureElement> {
        if self.kty != "EC" || self.crv != "P-256" {
            return Err(InvalidSecureElement::Kind);
        }
        let mut spki = P256_PREFIX.to_vec();
        for coordinate in [&self.x, &self.y] {
            let coordinate = LENIENT.decode(coordinate).map_err(|_| InvalidSecureElement::Base64)?;
            if coordinate.len() != 32 {
                return Err(InvalidSecureElement::Kind);
            }
            spki.extend(coordinate);
        }
        let key = *PublicKey::from_spki(&spki)?.fingerprint();
        let Some(own) = self.x5c.first() else { return Ok(Attestation::PublicKey { key }) };
        let certificate = STANDARD.decode(own).map_err(|_| InvalidSecureElement::Base64)?;
        let certificate = Certificate::from_der(&certificate)?;
        if *certificate.key() != key {
            return Err(InvalidSecureElement::OtherKey);
        }
        Ok(Attestation::Certificate { id: *certificate.id(), second: None })
    }
}

/// Why an element of a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSecureElement {
    /// A part of it is not in base64.
    #[error("the payload, a key or a certificate is not in base64")]
    Base64,
    /// The certificate.
    #[error("x5c: {0}")]
    Certificate(#[from] BadCertificate),
    /// The device's id.
    #[error("uniqueId {value}: {problem}")]
    Id {
        /// The beginning of it.
        value: String,
        /// Why it cannot be used.
        problem: InvalidDeviceId,
    },
    /// The key.
    #[error(transparent)]
    Key(#[from] BadKey),
    /// A key of another kind.
    #[error("the key of slot 0 is not on P-256")]
    Kind,
    /// No key.
    #[error("publicKeySet has no key")]
    NoKey,
    /// A certificate for another key.
    #[error("the certificate in x5c is for another key")]
    OtherKey,
    /// The payload.
    #[error("the payload is no SecureElement")]
    Payload,
}

#[cfg(test)]
mod tests {
    use cvm_testkit::fixture::csr;
    use serde_json::{Value, json};

    use super::*;

    fn element(name: &str) -> (Value, Attestation) {
        let request = csr(name);
        let point = &request.key().spki()[27..];
        let [x, y] = [&point[..32], &point[32..]].map(|half| URL_SAFE_NO_PAD.encode(half));
        let key = json!({ "kid": "0", "kty": "EC", "crv": "P-256", "x": x, "y": y });
        let json = json!({ "version": 1, "uniqueId": "0123f1822c38dd7a01", "publicKeySet": { "keys": [key] } });
        (json, Attestation::PublicKey { key: *request.key().fingerprint() })
    }

    fn read(json: &Value) -> Result<ImportEntry, InvalidSecureElement> {
        serde_json::from_str::<ManifestElement>(&json.to_string()).unwrap().entry(ImportMode::Create)
    }

    #[test]
    fn an_element_is_read_signed_or_not() {
        let (plain, attestation) = element("sn-1");
        let payload = URL_SAFE_NO_PAD.encode(plain.to_string());
        let header = json!({ "uniqueId": "0123f1822c38dd7a01" });
        let signed = json!({ "payload": payload, "protected": "e30", "header": header, "signature": "AA" });
        for json in [plain, signed] {
            let entry = read(&json).unwrap();
            assert_eq!(entry.id.as_str(), "0123f1822c38dd7a01");
            assert_eq!(entry.settings.attestation, Some(attestation.clone()));
        }
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        let (mut json, _) = element("sn-1");
        json["publicKeySet"]["keys"][0]["crv"] = "P-384".into();
        assert!(matches!(read(&json), Err(InvalidSecureElement::Kind)));
        json["publicKeySet"]["keys"] = json!([]);
        assert!(matches!(read(&json), Err(InvalidSecureElement::NoKey)));
        assert!(matches!(read(&json!({ "payload": "e30" })), Err(InvalidSecureElement::Payload)));
        let (mut json, _) = element("sn-1");
        json["publicKeySet"]["keys"][0]["x5c"] = json!(["AAAA"]);
        assert!(matches!(read(&json), Err(InvalidSecureElement::Certificate(_))));
    }
}
