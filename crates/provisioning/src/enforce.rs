//! What an operator decided about a device, done at the platform: a device that is disabled or revoked has no certificate in
//! power and no connection, one that is enabled has its certificate back, and of one that was deleted nothing is left.
//!
//! Each of them looks at what the registry says *now* and not at what changed, so that again is the same as once, and
//! looks again when it is done, so that of two that run at the same time the last one is right.

use std::collections::BTreeSet;

use crate::{
    Audit, AuditRecord, CertificateId, Certificates, Departures, Device, DeviceId, DeviceStore, GenerationId, Origin,
    Outcome, Platform, PlatformError, Presences, RegistryError, Standing, State, Tombstone, Tombstones,
};

/// The enforcement, with what it needs.
#[derive(Debug)]
pub struct Enforce<'a, R, P, A> {
    /// The device registry.
    pub registry: &'a R,
    /// The platform.
    pub platform: &'a P,
    /// Where it is written down.
    pub audit: &'a A,
}

/// Why a decision is not enforced yet; it can be tried again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnforceError {
    /// The device's status changed each time.
    #[error("the device's status is being changed at the moment")]
    Contended,
    /// The platform did not do its part.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The registry did not do its part.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl<R, P, A> Enforce<'_, R, P, A>
where
    R: DeviceStore + Presences + Tombstones,
    P: Certificates + Departures + Platform,
    A: Audit,
{
    /// Changes of the status, while one is enforced, that are waited for.
    const TRIES: usize = 4;

    /// Makes a device's status true at the platform.
    ///
    /// # Errors
    ///
    /// [`EnforceError`]; what was done until then stays done, and it can be tried again.
    pub async fn status(&self, id: &DeviceId, origin: &Origin) -> Result<(), EnforceError> {
        let mut found = self.registry.find(id).await?;
        for _ in 0..Self::TRIES {
            let Some(device) = found else { return Ok(()) };
            if device.is_kept_out() {
                self.keep_out(&device, origin).await?;
            } else {
                self.restore(&device, origin).await?;
            }
            found = self.registry.find(id).await?;
            if found.as_ref().is_none_or(|now| now.has_same_standing(&device)) {
                return Ok(());
            }
        }
        Err(EnforceError::Contended)
    }

    /// Gives a device its certificate back.
    async fn restore(&self, device: &Device, origin: &Origin) -> Result<(), PlatformError> {
        for certificate in device.known_certificates() {
            let there = self.platform.describe(&certificate).await?;
            if there.is_some_and(|there| there.standing == Standing::Inactive) {
                self.platform.set_standing(&certificate, Standing::Active).await?;
                self.record(origin, &device.id, Outcome::Restored { certificate: &certificate });
            }
        }
        Ok(())
    }

    /// Takes all certificates of a device out of power, and ends its connection.
    async fn keep_out(&self, device: &Device, origin: &Origin) -> Result<(), PlatformError> {
        for certificate in keep_out(self.platform, device).await? {
            self.record(origin, &device.id, device.kept_out(&certificate));
        }
        Ok(())
    }

    /// Removes what the platform has of a deleted device: its certificates, its connection and its thing. The tombstone
    /// goes, too, unless attempts may have left what only the reconciler can find.
    ///
    /// # Errors
    ///
    /// [`EnforceError`]; what was done until then stays done, and it can be tried again.
    pub async fn deletion(&self, id: &DeviceId, generation: GenerationId, origin: &Origin) -> Result<(), EnforceError> {
        let Some(tombstone) = self.registry.tombstone(id, generation).await? else { return Ok(()) };
        self.clear_away(&tombstone, origin).await?;
        let settled = tombstone.device.unsettled.as_ref().is_none_or(|unsettled| unsettled.keys.is_empty());
        if settled && tombstone.device.reservation.is_none() {
            self.registry.forget(id, generation).await?;
        }
        Ok(())
    }

    /// Removes what the platform has of a deleted device, as far as the tombstone knows of it.
    pub(crate) async fn clear_away(&self, tombstone: &Tombstone, origin: &Origin) -> Result<(), EnforceError> {
        let buried = &tombstone.device;
        for certificate in certificates(self.platform, buried).await? {
            // Whoever has the id now may be the same device with the same factory certificate.
            let heir = self.registry.find(&buried.id).await?;
            if heir.is_none_or(|heir| !heir.knows(&certificate)) {
                self.remove_certificate(&certificate, buried, origin).await?;
            }
        }
        let Some(credential) = &buried.credential else { return Ok(()) };
        // As long as somebody has the id, the thing is theirs.
        if self.registry.find(&buried.id).await?.is_none() {
            self.registry.forget_presence(&buried.id).await?;
            self.platform.disconnect(credential.thing.as_str()).await?;
            if self.platform.remove_thing(&credential.thing).await? {
                self.record(origin, &buried.id, Outcome::Departed { thing: &credential.thing });
            }
        }
        Ok(())
    }

    async fn remove_certificate(
        &self,
        certificate: &CertificateId,
        buried: &Device,
        origin: &Origin,
    ) -> Result<(), PlatformError> {
        let Some(there) = self.platform.describe(certificate).await? else { return Ok(()) };
        self.platform.set_standing(certificate, Standing::Inactive).await?;
        let mut things = self.platform.things_of(&there.issued.name).await?;
        if things.is_empty() {
            // The name of a thing that it is not attached to does no harm.
            things.extend(buried.credential.as_ref().map(|credential| credential.thing.clone()));
        }
        for thing in &things {
            self.platform.retire(thing, &there.issued.name).await?;
        }
        self.record(origin, &buried.id, Outcome::Removed { certificate });
        Ok(())
    }

    fn record(&self, origin: &Origin, device: &DeviceId, outcome: Outcome<'_>) {
        self.audit.record(&AuditRecord { origin, device: Some(device), key: None, outcome });
    }
}

impl Device {
    /// Whether nothing has changed that decides what the platform should let in.
    fn has_same_standing(&self, other: &Self) -> bool {
        self.generation == other.generation
            && self.status == other.status
            && (self.state == State::Revoked) == (other.state == State::Revoked)
            && self.known_certificates().eq(other.known_certificates())
    }

    /// Whether the registry knows of this certificate as one of the device's.
    pub(crate) fn knows(&self, certificate: &CertificateId) -> bool {
        self.known_certificates().any(|known| known == *certificate)
    }

    /// What became of a certificate that was taken out of power because the device is kept out.
    pub(crate) fn kept_out<'a>(&self, certificate: &'a CertificateId) -> Outcome<'a> {
        match self.state {
            State::Revoked => Outcome::Revoked { certificate },
            _ => Outcome::Suspended { certificate },
        }
    }

    /// The certificates that the registry knows of.
    fn known_certificates(&self) -> impl Iterator<Item = CertificateId> {
        let own = self.credential.as_ref().map(|credential| credential.certificate);
        let superseded = self.superseded.iter().map(|superseded| superseded.certificate);
        let left = self.reservation.iter().filter_map(|held| held.left.as_ref()).map(|left| left.certificate);
        let awaited = self.reservation.iter().filter_map(|held| held.certificate);
        own.into_iter().chain(superseded).chain(left).chain(awaited)
    }
}

/// Takes all certificates of a device out of power, for good where it is revoked, and ends its connection. Returns those for
/// which that is new.
pub(crate) async fn keep_out<P>(platform: &P, device: &Device) -> Result<Vec<CertificateId>, PlatformError>
where
    P: Certificates + Departures + Platform,
{
    let is_revoked = device.state == State::Revoked;
    let standing = if is_revoked { Standing::Revoked } else { Standing::Inactive };
    let mut kept_out = Vec::new();
    for certificate in certificates(platform, device).await? {
        let Some(there) = platform.describe(&certificate).await? else { continue };
        let is_due = if is_revoked { there.standing != standing } else { there.standing == Standing::Active };
        if is_due {
            platform.set_standing(&certificate, standing).await?;
            kept_out.push(certificate);
        }
    }
    // After the certificate, or the device would be back before it is out.
    if let Some(credential) = &device.credential {
        platform.disconnect(credential.thing.as_str()).await?;
    }
    Ok(kept_out)
}

/// Every certificate of a device that can be found without searching the whole platform.
async fn certificates<P: Platform>(platform: &P, device: &Device) -> Result<BTreeSet<CertificateId>, PlatformError> {
    let mut certificates: BTreeSet<_> = device.known_certificates().collect();
    if let (Some(credential), Some(_)) = (&device.credential, &device.unsettled) {
        let attached = platform.certificates_of(&credential.thing).await?;
        let attempted = attached.iter().filter(|there| device.attempted(there));
        certificates.extend(attempted.map(|there| *there.issued.certificate.id()));
    }
    Ok(certificates)
}
