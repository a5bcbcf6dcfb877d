//! The function's environment, read and cross-checked once, at the start.

use std::num::NonZeroU16;

use cvm_authority::{CaCertificates, Profile};
use cvm_http::{Handout, RootCa};
use cvm_lambda::{Environment, InvalidEnvironment};
use cvm_provisioning::{DeviceIdFrom, RefusedKeys, Templates};

/// Everything the function is told by its environment.
#[derive(Debug)]
pub(crate) struct Configuration {
    /// `CSR_DEVICE_ID_FROM`.
    pub(crate) device_id_from: DeviceIdFrom,
    /// What every device is handed: `IOT_ENDPOINT` and `ROOT_CA_PEM`, the latter Amazon Root CA 1 where it is empty.
    pub(crate) handout: Handout,
    /// `REFUSED_KEYS`, SHA-256 fingerprints with commas between them, and the root CA's own key.
    pub(crate) refused_keys: RefusedKeys,
    /// `DEVICE_TABLE`, the name of the DynamoDB table.
    pub(crate) table: String,
    /// `PROVISIONING_TEMPLATE`, and every `PROVISIONING_TEMPLATE_<name>` for items that name one.
    pub(crate) templates: Templates,
    /// Who signs, where that is not AWS IoT.
    pub(crate) own_ca: Option<OwnCaConfiguration>,
}

/// A CA of one's own: there is one where `CA_KEY_ARN` is set.
#[derive(Debug)]
pub(crate) struct OwnCaConfiguration {
    /// `CA_CERTIFICATE_PEM`: the CA that signs, and those above it.
    pub(crate) certificates: CaCertificates,
    /// `CA_KEY_ARN`: where in AWS KMS the CA's private key is.
    pub(crate) key_id: String,
    /// `CERTIFICATE_DAYS`: how long certificates are valid. They end with the CA at the latest.
    pub(crate) profile: Profile,
    /// `CERTIFICATE_ARN_PREFIX`: what an ARN of a certificate has before the certificate's id.
    pub(crate) arn_prefix: String,
}

impl Configuration {
    pub(crate) fn read(environment: &Environment) -> Result<Self, InvalidEnvironment> {
        let handout =
            Handout::new(environment.parsed("IOT_ENDPOINT")?, environment.parsed_or("ROOT_CA_PEM", RootCa::amazon)?);
        let mut refused_keys = environment.refused_keys()?;
        refused_keys.extend([*handout.root_ca.key()]);
        let own_ca = environment.optional("CA_KEY_ARN").map(|key_id| OwnCaConfiguration::read(environment, key_id));
        Ok(Self {
            device_id_from: environment.device_id_from()?,
            handout,
            refused_keys,
            table: environment.required("DEVICE_TABLE")?.to_owned(),
            templates: environment.templates()?,
            own_ca: own_ca.transpose()?,
        })
    }
}

impl OwnCaConfiguration {
    fn read(environment: &Environment, key_id: &str) -> Result<Self, InvalidEnvironment> {
        Ok(Self {
            certificates: environment.parsed("CA_CERTIFICATE_PEM")?,
            key_id: key_id.to_owned(),
            profile: Profile::of_days(environment.parsed::<NonZeroU16>("CERTIFICATE_DAYS")?),
            arn_prefix: environment.required("CERTIFICATE_ARN_PREFIX")?.to_owned(),
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
            ("CSR_DEVICE_ID_FROM", "CN"),
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
    fn a_ca_of_ones_own_needs_its_certificate() {
        let error = read("CA_KEY_ARN", "arn:aws:kms:eu-central-1:123456789012:key/1").unwrap_err();
        assert_eq!(error.to_string(), "the environment variable CA_CERTIFICATE_PEM is not set");
        assert!(read("CA_CERTIFICATE_PEM", "without its key it counts for nothing").unwrap().own_ca.is_none());
    }

    #[test]
    fn threat_23_the_root_cas_own_key_is_refused() {
        let configuration = read("PROVISIONING_TEMPLATE_other", TEMPLATE).unwrap();
        assert!(configuration.refused_keys.contains(configuration.handout.root_ca.key()));
    }
}
