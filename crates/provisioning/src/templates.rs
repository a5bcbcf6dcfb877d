use std::collections::BTreeMap;

use crate::{
    CertificateStatus, Device, InvalidParameter, Parameters, Policy, ProvisioningTemplate, Resources, TemplateError,
    TemplateName,
};

/// The provisioning templates that are configured.
#[derive(Clone, Debug)]
pub struct Templates {
    default: ProvisioningTemplate,
    named: BTreeMap<TemplateName, ProvisioningTemplate>,
}

impl Templates {
    /// Parameters that are the device's id whoever asks: nobody sets them, and a template that uses them declares one.
    pub const ID_PARAMETERS: [&'static str; 2] = ["SerialNumber", "DeviceId"];

    /// The templates `default`, for devices whose item names none, and `named`.
    ///
    /// # Errors
    ///
    /// [`UnusableTemplate`] for one that the service could run and a vend cannot.
    pub fn new(
        default: ProvisioningTemplate,
        named: BTreeMap<TemplateName, ProvisioningTemplate>,
    ) -> Result<Self, UnusableTemplate> {
        for template in named.values().chain([&default]) {
            if template.uses_certificate_id_outside_certificate() {
                return Err(UnusableTemplate::CertificateId);
            }
            if template.certificate_id_parameter().is_some() {
                return Err(UnusableTemplate::CertificateIdParameter);
            }
            if !template.has_thing() {
                return Err(UnusableTemplate::NoThing);
            }
        }
        Ok(Self { default, named })
    }

    /// What `device` becomes, with the parameters that its item has and those that it sent itself.
    ///
    /// # Errors
    ///
    /// [`ParametersError`], the device's fault or the operator's.
    pub fn evaluate(&self, device: &Device, sent: &BTreeMap<String, String>) -> Result<Resources, ParametersError> {
        let template = self.template_of(device)?;
        for name in sent.keys() {
            if !template.declares(name)
                || !device.settable_parameters.contains(name)
                || Self::ID_PARAMETERS.contains(&name.as_str())
            {
                return Err(ParametersError::NotSettable);
            }
        }
        let mut parameters = Parameters::from_device(sent.clone()).map_err(ParametersError::Parameter)?;
        let chosen = device.parameters.iter().filter(|(name, _)| !sent.contains_key(*name));
        let id = Self::ID_PARAMETERS.iter().filter(|name| template.declares(name));
        let values = chosen.map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in values.chain(id.map(|name| (*name, device.id.as_str()))) {
            parameters.insert(name, value).map_err(ParametersError::Parameter)?;
        }
        let resources = template.evaluate(&parameters).map_err(ParametersError::Template)?;
        let unsupported = |what| Err(ParametersError::Unsupported { what });
        if resources.certificate.status != CertificateStatus::Active {
            return unsupported("an inactive certificate");
        }
        if !resources.thing.package_versions.is_empty() {
            return unsupported("PackageVersions");
        }
        if resources.policies.iter().any(|policy| matches!(policy, Policy::Document(_))) {
            return unsupported("a PolicyDocument; name one shared policy with PolicyName");
        }
        Ok(resources)
    }

    /// The parameters that have to be put in the place of those that `device` sent, so that the platform evaluates the
    /// template as [`Templates::evaluate`] would: its id, what its item has, and the default of every parameter that it
    /// sent although it may not set it. A parameter that the template does not declare means nothing to the platform.
    ///
    /// # Errors
    ///
    /// [`ParametersError`], the device's fault or the operator's.
    pub fn overrides(
        &self,
        device: &Device,
        sent: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, ParametersError> {
        let template = self.template_of(device)?;
        let mut overrides = BTreeMap::new();
        let mut settable = BTreeMap::new();
        for (name, default) in template.parameters() {
            let value = match (device.parameters.get(name), sent.get(name)) {
                _ if Self::ID_PARAMETERS.contains(&name) => device.id.as_str(),
                (_, Some(value)) if device.settable_parameters.contains(name) => {
                    settable.insert(name.to_owned(), value.clone());
                    continue;
                }
                (Some(value), _) => value,
                (None, Some(_)) => default.ok_or(ParametersError::NotSettable)?,
                (None, None) => continue,
            };
            overrides.insert(name.to_owned(), value.to_owned());
        }
        let mut parameters = Parameters::from_device(settable).map_err(ParametersError::Parameter)?;
        for (name, value) in &overrides {
            parameters.insert(name, value).map_err(ParametersError::Parameter)?;
        }
        template.evaluate(&parameters).map_err(ParametersError::Template)?;
        Ok(overrides)
    }

    /// Whether there is a template of this name.
    pub fn has(&self, name: &TemplateName) -> bool {
        self.named.contains_key(name)
    }

    fn template_of(&self, device: &Device) -> Result<&ProvisioningTemplate, ParametersError> {
        match &device.template {
            Some(name) => self.named.get(name).ok_or_else(|| ParametersError::UnknownTemplate { name: name.clone() }),
            None => Ok(&self.default),
        }
    }
}

/// A template that AWS IoT could run and a vend cannot.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UnusableTemplate {
    /// The thing or the device configuration depends on the certificate's id.
    #[error(
        "the provisioning template uses AWS::IoT::Certificate::Id outside its certificate resource; a vend makes thing \
         and certificate side by side, so use a parameter in its place"
    )]
    CertificateId,
    /// A device could name the certificate of another one.
    #[error(
        "the provisioning template takes the CertificateId from a parameter, so that a device could name the certificate \
         of another one; write {{\"Ref\": \"AWS::IoT::Certificate::Id\"}}"
    )]
    CertificateIdParameter,
    /// A device of the registry becomes a thing.
    #[error(
        "the provisioning template makes no thing, and every device of the registry becomes one; add an AWS::IoT::Thing"
    )]
    NoThing,
}

/// The parameters of a device do not fit its template.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParametersError {
    /// The device sent one that the template does not declare, or that its item does not let it set.
    #[error("a parameter was sent that this device may not set")]
    NotSettable,
    /// A name or value is out of bounds, or an operator set the device's id.
    #[error("a parameter cannot be used")]
    Parameter(#[source] InvalidParameter),
    /// The template and the values do not go together.
    #[error("the provisioning template cannot be evaluated")]
    Template(#[source] TemplateError),
    /// AWS IoT could do this and a vend cannot.
    #[error("the provisioning template asks for {what}, which a vend cannot give")]
    Unsupported {
        /// What it asks for.
        what: &'static str,
    },
    /// The registry item names a template that is not configured.
    #[error("the registry item names the provisioning template {name}, which is not configured")]
    UnknownTemplate {
        /// The name.
        name: TemplateName,
    },
}
