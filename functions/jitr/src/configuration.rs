//! The function's environment, read and cross-checked once, at the start.

use std::error::Error;

use cvm_lambda::{Environment, InvalidEnvironment};
use cvm_provisioning::{DeviceNaming, RefusedCertificates, RefusedKeys, SubjectAttribute, Templates};

/// Everything the function is told by its environment.
#[derive(Debug)]
pub(crate) struct Configuration {
    /// `DEVICE_ID_FROM` (`commonName` or `serialNumber`) and `DEVICE_ID_PATTERN`.
    pub(crate) naming: DeviceNaming,
    /// `REFUSED_CERTIFICATES`: `leave`, `deactivate` or `revoke`.
    pub(crate) refused_certificates: RefusedCertificates,
    /// `REFUSED_KEYS`.
    pub(crate) refused_keys: RefusedKeys,
    /// `DEVICE_TABLE`, the name of the DynamoDB table.
    pub(crate) table: String,
    /// `PROVISIONING_TEMPLATE`, and every `PROVISIONING_TEMPLATE_<name>`.
    pub(crate) templates: Templates,
}

impl Configuration {
    pub(crate) fn read(environment: &Environment) -> Result<Self, InvalidEnvironment> {
        let attribute = match environment.optional("DEVICE_ID_FROM") {
            None | Some("commonName") => SubjectAttribute::CommonName,
            Some("serialNumber") => SubjectAttribute::SerialNumber,
            Some(_) => return Err(unusable("DEVICE_ID_FROM", "it is commonName or serialNumber")),
        };
        let naming = match environment.optional("DEVICE_ID_PATTERN") {
            None => DeviceNaming::by(attribute),
            Some(pattern) => {
                DeviceNaming::by_part(attribute, pattern).map_err(|error| unusable("DEVICE_ID_PATTERN", error))?
            }
        };
        let refused_certificates = match environment.optional("REFUSED_CERTIFICATES") {
            None | Some("leave") => RefusedCertificates::Leave,
            Some("deactivate") => RefusedCertificates::Deactivate,
            Some("revoke") => RefusedCertificates::Revoke,
            Some(_) => return Err(unusable("REFUSED_CERTIFICATES", "it is leave, deactivate or revoke")),
        };
        Ok(Self {
            naming,
            refused_certificates,
            refused_keys: environment.refused_keys()?,
            table: environment.required("DEVICE_TABLE")?.to_owned(),
            templates: environment.templates()?,
        })
    }
}

fn unusable(name: &str, source: impl Into<Box<dyn Error + Send + Sync>>) -> InvalidEnvironment {
    InvalidEnvironment::Unusable { name: name.to_owned(), source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = r#"{"Resources": {
        "t": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": "x"}},
        "c": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}}}
    }}"#;

    fn read(name: &str, value: &str) -> Result<Configuration, InvalidEnvironment> {
        let variables = [("DEVICE_TABLE", "devices"), ("PROVISIONING_TEMPLATE", TEMPLATE), (name, value)];
        let owned = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Configuration::read(&owned.into_iter().collect())
    }

    #[test]
    fn a_refused_certificate_is_left_as_it_is_unless_something_else_is_said() {
        for (value, expected) in [
            ("", RefusedCertificates::Leave),
            ("leave", RefusedCertificates::Leave),
            ("deactivate", RefusedCertificates::Deactivate),
            ("revoke", RefusedCertificates::Revoke),
        ] {
            assert_eq!(read("REFUSED_CERTIFICATES", value).unwrap().refused_certificates, expected);
        }
    }

    #[test]
    fn a_variable_that_makes_no_sense_refuses_to_start() {
        for (name, value) in [
            ("DEVICE_ID_FROM", "CN"),
            ("DEVICE_ID_PATTERN", ".*"),
            ("DEVICE_ID_PATTERN", "("),
            ("DEVICE_TABLE", ""),
            ("PROVISIONING_TEMPLATE", "{}"),
            ("REFUSED_CERTIFICATES", "delete"),
            ("REFUSED_KEYS", "abc"),
        ] {
            assert!(read(name, value).is_err(), "{name}={value}");
        }
        assert!(read("DEVICE_ID_PATTERN", "Factory [0-9]+/(.+)").is_ok());
    }
}
