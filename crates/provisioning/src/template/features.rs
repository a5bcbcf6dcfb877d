use std::collections::BTreeMap;

use super::parse::PolicyField;
use super::resources::{CertificateSource, CertificateStatus};
use super::{CERTIFICATE_ID, Parameters, ProvisioningTemplate, TemplateError, is_pseudo_parameter};

/// Something in a template that not every door can do, and its place as a JSON pointer (RFC 6901).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Feature {
    /// Its place.
    pub path: String,
    /// What it is.
    pub kind: FeatureKind,
}

/// What not every door can do.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum FeatureKind {
    /// A field of the certificate is needed, such as `AWS::IoT::Certificate::CommonName`.
    CertificateField,
    /// The certificate's id is needed for more than to name the certificate.
    CertificateId,
    /// The certificate is named by this parameter, so that a device could name the certificate of another one.
    CertificateIdParameter(String),
    /// The certificate is named by something else than its id.
    CertificateSource(CertificateSource),
    /// The device is told something.
    DeviceConfiguration,
    /// The certificate is left inactive.
    InactiveCertificate,
    /// No thing is made.
    NoThing,
    /// The thing's name is the same for all devices.
    OneThing,
    /// The software that the device is said to run.
    PackageVersions,
    /// A parameter that somebody has to give, because it has no default.
    Parameter,
    /// A policy of the template's own.
    PolicyDocument {
        /// The document, with `${parameter}` in the place of each parameter's value; an error where it depends on the
        /// values what the document is.
        draft: Result<String, TemplateError>,
        /// Whether each device gets another document.
        per_device: bool,
    },
}

impl ProvisioningTemplate {
    /// What in this template decides which door can run it, as far as it can be told without a device.
    pub fn features(&self) -> Vec<Feature> {
        let mut features = Vec::new();
        let mut add = |path: &str, kind| features.push(Feature { path: path.to_owned(), kind });

        for name in self.needed.iter().filter(|name| is_pseudo_parameter(name) && *name != CERTIFICATE_ID) {
            add(&format!("/Parameters/{name}"), FeatureKind::CertificateField);
        }
        let is_given = |name: &str| is_pseudo_parameter(name) || !self.needed.contains(name);
        for (name, _) in self.parameters().filter(|(name, default)| default.is_none() && !is_given(name)) {
            add(&format!("/Parameters/{}", super::error::excerpt(name)), FeatureKind::Parameter);
        }
        if self.uses_certificate_id {
            add(&format!("/Parameters/{CERTIFICATE_ID}"), FeatureKind::CertificateId);
        }
        let certificate = &self.resources.certificate;
        match &self.resources.thing {
            None => add("/Resources", FeatureKind::NoThing),
            Some(thing) => {
                if thing.name.expression.references().is_empty() {
                    add(&thing.name.path, FeatureKind::OneThing);
                }
                if let Some(version) = thing.package_versions.values().next() {
                    add(version.path.rsplit_once('/').map_or("", |(section, _)| section), FeatureKind::PackageVersions);
                }
            }
        }
        if let Some(name) = self.certificate_id_parameter() {
            let name = super::error::excerpt(name);
            add("/Resources", FeatureKind::CertificateIdParameter(name));
        }
        if certificate.source != CertificateSource::Id {
            add("/Resources", FeatureKind::CertificateSource(certificate.source));
        }
        // A status that depends on a parameter is known when the parameter is.
        let values = BTreeMap::new();
        if let Some(status) = &certificate.status
            && status.expression.references().is_empty()
            && status.evaluate(self.declared.scope(&values)) == Ok(CertificateStatus::Inactive)
        {
            add(&status.path, FeatureKind::InactiveCertificate);
        }
        for policy in &self.resources.policies {
            if let PolicyField::Document(document) = policy {
                let per_device = !document.references().is_empty();
                let parameter = |name: &String| (name.clone(), "${parameter}".to_owned());
                let values = document.references().iter().map(parameter).collect();
                let draft = document.draft(self.declared.scope(&values));
                add(document.path(), FeatureKind::PolicyDocument { draft, per_device });
            }
        }
        if !self.device_configuration.is_empty() {
            add("/DeviceConfiguration", FeatureKind::DeviceConfiguration);
        }
        features
    }

    /// The parameters without which [`ProvisioningTemplate::evaluate`] refuses these values.
    pub fn missing(&self, values: &Parameters) -> Vec<&str> {
        let has_default = |name: &str| self.declared.parameters.get(name).is_some_and(Option::is_some);
        let names = self.needed.iter().map(String::as_str);
        names.filter(|name| !values.0.contains_key(*name) && !has_default(name)).collect()
    }
}
