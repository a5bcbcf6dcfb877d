//! A device.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use cvm_provisioning::{
    CertificateId, Credential, Denial, Device, DeviceId, GroupName, Hierarchy, KeyFingerprint, KeyOrigin, LastRefusal,
    Module, ModuleId, ReasonText, Reservation, Scope, State, TemplateName, Timestamp, Unsettled,
};
use serde::{Deserialize, Serialize};

use crate::attestation::AttestationRecord;
use crate::credential::{CredentialRecord, SupersededRecord, from_superseded, group, superseded};
use crate::module::ModuleRecord;
use crate::status::status;

/// A device, field by field: flat where a store looks, so that a decision can be one condition.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceRecord {
    device_id: DeviceId,
    generation: String,
    version: u64,
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_reason: Option<ReasonText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_since: Option<Timestamp>,
    #[serde(flatten)]
    attestation: AttestationRecord,
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
    modules: BTreeMap<ModuleId, ModuleRecord>,
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
    reserved_from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leftover: Option<CredentialRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unsettled_since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    attempted_keys: BTreeSet<KeyFingerprint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<CredentialRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used_at: Option<Timestamp>,
    /// By the certificate's id, so that a condition can ask for one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    superseded: BTreeMap<String, SupersededRecord>,
    /// What an index finds the device by.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_id: Option<CertificateId>,
    #[serde(default)]
    wrong_proofs: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused_for: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused_key: Option<KeyFingerprint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused_at: Option<Timestamp>,
    /// Of a refusal that an earlier version has written: when it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused_noted_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "is_zero")]
    refused_since_noted: u32,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl DeviceRecord {
    /// The same for a store that has the credential elsewhere, and finds the device by it there. When it was first used stays.
    #[must_use]
    pub fn without_credential(self) -> Self {
        Self { credential: None, certificate_id: None, ..self }
    }

    /// The device, with the credential that is elsewhere.
    ///
    /// # Errors
    ///
    /// What cannot have been written.
    pub fn with_credential(self, credential: Credential) -> Result<Device, Box<dyn Error + Send + Sync>> {
        let credential = Credential { used_at: self.used_at, ..credential };
        Ok(Device { credential: Some(credential), ..self.try_into()? })
    }
}

impl From<&Device> for DeviceRecord {
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
            attestation: AttestationRecord::from(&device.attestation),
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
            reserved_from: reservation.map(|held| held.from.name().to_owned()),
            leftover: reservation.and_then(|held| held.left.as_ref()).map(CredentialRecord::from),
            attempts: reservation.map(|held| held.attempts),
            unsettled_since: unsettled.map(|unsettled| unsettled.since),
            attempted_keys: unsettled.map(|unsettled| unsettled.keys.clone()).unwrap_or_default(),
            credential: device.credential.as_ref().map(CredentialRecord::from),
            used_at: device.credential.as_ref().and_then(|credential| credential.used_at),
            superseded: superseded(&device.superseded),
            certificate_id: device.indexed_certificate(),
            wrong_proofs: device.wrong_proofs,
            refused_for: device.last_refusal.map(|refusal| refusal.denial.code().to_owned()),
            refused_key: device.last_refusal.map(|refusal| refusal.key),
            refused_at: device.last_refusal.map(|refusal| refusal.at),
            refused_noted_at: device.last_refusal.map(|refusal| refusal.noted_at),
            refused_since_noted: device.last_refusal.map_or(0, |refusal| refusal.since_noted),
            created_at: device.created_at,
            updated_at: device.updated_at,
        }
    }
}

impl TryFrom<DeviceRecord> for Device {
    type Error = Box<dyn Error + Send + Sync>;

    fn try_from(record: DeviceRecord) -> Result<Self, Self::Error> {
        let status = status(&record.status, record.status_reason, record.status_since.unwrap_or(record.created_at))?;
        let modules = record.modules.into_iter().map(|(id, module)| Ok((id, Module::try_from(module)?)));
        let reservation = match (record.reserved_by, record.reserved_key, record.reserved_until) {
            (Some(owner), Some(key), Some(expires_at)) => Some(Reservation {
                owner: owner.parse()?,
                key,
                certificate: record.reserved_certificate,
                group: group(record.reserved_with.as_deref())?,
                expires_at,
                from: record.reserved_from.as_deref().and_then(State::from_name).unwrap_or(State::Registered),
                left: record.leftover.map(Credential::try_from).transpose()?,
                attempts: record.attempts.unwrap_or_default(),
            }),
            _ => None,
        };
        let unsettled = record.unsettled_since.map(|since| Unsettled { since, keys: record.attempted_keys });
        let credential = record.credential.map(Credential::try_from).transpose()?;
        let last_refusal = match (record.refused_for.as_deref(), record.refused_key, record.refused_at) {
            (Some(code), Some(key), Some(at)) => Denial::from_code(code).map(|denial| LastRefusal {
                noted_at: record.refused_noted_at.unwrap_or(at),
                since_noted: record.refused_since_noted,
                ..LastRefusal::new(denial, key, at)
            }),
            _ => None,
        };
        Ok(Self {
            id: record.device_id,
            generation: record.generation.parse()?,
            version: record.version,
            status,
            attestation: record.attestation.try_into()?,
            key_origin: record.key_origin,
            group: record.group,
            hierarchy: Hierarchy { edge: record.edge, scope: record.device_scope, parents: record.parent_scopes },
            modules: modules.collect::<Result<_, Self::Error>>()?,
            template: record.template,
            parameters: record.parameters,
            settable_parameters: record.settable_parameters,
            state: State::from_name(&record.state).ok_or("state is not one that this version knows")?,
            reservation,
            credential: credential.map(|credential| Credential { used_at: record.used_at, ..credential }),
            superseded: from_superseded(record.superseded)?,
            unsettled,
            wrong_proofs: record.wrong_proofs,
            last_refusal,
            created_at: record.created_at,
            updated_at: record.updated_at,
        })
    }
}
