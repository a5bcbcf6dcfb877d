//! The device registry.

use std::collections::BTreeMap;
use std::error::Error;

use serde::{Deserialize, Serialize};

use crate::{
    CertificateId, Change, Claim, Device, DeviceChange, DeviceId, FleetMoment, FleetSummary, GenerationId, GroupName,
    KeyFingerprint, Origin, Presence, Put, Refusal, State, TemplateName, Timestamp, Tombstone, TrustedUser,
};

/// What became of a reservation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reserve {
    /// The device as it is now, reserved for the attempt.
    Held(Device),
    /// Another device has the key.
    KeyInUse {
        /// The device that has it.
        owner: DeviceId,
        /// The device as it was found.
        device: Device,
    },
    /// The device as it was found, unchanged; `None` where there is no such device.
    Refused(Option<Device>),
}

/// The device registry. It reads devices, and it makes a [`Change`] whole or not at all; who may be changed, and to what, is
/// not its to say: [`Changes`](crate::Changes) has the rules, for every store.
pub trait DeviceStore: Send + Sync {
    /// The device as it is at this moment.
    fn find(&self, id: &DeviceId) -> impl Future<Output = Result<Option<Device>, RegistryError>> + Send;

    /// Makes the change, all of it or nothing, where the device is [what was read](Change::is_of).
    fn put(&self, change: &Change) -> impl Future<Output = Result<Put, RegistryError>> + Send;

    /// Counts a refusal by the rule of [`Device::refuse`], whatever the version, which stays. An unknown device, and one in
    /// quarantine, is left as it is. It may be written after the answer, so that the time does not reveal whether there is
    /// such a device. A change that comes at the same time may overwrite some of the count.
    fn count_refusal(
        &self,
        device: &DeviceId,
        refusal: &Refusal,
        by: &Origin,
    ) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// Whether the device has this certificate in a way that would outlive a crash of the registry, which has shown it as the
    /// device's. There is nothing to ask where a change is not shown before it is on the disk.
    fn is_recorded(
        &self,
        device: &DeviceId,
        certificate: &CertificateId,
    ) -> impl Future<Output = Result<bool, RegistryError>> + Send {
        let _ = (device, certificate);
        async { Ok(true) }
    }

    /// Registers a device as an export wrote it, with its certificate, if that can be its; `false` where the id is taken. The
    /// device is consistent in itself: what is checked here is what the registry knows of its certificates. The write is
    /// told as one of `now`, whatever the moments in the export.
    fn restore(
        &self,
        device: &Device,
        by: &Origin,
        now: Timestamp,
    ) -> impl Future<Output = Result<Result<bool, NotRestored>, RegistryError>> + Send {
        let mut change = Change::of(DeviceChange::Restore { device: device.clone(), at: now }, by);
        change.exclusive = device.keys();
        async move {
            Ok(match self.put(&change).await? {
                Put::Done => Ok(true),
                Put::KeyInUse { key, owner } => Err(NotRestored::KeyInUse { key, owner }),
                Put::Changed => Ok(false),
            })
        }
    }

    /// The device that [has](Device::keys) this key.
    fn owner_of(&self, key: &KeyFingerprint) -> impl Future<Output = Result<Option<DeviceId>, RegistryError>> + Send;

    /// At most `limit` of the devices that `filter` lets through, in no order, and where to go on.
    fn list(
        &self,
        filter: &DeviceFilter,
        after: Option<&DeviceId>,
        limit: u16,
    ) -> impl Future<Output = Result<Page, RegistryError>> + Send;

    /// How many devices there are.
    fn count(&self) -> impl Future<Output = Result<DeviceCounts, RegistryError>> + Send;

    /// Counts all devices by what [`FleetSummary`] has. A store that can count faster than by reading every device does.
    fn summarize(&self, moment: FleetMoment) -> impl Future<Output = Result<FleetSummary, RegistryError>> + Send {
        async move {
            let mut summary = FleetSummary::default();
            let mut after = None;
            loop {
                let page = self.list(&DeviceFilter::default(), after.as_ref(), READ_AT_ONCE).await?;
                page.devices.iter().for_each(|device| summary.add(device, moment));
                after = page.next;
                if after.is_none() {
                    return Ok(summary);
                }
            }
        }
    }
}

/// Devices that are read at once to be counted.
const READ_AT_ONCE: u16 = 1_000;

/// Why a device cannot be what an export says.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NotRestored {
    /// The certificate belongs to another device.
    #[error("the certificate {0} is another device's")]
    OtherDevice(CertificateId),
    /// The certificate is revoked, and the device is not.
    #[error("the certificate {0} is revoked: register the device again without it")]
    Revoked(CertificateId),
    /// Another device has one of the keys.
    #[error("the key {key} is that of the device {owner}")]
    KeyInUse {
        /// The key.
        key: KeyFingerprint,
        /// The device that has it.
        owner: DeviceId,
    },
    /// Something happened to the device after the present moment.
    #[error("the export says what happened at {0}, which lies ahead: set the clock of this service")]
    Ahead(Timestamp),
    /// No CA of this server has issued the certificate.
    #[error("no CA of this server has issued the certificate {0}")]
    Stranger(CertificateId),
}

/// Which devices a list has. What is `None` lets every device through.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceFilter {
    /// Those in this state.
    pub state: Option<State>,
    /// Those that are enabled, or those that are not.
    pub enabled: Option<bool>,
    /// Those of this group.
    pub group: Option<GroupName>,
    /// Those whose items name this template.
    pub template: Option<TemplateName>,
    /// Those that changed at this time or later.
    pub changed_since: Option<Timestamp>,
    /// Those whose ids begin with this.
    pub prefix: Option<DeviceId>,
    /// Those whose last refusal was at this time or later.
    pub refused_since: Option<Timestamp>,
    /// Those whose certificate ends before this time, or has ended; no revoked ones.
    pub expires_before: Option<Timestamp>,
}

impl DeviceFilter {
    /// Whether a device is let through.
    pub fn admits(&self, device: &Device) -> bool {
        let Self { state, enabled, group, template, changed_since, prefix, refused_since, expires_before } = self;
        let refused_at = device.last_refusal.map(|refusal| refusal.at);
        let certificate = device.credential.as_ref().filter(|_| device.state != State::Revoked);
        state.is_none_or(|state| device.state == state)
            && enabled.is_none_or(|enabled| device.status.enabled == enabled)
            && (group.is_none() || *group == device.group)
            && (template.is_none() || *template == device.template)
            && changed_since.is_none_or(|since| since <= device.updated_at)
            && prefix.as_ref().is_none_or(|prefix| device.id.as_str().starts_with(prefix.as_str()))
            && refused_since.is_none_or(|since| refused_at.is_some_and(|at| since <= at))
            && expires_before.is_none_or(|end| certificate.is_some_and(|own| own.not_after < end))
    }
}

/// How many devices there are, by what operators ask for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DeviceCounts {
    /// All of them.
    pub total: u64,
    /// Those that are enabled.
    pub enabled: u64,
    /// By state, in the order of [`State::ALL`].
    pub by_state: [u64; State::ALL.len()],
}

impl DeviceCounts {
    /// Counts one more device.
    pub fn add(&mut self, state: State, enabled: bool) {
        self.total += 1;
        self.enabled += u64::from(enabled);
        if let Some(count) = State::ALL.iter().position(|other| *other == state) {
            self.by_state[count] += 1;
        }
    }
}

/// What is left of deleted devices until the platform has nothing of them any more.
pub trait Tombstones: Send + Sync {
    /// The tombstone of the device that had this id in this generation.
    fn tombstone(
        &self,
        id: &DeviceId,
        generation: GenerationId,
    ) -> impl Future<Output = Result<Option<Tombstone>, RegistryError>> + Send;

    /// Removes a tombstone; one that is gone is no error.
    fn forget(&self, id: &DeviceId, generation: GenerationId)
    -> impl Future<Output = Result<(), RegistryError>> + Send;
}

/// Who is connected, as far as the platform has said.
pub trait Presences: Send + Sync {
    /// Takes note of what the platform said of a device, unless it has said something later already.
    fn note_presence(
        &self,
        device: &DeviceId,
        presence: &Presence,
    ) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// What is known of these devices, at most a hundred.
    fn presences(
        &self,
        devices: &[DeviceId],
    ) -> impl Future<Output = Result<BTreeMap<DeviceId, Presence>, RegistryError>> + Send;

    /// Forgets what was said of a device that is no more.
    fn forget_presence(&self, device: &DeviceId) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// How many devices are connected.
    fn count_connected(&self) -> impl Future<Output = Result<u64, RegistryError>> + Send;
}

/// The claims, as the pre-provisioning hook, trusted users and operators use them.
pub trait ClaimStore: Send + Sync {
    /// A claim and a device, each as it is at this moment.
    fn look_up(
        &self,
        claim: &CertificateId,
        device: &DeviceId,
    ) -> impl Future<Output = Result<(Option<Claim>, Option<Device>), RegistryError>> + Send;

    /// Counts one more claim of this user on this day (days since 1970-01-01); `false`, uncounted, where that would be
    /// more than `quota`.
    fn count_claim(
        &self,
        user: &TrustedUser,
        day: i64,
        quota: u64,
    ) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// The claim as it is at this moment.
    fn find_claim(&self, id: &CertificateId) -> impl Future<Output = Result<Option<Claim>, RegistryError>> + Send;

    /// Writes what an operator decides about a claim that was `found` before, or not found: its status, quota and
    /// expiry. What was counted is kept. `false`, unchanged, where the claim has come or gone since, or its status is
    /// no longer the one that was found: nobody undoes a revocation that they did not see.
    fn put_claim(
        &self,
        claim: &Claim,
        found: Option<&Claim>,
    ) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// Every claim, in no order.
    fn claims(&self) -> impl Future<Output = Result<Vec<Claim>, RegistryError>> + Send;
}

/// Which device a certificate belongs to; it may lag a moment behind the registry.
pub trait CertificateIndex: Send + Sync {
    /// The device that has, or awaits, this certificate.
    fn device_of(
        &self,
        certificate: &CertificateId,
    ) -> impl Future<Output = Result<Option<CertificateOwner>, RegistryError>> + Send;

    /// At most `limit` devices, deleted ones among them, that attempts may have left something for; the longest waiting
    /// need not come first.
    fn unsettled(&self, limit: u16) -> impl Future<Output = Result<Vec<UnsettledDevice>, RegistryError>> + Send;
}

/// A device that attempts may have left something for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnsettledDevice {
    /// Which.
    pub id: DeviceId,
    /// The generation of its tombstone, where it was deleted.
    pub deleted: Option<GenerationId>,
}

/// The device that has, or awaits, a certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateOwner {
    /// Which.
    pub device: DeviceId,
    /// Whether it is known to have connected with it.
    pub used: bool,
}

/// Where a job that is done a piece at a time has got to.
pub trait Cursors: Send + Sync {
    /// The place that was written last under this name.
    fn place(&self, name: &str) -> impl Future<Output = Result<Option<String>, RegistryError>> + Send;

    /// Writes a place; `None` is the beginning.
    fn move_to(&self, name: &str, place: Option<&str>) -> impl Future<Output = Result<(), RegistryError>> + Send;
}

/// A page of a list.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Page {
    /// The devices on it; there may be none although more pages follow.
    pub devices: Vec<Device>,
    /// Where the next page begins, if there is one.
    pub next: Option<DeviceId>,
}

/// The registry could not say yes or no.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// An item is not what this version of cvm writes.
    #[error("the item of {device} in the registry cannot be read; was it written by a newer version?")]
    Corrupt {
        /// The item's key.
        device: String,
        /// What is wrong with it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The store asks for a slower pace.
    #[error("the device registry is throttled")]
    Throttled {
        /// The store's words.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The call failed or its outcome is unknown.
    #[error("the device registry did not answer")]
    Unavailable {
        /// What happened.
        source: Box<dyn Error + Send + Sync>,
    },
}
