//! An entry of the audit trail.

use std::error::Error;

use cvm_provisioning::{AuditEntry, CertificateId, DeviceId, KeyFingerprint, ModuleId, ThingName, Timestamp};
use serde::{Deserialize, Serialize};

/// An entry, field by field.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntryRecord {
    device_id: DeviceId,
    at: Timestamp,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_id: Option<ModuleId>,
    action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<KeyFingerprint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_id: Option<CertificateId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thing_name: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    changed: Vec<String>,
    #[serde(default = "once", skip_serializing_if = "is_once")]
    count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    door: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<String>,
}

const fn once() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_once(count: &u32) -> bool {
    *count == 1
}

impl From<&AuditEntry> for AuditEntryRecord {
    fn from(entry: &AuditEntry) -> Self {
        let entry = entry.clone();
        Self {
            device_id: entry.device,
            at: entry.at,
            id: entry.id,
            generation: entry.generation.map(|generation| generation.to_string()),
            module_id: entry.module,
            action: entry.action,
            reason: entry.reason,
            key: entry.key,
            certificate_id: entry.certificate,
            thing_name: entry.thing.map(|thing| thing.to_string()),
            changed: entry.changed,
            count: entry.count,
            door: entry.door,
            request_id: entry.request_id,
            source: entry.source,
            actor: entry.actor,
        }
    }
}

impl TryFrom<AuditEntryRecord> for AuditEntry {
    type Error = Box<dyn Error + Send + Sync>;

    fn try_from(record: AuditEntryRecord) -> Result<Self, Self::Error> {
        Ok(Self {
            id: record.id,
            at: record.at,
            device: record.device_id,
            generation: record.generation.map(|generation| generation.parse()).transpose()?,
            module: record.module_id,
            action: record.action,
            reason: record.reason,
            key: record.key,
            certificate: record.certificate_id,
            thing: record.thing_name.map(ThingName::try_from).transpose()?,
            changed: record.changed,
            count: record.count,
            door: record.door,
            request_id: record.request_id,
            source: record.source,
            actor: record.actor,
        })
    }
}
