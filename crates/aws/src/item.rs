//! A device as an item of the DynamoDB table: flat where a condition looks, so that a decision is one expression.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;

use aws_sdk_dynamodb::types::AttributeValue;
use cvm_provisioning::{
    CertificateId, Credential, Denial, Device, DeviceId, GroupCredential, GroupName, Hierarchy, InvalidGroupCredential,
    KeyFingerprint, KeyOrigin, LastRefusal, Module, ModuleId, ReasonText, RegistryError, Reservation, Scope, State,
    Status, TemplateName, ThingName, Timestamp, Unsettled, WrongProofs,
};
use serde::{Deserialize, Serialize};

use crate::attestation_item::AttestationItem;
use crate::module_item::ModuleItem;

/// The value of `status` for a device, or a claim, that is let in.
pub(crate) const ENABLED: &str = "enabled";
const DISABLED: &str = "disabled";

/// The item, attribute by attribute.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    device_id: DeviceId,
    generation: String,
    version: u64,
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_reason: Option<ReasonText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_since: Option<Timestamp>,
    #[serde(flatten)]
    attestation: AttestationItem,
    key_origin: KeyOrigin,
    #[serde(rename = "enrolmentGroup", skip_serializing_if = "Option::is_none")]
    group: Option<GroupName>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    edge: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_scope: Option<Scope>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parent_scopes: Vec<Scope>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    modules: BTreeMap<ModuleId, ModuleItem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<TemplateName>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    parameters: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    settable_parameters: BTreeSet<String>,
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reserved_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reserved_key: Option<KeyFingerprint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reserved_certificate: Option<CertificateId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reserved_with: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reserved_until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unsettled_since: Option<Timestamp>,
    #[serde(
        default,
        skip_serializing_if = "BTreeSet::is_empty",
        serialize_with = "serde_dynamo::string_set::serialize",
        deserialize_with = "serde_dynamo::string_set::deserialize"
    )]
    attempted_keys: BTreeSet<KeyFingerprint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<CredentialItem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used_at: Option<Timestamp>,
    /// What the index of this name finds the device by.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_id: Option<CertificateId>,
    #[serde(default)]
    wrong_proofs: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked_until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused_for: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused_key: Option<KeyFingerprint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// The `credential` attribute, a map.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct CredentialItem {
    certificate_id: CertificateId,
    certificate_arn: String,
    certificate_pem: String,
    key: KeyFingerprint,
    key_made_here: bool,
    not_after: Timestamp,
    issued_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    enrolled_with: Option<String>,
    thing_name: String,
    configuration: BTreeMap<String, String>,
}

/// The status of a device or a claim.
pub(crate) fn status(
    word: &str,
    reason: Option<ReasonText>,
    since: Timestamp,
) -> Result<Status, Box<dyn Error + Send + Sync>> {
    match word {
        ENABLED => Ok(Status { reason, ..Status::enabled(since) }),
        DISABLED => Ok(Status::disabled(reason, since)),
        _ => Err("status is neither enabled nor disabled".into()),
    }
}

/// An item from a device.
pub(crate) fn to_item(device: &Device) -> HashMap<String, AttributeValue> {
    serialize(Item::from(device))
}

/// The value of the `credential` attribute.
pub(crate) fn credential_value(credential: &Credential) -> AttributeValue {
    AttributeValue::M(serialize(CredentialItem::from(credential)))
}

fn group(text: Option<&str>) -> Result<Option<GroupCredential>, InvalidGroupCredential> {
    text.map(str::parse).transpose()
}

/// A device from an item.
pub(crate) fn from_item(item: impl Into<serde_dynamo::Item>) -> Result<Device, RegistryError> {
    let item: serde_dynamo::Item = item.into();
    let id = match item.inner().get("deviceId") {
        Some(serde_dynamo::AttributeValue::S(id)) => id.clone(),
        _ => String::new(),
    };
    serde_dynamo::from_item::<_, Item>(item)
        .map_err(Into::into)
        .and_then(Device::try_from)
        .map_err(|source| RegistryError::Corrupt { device: id, source })
}

#[expect(
    clippy::expect_used,
    reason = "strings, numbers, booleans, string maps and non-empty string sets: all have a form"
)]
fn serialize(item: impl Serialize) -> HashMap<String, AttributeValue> {
    serde_dynamo::to_item(item).expect("every field has a DynamoDB form")
}

impl From<&Device> for Item {
    fn from(device: &Device) -> Self {
        let Hierarchy { edge, scope, parents } = device.hierarchy.clone();
        let reservation = device.reservation.as_ref();
        let unsettled = device.unsettled.as_ref();
        Self {
            device_id: device.id.clone(),
            generation: device.generation.to_string(),
            version: device.version,
            status: device.status.name().to_owned(),
            status_reason: device.status.reason.clone(),
            status_since: Some(device.status.since),
            attestation: AttestationItem::from(&device.attestation),
            key_origin: device.key_origin,
            group: device.group.clone(),
            edge,
            device_scope: scope,
            parent_scopes: parents,
            modules: device.modules.iter().map(|(id, module)| (id.clone(), module.into())).collect(),
            template: device.template.clone(),
            parameters: device.parameters.clone(),
            settable_parameters: device.settable_parameters.clone(),
            state: device.state.name().to_owned(),
            reserved_by: reservation.map(|held| held.owner.to_string()),
            reserved_key: reservation.map(|held| held.key),
            reserved_certificate: reservation.and_then(|held| held.certificate),
            reserved_with: reservation.and_then(|held| held.group).map(|group| group.to_string()),
            reserved_until: reservation.map(|held| held.expires_at),
            attempts: reservation.map(|held| held.attempts),
            unsettled_since: unsettled.map(|unsettled| unsettled.since),
            attempted_keys: unsettled.map(|unsettled| unsettled.keys.clone()).unwrap_or_default(),
            credential: device.credential.as_ref().map(CredentialItem::from),
            used_at: device.credential.as_ref().and_then(|credential| credential.used_at),
            certificate_id: device.indexed_certificate(),
            wrong_proofs: device.wrong_proofs.count,
            blocked_until: device.wrong_proofs.blocked_until,
            refused_for: device.last_refusal.map(|refusal| refusal.denial.code().to_owned()),
            refused_key: device.last_refusal.map(|refusal| refusal.key),
            refused_at: device.last_refusal.map(|refusal| refusal.at),
            created_at: device.created_at,
            updated_at: device.updated_at,
        }
    }
}

impl TryFrom<Item> for Device {
    type Error = Box<dyn Error + Send + Sync>;

    fn try_from(item: Item) -> Result<Self, Self::Error> {
        let status = status(&item.status, item.status_reason, item.status_since.unwrap_or(item.created_at))?;
        let modules = item.modules.into_iter().map(|(id, module)| Ok((id, Module::try_from(module)?)));
        let reservation = match (item.reserved_by, item.reserved_key, item.reserved_until) {
            (Some(owner), Some(key), Some(expires_at)) => Some(Reservation {
                owner: owner.parse()?,
                key,
                certificate: item.reserved_certificate,
                group: group(item.reserved_with.as_deref())?,
                expires_at,
                attempts: item.attempts.unwrap_or_default(),
            }),
            _ => None,
        };
        let unsettled = item.unsettled_since.map(|since| Unsettled { since, keys: item.attempted_keys });
        let credential = item.credential.map(Credential::try_from).transpose()?;
        let last_refusal = match (item.refused_for.as_deref(), item.refused_key, item.refused_at) {
            (Some(code), Some(key), Some(at)) => Denial::from_code(code).map(|denial| LastRefusal { denial, key, at }),
            _ => None,
        };
        Ok(Self {
            id: item.device_id,
            generation: item.generation.parse()?,
            version: item.version,
            status,
            attestation: item.attestation.try_into()?,
            key_origin: item.key_origin,
            group: item.group,
            hierarchy: Hierarchy { edge: item.edge, scope: item.device_scope, parents: item.parent_scopes },
            modules: modules.collect::<Result<_, Self::Error>>()?,
            template: item.template,
            parameters: item.parameters,
            settable_parameters: item.settable_parameters,
            state: State::from_name(&item.state).ok_or("state is not one that this version knows")?,
            reservation,
            credential: credential.map(|credential| Credential { used_at: item.used_at, ..credential }),
            unsettled,
            wrong_proofs: WrongProofs { count: item.wrong_proofs, blocked_until: item.blocked_until },
            last_refusal,
            created_at: item.created_at,
            updated_at: item.updated_at,
        })
    }
}

impl From<&Credential> for CredentialItem {
    fn from(credential: &Credential) -> Self {
        let credential = credential.clone();
        Self {
            certificate_id: credential.certificate,
            certificate_arn: credential.certificate_name,
            certificate_pem: credential.pem,
            key: credential.key,
            key_made_here: credential.key_made_here,
            not_after: credential.not_after,
            issued_at: credential.issued_at,
            enrolled_with: credential.group.map(|group| group.to_string()),
            thing_name: credential.thing.to_string(),
            configuration: credential.configuration,
        }
    }
}

impl TryFrom<CredentialItem> for Credential {
    type Error = Box<dyn Error + Send + Sync>;

    fn try_from(item: CredentialItem) -> Result<Self, Self::Error> {
        Ok(Self {
            certificate: item.certificate_id,
            certificate_name: item.certificate_arn,
            pem: item.certificate_pem,
            key: item.key,
            key_made_here: item.key_made_here,
            not_after: item.not_after,
            issued_at: item.issued_at,
            used_at: None,
            group: group(item.enrolled_with.as_deref())?,
            thing: ThingName::try_from(item.thing_name)?,
            configuration: item.configuration,
        })
    }
}
