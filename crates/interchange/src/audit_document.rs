//! An entry of the audit trail, as the API and the command tell it.

use cvm_provisioning::AuditEntry;
use serde::Serialize;

/// An entry in JSON. The names are a promise; every field is always there, `null` where it has nothing to say.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditDocument<'a> {
    id: &'a str,
    at: String,
    device_id: &'a str,
    generation_id: Option<String>,
    module_id: Option<&'a str>,
    action: &'a str,
    reason: Option<&'a str>,
    key: Option<String>,
    certificate_id: Option<String>,
    thing_name: Option<&'a str>,
    changed: &'a [String],
    door: Option<&'a str>,
    request_id: Option<&'a str>,
    source: Option<&'a str>,
    actor: Option<&'a str>,
}

impl<'a> From<&'a AuditEntry> for AuditDocument<'a> {
    fn from(entry: &'a AuditEntry) -> Self {
        Self {
            id: &entry.id,
            at: entry.at.to_string(),
            device_id: entry.device.as_str(),
            generation_id: entry.generation.map(|generation| generation.to_string()),
            module_id: entry.module.as_ref().map(|id| id.as_str()),
            action: &entry.action,
            reason: entry.reason.as_deref(),
            key: entry.key.map(|key| key.to_string()),
            certificate_id: entry.certificate.map(|id| id.to_string()),
            thing_name: entry.thing.as_ref().map(|thing| thing.as_str()),
            changed: &entry.changed,
            door: entry.door.as_deref(),
            request_id: entry.request_id.as_deref(),
            source: entry.source.as_deref(),
            actor: entry.actor.as_deref(),
        }
    }
}
