use std::collections::BTreeMap;
use std::error::Error;
use std::str::FromStr;

use cvm_provisioning::{DeviceIdFrom, ProvisioningTemplate, RefusedKeys, TemplateName, Templates};

/// A function's environment, read once, at the start. A variable that is empty counts as one that is not set.
#[derive(Clone, Debug)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// The default template; further ones follow this and an underscore.
    const TEMPLATE: &str = "PROVISIONING_TEMPLATE";

    /// The environment of this process. Variables that are no text are left out.
    pub fn of_process() -> Self {
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        variables.collect()
    }

    /// The value of a variable, where it is set.
    pub fn optional(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The value of a variable.
    ///
    /// # Errors
    ///
    /// [`InvalidEnvironment::Missing`].
    pub fn required(&self, name: &'static str) -> Result<&str, InvalidEnvironment> {
        self.optional(name).ok_or(InvalidEnvironment::Missing { name })
    }

    /// The value of a variable, parsed.
    ///
    /// # Errors
    ///
    /// [`InvalidEnvironment`] when it is not set, or is not what it should be.
    pub fn parsed<T>(&self, name: &'static str) -> Result<T, InvalidEnvironment>
    where
        T: FromStr<Err: Error + Send + Sync + 'static>,
    {
        let parsed = self.required(name)?.parse();
        parsed.map_err(|error| InvalidEnvironment::Unusable { name: name.to_owned(), source: Box::new(error) })
    }

    /// The value of a variable, parsed, or the default where it is not set.
    ///
    /// # Errors
    ///
    /// [`InvalidEnvironment`] when it, or the default, is not what it should be.
    pub fn parsed_or<T>(
        &self,
        name: &'static str,
        default: impl FnOnce() -> Result<T, T::Err>,
    ) -> Result<T, InvalidEnvironment>
    where
        T: FromStr<Err: Error + Send + Sync + 'static>,
    {
        let parsed = self.optional(name).map_or_else(default, str::parse);
        parsed.map_err(|error| InvalidEnvironment::Unusable { name: name.to_owned(), source: Box::new(error) })
    }

    /// `CSR_DEVICE_ID_FROM`: `commonName`, which is the default, `serialNumber`, `either` or `none`.
    ///
    /// # Errors
    ///
    /// [`InvalidEnvironment`] for anything else.
    pub fn device_id_from(&self) -> Result<DeviceIdFrom, InvalidEnvironment> {
        self.parsed_or("CSR_DEVICE_ID_FROM", || Ok(DeviceIdFrom::default()))
    }

    /// `PROVISIONING_TEMPLATE`, and every `PROVISIONING_TEMPLATE_<name>` for registry items that name one.
    ///
    /// # Errors
    ///
    /// [`InvalidEnvironment`] for what is no template, or none that can be run here.
    pub fn templates(&self) -> Result<Templates, InvalidEnvironment> {
        let unusable = |name: &str, source: Box<dyn Error + Send + Sync>| InvalidEnvironment::Unusable {
            name: name.to_owned(),
            source,
        };
        let parse = |variable: &str, body: &str| {
            ProvisioningTemplate::parse(body).map_err(|error| unusable(variable, Box::new(error)))
        };
        let mut named = BTreeMap::new();
        for (variable, body) in &self.variables {
            let Some(name) = variable.strip_prefix(Self::TEMPLATE).and_then(|rest| rest.strip_prefix('_')) else {
                continue;
            };
            let name: TemplateName = name.parse().map_err(|error| unusable(variable, Box::new(error)))?;
            named.insert(name, parse(variable, body)?);
        }
        let default = parse(Self::TEMPLATE, self.required(Self::TEMPLATE)?)?;
        Templates::new(default, named).map_err(|error| unusable(Self::TEMPLATE, Box::new(error)))
    }

    /// `REFUSED_KEYS`: SHA-256 fingerprints with commas between them.
    ///
    /// # Errors
    ///
    /// [`InvalidEnvironment`] for what is no such list.
    pub fn refused_keys(&self) -> Result<RefusedKeys, InvalidEnvironment> {
        const NAME: &str = "REFUSED_KEYS";
        let keys = self.optional(NAME).unwrap_or_default().split(',').map(str::trim).filter(|key| !key.is_empty());
        keys.map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|error| InvalidEnvironment::Unusable { name: NAME.to_owned(), source: Box::new(error) })
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self { variables: variables.into_iter().collect() }
    }
}

/// The environment is not what the function needs; it refuses to start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEnvironment {
    /// A variable is not set.
    #[error("the environment variable {name} is not set")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// A variable has a value that makes no sense.
    #[error("the environment variable {name} cannot be used")]
    Unusable {
        /// Its name.
        name: String,
        /// What is wrong with its value.
        source: Box<dyn Error + Send + Sync>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = r#"{"Resources": {
        "t": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": "x"}},
        "c": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}}}
    }}"#;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_variable_that_is_empty_is_missing_and_named() {
        let error = environment(&[("DEVICE_TABLE", "")]).required("DEVICE_TABLE").unwrap_err();
        assert_eq!(error.to_string(), "the environment variable DEVICE_TABLE is not set");
    }

    #[test]
    fn templates_are_named_by_their_variables() {
        let two = environment(&[("PROVISIONING_TEMPLATE", TEMPLATE), ("PROVISIONING_TEMPLATE_other", TEMPLATE)]);
        assert!(two.templates().unwrap().has(&"other".parse().unwrap()));
        for bad in [("PROVISIONING_TEMPLATE_", TEMPLATE), ("PROVISIONING_TEMPLATE_x", "{"), ("OTHER", "")] {
            let with_default = environment(&[("PROVISIONING_TEMPLATE", TEMPLATE), bad]);
            assert_eq!(with_default.templates().is_err(), bad.0 != "OTHER", "{bad:?}");
        }
        assert!(matches!(environment(&[]).templates(), Err(InvalidEnvironment::Missing { .. })));
    }

    #[test]
    fn refused_keys_are_fingerprints_with_commas_between_them() {
        let key = "ab".repeat(32);
        let keys = environment(&[("REFUSED_KEYS", &format!("{key}, {key},"))]).refused_keys().unwrap();
        assert!(keys.contains(&key.parse().unwrap()));
        assert!(environment(&[("REFUSED_KEYS", "abc")]).refused_keys().is_err());
        assert!(!environment(&[]).refused_keys().unwrap().contains(&key.parse().unwrap()));
    }
}
