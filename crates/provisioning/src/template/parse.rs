//! The `Resources` and `DeviceConfiguration` sections.

use std::collections::{BTreeMap, BTreeSet};

use super::declarations::Declarations;
use super::error::{TemplateError, TemplateProblem};
use super::expression::{List, Scope};
use super::function::{Field, expression, list};
use super::json::Node;
use super::names::{
    AttributeName, AttributeValue, BillingGroupName, InvalidName, PackageName, PackageVersionName, PolicyName,
    ThingGroupName, ThingName, ThingTypeName,
};
use super::policy::DocumentField;
use super::resources::{
    CertificateResource, CertificateSource, CertificateStatus, Override, Policy, Thing, ThingOverride,
    ThingPrincipalType,
};

/// The most groups a thing can be in (AWS General Reference, *AWS IoT Core endpoints and quotas*).
const MAX_GROUPS: usize = 10;

/// The most policies a certificate can have (the same page).
const MAX_POLICIES: usize = 10;

/// The type of a thing.
pub(super) const THING: &str = "AWS::IoT::Thing";

/// The `Resources` section.
#[derive(Clone, Debug)]
pub(super) struct ResourceFields {
    pub(super) thing: Option<ThingFields>,
    pub(super) certificate: CertificateFields,
    pub(super) policies: Vec<PolicyField>,
}

#[derive(Clone, Debug)]
pub(super) struct ThingFields {
    pub(super) name: Field<ThingName>,
    attributes: BTreeMap<AttributeName, Field<AttributeValue>>,
    type_name: Option<Field<ThingTypeName>>,
    groups: Option<GroupsField>,
    billing_group: Option<Field<BillingGroupName>>,
    pub(super) package_versions: BTreeMap<PackageName, Field<PackageVersionName>>,
    override_settings: ThingOverride,
}

#[derive(Clone, Debug)]
pub(super) struct CertificateFields {
    pub(super) source: CertificateSource,
    /// The parameters that only say which certificate it is.
    pub(super) source_references: BTreeSet<String>,
    pub(super) status: Option<Field<CertificateStatus>>,
    principal_type: ThingPrincipalType,
    override_status: Override,
}

#[derive(Clone, Debug)]
pub(super) enum PolicyField {
    Document(DocumentField),
    Name(Field<PolicyName>),
}

#[derive(Clone, Debug)]
struct GroupsField {
    path: String,
    list: List,
}

/// The `DeviceConfiguration` section.
pub(super) fn device_configuration(
    root: &Node<'_>,
    declared: &Declarations,
) -> Result<BTreeMap<String, Field<String>>, TemplateError> {
    let Some(section) = root.optional("DeviceConfiguration") else { return Ok(BTreeMap::new()) };
    let entries = section.entries()?.into_iter();
    entries.map(|(key, value)| Ok((key.to_owned(), Field::parse(&value, declared)?))).collect()
}

impl ResourceFields {
    pub(super) fn parse(root: &Node<'_>, declared: &Declarations) -> Result<Self, TemplateError> {
        let section = root.required("Resources")?;
        let (mut things, mut certificates, mut policies) = (Vec::new(), Vec::new(), Vec::new());
        for (_, resource) in section.entries()? {
            resource.only(&["Type", "Properties", "OverrideSettings"])?;
            let kind = resource.required("Type")?;
            match kind.text()? {
                THING => things.push(ThingFields::parse(&resource, declared)?),
                "AWS::IoT::Certificate" => certificates.push(CertificateFields::parse(&resource, declared)?),
                "AWS::IoT::Policy" => policies.push(PolicyField::parse(&resource, declared)?),
                _ => {
                    let expected = "AWS::IoT::Thing, AWS::IoT::Certificate, AWS::IoT::Policy".to_owned();
                    return Err(kind.error(TemplateProblem::Unknown { expected }));
                }
            }
        }
        at_most(MAX_POLICIES, "policies", policies.len()).map_err(|problem| section.error(problem))?;
        let thing = match things.len() {
            // Fleet provisioning makes certificates without things, too.
            0 => None,
            _ => Some(the_one(&section, THING, things)?),
        };
        let certificate = the_one(&section, "AWS::IoT::Certificate", certificates)?;
        Ok(Self { thing, certificate, policies })
    }
}

impl ThingFields {
    fn parse(resource: &Node<'_>, declared: &Declarations) -> Result<Self, TemplateError> {
        let properties = resource.required("Properties")?;
        let known =
            ["ThingName", "AttributePayload", "ThingTypeName", "ThingGroups", "BillingGroup", "PackageVersions"];
        properties.only(&known)?;
        let type_name = field(&properties, "ThingTypeName", declared)?;
        let attributes = named_fields(&properties, "AttributePayload", declared)?;
        let max = if type_name.is_some() { 50 } else { 3 };
        at_most(max, "attributes (3 without a thing type, 50 with one)", attributes.len())
            .map_err(|problem| properties.error(problem))?;
        Ok(Self {
            name: Field::parse(&properties.required("ThingName")?, declared)?,
            attributes,
            type_name,
            groups: properties.optional("ThingGroups").map(|node| GroupsField::parse(&node, declared)).transpose()?,
            billing_group: field(&properties, "BillingGroup", declared)?,
            package_versions: named_fields(&properties, "PackageVersions", declared)?,
            override_settings: thing_override(resource)?,
        })
    }

    pub(super) fn evaluate(&self, scope: Scope<'_>) -> Result<Thing, TemplateError> {
        Ok(Thing {
            name: self.name.evaluate(scope)?,
            attributes: evaluate_named(&self.attributes, scope)?,
            type_name: self.type_name.as_ref().map(|field| field.evaluate(scope)).transpose()?,
            groups: self.groups.as_ref().map(|groups| groups.evaluate(scope)).transpose()?.unwrap_or_default(),
            billing_group: self.billing_group.as_ref().map(|field| field.evaluate(scope)).transpose()?,
            package_versions: evaluate_named(&self.package_versions, scope)?,
            override_settings: self.override_settings,
        })
    }

    pub(super) fn references(&self) -> BTreeSet<String> {
        let mut references = self.name.expression.references();
        references.extend(self.attributes.values().flat_map(|field| field.expression.references()));
        references.extend(self.type_name.iter().flat_map(|field| field.expression.references()));
        references.extend(self.groups.iter().flat_map(|groups| groups.list.references()));
        references.extend(self.billing_group.iter().flat_map(|field| field.expression.references()));
        references.extend(self.package_versions.values().flat_map(|field| field.expression.references()));
        references
    }
}

impl CertificateFields {
    fn parse(resource: &Node<'_>, declared: &Declarations) -> Result<Self, TemplateError> {
        let properties = resource.required("Properties")?;
        let sources = ["CertificateSigningRequest", "CertificateId", "CertificatePem"];
        properties.only(&[&sources[..], &["CACertificatePem", "Status", "ThingPrincipalType"]].concat())?;
        let given = sources.map(|key| properties.optional(key).is_some());
        let source = match (given, properties.optional("CACertificatePem")) {
            ([true, false, false], None) => CertificateSource::SigningRequest,
            ([false, true, false], None) => CertificateSource::Id,
            ([false, false, true], _) => CertificateSource::Pem,
            _ => {
                let expected =
                    "CertificateSigningRequest, CertificateId, CertificatePem (alone or with CACertificatePem)";
                return Err(properties.error(TemplateProblem::NotOne { expected }));
            }
        };
        let mut source_references = BTreeSet::new();
        for key in ["CertificateSigningRequest", "CertificateId", "CertificatePem", "CACertificatePem"] {
            if let Some(node) = properties.optional(key) {
                source_references.extend(expression(&node, declared)?.references());
            }
        }
        Ok(Self {
            source,
            source_references,
            status: field(&properties, "Status", declared)?,
            principal_type: principal_type(&properties)?,
            override_status: override_settings(resource, [("Status", false)])?[0],
        })
    }

    pub(super) fn evaluate(&self, scope: Scope<'_>) -> Result<CertificateResource, TemplateError> {
        Ok(CertificateResource {
            status: self.status.as_ref().map(|status| status.evaluate(scope)).transpose()?.unwrap_or_default(),
            principal_type: self.principal_type,
            override_status: self.override_status,
        })
    }

    /// Those of the status; the source is not evaluated.
    pub(super) fn references(&self) -> BTreeSet<String> {
        self.status.iter().flat_map(|field| field.expression.references()).collect()
    }
}

impl PolicyField {
    fn parse(resource: &Node<'_>, declared: &Declarations) -> Result<Self, TemplateError> {
        // "OverrideSettings are not available for policy resources."
        resource.only(&["Type", "Properties"])?;
        let properties = resource.required("Properties")?;
        properties.only(&["PolicyName", "PolicyDocument"])?;
        match (properties.optional("PolicyName"), properties.optional("PolicyDocument")) {
            (Some(name), None) => Ok(Self::Name(Field::parse(&name, declared)?)),
            (None, Some(document)) => Ok(Self::Document(DocumentField::parse(&document, declared)?)),
            _ => Err(properties.error(TemplateProblem::NotOne { expected: "PolicyName, PolicyDocument" })),
        }
    }

    pub(super) fn evaluate(&self, scope: Scope<'_>) -> Result<Policy, TemplateError> {
        match self {
            Self::Document(document) => document.evaluate(scope).map(Policy::Document),
            Self::Name(name) => name.evaluate(scope).map(Policy::Name),
        }
    }

    pub(super) fn references(&self) -> BTreeSet<String> {
        match self {
            Self::Document(document) => document.references(),
            Self::Name(name) => name.expression.references(),
        }
    }
}

impl GroupsField {
    fn parse(node: &Node<'_>, declared: &Declarations) -> Result<Self, TemplateError> {
        let groups = Self { path: node.path.clone(), list: list(node, declared)? };
        if groups.list.references().is_empty() {
            groups.evaluate(declared.scope(&BTreeMap::new()))?;
        }
        Ok(groups)
    }

    fn evaluate(&self, scope: Scope<'_>) -> Result<BTreeSet<ThingGroupName>, TemplateError> {
        let evaluated = self.list.evaluate(scope).and_then(|names| {
            at_most(MAX_GROUPS, "thing groups", names.len())?;
            Ok(names.into_iter().map(ThingGroupName::try_from).collect::<Result<_, InvalidName>>()?)
        });
        evaluated.map_err(|problem| TemplateError::At { path: self.path.clone(), problem })
    }
}

fn the_one<T>(section: &Node<'_>, resource: &'static str, mut found: Vec<T>) -> Result<T, TemplateError> {
    match (found.len(), found.pop()) {
        (1, Some(one)) => Ok(one),
        (count, _) => Err(section.error(TemplateProblem::ResourceCount { resource, count })),
    }
}

fn at_most(max: usize, what: &'static str, count: usize) -> Result<(), TemplateProblem> {
    if count > max { Err(TemplateProblem::TooMany { what, max, count }) } else { Ok(()) }
}

fn field<T>(properties: &Node<'_>, key: &str, declared: &Declarations) -> Result<Option<Field<T>>, TemplateError>
where
    T: TryFrom<String, Error: Into<TemplateProblem>>,
{
    properties.optional(key).map(|node| Field::parse(&node, declared)).transpose()
}

/// An object of literal names and expressions.
fn named_fields<K, V>(
    properties: &Node<'_>,
    key: &str,
    declared: &Declarations,
) -> Result<BTreeMap<K, Field<V>>, TemplateError>
where
    K: Ord + TryFrom<String, Error = InvalidName>,
    V: TryFrom<String, Error: Into<TemplateProblem>>,
{
    let Some(object) = properties.optional(key) else { return Ok(BTreeMap::new()) };
    let parse = |(name, value): (&str, Node<'_>)| {
        let name = K::try_from(name.to_owned()).map_err(|error| value.error(error))?;
        Ok((name, Field::parse(&value, declared)?))
    };
    object.entries()?.into_iter().map(parse).collect()
}

fn evaluate_named<K, V>(fields: &BTreeMap<K, Field<V>>, scope: Scope<'_>) -> Result<BTreeMap<K, V>, TemplateError>
where
    K: Clone + Ord,
    V: TryFrom<String, Error: Into<TemplateProblem>>,
{
    fields.iter().map(|(name, field)| Ok((name.clone(), field.evaluate(scope)?))).collect()
}

fn principal_type(properties: &Node<'_>) -> Result<ThingPrincipalType, TemplateError> {
    let Some(node) = properties.optional("ThingPrincipalType") else { return Ok(ThingPrincipalType::default()) };
    ThingPrincipalType::try_from(node.text()?.to_owned()).map_err(|problem| node.error(problem))
}

fn thing_override(resource: &Node<'_>) -> Result<ThingOverride, TemplateError> {
    let keys = [("AttributePayload", true), ("ThingTypeName", false), ("ThingGroups", true)];
    let [attribute_payload, thing_type_name, thing_groups] = override_settings(resource, keys)?;
    Ok(ThingOverride { attribute_payload, thing_type_name, thing_groups })
}

/// The settings in the order of `keys`, each of which says whether `MERGE` is valid for it.
fn override_settings<const N: usize>(
    resource: &Node<'_>,
    keys: [(&str, bool); N],
) -> Result<[Override; N], TemplateError> {
    let mut settings = [Override::default(); N];
    let Some(section) = resource.optional("OverrideSettings") else { return Ok(settings) };
    section.only(&keys.map(|(key, _)| key))?;
    for (setting, (key, can_merge)) in settings.iter_mut().zip(keys) {
        let Some(node) = section.optional(key) else { continue };
        *setting = match (node.value.as_str(), can_merge) {
            (Some("DO_NOTHING"), _) => Override::DoNothing,
            (Some("FAIL"), _) => Override::Fail,
            (Some("REPLACE"), _) => Override::Replace,
            (Some("MERGE"), true) => Override::Merge,
            (_, true) => return Err(node.error(TemplateProblem::Expected("DO_NOTHING, REPLACE, FAIL or MERGE"))),
            (_, false) => return Err(node.error(TemplateProblem::Expected("DO_NOTHING, REPLACE or FAIL"))),
        };
    }
    Ok(settings)
}
