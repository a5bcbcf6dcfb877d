use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cvm_provisioning::{
    Attempt, CertificateId, CertificateIndex, CertificateOwner, Claim, ClaimStore, Credential, Cursors, Decision,
    Device, DeviceId, DeviceStore, Leftover, Page, Refusal, RegistryError, Remains, ReservationLost, Reservations,
    Reserve, Status, TrustedUser,
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
}

impl MemoryRegistry {
    fn devices(&self) -> MutexGuard<'_, BTreeMap<DeviceId, Device>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Taken after the devices where both are needed.
    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        let Some(device) = devices.get_mut(&attempt.device) else { return Ok(Reserve::Refused(None)) };
        Ok(match device.decide(attempt) {
            Decision::Provision => {
                device.reserve(attempt);
                Reserve::Held(device.clone())
            }
            _ => Reserve::Refused(Some(device.clone())),
        })
    }

    async fn commit(
        &self,
        attempt: &Attempt,
        credential: &Credential,
        remains: Remains,
    ) -> Result<Result<(), ReservationLost>, RegistryError> {
        Ok(match self.devices().get_mut(&attempt.device) {
            Some(device) => device.commit(attempt.id, credential.clone(), remains, attempt.now),
            None => Err(ReservationLost { to_same_key: false }),
        })
    }

    async fn release(&self, attempt: &Attempt, left: &Leftover, remains: Remains) -> Result<(), RegistryError> {
        if let Some(device) = self.devices().get_mut(&attempt.device) {
            device.release(attempt.id, left.clone(), remains, attempt.now);
        }
        Ok(())
    }

    async fn refuse(&self, device: &DeviceId, refusal: &Refusal) -> Result<(), RegistryError> {
        if let Some(device) = self.devices().get_mut(device) {
            device.refuse(refusal);
        }
        Ok(())
    }
}

impl DeviceStore for MemoryRegistry {
    async fn add(&self, device: &Device) -> Result<bool, RegistryError> {
        let mut devices = self.devices();
        let free = !devices.contains_key(&device.id);
        if free {
            devices.insert(device.id.clone(), device.clone());
        }
        Ok(free)
    }

    async fn find(&self, id: &DeviceId) -> Result<Option<Device>, RegistryError> {
        Ok(self.devices().get(id).cloned())
    }

    async fn list(&self, after: Option<&DeviceId>, limit: u16) -> Result<Page, RegistryError> {
        let devices = self.devices();
        let mut rest = devices.values().filter(|device| after.is_none_or(|after| device.id > *after));
        let page: Vec<_> = rest.by_ref().take(limit.into()).cloned().collect();
        let next = rest.next().and_then(|_| page.last()).map(|device| device.id.clone());
        Ok(Page { devices: page, next })
    }

    async fn replace(&self, device: &Device, version: u64) -> Result<bool, RegistryError> {
        Ok(replace(&mut self.devices(), device, version))
    }

    async fn delete(&self, id: &DeviceId, version: u64) -> Result<bool, RegistryError> {
        let mut devices = self.devices();
        let there = devices.get(id).is_some_and(|device| device.version == version);
        Ok(there && devices.remove(id).is_some())
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

    async fn reserve_with_claim(&self, claim: &Claim, device: &Device, version: u64) -> Result<bool, RegistryError> {
        let mut devices = self.devices();
        let mut rest = self.rest();
        let Some(there) = rest.claims.get_mut(&claim.certificate) else { return Ok(false) };
        let open = there.status == Status::Enabled && there.has_quota().is_ok();
        if !open || !replace(&mut devices, device, version) {
            return Ok(false);
        }
        there.used += 1;
        Ok(true)
    }

    async fn make_out(&self, claim: &Claim, device: &Device, version: u64) -> Result<bool, RegistryError> {
        let mut devices = self.devices();
        let replaced = replace(&mut devices, device, version);
        if replaced {
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

    async fn unsettled(&self, limit: u16) -> Result<Vec<DeviceId>, RegistryError> {
        let devices = self.devices();
        let unsettled = devices.values().filter(|device| device.unsettled.is_some());
        Ok(unsettled.take(limit.into()).map(|device| device.id.clone()).collect())
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
