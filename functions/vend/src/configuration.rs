//! The function's environment, read and cross-checked once, at the start.

use cvm_http::{Handout, RootCa};
use cvm_lambda::{Environment, InvalidEnvironment};
use cvm_provisioning::{RefusedKeys, Templates};

/// Everything the function is told by its environment.
#[derive(Debug)]
pub(crate) struct Configuration {
    /// What every device is handed: `IOT_ENDPOINT` and `ROOT_CA_PEM`, the latter Amazon Root CA 1 where it is empty.
    pub(crate) handout: Handout,
    /// `REFUSED_KEYS`, SHA-256 fingerprints with commas between them, and the root CA's own key.
    pub(crate) refused_keys: RefusedKeys,
    /// `DEVICE_TABLE`, the name of the DynamoDB table.
    pub(crate) table: String,
    /// `PROVISIONING_TEMPLATE`, and every `PROVISIONING_TEMPLATE_<name>` for items that name one.
    pub(crate) templates: Templates,
}

impl Configuration {
    pub(crate) fn read(environment: &Environment) -> Result<Self, InvalidEnvironment> {
        let handout = Handout {
            endpoint: environment.parsed("IOT_ENDPOINT")?,
            root_ca: environment.parsed_or("ROOT_CA_PEM", RootCa::amazon)?,
        };
        let mut refused_keys = environment.refused_keys()?;
        refused_keys.extend([*handout.root_ca.key()]);
        Ok(Self {
            handout,
            refused_keys,
            table: environment.required("DEVICE_TABLE")?.to_owned(),
            templates: environment.templates()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = r#"{"Resources": {
        "t": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": "x"}},
        "c": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}}}
    }}"#;

    fn read(name: &str, value: &str) -> Result<Configuration, InvalidEnvironment> {
        let variables = [
            ("DEVICE_TABLE", "devices"),
            ("IOT_ENDPOINT", "localhost:8883"),
            ("PROVISIONING_TEMPLATE", TEMPLATE),
            (name, value),
        ];
        let owned = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Configuration::read(&owned.into_iter().collect())
    }

    #[test]
    fn a_variable_that_is_missing_is_named() {
        for name in ["DEVICE_TABLE", "IOT_ENDPOINT", "PROVISIONING_TEMPLATE"] {
            let error = read(name, "").unwrap_err();
            assert_eq!(error.to_string(), format!("the environment variable {name} is not set"));
        }
    }

    #[test]
    fn a_variable_that_makes_no_sense_refuses_to_start() {
        for (name, value) in [
            ("IOT_ENDPOINT", "https://example.com"),
            ("PROVISIONING_TEMPLATE", "{}"),
            ("PROVISIONING_TEMPLATE_other", "{"),
            ("REFUSED_KEYS", "abc"),
            ("ROOT_CA_PEM", "abc"),
        ] {
            assert!(read(name, value).is_err(), "{name}={value}");
        }
    }

    #[test]
    fn threat_23_the_root_cas_own_key_is_refused() {
        let configuration = read("PROVISIONING_TEMPLATE_other", TEMPLATE).unwrap();
        assert!(configuration.refused_keys.contains(configuration.handout.root_ca.key()));
    }
}
