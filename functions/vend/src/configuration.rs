//! The function's environment, read and cross-checked once, at the start.

use std::collections::BTreeMap;
use std::env;

use cvm_http::{Handout, InvalidEndpoint, InvalidRootCa, RootCa};
use cvm_provisioning::{
    InvalidDigest, InvalidTemplateName, ProvisioningTemplate, RefusedKeys, TemplateError, TemplateName, Templates,
    UnusableTemplate,
};

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
    const TEMPLATE: &str = "PROVISIONING_TEMPLATE";

    /// Reads the environment.
    pub(crate) fn from_environment() -> Result<Self, ConfigurationError> {
        Self::from_variables(&env::vars().collect())
    }

    fn from_variables(variables: &BTreeMap<String, String>) -> Result<Self, ConfigurationError> {
        let optional = |name: &str| variables.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let required = |name: &'static str| optional(name).ok_or(ConfigurationError::Missing { name });

        let root_ca = match optional("ROOT_CA_PEM") {
            // An environment variable set on one line has its line ends escaped.
            Some(pem) => pem.replace("\\n", "\n").parse(),
            None => RootCa::amazon(),
        }
        .map_err(ConfigurationError::RootCa)?;
        let refused = optional("REFUSED_KEYS").unwrap_or_default().split(',').map(str::trim);
        let mut refused_keys: RefusedKeys = refused
            .filter(|key| !key.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(ConfigurationError::RefusedKeys)?;
        refused_keys.extend([*root_ca.key()]);

        let parse = |variable: &str, body: &str| {
            ProvisioningTemplate::parse(body)
                .map_err(|source| ConfigurationError::Template { variable: variable.to_owned(), source })
        };
        let mut named = BTreeMap::new();
        for (variable, body) in variables {
            let Some(name) = variable.strip_prefix(Self::TEMPLATE).and_then(|rest| rest.strip_prefix('_')) else {
                continue;
            };
            let name: TemplateName = name.parse().map_err(ConfigurationError::TemplateName)?;
            named.insert(name, parse(variable, body)?);
        }
        Ok(Self {
            handout: Handout {
                endpoint: required("IOT_ENDPOINT")?.parse().map_err(ConfigurationError::Endpoint)?,
                root_ca,
            },
            refused_keys,
            table: required("DEVICE_TABLE")?.to_owned(),
            templates: Templates::new(parse(Self::TEMPLATE, required(Self::TEMPLATE)?)?, named)
                .map_err(ConfigurationError::Unusable)?,
        })
    }
}

/// The environment is not what the function needs; it refuses to start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigurationError {
    #[error("IOT_ENDPOINT cannot be used")]
    Endpoint(#[source] InvalidEndpoint),
    #[error("the environment variable {name} is not set")]
    Missing { name: &'static str },
    #[error("REFUSED_KEYS is not a list of SHA-256 fingerprints")]
    RefusedKeys(#[source] InvalidDigest),
    #[error("ROOT_CA_PEM cannot be used; leave it empty for Amazon Root CA 1")]
    RootCa(#[source] InvalidRootCa),
    #[error("{variable} is not a provisioning template")]
    Template {
        variable: String,
        #[source]
        source: TemplateError,
    },
    #[error("an environment variable PROVISIONING_TEMPLATE_<name> has a name that no template can have")]
    TemplateName(#[source] InvalidTemplateName),
    #[error("a vend cannot run the provisioning template")]
    Unusable(#[source] UnusableTemplate),
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = r#"{"Resources": {
        "t": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": "x"}},
        "c": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}}}
    }}"#;

    fn variables(changes: &[(&str, &str)]) -> BTreeMap<String, String> {
        [("DEVICE_TABLE", "devices"), ("IOT_ENDPOINT", "localhost:8883"), ("PROVISIONING_TEMPLATE", TEMPLATE)]
            .iter()
            .chain(changes)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_variable_that_is_missing_is_named() {
        for name in ["DEVICE_TABLE", "IOT_ENDPOINT", "PROVISIONING_TEMPLATE"] {
            let error = Configuration::from_variables(&variables(&[(name, "")])).unwrap_err();
            assert_eq!(error.to_string(), format!("the environment variable {name} is not set"));
        }
    }

    #[test]
    fn a_variable_that_makes_no_sense_refuses_to_start() {
        for (name, value) in [
            ("IOT_ENDPOINT", "https://example.com"),
            ("PROVISIONING_TEMPLATE", "{}"),
            ("PROVISIONING_TEMPLATE_other", "{"),
            ("PROVISIONING_TEMPLATE_", TEMPLATE),
            ("REFUSED_KEYS", "abc"),
            ("ROOT_CA_PEM", "abc"),
        ] {
            assert!(Configuration::from_variables(&variables(&[(name, value)])).is_err(), "{name}={value}");
        }
    }

    #[test]
    fn threat_23_the_root_cas_own_key_is_refused() {
        let configuration =
            Configuration::from_variables(&variables(&[("PROVISIONING_TEMPLATE_other", TEMPLATE)])).unwrap();
        assert!(configuration.refused_keys.contains(configuration.handout.root_ca.key()));
    }
}
