use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cvm_provisioning::{
    CertificateId, CertificateIndex, CertificateOwner, Change, Claim, ClaimChange, ClaimStore, Cursors, Device,
    DeviceChange, DeviceCounts, DeviceFilter, DeviceId, DeviceStore, GenerationId, KeyFingerprint, Origin, Page,
    Presence, Presences, Put, Refusal, RegistryError, RegistryWrite, Tombstone, Tombstones, TrustedUser,
    UnsettledDevice,
};

/// The registry that the domain's own rules make: each method under one lock.
#[derive(Clone, Debug, Default)]
pub struct MemoryRegistry {
    devices: Arc<Mutex<BTreeMap<DeviceId, Device>>>,
    rest: Arc<Mutex<Rest>>,
}

/// What the registry has beside devices.
#[derive(Debug, Default)]
struct Rest {
    claims: BTreeMap<CertificateId, Claim>,
    counts: BTreeMap<TrustedUser, (i64, u64)>,
    places: BTreeMap<String, String>,
    presences: BTreeMap<DeviceId, Presence>,
    told: u64,
    tombstones: BTreeMap<(DeviceId, GenerationId), Tombstone>,
    writes: Vec<RegistryWrite>,
}

impl MemoryRegistry {
    fn devices(&self) -> MutexGuard<'_, BTreeMap<DeviceId, Device>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was written since this was asked last, as the store's stream would tell it.
    pub fn take_writes(&self) -> Vec<RegistryWrite> {
        std::mem::take(&mut self.rest().writes)
    }

    /// Taken after the devices where both are needed.
    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rest {
    fn tell(&mut self, write: Option<RegistryWrite>) {
        let Some(write) = write.filter(|write| write.before != write.after) else { return };
        self.told += 1;
        self.writes.push(RegistryWrite { id: format!("{:08}", self.told), ..write });
    }
}

/// The other device that has the key.
fn owner_of(devices: &BTreeMap<DeviceId, Device>, key: &KeyFingerprint, device: &DeviceId) -> Option<DeviceId> {
    let mut others = devices.values().filter(|other| other.id != *device);
    others.find(|other| other.keys().contains(key)).map(|owner| owner.id.clone())
}

impl DeviceStore for MemoryRegistry {
    async fn put(&self, change: &Change) -> Result<Put, RegistryError> {
        let mut devices = self.devices();
        let before = devices.get(change.id()).cloned();
        if !change.is_of(before.as_ref()) || !change.ledger.is_empty() {
            return Ok(Put::Changed);
        }
        let mut rest = self.rest();
        let claim = match &change.claim {
            None => None,
            Some(ClaimChange::Count { claim, at }) => match rest.claims.get(claim) {
                Some(claim) if claim.is_open(*at) => Some(Claim { used: claim.used + 1, ..claim.clone() }),
                _ => return Ok(Put::Changed),
            },
            Some(ClaimChange::MakeOut(claim)) => Some(claim.clone()),
        };
        for key in &change.exclusive {
            if let Some(owner) = owner_of(&devices, key, change.id()) {
                return Ok(Put::KeyInUse { key: *key, owner });
            }
        }
        rest.claims.extend(claim.map(|claim| (claim.certificate, claim)));
        match &change.device {
            DeviceChange::Add(device) | DeviceChange::Restore { device, .. } | DeviceChange::Replace { device, .. } => {
                devices.insert(device.id.clone(), device.clone());
            }
            DeviceChange::Remove { tombstone, .. } => {
                let device = &tombstone.device;
                devices.remove(&device.id);
                rest.tombstones.insert((device.id.clone(), device.generation), tombstone.clone());
            }
        }
        rest.tell(change.told(before));
        Ok(Put::Done)
    }

    async fn count_refusal(&self, device: &DeviceId, refusal: &Refusal, by: &Origin) -> Result<(), RegistryError> {
        if let Some(device) = self.devices().get_mut(device) {
            let before = device.clone();
            device.refuse(refusal);
            self.rest().tell(RegistryWrite::new(Some(before), Some(device.clone()), by.clone()));
        }
        Ok(())
    }

    async fn find(&self, id: &DeviceId) -> Result<Option<Device>, RegistryError> {
        Ok(self.devices().get(id).cloned())
    }

    async fn owner_of(&self, key: &KeyFingerprint) -> Result<Option<DeviceId>, RegistryError> {
        Ok(self.devices().values().find(|device| device.keys().contains(key)).map(|device| device.id.clone()))
    }

    async fn list(&self, filter: &DeviceFilter, after: Option<&DeviceId>, limit: u16) -> Result<Page, RegistryError> {
        let devices = self.devices();
        let mut rest = devices
            .values()
            .filter(|device| after.is_none_or(|after| device.id > *after))
            .filter(|device| filter.admits(device));
        let page: Vec<_> = rest.by_ref().take(limit.into()).cloned().collect();
        let next = rest.next().and_then(|_| page.last()).map(|device| device.id.clone());
        Ok(Page { devices: page, next })
    }

    async fn count(&self) -> Result<DeviceCounts, RegistryError> {
        let mut counts = DeviceCounts::default();
        for device in self.devices().values() {
            counts.add(device.state, device.status.enabled);
        }
        Ok(counts)
    }
}

impl Tombstones for MemoryRegistry {
    async fn tombstone(&self, id: &DeviceId, generation: GenerationId) -> Result<Option<Tombstone>, RegistryError> {
        Ok(self.rest().tombstones.get(&(id.clone(), generation)).cloned())
    }

    async fn forget(&self, id: &DeviceId, generation: GenerationId) -> Result<(), RegistryError> {
        self.rest().tombstones.remove(&(id.clone(), generation));
        Ok(())
    }
}

impl Presences for MemoryRegistry {
    async fn note_presence(&self, device: &DeviceId, presence: &Presence) -> Result<(), RegistryError> {
        let mut rest = self.rest();
        if rest.presences.get(device).is_none_or(|there| there.order <= presence.order) {
            rest.presences.insert(device.clone(), presence.clone());
        }
        Ok(())
    }

    async fn presences(&self, devices: &[DeviceId]) -> Result<BTreeMap<DeviceId, Presence>, RegistryError> {
        let rest = self.rest();
        let known = devices.iter().filter_map(|id| Some((id.clone(), rest.presences.get(id)?.clone())));
        Ok(known.collect())
    }

    async fn forget_presence(&self, device: &DeviceId) -> Result<(), RegistryError> {
        self.rest().presences.remove(device);
        Ok(())
    }

    async fn count_connected(&self) -> Result<u64, RegistryError> {
        Ok(self.rest().presences.values().filter(|presence| presence.connected).count() as u64)
    }
}

impl ClaimStore for MemoryRegistry {
    async fn look_up(
        &self,
        claim: &CertificateId,
        device: &DeviceId,
    ) -> Result<(Option<Claim>, Option<Device>), RegistryError> {
        let devices = self.devices();
        Ok((self.rest().claims.get(claim).cloned(), devices.get(device).cloned()))
    }

    async fn count_claim(&self, user: &TrustedUser, day: i64, quota: u64) -> Result<bool, RegistryError> {
        let mut rest = self.rest();
        let count = rest.counts.entry(user.clone()).or_insert((day, 0));
        if count.0 != day {
            *count = (day, 0);
        }
        let counted = count.1 < quota;
        count.1 += u64::from(counted);
        Ok(counted)
    }

    async fn find_claim(&self, id: &CertificateId) -> Result<Option<Claim>, RegistryError> {
        Ok(self.rest().claims.get(id).cloned())
    }

    async fn put_claim(&self, claim: &Claim, found: Option<&Claim>) -> Result<bool, RegistryError> {
        let mut rest = self.rest();
        let there = rest.claims.get(&claim.certificate);
        if there.map(|there| &there.status) != found.map(|found| &found.status) {
            return Ok(false);
        }
        let used = there.map_or(claim.used, |there| there.used);
        rest.claims.insert(claim.certificate, Claim { used, ..claim.clone() });
        Ok(true)
    }

    async fn claims(&self) -> Result<Vec<Claim>, RegistryError> {
        Ok(self.rest().claims.values().cloned().collect())
    }
}

impl CertificateIndex for MemoryRegistry {
    async fn device_of(&self, certificate: &CertificateId) -> Result<Option<CertificateOwner>, RegistryError> {
        let devices = self.devices();
        let owner = devices.values().find(|device| device.indexed_certificate() == Some(*certificate));
        Ok(owner.map(|device| CertificateOwner { device: device.id.clone(), used: device.is_used(certificate) }))
    }

    async fn unsettled(&self, limit: u16) -> Result<Vec<UnsettledDevice>, RegistryError> {
        let devices = self.devices();
        let rest = self.rest();
        let unsettled = devices.values().filter(|device| device.unsettled.is_some());
        let unsettled = unsettled.map(|device| UnsettledDevice { id: device.id.clone(), deleted: None });
        let deleted = rest.tombstones.keys().cloned();
        let deleted = deleted.map(|(id, generation)| UnsettledDevice { id, deleted: Some(generation) });
        Ok(unsettled.chain(deleted).take(limit.into()).collect())
    }
}

impl Cursors for MemoryRegistry {
    async fn place(&self, name: &str) -> Result<Option<String>, RegistryError> {
        Ok(self.rest().places.get(name).cloned())
    }

    async fn move_to(&self, name: &str, place: Option<&str>) -> Result<(), RegistryError> {
        let mut rest = self.rest();
        match place {
            Some(place) => rest.places.insert(name.to_owned(), place.to_owned()),
            None => rest.places.remove(name),
        };
        Ok(())
    }
}
