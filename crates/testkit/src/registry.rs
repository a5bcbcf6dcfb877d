use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cvm_provisioning::{
    Attempt, Beside, CertificateId, CertificateIndex, CertificateOwner, Claim, ClaimReserve, ClaimStore, Credential,
    Cursors, Decision, Device, DeviceCounts, DeviceFilter, DeviceId, DeviceStore, GenerationId, KeyFingerprint,
    Leftover, NotRestored, Origin, Page, Presence, Presences, Refusal, RegistryError, RegistryWrite, Remains,
    ReservationLost, Reservations, Reserve, Timestamp, Tombstone, Tombstones, TrustedUser, UnsettledDevice,
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

    fn tell(&self, before: Option<Device>, after: Option<Device>, by: &Origin) {
        if before == after {
            return;
        }
        if let Some(write) = RegistryWrite::new(before, after, by.clone()) {
            self.keep(write);
        }
    }

    fn keep(&self, write: RegistryWrite) {
        let mut rest = self.rest();
        rest.told += 1;
        let id = format!("{:08}", rest.told);
        rest.writes.push(RegistryWrite { id, ..write });
    }

    /// Taken after the devices where both are needed.
    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The other device that has the key.
fn owner_of(devices: &BTreeMap<DeviceId, Device>, key: &KeyFingerprint, device: &DeviceId) -> Option<DeviceId> {
    let mut others = devices.values().filter(|other| other.id != *device);
    others.find(|other| other.keys().contains(key)).map(|owner| owner.id.clone())
}

/// Puts `device` in the place of the item at `version`.
fn replace(devices: &mut BTreeMap<DeviceId, Device>, device: &Device, version: u64) -> bool {
    match devices.get_mut(&device.id) {
        Some(there) if there.version == version && there.generation == device.generation => {
            *there = device.clone();
            true
        }
        _ => false,
    }
}

impl Reservations for MemoryRegistry {
    async fn reserve(&self, attempt: &Attempt) -> Result<Reserve, RegistryError> {
        let mut devices = self.devices();
        let owner = owner_of(&devices, &attempt.proof.key, &attempt.device);
        let Some(device) = devices.get_mut(&attempt.device) else { return Ok(Reserve::Refused(None)) };
        Ok(match (device.decide(attempt), owner) {
            (Decision::Provision, Some(owner)) => Reserve::KeyInUse { owner, device: device.clone() },
            (Decision::Provision, None) => {
                let before = device.clone();
                device.reserve(attempt);
                self.tell(Some(before), Some(device.clone()), &attempt.origin);
                Reserve::Held(device.clone())
            }
            _ => Reserve::Refused(Some(device.clone())),
        })
    }

    async fn commit(
        &self,
        attempt: &Attempt,
        credential: &Credential,
        beside: &Beside,
    ) -> Result<Result<(), ReservationLost>, RegistryError> {
        Ok(match self.devices().get_mut(&attempt.device) {
            Some(device) => {
                let before = device.clone();
                let committed = device.commit(attempt.id, credential.clone(), beside.clone(), attempt.now);
                self.tell(Some(before), Some(device.clone()), &attempt.origin);
                committed
            }
            None => Err(ReservationLost { to_same_key: false }),
        })
    }

    async fn release(&self, attempt: &Attempt, left: &Leftover, remains: Remains) -> Result<(), RegistryError> {
        if let Some(device) = self.devices().get_mut(&attempt.device) {
            let before = device.clone();
            device.release(attempt.id, left.clone(), remains, attempt.now);
            self.tell(Some(before), Some(device.clone()), &attempt.origin);
        }
        Ok(())
    }

    async fn refuse(&self, device: &DeviceId, refusal: &Refusal, by: &Origin) -> Result<(), RegistryError> {
        if let Some(device) = self.devices().get_mut(device) {
            let before = device.clone();
            device.refuse(refusal);
            self.tell(Some(before), Some(device.clone()), by);
        }
        Ok(())
    }
}

impl DeviceStore for MemoryRegistry {
    async fn add(&self, device: &Device, by: &Origin) -> Result<bool, RegistryError> {
        let mut devices = self.devices();
        let free = !devices.contains_key(&device.id);
        if free {
            self.tell(None, Some(device.clone()), by);
            devices.insert(device.id.clone(), device.clone());
        }
        Ok(free)
    }

    async fn restore(
        &self,
        device: &Device,
        by: &Origin,
        now: Timestamp,
    ) -> Result<Result<bool, NotRestored>, RegistryError> {
        let in_use = {
            let devices = self.devices();
            device.keys().into_iter().find_map(|key| Some((key, owner_of(&devices, &key, &device.id)?)))
        };
        match in_use {
            Some((key, owner)) => Ok(Err(NotRestored::KeyInUse { key, owner })),
            None => {
                let mut devices = self.devices();
                let free = !devices.contains_key(&device.id);
                if free {
                    self.keep(RegistryWrite::restored(device.clone(), by.clone(), now));
                    devices.insert(device.id.clone(), device.clone());
                }
                Ok(Ok(free))
            }
        }
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

    async fn replace(&self, device: &Device, version: u64, by: &Origin) -> Result<bool, RegistryError> {
        let mut devices = self.devices();
        let before = devices.get(&device.id).cloned();
        let replaced = replace(&mut devices, device, version);
        if replaced {
            self.tell(before, Some(device.clone()), by);
        }
        Ok(replaced)
    }

    async fn remove(&self, tombstone: &Tombstone, version: u64, by: &Origin) -> Result<bool, RegistryError> {
        let buried = &tombstone.device;
        let mut devices = self.devices();
        let same = |there: &Device| there.version == version && there.generation == buried.generation;
        let there = devices.get(&buried.id).is_some_and(same);
        if there {
            devices.remove(&buried.id);
            self.tell(Some(buried.clone()), None, by);
            self.rest().tombstones.insert((buried.id.clone(), buried.generation), tombstone.clone());
        }
        Ok(there)
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

    async fn reserve_with_claim(
        &self,
        claim: &Claim,
        device: &Device,
        version: u64,
        by: &Origin,
    ) -> Result<ClaimReserve, RegistryError> {
        let mut devices = self.devices();
        let before = devices.get(&device.id).cloned();
        let owner = device.reservation.as_ref().and_then(|held| owner_of(&devices, &held.key, &device.id));
        let mut rest = self.rest();
        let Some(there) = rest.claims.get_mut(&claim.certificate) else { return Ok(ClaimReserve::Changed) };
        let ended = there.expires_at.is_some_and(|end| end <= device.updated_at);
        let open = there.status.enabled && there.has_quota().is_ok() && !ended;
        if !open || devices.get(&device.id).is_none_or(|found| found.version != version) {
            return Ok(ClaimReserve::Changed);
        }
        if let Some(owner) = owner {
            return Ok(ClaimReserve::KeyInUse { owner });
        }
        if !replace(&mut devices, device, version) {
            return Ok(ClaimReserve::Changed);
        }
        there.used += 1;
        drop(rest);
        self.tell(before, Some(device.clone()), by);
        Ok(ClaimReserve::Held)
    }

    async fn make_out(&self, claim: &Claim, device: &Device, version: u64, by: &Origin) -> Result<bool, RegistryError> {
        let mut devices = self.devices();
        let before = devices.get(&device.id).cloned();
        let replaced = replace(&mut devices, device, version);
        if replaced {
            self.tell(before, Some(device.clone()), by);
            self.rest().claims.insert(claim.certificate, claim.clone());
        }
        Ok(replaced)
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
