//! The first connection: what makes a reservation final, and a certificate used.
//!
//! The doors that reserve for a certificate made elsewhere never hear whether the device got it. A connection is the one
//! sign that it did: whoever holds the private key is in. The first certificate to connect wins the device; what other
//! attempts left in power is taken out of it.

use crate::enforce::keep_out;
use crate::superseded::Succeed;
use crate::{
    Audit, AuditRecord, CertificateId, CertificateIndex, Certificates, Changes as _, Credential, Denial, Departures,
    Device, DeviceId, DeviceStore, Origin, Outcome, Platform, PlatformError, Presence, Presences, Refusal,
    RegisteredCertificate, RegistryError, Standing, State, ThingName, Timestamp,
};

/// The confirmation of devices at their first connection, with what it needs.
#[derive(Debug)]
pub struct Confirm<R, P, A> {
    /// The device registry.
    pub registry: R,
    /// What knows the certificates.
    pub platform: P,
    /// Where decisions are written down.
    pub audit: A,
}

/// The platform's word that somebody connected.
#[derive(Debug)]
pub struct Connection {
    /// The certificate that was shown.
    pub certificate: CertificateId,
    /// The client id.
    pub client_id: String,
    /// Where the event came in.
    pub origin: Origin,
    /// When the connection was made, or ended.
    pub at: Timestamp,
    /// The same in milliseconds since 1970-01-01, by the platform's clock.
    pub order: u64,
}

/// What a connection changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Confirmation {
    /// The certificate is the device's for good now.
    Confirmed,
    /// Another certificate has the device already; this one is out of power, and the device waits for a person.
    Evicted,
    /// Nothing: the certificate is known to be in use, or is none of ours.
    Nothing,
    /// The device is disabled, and its certificate was still in power; it no longer is.
    Suspended,
    /// The certificate is known to be in use now.
    Used,
}

/// A connection that has to be looked at again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfirmError {
    /// Others wrote to the device each time.
    #[error("the device is written to by others at the moment")]
    Contended,
    /// The platform did not do its part.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The registry did not do its part.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl Connection {
    fn presence(&self, connected: bool) -> Presence {
        let Self { certificate, client_id, at, order, .. } = self;
        Presence { connected, since: *at, order: *order, client_id: client_id.clone(), certificate: *certificate }
    }
}

impl<R, P, A> Confirm<R, P, A>
where
    R: CertificateIndex + DeviceStore + Presences,
    P: Certificates + Departures + Platform,
    A: Audit,
{
    /// Lost races before the event is delivered again.
    const TRIES: usize = 4;

    /// Takes note of one connection. A connection with a certificate that is known to be in use is one read, and one
    /// write of the device's presence.
    ///
    /// # Errors
    ///
    /// [`ConfirmError`]; the event is to be delivered again then.
    pub async fn connected(&self, connection: &Connection) -> Result<Confirmation, ConfirmError> {
        let owner = self.registry.device_of(&connection.certificate).await?;
        if let Some(owner) = &owner {
            self.registry.note_presence(&owner.device, &connection.presence(true)).await?;
        }
        let id = match owner {
            Some(owner) if owner.used => return Ok(Confirmation::Nothing),
            Some(owner) => owner.device,
            // A certificate whose reservation was taken over is in no index. Its client id names the thing, and by most
            // templates the thing is the device.
            None => match connection.client_id.parse::<DeviceId>() {
                Ok(id) => id,
                Err(_) => return Ok(Confirmation::Nothing),
            },
        };
        for _ in 0..Self::TRIES {
            let Some(device) = self.registry.find(&id).await? else { return Ok(Confirmation::Nothing) };
            if let Some(confirmation) = Box::pin(self.note(device, connection)).await? {
                return Ok(confirmation);
            }
        }
        Err(ConfirmError::Contended)
    }

    /// Takes note of the end of one connection.
    ///
    /// # Errors
    ///
    /// [`ConfirmError`]; the event is to be delivered again then.
    pub async fn disconnected(&self, connection: &Connection) -> Result<(), ConfirmError> {
        if let Some(owner) = self.registry.device_of(&connection.certificate).await? {
            self.registry.note_presence(&owner.device, &connection.presence(false)).await?;
        }
        Ok(())
    }

    /// Writes down what the connection means for `device`; `None` where somebody else wrote in between.
    async fn note(&self, device: Device, connection: &Connection) -> Result<Option<Confirmation>, ConfirmError> {
        let version = device.version;
        if device.is_kept_out() && (device.has(&connection.certificate) || device.awaits(&connection.certificate)) {
            // It was disabled, or revoked, while its certificate was on the way into power. Whatever the certificate is to the
            // device is settled when it is enabled again.
            for certificate in keep_out(&self.platform, &device).await? {
                let outcome = device.kept_out(&certificate);
                let origin = &connection.origin;
                self.audit.record(&AuditRecord { origin, device: Some(&device.id), key: None, outcome });
            }
            return Ok(Some(Confirmation::Suspended));
        }
        if device.has(&connection.certificate) {
            let mut used = device;
            used.mark_used(connection.at);
            if used.version == version {
                return Ok(Some(Confirmation::Nothing));
            }
            if !self.registry.replace(&used, version, &connection.origin).await? {
                return Ok(None);
            }
            let succession = Succeed { registry: &self.registry, platform: &self.platform, audit: &self.audit };
            succession.end::<ConfirmError>(used, &connection.origin, connection.at).await?;
            return Ok(Some(Confirmation::Used));
        }
        if device.holds(&connection.certificate) {
            // It has not got its new one yet, or not changed over to it.
            return Ok(Some(Confirmation::Nothing));
        }
        if !device.awaits(&connection.certificate) && device.unsettled.is_none() {
            return Ok(Some(Confirmation::Nothing));
        }
        let Some((registered, thing)) = self.in_power(&connection.certificate).await? else {
            return Ok(Some(Confirmation::Nothing));
        };
        if !device.awaits(&connection.certificate) && !device.attempted(&registered) {
            return Ok(Some(Confirmation::Nothing));
        }
        match device.state {
            State::Registered | State::Reserved => {
                let mut confirmed = device;
                let credential = Credential::of(&registered.issued, thing, connection.at);
                confirmed.confirm(Credential { used_at: Some(connection.at), ..credential }, connection.at);
                if !self.registry.replace(&confirmed, version, &connection.origin).await? {
                    return Ok(None);
                }
                self.record(&confirmed, connection);
                self.disarm_rivals(&confirmed).await?;
                Ok(Some(Confirmation::Confirmed))
            }
            State::Provisioned | State::Quarantined | State::Revoked => {
                self.evict(&device, &registered, &thing, connection).await?;
                Ok(Some(Confirmation::Evicted))
            }
        }
    }

    /// The certificate with the thing that it is attached to, where it can do anything.
    async fn in_power(
        &self,
        certificate: &CertificateId,
    ) -> Result<Option<(RegisteredCertificate, ThingName)>, PlatformError> {
        let Some(registered) = self.platform.describe(certificate).await? else { return Ok(None) };
        if registered.standing != Standing::Active {
            return Ok(None);
        }
        let things = self.platform.things_of(&registered.issued.name).await?;
        Ok(things.into_iter().next().map(|thing| (registered, thing)))
    }

    /// Takes what other attempts for this device left out of power.
    async fn disarm_rivals(&self, device: &Device) -> Result<(), PlatformError> {
        let (Some(credential), Some(_)) = (&device.credential, &device.unsettled) else { return Ok(()) };
        for there in self.platform.certificates_of(&credential.thing).await? {
            if *there.issued.certificate.id() != credential.certificate && device.attempted(&there) {
                disarm(&self.platform, &there, &credential.thing).await?;
            }
        }
        Ok(())
    }

    /// A second certificate of an attempt of ours connected: one of the two is a clone's. The first to connect stays.
    async fn evict(
        &self,
        device: &Device,
        rival: &RegisteredCertificate,
        thing: &ThingName,
        connection: &Connection,
    ) -> Result<(), ConfirmError> {
        disarm(&self.platform, rival, thing).await?;
        let key = *rival.issued.certificate.key();
        let kept = device.credential.as_ref();
        let outcome = if kept.is_some_and(|credential| credential.key == key) {
            // The device itself, with a certificate that it has asked twice for.
            Outcome::Removed { certificate: &connection.certificate }
        } else {
            let refusal = Refusal { denial: Denial::Cloned, key, at: connection.at, noted: true };
            self.registry.refuse(&device.id, Some(device), &refusal, &connection.origin).await?;
            Outcome::Quarantined {
                certificate: kept.map(|credential| &credential.certificate),
                provisioned_key: kept.map(|credential| &credential.key),
            }
        };
        let origin = &connection.origin;
        self.audit.record(&AuditRecord { origin, device: Some(&device.id), key: Some(&key), outcome });
        Ok(())
    }

    fn record(&self, device: &Device, connection: &Connection) {
        if let Some(credential) = &device.credential {
            let outcome = Outcome::Confirmed { certificate: &credential.certificate, thing: &credential.thing };
            let (origin, key) = (&connection.origin, Some(&credential.key));
            self.audit.record(&AuditRecord { origin, device: Some(&device.id), key, outcome });
        }
    }
}

/// Takes a certificate out of power. One that was made for an attempt goes for good; a factory certificate is in a
/// device, and could be wanted again.
pub(crate) async fn disarm<P: Certificates + Platform>(
    platform: &P,
    certificate: &RegisteredCertificate,
    thing: &ThingName,
) -> Result<(), PlatformError> {
    match certificate.ca {
        Some(_) => platform.set_standing(certificate.issued.certificate.id(), Standing::Inactive).await,
        None => platform.retire(thing, &certificate.issued.name).await,
    }
}

impl Device {
    /// Whether this is the device's certificate.
    pub fn has(&self, certificate: &CertificateId) -> bool {
        self.credential.as_ref().is_some_and(|credential| credential.certificate == *certificate)
    }

    /// Whether the device is reserved for this certificate.
    pub(crate) fn awaits(&self, certificate: &CertificateId) -> bool {
        self.reservation.as_ref().is_some_and(|reservation| reservation.certificate == Some(*certificate))
    }

    /// Whether an attempt for this device brought the key of this certificate.
    pub(crate) fn attempted(&self, certificate: &RegisteredCertificate) -> bool {
        let key = certificate.issued.certificate.key();
        self.unsettled.as_ref().is_some_and(|unsettled| unsettled.keys.contains(key))
    }
}
