//! What a write to the registry means: the store tells what an item was and what it is now, and this says what happened.

use std::collections::BTreeSet;

use crate::{
    Attestation, CertificateId, Device, DeviceId, GenerationId, KeyFingerprint, LastRefusal, ModuleId, Origin, State,
    ThingName, Timestamp,
};

/// One write to the registry, as the store's stream of changes tells it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RegistryWrite {
    /// The store's own id of the write; the same however often it is told.
    pub id: String,
    /// When it was made.
    pub at: Timestamp,
    /// Who made it, where that was written beside it.
    pub by: Option<Origin>,
    /// The device before it.
    pub before: Option<Device>,
    /// The device after it.
    pub after: Option<Device>,
}

/// One thing that happened to a device or to a module.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Notice {
    /// What.
    pub kind: NoticeKind,
    /// The device.
    pub device: DeviceId,
    /// Which of those that have had the id.
    pub generation: GenerationId,
    /// The module that it is about.
    pub module: Option<ModuleId>,
    /// Why, in a word or in an operator's words.
    pub reason: Option<String>,
    /// The key that was shown, or that the certificate is for.
    pub key: Option<KeyFingerprint>,
    /// The certificate that it is about.
    pub certificate: Option<CertificateId>,
    /// The thing that it is about.
    pub thing: Option<ThingName>,
    /// What an operator changed, by the names of the properties.
    pub changed: Vec<&'static str>,
    /// How many times it happened since it was told last; more than one for refusals alone.
    pub count: u32,
}

/// What can happen to a device or to a module.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum NoticeKind {
    /// A person ended its quarantine.
    Approved,
    /// An operator changed its properties.
    Changed,
    /// It connected with its certificate for the first time.
    Connected,
    /// It was registered.
    Created,
    /// It was deleted.
    Deleted,
    /// An operator keeps it out.
    Disabled,
    /// An operator lets it in again.
    Enabled,
    /// Its module's properties were changed.
    ModuleChanged,
    /// A module was made on it.
    ModuleCreated,
    /// A module was deleted from it.
    ModuleDeleted,
    /// It has a new certificate.
    Provisioned,
    /// It waits for a person: the right proof came with another key.
    Quarantined,
    /// An attempt was refused.
    Refused,
    /// An attempt came to nothing.
    Released,
    /// An operator lets the next key replace the one that it has.
    Renewable,
    /// An attempt began.
    Reserved,
    /// An operator took its certificates out of power for good.
    Revoked,
    /// Its earlier certificates have lost their power: it has a newer one.
    Succeeded,
    /// A trusted user has a claim for it.
    Vouched,
}

impl NoticeKind {
    /// Every kind there is.
    pub const ALL: [Self; 19] = [
        Self::Approved,
        Self::Changed,
        Self::Connected,
        Self::Created,
        Self::Deleted,
        Self::Disabled,
        Self::Enabled,
        Self::ModuleChanged,
        Self::ModuleCreated,
        Self::ModuleDeleted,
        Self::Provisioned,
        Self::Quarantined,
        Self::Refused,
        Self::Released,
        Self::Renewable,
        Self::Reserved,
        Self::Revoked,
        Self::Succeeded,
        Self::Vouched,
    ];

    /// The stable word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Changed => "changed",
            Self::Connected => "connected",
            Self::Created => "created",
            Self::Deleted => "deleted",
            Self::Disabled => "disabled",
            Self::Enabled => "enabled",
            Self::ModuleChanged => "module-changed",
            Self::ModuleCreated => "module-created",
            Self::ModuleDeleted => "module-deleted",
            Self::Provisioned => "provisioned",
            Self::Quarantined => "quarantined",
            Self::Refused => "refused",
            Self::Released => "released",
            Self::Renewable => "renewable",
            Self::Reserved => "reserved",
            Self::Revoked => "revoked",
            Self::Succeeded => "succeeded",
            Self::Vouched => "vouched",
        }
    }

    /// The kind of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether an operator does this. A door logs the others when they happen.
    pub const fn is_by_operator(self) -> bool {
        match self {
            Self::Approved
            | Self::Changed
            | Self::Created
            | Self::Deleted
            | Self::Disabled
            | Self::Enabled
            | Self::ModuleChanged
            | Self::ModuleCreated
            | Self::ModuleDeleted
            | Self::Renewable
            | Self::Revoked => true,
            Self::Connected
            | Self::Provisioned
            | Self::Quarantined
            | Self::Refused
            | Self::Released
            | Self::Reserved
            | Self::Succeeded
            | Self::Vouched => false,
        }
    }
}

impl RegistryWrite {
    /// A write that a store tells of by itself. One write of a device is one version of it, or one refusal at a version;
    /// its end has the version after the last one.
    pub fn new(before: Option<Device>, after: Option<Device>, by: Origin) -> Option<Self> {
        let device = after.as_ref().or(before.as_ref())?;
        let (generation, version) = (device.generation, device.version + u64::from(after.is_none()));
        let counted = device.last_refusal.filter(|_| before.as_ref().is_some_and(|before| before.version == version));
        let (id, at) = match counted {
            Some(LastRefusal { denial, at, .. }) => {
                (format!("{generation}-{version:010}-{}-{}", at.seconds(), denial.code()), at)
            }
            None => (format!("{generation}-{version:010}"), device.updated_at),
        };
        Some(Self { id, at, by: Some(by), before, after })
    }

    /// The write that puts a device back as it was. Its id is none that a write of the device has had before: the trail
    /// may know the device's first life, and its end.
    pub fn restored(device: Device, by: Origin, now: Timestamp) -> Self {
        let id = format!("{}-{:010}-restored-{}", device.generation, device.version, now.seconds());
        Self { id, at: now, by: Some(by), before: None, after: Some(device) }
    }

    /// What happened, in the order in which it is told.
    pub fn notices(&self) -> Vec<Notice> {
        match (&self.before, &self.after) {
            (None, None) => Vec::new(),
            (None, Some(device)) => {
                let modules = device.modules.keys().map(|id| device.notice(NoticeKind::ModuleCreated).module(id));
                std::iter::once(device.notice(NoticeKind::Created)).chain(modules).collect()
            }
            (Some(device), None) => vec![device.notice(NoticeKind::Deleted)],
            (Some(before), Some(after)) => changes(before, after),
        }
    }

    /// Whether the platform has something to do after it.
    pub fn is_to_be_enforced(&self) -> bool {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => before.is_kept_out() != after.is_kept_out() || is_revoked(before, after),
            (Some(_), None) => true,
            // A device that is put back from an export may have a certificate, and be kept out.
            (None, Some(after)) => after.is_kept_out() && after.credential.is_some(),
            (None, None) => false,
        }
    }
}

/// Whether it was revoked by this write.
fn is_revoked(before: &Device, after: &Device) -> bool {
    before.state != State::Revoked && after.state == State::Revoked
}

/// What made `after` of `before`.
fn changes(before: &Device, after: &Device) -> Vec<Notice> {
    let mut notices = Vec::new();
    if before.status.enabled != after.status.enabled {
        let kind = if after.status.enabled { NoticeKind::Enabled } else { NoticeKind::Disabled };
        notices.push(after.notice(kind).because(after.status.reason.as_ref()));
    }
    notices.extend(refusals(before, after));
    notices.extend(progress(before, after));
    let changed = changed_properties(before, after);
    let vouched = |device: &Device| matches!(device.attestation, Attestation::TrustedUser { claim: Some(_) });
    match changed.as_slice() {
        [] => {}
        ["authentication"] if vouched(after) => notices.push(after.notice(NoticeKind::Vouched)),
        _ => notices.push(Notice { changed, ..after.notice(NoticeKind::Changed) }),
    }
    notices.extend(module_changes(before, after));
    notices
}

/// The refusal that this write is, if the trail is to have it, and those that were counted before it.
fn refusals(before: &Device, after: &Device) -> Vec<Notice> {
    let quarantined = after.state == State::Quarantined && before.state != State::Quarantined;
    // To count one is no change; an operator's change may bring an earlier count back.
    let Some(refusal) = after.last_refusal.filter(|_| quarantined || before.version == after.version) else {
        return Vec::new();
    };
    let noted = |refusal: LastRefusal| (refusal.denial, refusal.noted_at);
    if before.last_refusal.map(noted) == Some(noted(refusal)) {
        return Vec::new();
    }
    let notice = |kind, LastRefusal { denial, key, .. }: LastRefusal, count| Notice {
        key: Some(key),
        count,
        ..after.notice(kind).because(Some(denial.code()))
    };
    let counted = before.last_refusal.filter(|counted| counted.since_noted > 0);
    let kind = if quarantined { NoticeKind::Quarantined } else { NoticeKind::Refused };
    match counted {
        Some(counted) if counted.denial == refusal.denial => {
            vec![notice(kind, refusal, counted.since_noted.saturating_add(1))]
        }
        Some(counted) => {
            vec![notice(NoticeKind::Refused, counted, counted.since_noted), notice(kind, refusal, 1)]
        }
        None => vec![notice(kind, refusal, 1)],
    }
}

/// How far a device came by this write, if it came further.
fn progress(before: &Device, after: &Device) -> Option<Notice> {
    let certificate = |device: &Device| device.credential.as_ref().map(|credential| credential.certificate);
    let from = |device: &Device| device.reservation.as_ref().map(|held| held.from);
    let is_used = |device: &Device| device.credential.as_ref().is_some_and(|credential| credential.used_at.is_some());
    let same_owner = || {
        let owner = |device: &Device| device.reservation.as_ref().map(|held| held.owner);
        owner(before) == owner(after)
    };
    match (before.state, after.state) {
        _ if is_revoked(before, after) => {
            Some(after.with_credential(NoticeKind::Revoked).because(after.status.reason.as_ref()))
        }
        (State::Quarantined, State::Registered | State::Provisioned) => Some(after.notice(NoticeKind::Approved)),
        (State::Provisioned, State::Registered) => Some(after.notice(NoticeKind::Renewable)),
        (State::Registered | State::Reserved, State::Provisioned) if certificate(before) != certificate(after) => {
            Some(after.with_credential(NoticeKind::Provisioned))
        }
        // An operator had let in another key, and the same one came.
        (State::Reserved, State::Provisioned) if from(before) == Some(State::Registered) => {
            Some(after.with_credential(NoticeKind::Provisioned))
        }
        (State::Provisioned, State::Provisioned) if certificate(before) != certificate(after) => {
            Some(after.with_credential(NoticeKind::Provisioned))
        }
        (State::Reserved, State::Provisioned | State::Registered) => Some(after.notice(NoticeKind::Released)),
        (State::Reserved, State::Reserved) if same_owner() => {
            let end = |device: &Device| device.reservation.as_ref().map(|held| held.expires_at);
            (end(after) < end(before)).then(|| after.notice(NoticeKind::Released))
        }
        (_, State::Reserved) => after.reservation.as_ref().map(|held| Notice {
            key: Some(held.key),
            certificate: held.certificate,
            ..after.notice(NoticeKind::Reserved)
        }),
        _ if after.superseded.is_empty() && !before.superseded.is_empty() => {
            Some(after.with_credential(NoticeKind::Succeeded))
        }
        _ if is_used(after) && !is_used(before) => Some(after.with_credential(NoticeKind::Connected)),
        _ => None,
    }
}

/// The properties that operators set and that differ, by their names in the interface.
fn changed_properties(before: &Device, after: &Device) -> Vec<&'static str> {
    let mut changed = Vec::new();
    let mut compare = |name, differs: bool| {
        if differs {
            changed.push(name);
        }
    };
    compare("authentication", before.attestation != after.attestation);
    compare("capabilities", before.hierarchy.edge != after.hierarchy.edge);
    compare("deviceScope", before.hierarchy.scope != after.hierarchy.scope);
    compare("parentScopes", before.hierarchy.parents != after.hierarchy.parents);
    compare("group", before.group != after.group);
    compare("keyOrigin", before.key_origin != after.key_origin);
    compare("parameters", before.parameters != after.parameters);
    compare("settableParameters", before.settable_parameters != after.settable_parameters);
    compare("statusReason", {
        let is_told = before.status.enabled != after.status.enabled || is_revoked(before, after);
        !is_told && before.status.reason != after.status.reason
    });
    compare("template", before.template != after.template);
    changed
}

fn module_changes(before: &Device, after: &Device) -> Vec<Notice> {
    let ids: BTreeSet<_> = before.modules.keys().chain(after.modules.keys()).collect();
    let mut notices = Vec::new();
    for id in ids {
        let kinds: &[NoticeKind] = match (before.modules.get(id), after.modules.get(id)) {
            (Some(old), Some(new)) if old == new => &[],
            (Some(old), Some(new)) if old.generation == new.generation => &[NoticeKind::ModuleChanged],
            (Some(_), Some(_)) => &[NoticeKind::ModuleDeleted, NoticeKind::ModuleCreated],
            (Some(_), None) => &[NoticeKind::ModuleDeleted],
            (None, _) => &[NoticeKind::ModuleCreated],
        };
        notices.extend(kinds.iter().map(|kind| after.notice(*kind).module(id)));
    }
    notices
}

impl Device {
    fn notice(&self, kind: NoticeKind) -> Notice {
        Notice {
            kind,
            device: self.id.clone(),
            generation: self.generation,
            module: None,
            reason: None,
            key: None,
            certificate: None,
            thing: None,
            changed: Vec::new(),
            count: 1,
        }
    }

    fn with_credential(&self, kind: NoticeKind) -> Notice {
        let credential = self.credential.as_ref();
        Notice {
            key: credential.map(|credential| credential.key),
            certificate: credential.map(|credential| credential.certificate),
            thing: credential.map(|credential| credential.thing.clone()),
            ..self.notice(kind)
        }
    }
}

impl Notice {
    fn module(self, id: &ModuleId) -> Self {
        Self { module: Some(id.clone()), ..self }
    }

    fn because(self, reason: Option<impl ToString>) -> Self {
        Self { reason: reason.map(|reason| reason.to_string()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_schema_has_every_kind() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../../schemas/lifecycle-event.schema.json")).unwrap();
        let listed: Vec<_> = schema["properties"]["action"]["enum"].as_array().unwrap().iter().collect();
        assert_eq!(listed, NoticeKind::ALL.map(NoticeKind::name));
    }
}
