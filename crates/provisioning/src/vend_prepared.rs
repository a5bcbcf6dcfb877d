//! The vend's first step with a CA of our own, on a platform that takes its certificates as they are.
//!
//! A certificate is signed for a device that would be let in, and the reservation has it before the platform does. So
//! whoever comes after an attempt that died knows what that one can have left, and the same key goes on with it.

use std::collections::BTreeMap;

use crate::{
    Attempt, Audit, Changes as _, Credential, Csr, Device, DeviceStore, Leftover, Platform, PlatformError, Remains,
    Reserve, Resources, Vend, VendError,
};

impl<R: DeviceStore, P: Platform, A: Audit> Vend<R, P, A> {
    /// Signs what the reservation is to record: nothing where there is something to go on with. Call it only for an attempt that
    /// would be let in, so that strangers cost no signature.
    pub(crate) async fn prepare_for(
        &self,
        device: &Device,
        attempt: &Attempt,
        csr: &Csr,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Option<Credential>, VendError> {
        let resources = self.templates.evaluate(device, parameters).map_err(VendError::Parameters)?;
        let is_left = device.reservation.as_ref().is_some_and(|held| held.left.is_some());
        if is_left || device.keeps(attempt, &resources).is_some() {
            return Ok(None);
        }
        Ok(Some(self.prepare(csr, attempt, &resources).await?))
    }

    /// Signs a certificate in the place of one of another key that the reservation had instead, and that is gone by now.
    /// The right to the device is given up and taken again, with this one in the same write.
    pub(crate) async fn prepare_again(
        &self,
        device: &Device,
        csr: &Csr,
        attempt: &Attempt,
        resources: &Resources,
    ) -> Result<Credential, VendError> {
        let credential = self.prepare(csr, attempt, resources).await?;
        let left = Leftover::Known(Some(credential.clone()));
        self.registry.release(device, attempt, &left, Remains::Unsettled).await?;
        match self.registry.reserve(attempt).await? {
            Reserve::Held(_) => Ok(credential),
            Reserve::KeyInUse { .. } | Reserve::Refused(_) => {
                Err(VendError::InProgress { until: attempt.lease_ends() })
            }
        }
    }

    /// Signs a certificate, and looks at it before anything is done with it.
    async fn prepare(&self, csr: &Csr, attempt: &Attempt, resources: &Resources) -> Result<Credential, PlatformError> {
        let prepared = self.platform.prepare(csr, &resources.thing.name).await?;
        let linted = prepared.certificate.lint(csr.key().fingerprint());
        linted.map_err(|defect| PlatformError::Defective { source: defect.into() })?;
        Ok(Credential::new(&prepared, attempt, resources))
    }
}
