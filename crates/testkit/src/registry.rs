use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cvm_provisioning::{
    Attempt, Credential, Decision, Device, DeviceId, DeviceStore, Leftover, Page, Refusal, RegistryError,
    ReservationLost, Reservations, Reserve,
};

/// The registry that the domain's own rules make: each method under one lock.
#[derive(Clone, Debug, Default)]
pub struct MemoryRegistry {
    devices: Arc<Mutex<BTreeMap<DeviceId, Device>>>,
}

impl MemoryRegistry {
    fn devices(&self) -> MutexGuard<'_, BTreeMap<DeviceId, Device>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservations for MemoryRegistry {
    async fn reserve(&self, attempt: &Attempt) -> Result<Reserve, RegistryError> {
        let mut devices = self.devices();
        let Some(device) = devices.get_mut(&attempt.device) else { return Ok(Reserve::Refused(None)) };
        Ok(match device.decide(attempt) {
            Decision::Provision => {
                if !device.is_reserved_by(attempt.id) {
                    device.reserve(attempt);
                }
                Reserve::Held(device.clone())
            }
            _ => Reserve::Refused(Some(device.clone())),
        })
    }

    async fn commit(
        &self,
        attempt: &Attempt,
        credential: &Credential,
    ) -> Result<Result<(), ReservationLost>, RegistryError> {
        Ok(match self.devices().get_mut(&attempt.device) {
            Some(device) => device.commit(attempt.id, credential.clone(), attempt.now),
            None => Err(ReservationLost { to_same_key: false }),
        })
    }

    async fn release(&self, attempt: &Attempt, left: &Leftover) -> Result<(), RegistryError> {
        if let Some(device) = self.devices().get_mut(&attempt.device) {
            device.release(attempt.id, left.clone(), attempt.now);
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
        let mut devices = self.devices();
        match devices.get_mut(&device.id) {
            Some(there) if there.version == version && there.generation == device.generation => {
                *there = device.clone();
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn delete(&self, id: &DeviceId, version: u64) -> Result<bool, RegistryError> {
        let mut devices = self.devices();
        let there = devices.get(id).is_some_and(|device| device.version == version);
        Ok(there && devices.remove(id).is_some())
    }
}
