//! AWS IoT provisioning templates: what a device becomes, said in the JSON that AWS IoT itself takes.
//!
//! The format is that of the AWS IoT Developer Guide, page *Provisioning templates*, and its functions are those of the
//! AWS CloudFormation User Guide, *Intrinsic function reference*. A template is parsed once, at start; whatever can
//! never work is refused then. [`ProvisioningTemplate::evaluate`] is cheap, needs no JSON and cannot panic.
//!
//! Where the service's documents say nothing, the strict reading holds: `ThingName` is required; a section, key,
//! resource type or function that the guide does not name is refused; `Ref` takes parameters, not logical names; and a
//! parameter's value in a policy document holds `[A-Za-z0-9:_.-]` only.

mod declarations;
mod error;
mod expression;
mod features;
mod function;
mod json;
mod names;
mod parse;
mod policy;
mod resources;

use std::collections::{BTreeMap, BTreeSet};

use self::declarations::Declarations;
use self::function::Field;
use self::json::{Node, UniqueKeys};
use self::parse::ResourceFields;

pub use self::error::{InvalidParameter, TemplateError, TemplateProblem};
pub use self::features::{Feature, FeatureKind};
pub use self::names::{
    AttributeName, AttributeValue, BillingGroupName, InvalidName, PackageName, PackageVersionName, PolicyName,
    ThingGroupName, ThingName, ThingTypeName,
};
pub use self::policy::{InvalidPolicyDocument, PolicyDocument};
pub use self::resources::{
    CertificateResource, CertificateSource, CertificateStatus, Override, Policy, Resources, Thing, ThingOverride,
    ThingPrincipalType,
};

/// The parameters that a template may refer to without declaring them (AWS IoT Developer Guide, *Just-in-time
/// provisioning*). The door takes their values from the certificate.
const PSEUDO_PARAMETERS: [&str; 8] = [
    "AWS::IoT::Certificate::Country",
    "AWS::IoT::Certificate::Organization",
    "AWS::IoT::Certificate::OrganizationalUnit",
    "AWS::IoT::Certificate::DistinguishedNameQualifier",
    "AWS::IoT::Certificate::StateName",
    "AWS::IoT::Certificate::CommonName",
    "AWS::IoT::Certificate::SerialNumber",
    CERTIFICATE_ID,
];

const CERTIFICATE_ID: &str = "AWS::IoT::Certificate::Id";

/// A provisioning template, parsed and found sound.
///
/// It has exactly one certificate, at most one thing and at most 10 policies.
///
/// ```
/// use cvm_provisioning::{Parameters, ProvisioningTemplate};
///
/// let template = ProvisioningTemplate::parse(
///     r#"{
///         "Parameters": { "SerialNumber": { "Type": "String" } },
///         "Resources": {
///             "thing": {
///                 "Type": "AWS::IoT::Thing",
///                 "Properties": { "ThingName": { "Fn::Sub": "meter-${SerialNumber}" } }
///             },
///             "certificate": {
///                 "Type": "AWS::IoT::Certificate",
///                 "Properties": { "CertificateId": { "Ref": "AWS::IoT::Certificate::Id" } }
///             }
///         }
///     }"#,
/// )?;
/// let mut values = Parameters::default();
/// values.insert("SerialNumber", "0042")?;
/// assert_eq!(template.evaluate(&values)?.thing.name.as_str(), "meter-0042");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ProvisioningTemplate {
    declared: Declarations,
    resources: ResourceFields,
    device_configuration: BTreeMap<String, Field<String>>,
    needed: BTreeSet<String>,
    uses_certificate_id: bool,
}

/// The values for a template's parameters, by name.
///
/// Names have 1 to 2,048 characters and values at most 4,096 (AWS IoT API reference, RegisterThing).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Parameters(BTreeMap<String, String>);

impl ProvisioningTemplate {
    /// The longest template body, in characters (AWS IoT API reference, CreateProvisioningTemplate).
    pub const MAX_LENGTH: usize = 10_240;

    /// Reads a template body.
    ///
    /// # Errors
    ///
    /// A body that is too long, not JSON or not a template; one that refers to an undeclared parameter or a missing
    /// mapping; one whose literal texts are no names AWS IoT takes. Every error but the first two names the place.
    pub fn parse(body: &str) -> Result<Self, TemplateError> {
        let length = body.chars().count();
        if length > Self::MAX_LENGTH {
            return Err(TemplateError::TooLong { length });
        }
        let value = UniqueKeys::parse(body)?;
        let root = Node::root(&value);
        root.only(&["Parameters", "Mappings", "Resources", "DeviceConfiguration"])?;
        let declared = Declarations::parse(&root)?;
        let resources = ResourceFields::parse(&root, &declared)?;
        let device_configuration = parse::device_configuration(&root, &declared)?;

        let mut evaluated = resources.certificate.references();
        evaluated.extend(resources.thing.iter().flat_map(|thing| thing.references()));
        evaluated.extend(resources.policies.iter().flat_map(|policy| policy.references()));
        evaluated.extend(device_configuration.values().flat_map(|field| field.expression.references()));
        let uses_certificate_id = evaluated.contains(CERTIFICATE_ID);
        let certificate_only = |name: &str| {
            !evaluated.contains(name)
                && (name == CERTIFICATE_ID || resources.certificate.source_references.contains(name))
        };
        let declared_names = declared.parameters.keys().filter(|name| !certificate_only(name)).cloned();
        let needed = declared_names.chain(evaluated.iter().cloned()).collect();
        Ok(Self { declared, resources, device_configuration, needed, uses_certificate_id })
    }

    /// The parameters of the `Parameters` section, each with its default.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.declared.parameters.iter().map(|(name, default)| (name.as_str(), default.as_deref()))
    }

    /// Whether the `Parameters` section has this name.
    pub fn declares(&self, name: &str) -> bool {
        self.declared.parameters.contains_key(name)
    }

    /// How the template names its certificate.
    pub fn certificate_source(&self) -> CertificateSource {
        self.resources.certificate.source
    }

    /// Whether the template makes a thing. Fleet provisioning does not need one; a device of the registry does.
    pub fn has_thing(&self) -> bool {
        self.resources.thing.is_some()
    }

    /// A parameter that decides which existing certificate is the device's, other than `AWS::IoT::Certificate::Id`. With
    /// it, a device could name the certificate of another one.
    pub fn certificate_id_parameter(&self) -> Option<&str> {
        let certificate = &self.resources.certificate;
        let mut names = certificate.source_references.iter().filter(|name| *name != CERTIFICATE_ID);
        names.next().filter(|_| certificate.source == CertificateSource::Id).map(String::as_str)
    }

    /// Whether anything but the certificate's own source refers to `AWS::IoT::Certificate::Id`.
    ///
    /// A door that creates the thing and the certificate side by side has no id in time and must refuse such a template
    /// at start.
    pub fn uses_certificate_id_outside_certificate(&self) -> bool {
        self.uses_certificate_id
    }

    /// What a device with these values becomes, with its thing.
    ///
    /// # Errors
    ///
    /// A template without a thing; otherwise those of [`render`](Self::render).
    pub fn evaluate(&self, values: &Parameters) -> Result<Resources, TemplateError> {
        let Resources { thing, certificate, policies, device_configuration } = self.render(values)?;
        let thing = thing.ok_or_else(|| TemplateError::At {
            path: "/Resources".to_owned(),
            problem: TemplateProblem::ResourceCount { resource: parse::THING, count: 0 },
        })?;
        Ok(Resources { thing, certificate, policies, device_configuration })
    }

    /// What a device with these values becomes.
    ///
    /// The certificate's source (`CertificateId`, `CertificateSigningRequest`, `CertificatePem`) is not evaluated, since
    /// a door brings the certificate; parameters that nothing else refers to need no value, and neither does an
    /// `AWS::IoT::Certificate::Id` that is only declared. Every other declared parameter needs a value or a default,
    /// referred to or not, as AWS IoT has it for just-in-time provisioning.
    ///
    /// # Errors
    ///
    /// A value that is not declared, one that is missing, and one that makes a name, an attribute or a policy document
    /// AWS IoT would refuse or that would mean more than the template's author wrote.
    pub fn render(&self, values: &Parameters) -> Result<Resources<Option<Thing>>, TemplateError> {
        let undeclared = values.0.keys().find(|name| !self.declares(name) && !is_pseudo_parameter(name));
        if let Some(name) = undeclared {
            return Err(TemplateError::UndeclaredValue { name: error::excerpt(name) });
        }
        if let Some(name) = self.missing(values).first() {
            let path = format!("/Parameters/{}", error::excerpt(name));
            return Err(TemplateError::At { path, problem: TemplateProblem::MissingValue });
        }
        let scope = self.declared.scope(&values.0);
        let configuration = self.device_configuration.iter();
        Ok(Resources {
            thing: self.resources.thing.as_ref().map(|thing| thing.evaluate(scope)).transpose()?,
            certificate: self.resources.certificate.evaluate(scope)?,
            policies: self.resources.policies.iter().map(|policy| policy.evaluate(scope)).collect::<Result<_, _>>()?,
            device_configuration: configuration
                .map(|(key, field)| Ok((key.clone(), field.evaluate(scope)?)))
                .collect::<Result<_, TemplateError>>()?,
        })
    }
}

impl Parameters {
    /// The longest name, in characters.
    pub const MAX_NAME_LENGTH: usize = 2048;

    /// The longest value, in characters.
    pub const MAX_VALUE_LENGTH: usize = 4096;

    /// What a device sent. It cannot speak for its certificate, so names that begin with `AWS::` are refused.
    ///
    /// # Errors
    ///
    /// Such a name, or a name or value that is too long.
    pub fn from_device(values: BTreeMap<String, String>) -> Result<Self, InvalidParameter> {
        let mut parameters = Self::default();
        for (name, value) in values {
            if name.starts_with("AWS::") {
                return Err(InvalidParameter::Reserved);
            }
            parameters.insert(name, value)?;
        }
        Ok(parameters)
    }

    /// Adds what a door knows itself, such as a field of the certificate.
    ///
    /// # Errors
    ///
    /// A name that has a value already, or a name or value that is too long.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<String>) -> Result<(), InvalidParameter> {
        let (name, value) = (name.into(), value.into());
        match (name.chars().count(), value.chars().count()) {
            (length, _) if !(1..=Self::MAX_NAME_LENGTH).contains(&length) => {
                Err(InvalidParameter::NameLength { length })
            }
            (_, length) if length > Self::MAX_VALUE_LENGTH => Err(InvalidParameter::ValueLength { length }),
            _ if self.0.contains_key(&name) => Err(InvalidParameter::Repeated),
            _ => {
                self.0.insert(name, value);
                Ok(())
            }
        }
    }
}

fn is_pseudo_parameter(name: &str) -> bool {
    PSEUDO_PARAMETERS.contains(&name)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
