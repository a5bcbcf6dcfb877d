//! The path of a device: one transaction for each step.

use cvm_provisioning::{
    Attempt, Beside, Credential, Decision, DeviceId, Leftover, Origin, Refusal, RegistryError, Remains,
    ReservationLost, Reservations, Reserve,
};

use crate::{SqlRegistry, devices};

impl Reservations for SqlRegistry {
    async fn reserve(&self, attempt: &Attempt) -> Result<Reserve, RegistryError> {
        let attempt = attempt.clone();
        self.write(move |connection| {
            let Some(mut device) = devices::lock(connection, &attempt.device)? else {
                return Ok(Reserve::Refused(None));
            };
            if !matches!(device.decide(&attempt), Decision::Provision) {
                return Ok(Reserve::Refused(Some(device)));
            }
            let before = device.clone();
            device.reserve(&attempt);
            devices::update(connection, before, &device, &attempt.origin)?;
            Ok(Reserve::Held(device))
        })
        .await
    }

    async fn commit(
        &self,
        attempt: &Attempt,
        credential: &Credential,
        beside: &Beside,
    ) -> Result<Result<(), ReservationLost>, RegistryError> {
        let (attempt, credential, beside) = (attempt.clone(), credential.clone(), beside.clone());
        self.write(move |connection| {
            let Some(mut device) = devices::lock(connection, &attempt.device)? else {
                return Ok(Err(ReservationLost { to_same_key: false }));
            };
            let before = device.clone();
            let committed = device.commit(attempt.id, credential.clone(), beside.clone(), attempt.now);
            devices::update(connection, before, &device, &attempt.origin)?;
            Ok(committed)
        })
        .await
    }

    async fn release(&self, attempt: &Attempt, left: &Leftover, remains: Remains) -> Result<(), RegistryError> {
        let (attempt, left) = (attempt.clone(), left.clone());
        self.write(move |connection| {
            let Some(mut device) = devices::lock(connection, &attempt.device)? else { return Ok(()) };
            let before = device.clone();
            device.release(attempt.id, left.clone(), remains, attempt.now);
            devices::update(connection, before, &device, &attempt.origin)
        })
        .await
    }

    async fn refuse(&self, device: &DeviceId, refusal: &Refusal, by: &Origin) -> Result<(), RegistryError> {
        let (id, refusal, by) = (device.clone(), refusal.clone(), by.clone());
        self.write(move |connection| {
            let Some(mut device) = devices::lock(connection, &id)? else { return Ok(()) };
            let before = device.clone();
            device.refuse(&refusal);
            devices::update(connection, before, &device, &by)
        })
        .await
    }
}
