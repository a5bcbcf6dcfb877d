//! An entry of the audit trail, as the API and the command tell it.

use std::borrow::Cow;

use cvm_provisioning::{AuditEntry, CertificateId, DeviceId, KeyFingerprint, ModuleId, ThingName};
use serde::{Deserialize, Serialize};

use crate::Moment;

/// An entry in JSON. The names are a promise; every field is always there, `null` where it has nothing to say.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditDocument<'a> {
    id: Cow<'a, str>,
    at: Moment,
    device_id: Cow<'a, DeviceId>,
    generation_id: Option<String>,
    module_id: Option<Cow<'a, ModuleId>>,
    action: Cow<'a, str>,
    reason: Option<Cow<'a, str>>,
    key: Option<KeyFingerprint>,
    certificate_id: Option<CertificateId>,
    thing_name: Option<Cow<'a, str>>,
    changed: Cow<'a, [String]>,
    #[serde(default = "once")]
    count: u32,
    door: Option<Cow<'a, str>>,
    request_id: Option<Cow<'a, str>>,
    source: Option<Cow<'a, str>>,
    actor: Option<Cow<'a, str>>,
}

/// A server of an earlier version does not count.
const fn once() -> u32 {
    1
}

impl<'a> From<&'a AuditEntry> for AuditDocument<'a> {
    fn from(entry: &'a AuditEntry) -> Self {
        let text = |text: &'a Option<String>| text.as_deref().map(Cow::Borrowed);
        Self {
            id: Cow::Borrowed(&entry.id),
            at: entry.at.into(),
            device_id: Cow::Borrowed(&entry.device),
            generation_id: entry.generation.map(|generation| generation.to_string()),
            module_id: entry.module.as_ref().map(Cow::Borrowed),
            action: Cow::Borrowed(&entry.action),
            reason: text(&entry.reason),
            key: entry.key,
            certificate_id: entry.certificate,
            thing_name: entry.thing.as_ref().map(|thing| Cow::Borrowed(thing.as_str())),
            changed: Cow::Borrowed(&entry.changed),
            count: entry.count,
            door: text(&entry.door),
            request_id: text(&entry.request_id),
            source: text(&entry.source),
            actor: text(&entry.actor),
        }
    }
}

impl AuditDocument<'_> {
    /// The entry that is told; `None` where it is none.
    pub fn entry(self) -> Option<AuditEntry> {
        let text = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
        Some(AuditEntry {
            id: self.id.into_owned(),
            at: self.at.0,
            device: self.device_id.into_owned(),
            generation: self.generation_id.map(|id| id.parse()).transpose().ok()?,
            module: self.module_id.map(Cow::into_owned),
            action: self.action.into_owned(),
            reason: text(self.reason),
            key: self.key,
            certificate: self.certificate_id,
            thing: self.thing_name.map(|name| ThingName::try_from(name.into_owned())).transpose().ok()?,
            changed: self.changed.into_owned(),
            count: self.count,
            door: text(self.door),
            request_id: text(self.request_id),
            source: text(self.source),
            actor: text(self.actor),
        })
    }
}
