//! One change of the registry: what a store makes whole or not at all.

use std::collections::BTreeSet;

use crate::{
    CertificateId, Claim, Device, DeviceId, KeyFingerprint, LedgerEntry, Origin, RegistryWrite, Timestamp, Tombstone,
};

/// A change of one device, with all that belongs to it. A store makes it whole, or answers why not; who may be changed, and
/// to what, the domain has decided before.
#[derive(Clone, Debug)]
pub struct Change {
    /// What becomes of the device.
    pub device: DeviceChange,
    /// Keys that have to be this device's alone.
    pub exclusive: BTreeSet<KeyFingerprint>,
    /// Other keys that it has from now on. They become its, too, where no other device has them.
    pub if_free: BTreeSet<KeyFingerprint>,
    /// What becomes of a claim.
    pub claim: Option<ClaimChange>,
    /// What becomes of the ledger, for a store that keeps one.
    pub ledger: Vec<LedgerChange>,
    /// Who has it done: it is kept beside the change, for the audit.
    pub by: Origin,
}

/// What becomes of a device.
#[derive(Clone, Debug)]
pub enum DeviceChange {
    /// It is registered. The id has to be free; a repeated call whose first answer was lost is no error.
    Add(Device),
    /// It is put back as an export wrote it. The id has to be free.
    Restore {
        /// The device.
        device: Device,
        /// When: the device has the moments of the export.
        at: Timestamp,
    },
    /// It takes the place of the one that was read.
    Replace {
        /// The device as it is to be.
        device: Device,
        /// The version of the one that was read, which has the same generation.
        version: u64,
    },
    /// It is removed, and leaves a tombstone.
    Remove {
        /// The tombstone, with the device as it was buried.
        tombstone: Tombstone,
        /// The version of the one that was read, which has the same generation.
        version: u64,
    },
}

/// What becomes of a claim together with a device.
#[derive(Clone, Debug)]
pub enum ClaimChange {
    /// The device is counted on this claim, which has to be [open](Claim::is_open) at the moment.
    Count {
        /// The claim.
        claim: CertificateId,
        /// The moment.
        at: Timestamp,
    },
    /// The claim is registered: it was made out for the device.
    MakeOut(Claim),
}

/// What becomes of the ledger together with a device.
#[derive(Clone, Debug)]
pub enum LedgerChange {
    /// The certificate of the device's credential is entered.
    Enter(LedgerEntry),
    /// A certificate loses its power for good.
    Revoke {
        /// Which.
        certificate: CertificateId,
        /// From when on.
        at: Timestamp,
    },
}

/// What became of a change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Put {
    /// It was made.
    Done,
    /// Nothing was changed: another device has one of the keys that have to be this device's alone.
    KeyInUse {
        /// The key.
        key: KeyFingerprint,
        /// The device that has it.
        owner: DeviceId,
    },
    /// Nothing was changed: the device is no longer what was read, or the claim is no longer open.
    Changed,
}

impl Change {
    /// A change of a device and of nothing else.
    pub fn of(device: DeviceChange, by: &Origin) -> Self {
        let (exclusive, if_free, ledger) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        Self { device, exclusive, if_free, claim: None, ledger, by: by.clone() }
    }

    /// Puts `after` in the place of `before`. Keys that are new become the device's where they are free.
    pub fn replace(before: &Device, after: Device, by: &Origin) -> Self {
        let if_free = after.keys().difference(&before.keys()).copied().collect();
        Self { if_free, ..Self::of(DeviceChange::Replace { device: after, version: before.version }, by) }
    }

    /// The same, where this key has to be the device's alone.
    #[must_use]
    pub fn with_exclusive(mut self, key: KeyFingerprint) -> Self {
        self.if_free.remove(&key);
        self.exclusive.insert(key);
        self
    }

    /// The device.
    pub fn id(&self) -> &DeviceId {
        match &self.device {
            DeviceChange::Add(device) | DeviceChange::Restore { device, .. } | DeviceChange::Replace { device, .. } => {
                &device.id
            }
            DeviceChange::Remove { tombstone, .. } => &tombstone.device.id,
        }
    }

    /// The device as it is afterwards, unless it was removed.
    pub const fn after(&self) -> Option<&Device> {
        match &self.device {
            DeviceChange::Add(device) | DeviceChange::Restore { device, .. } | DeviceChange::Replace { device, .. } => {
                Some(device)
            }
            DeviceChange::Remove { .. } => None,
        }
    }

    /// Whether this is a change of what is in the store.
    pub fn is_of(&self, there: Option<&Device>) -> bool {
        let is = |there: &Device, device: &Device, version: u64| {
            there.generation == device.generation && there.version == version
        };
        match (&self.device, there) {
            (DeviceChange::Add(_) | DeviceChange::Restore { .. }, there) => there.is_none(),
            (DeviceChange::Replace { device, version }, Some(there)) => is(there, device, *version),
            (DeviceChange::Remove { tombstone, version }, Some(there)) => is(there, &tombstone.device, *version),
            (DeviceChange::Replace { .. } | DeviceChange::Remove { .. }, None) => false,
        }
    }

    /// The write that a store tells the followers of, where the store itself makes it up; `before` is what was there.
    pub fn told(&self, before: Option<Device>) -> Option<RegistryWrite> {
        let by = self.by.clone();
        match &self.device {
            DeviceChange::Add(device) => RegistryWrite::new(None, Some(device.clone()), by),
            DeviceChange::Restore { device, at } => Some(RegistryWrite::restored(device.clone(), by, *at)),
            DeviceChange::Replace { device, .. } => RegistryWrite::new(before, Some(device.clone()), by),
            DeviceChange::Remove { tombstone, .. } => RegistryWrite::new(Some(tombstone.device.clone()), None, by),
        }
    }
}
