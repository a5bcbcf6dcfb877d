//! A line of AWS IoT bulk registration (AWS IoT developer guide, "Bulk registration"): the parameters of one thing,
//! `{"ThingName": "foo", "SerialNumber": "123", "CSR": "csr1"}`.

use std::collections::BTreeMap;
use std::fmt;

use cvm_provisioning::{
    Attestation, Csr, CsrError, DeviceId, ImportEntry, ImportMode, InvalidDeviceId, Settings, Templates,
};
use serde::Deserialize;
use serde::de::{Error as _, MapAccess, Visitor};

use crate::excerpt::excerpt;

/// The parameters by name, each of them once.
#[derive(Debug)]
pub(crate) struct ThingLine(BTreeMap<String, String>);

impl ThingLine {
    /// What the line asks for: a device with the serial number as its id, or else the thing's name, that proves itself
    /// with the CSR's key. All else is a value for its template.
    pub(crate) fn entry(mut self, mode: ImportMode) -> Result<ImportEntry, InvalidThingLine> {
        let csr = self.0.remove("CSR");
        let serial = self.0.remove("SerialNumber");
        let (field, id) = match (&serial, self.0.get("ThingName")) {
            (Some(serial), _) => ("SerialNumber", serial),
            (None, Some(name)) => ("ThingName", name),
            (None, None) => return Err(InvalidThingLine::NoDevice),
        };
        let invalid = |problem| InvalidThingLine::Id { field, value: excerpt(id), problem };
        let id: DeviceId = id.parse().map_err(invalid)?;
        let attestation = csr.map(|csr| key_of(&csr)).transpose()?;
        self.0.retain(|name, value| *value != id.as_str() || !Templates::ID_PARAMETERS.contains(&name.as_str()));
        if self.0.get("ThingName").is_some_and(|name| name == id.as_str()) {
            self.0.remove("ThingName");
        }
        let parameters = (!self.0.is_empty()).then_some(self.0);
        let settings = Settings { attestation, parameters, ..Settings::default() };
        Ok(ImportEntry { id, module: None, etag: None, mode, settings })
    }
}

/// The key of a signing request. The line names the device: scripts often give all requests the same common name.
fn key_of(csr: &str) -> Result<Attestation, InvalidThingLine> {
    Ok(Attestation::PublicKey { key: *Csr::parse(csr)?.key().fingerprint() })
}

impl<'de> Deserialize<'de> for ThingLine {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parameters;

        impl<'de> Visitor<'de> for Parameters {
            type Value = ThingLine;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ThingLine, A::Error> {
                let mut parameters = BTreeMap::new();
                while let Some((name, value)) = map.next_entry()? {
                    if parameters.insert(name, value).is_some() {
                        return Err(A::Error::custom("a parameter is given twice"));
                    }
                }
                Ok(ThingLine(parameters))
            }
        }

        deserializer.deserialize_map(Parameters)
    }
}

/// Why a line cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidThingLine {
    /// The certificate signing request.
    #[error("CSR: {0}")]
    Csr(#[from] CsrError),
    /// The device's id.
    #[error("{field} {value}: {problem}")]
    Id {
        /// Where it stands.
        field: &'static str,
        /// The beginning of it.
        value: String,
        /// Why it cannot be used.
        problem: InvalidDeviceId,
    },
    /// Neither a serial number nor a thing's name.
    #[error("the line has neither SerialNumber nor ThingName")]
    NoDevice,
}

#[cfg(test)]
mod tests {
    use cvm_testkit::fixture::csr;

    use super::*;

    fn read(json: &serde_json::Value) -> Result<ImportEntry, InvalidThingLine> {
        serde_json::from_str::<ThingLine>(&json.to_string()).unwrap().entry(ImportMode::Create)
    }

    #[test]
    fn a_thing_with_a_csr_proves_itself_with_its_key() {
        let request = csr("sn-1");
        let json = serde_json::json!({ "ThingName": "t-1", "SerialNumber": "sn-1", "CSR": request.pem(), "Site": "a" });
        let entry = read(&json).unwrap();
        let key = *request.key().fingerprint();
        assert_eq!((entry.id.as_str(), entry.settings.attestation), ("sn-1", Some(Attestation::PublicKey { key })));
        let parameters = [("Site".to_owned(), "a".to_owned()), ("ThingName".to_owned(), "t-1".to_owned())];
        assert_eq!(entry.settings.parameters, Some(parameters.into()));
        let entry = read(&serde_json::json!({ "ThingName": "t-1" })).unwrap();
        assert_eq!((entry.id.as_str(), entry.settings), ("t-1", Settings::default()));
    }

    #[test]
    fn of_a_signing_request_only_the_key_counts() {
        let request = csr("sn-1");
        let shared = Csr::parse(SHARED_NAME).unwrap();
        assert_eq!(shared.common_name(), None, "its common name is no device id");
        for request in [request, shared] {
            let entry = read(&serde_json::json!({ "SerialNumber": "sn-2", "CSR": request.pem() })).unwrap();
            let key = *request.key().fingerprint();
            assert_eq!((entry.id.as_str(), entry.settings.attestation), ("sn-2", Some(Attestation::PublicKey { key })));
        }
    }

    /// A request with the common name that many scripts give to all of them: `AWS IoT Certificate`.
    const SHARED_NAME: &str = "-----BEGIN CERTIFICATE REQUEST-----\n\
        MIHYMIGAAgEAMB4xHDAaBgNVBAMME0FXUyBJb1QgQ2VydGlmaWNhdGUwWTATBgcq\n\
        hkjOPQIBBggqhkjOPQMBBwNCAARKNSfKcnrkixUi0PgJe1w6q/c3bGMU426S3ykn\n\
        wX6FNm/qwDhSZGSvWDGVJ8rbkS1V4932G03u3AcGTm6rVo7QoAAwCgYIKoZIzj0E\n\
        AwIDRwAwRAIgMlavcO2KNRj9cxu7I4Nl5FcxLpPjYVyko7HetW0c608CIHh8KL/k\n\
        Lb6cKe/OFGTq+bTDClGDujEQhIbNGn8qvxI5\n\
        -----END CERTIFICATE REQUEST-----\n";

    #[test]
    fn a_thing_that_is_not_understood_is_refused() {
        assert!(matches!(read(&serde_json::json!({ "Site": "a" })), Err(InvalidThingLine::NoDevice)));
        for json in [r#"{"ThingName":"a","ThingName":"b"}"#, r#"{"ThingName":1}"#, "[]", r#"{"ThingName":{}}"#] {
            assert!(serde_json::from_str::<ThingLine>(json).is_err(), "{json}");
        }
    }
}
