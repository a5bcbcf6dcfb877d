//! What a device becomes: the evaluated template.

use std::collections::{BTreeMap, BTreeSet};

use super::error::TemplateProblem;
use super::names::{
    AttributeName, AttributeValue, BillingGroupName, PackageName, PackageVersionName, PolicyName, ThingGroupName,
    ThingName, ThingTypeName,
};
use super::policy::PolicyDocument;

/// What one device becomes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Resources<T = Thing> {
    /// Its thing.
    pub thing: T,
    /// Its certificate.
    pub certificate: CertificateResource,
    /// The policies to attach to its certificate, in the order of their logical names.
    pub policies: Vec<Policy>,
    /// What the device is told. The values are any text and mean nothing to AWS.
    pub device_configuration: BTreeMap<String, String>,
}

/// An `AWS::IoT::Thing`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Thing {
    /// Its name.
    pub name: ThingName,
    /// Its attributes: at most 3 without a type and 50 with one.
    pub attributes: BTreeMap<AttributeName, AttributeValue>,
    /// Its type.
    pub type_name: Option<ThingTypeName>,
    /// The groups it is in, at most 10.
    pub groups: BTreeSet<ThingGroupName>,
    /// Its billing group.
    pub billing_group: Option<BillingGroupName>,
    /// The software it is said to run.
    pub package_versions: BTreeMap<PackageName, PackageVersionName>,
    /// What to do when the thing exists.
    pub override_settings: ThingOverride,
}

/// An `AWS::IoT::Certificate`, without the certificate: a door brings its own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateResource {
    /// The state it is given.
    pub status: CertificateStatus,
    /// How it is attached to the thing.
    pub principal_type: ThingPrincipalType,
    /// What to do when the certificate exists with another status.
    pub override_status: Override,
}

/// An `AWS::IoT::Policy`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Policy {
    /// A policy to create. AWS IoT names it by a hash of its text.
    Document(PolicyDocument),
    /// A policy that exists.
    Name(PolicyName),
}

/// The state of a certificate that a template may ask for; [`Self::Active`] where it asks for none (AWS IoT Developer
/// Guide, *Provisioning templates*, "Certificate resources"). Any case is read: the guide's own fleet example writes
/// `Active`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum CertificateStatus {
    /// `ACTIVE`.
    #[default]
    Active,
    /// `INACTIVE`.
    Inactive,
}

/// Whether the certificate may be attached to other things as well; [`Self::NonExclusive`] where the template says
/// nothing (AWS IoT API reference, AttachThingPrincipal, `thingPrincipalType`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ThingPrincipalType {
    /// `EXCLUSIVE_THING`.
    Exclusive,
    /// `NON_EXCLUSIVE_THING`.
    #[default]
    NonExclusive,
}

/// What to do with a part of a resource that exists (AWS IoT Developer Guide, *Provisioning templates*, "Override
/// settings").
///
/// The guide states no default. It is [`Self::Fail`] here, the strict reading, and what CreateThing does with a thing
/// of the same name and another configuration.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Override {
    /// `DO_NOTHING`: leave it as it is.
    DoNothing,
    /// `FAIL`: refuse the device.
    #[default]
    Fail,
    /// `MERGE`: add what the template says to what is there. For attributes and thing groups only.
    Merge,
    /// `REPLACE`: make it what the template says.
    Replace,
}

/// What to do with a thing that exists.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ThingOverride {
    /// With its attributes.
    pub attribute_payload: Override,
    /// With its type; never [`Override::Merge`].
    pub thing_type_name: Override,
    /// With its groups.
    pub thing_groups: Override,
}

/// How a template names its certificate. Doors bring the certificate themselves and never evaluate this part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CertificateSource {
    /// `CertificateId`: one that AWS IoT has.
    Id,
    /// `CertificatePem`, with `CACertificatePem` or without: one to register.
    Pem,
    /// `CertificateSigningRequest`: one to issue.
    SigningRequest,
}

impl TryFrom<String> for CertificateStatus {
    type Error = TemplateProblem;

    fn try_from(text: String) -> Result<Self, TemplateProblem> {
        match text.to_ascii_uppercase().as_str() {
            "ACTIVE" => Ok(Self::Active),
            "INACTIVE" => Ok(Self::Inactive),
            _ => Err(TemplateProblem::Expected("ACTIVE or INACTIVE")),
        }
    }
}

impl TryFrom<String> for ThingPrincipalType {
    type Error = TemplateProblem;

    fn try_from(text: String) -> Result<Self, TemplateProblem> {
        match text.as_str() {
            "EXCLUSIVE_THING" => Ok(Self::Exclusive),
            "NON_EXCLUSIVE_THING" => Ok(Self::NonExclusive),
            _ => Err(TemplateProblem::Expected("EXCLUSIVE_THING or NON_EXCLUSIVE_THING")),
        }
    }
}
