//! The reconciler: what no device comes back for is brought to an end, and what differs is told.
//!
//! It settles what attempts left behind, and only that: a certificate is touched when an attempt that the registry knows
//! of brought its key. Everything else that looks wrong is reported for a person to look at.
//!
//! Each piece is small, and a run that is cut off is taken up by the next one where it stopped.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::confirm::disarm;
use crate::superseded::Succeed;
use crate::{
    Attempt, AttemptId, Audit, AuditRecord, CertificateId, CertificateIndex, CertificateSummary, Changes as _,
    Credential, Cursors, Departures, Device, DeviceFilter, DeviceId, DeviceStore, Enforce, EnforceError, GenerationId,
    Inventory, Origin, Outcome, Platform, PlatformError, Presences, Proof, RegistryError, Reservation, Standing, State,
    ThingName, Timestamp, Tombstones, Unsettled, UnsettledDevice,
};

/// The reconciler, with what it needs.
#[derive(Debug)]
pub struct Reconcile<R, P, A> {
    /// The device registry.
    pub registry: R,
    /// The platform.
    pub platform: P,
    /// Where decisions are written down.
    pub audit: A,
    /// How much is looked at in one run.
    pub portion: Portion,
}

/// How much one run looks at. The platform's quotas are meant for devices first: 10 certificates described in a second
/// (AWS IoT endpoints and quotas), of which a run of the default size takes no more than a few seconds' worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Portion {
    /// Devices that attempts left something for.
    pub unsettled: u16,
    /// Pages of the platform's certificates, searched for what attempts left.
    pub pages: usize,
    /// Devices, certificates and things each that are compared.
    pub compared: u16,
}

impl Default for Portion {
    fn default() -> Self {
        Self { unsettled: 50, pages: 40, compared: 25 }
    }
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Reconciled {
    /// Reservations that became final.
    pub confirmed: usize,
    /// Reservations that were given up.
    pub released: usize,
    /// Certificates that were removed or put out of power.
    pub removed: usize,
    /// Devices of which nothing is left to settle.
    pub settled: usize,
    /// Differences that a person has to look at.
    pub drift: usize,
}

/// A run came to an early end; the next one goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconcileError {
    /// The platform did not do its part.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The system has no randomness to give.
    #[error("the system has no randomness to give")]
    Randomness,
    /// The registry did not do its part.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A device's status is being changed.
    #[error(transparent)]
    Status(#[from] EnforceError),
}

/// A device whose attempts may have left certificates, at the moment at which nothing moved any more.
struct Leftovers {
    device: Device,
    unsettled: Unsettled,
    /// Whether this is a tombstone's.
    deleted: bool,
}

impl<R, P, A> Reconcile<R, P, A>
where
    R: CertificateIndex + Cursors + DeviceStore + Presences + Tombstones,
    P: Departures + Inventory + Platform,
    A: Audit,
{
    /// How long an attempt, or a certificate, is left alone: a vend may still be under way, and a device may still be
    /// about to connect for the first time.
    pub const GRACE: Duration = Device::REISSUE_WINDOW;
    /// Certificates in a page that is searched: the most that AWS IoT gives at once (AWS IoT API, ListCertificates).
    const PAGE: u16 = 250;

    /// Runs once.
    ///
    /// # Errors
    ///
    /// [`ReconcileError`]; what was done until then stays done.
    pub async fn run(&self, origin: &Origin, now: Timestamp) -> Result<Reconciled, ReconcileError> {
        // Each piece on the heap: together they would be more than a thread's stack has room for in a debug build.
        let mut done = Reconciled::default();
        let mut leftovers = Vec::new();
        for UnsettledDevice { id, deleted } in self.registry.unsettled(self.portion.unsettled).await? {
            let device = match deleted {
                None => Box::pin(self.end_reservation(&id, origin, now, &mut done)).await?,
                Some(generation) => Box::pin(self.end_deletion(&id, generation, origin, now)).await?,
            };
            if let Some(device) = device
                && let Some(unsettled) = device.unsettled.clone()
            {
                leftovers.push(Leftovers { device, unsettled, deleted: deleted.is_some() });
            }
        }
        if Box::pin(self.remove_leftovers(&leftovers, origin, now, &mut done)).await? {
            for Leftovers { mut device, deleted, .. } in leftovers {
                if deleted {
                    self.registry.forget(&device.id, device.generation).await?;
                    done.settled += 1;
                    continue;
                }
                let version = device.version;
                device.unsettled = None;
                device.touch(now);
                done.settled += usize::from(self.registry.replace(&device, version, origin).await?);
            }
        }
        Box::pin(self.compare_devices(origin, now, &mut done)).await?;
        Box::pin(self.compare_certificates(origin, now, &mut done)).await?;
        Box::pin(self.compare_things(origin, &mut done)).await?;
        Ok(done)
    }

    /// Takes the superseded certificates of a device out of power whose time is over, where the registry can say which
    /// devices those are; [`Reconcile::run`] comes to each device in its turn.
    ///
    /// # Errors
    ///
    /// [`ReconcileError`]; it can be done again.
    pub async fn end_succession(&self, id: &DeviceId, origin: &Origin, now: Timestamp) -> Result<(), ReconcileError> {
        let found = self.registry.find(id).await?;
        let Some(device) = found.filter(|device| device.succession_ends().is_some_and(|end| end <= now)) else {
            return Ok(());
        };
        let succession = Succeed { registry: &self.registry, platform: &self.platform, audit: &self.audit };
        succession.end(device, origin, now).await
    }

    /// Brings a reservation that nobody came back for to its end. Returns the device where nothing moves any more.
    async fn end_reservation(
        &self,
        id: &DeviceId,
        origin: &Origin,
        now: Timestamp,
        done: &mut Reconciled,
    ) -> Result<Option<Device>, ReconcileError> {
        let Some(device) = self.registry.find(id).await? else { return Ok(None) };
        let quiet_since = device.reservation.as_ref().map_or(device.updated_at, |held| held.expires_at);
        // A moment far ahead is of a clock that was wrong.
        let is_recent =
            |moment: Timestamp| now < moment.after(Self::GRACE) && now.until(moment) <= Attempt::LONGEST_LEASE;
        if is_recent(quiet_since) || is_recent(device.updated_at) {
            return Ok(None);
        }
        let Some(reservation) = device.reservation.clone() else { return Ok(Some(device)) };
        let disabled = !device.status.enabled;
        match reservation.certificate {
            Some(certificate) => Box::pin(self.conclude(device, &certificate, origin, now, done)).await?,
            None => Box::pin(self.take_back(device, &reservation, origin, now, done)).await?,
        }
        if disabled {
            // An operator disabled it while the certificate was on its way into power.
            Box::pin(self.enforce().status(id, origin)).await?;
        }
        // What was changed just now is left alone for a while, as everything else is.
        Ok(None)
    }

    /// Clears away after a device that was deleted while attempts were under way. Returns what the tombstone has of it
    /// where nothing moves any more.
    async fn end_deletion(
        &self,
        id: &DeviceId,
        generation: GenerationId,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<Option<Device>, ReconcileError> {
        let Some(tombstone) = self.registry.tombstone(id, generation).await? else { return Ok(None) };
        let deleted_at = tombstone.device.updated_at;
        let quiet_since =
            tombstone.device.reservation.as_ref().map_or(deleted_at, |held| held.expires_at.max(deleted_at));
        if now < quiet_since.after(Self::GRACE) {
            return Ok(None);
        }
        self.enforce().clear_away(&tombstone, origin).await?;
        Ok(Some(tombstone.device))
    }

    /// Makes a reservation final where its certificate is in power, and gives it up where it is not.
    async fn conclude(
        &self,
        mut device: Device,
        certificate: &CertificateId,
        origin: &Origin,
        now: Timestamp,
        done: &mut Reconciled,
    ) -> Result<(), ReconcileError> {
        let version = device.version;
        let placed = self.in_place(certificate, &device, now).await?;
        match placed.clone() {
            Some(credential) => device.confirm(credential, now),
            None => device.abandon(now),
        }
        if !self.registry.replace(&device, version, origin).await? {
            return Ok(());
        }
        let outcome = match &placed {
            Some(Credential { certificate, thing, .. }) => {
                done.confirmed += 1;
                Outcome::Confirmed { certificate, thing }
            }
            None => {
                done.released += 1;
                Outcome::Released { reason: "not-provisioned" }
            }
        };
        self.record(origin, Some(&device.id), outcome);
        Ok(())
    }

    /// What the device was given, where the certificate is in power, or was until the device was disabled.
    async fn in_place(
        &self,
        certificate: &CertificateId,
        device: &Device,
        now: Timestamp,
    ) -> Result<Option<Credential>, PlatformError> {
        let Some(registered) = self.platform.describe(certificate).await? else { return Ok(None) };
        let suspended = registered.standing == Standing::Inactive && !device.status.enabled;
        if registered.standing != Standing::Active && !suspended {
            return Ok(None);
        }
        let thing = self.platform.things_of(&registered.issued.name).await?.into_iter().next();
        Ok(thing.map(|thing| Credential::of(&registered.issued, thing, now)))
    }

    /// Ends a vend that died: nobody was given what it made. The device is held meanwhile, as by any other attempt, so
    /// that whoever comes now has to wait until it is gone.
    async fn take_back(
        &self,
        mut device: Device,
        reservation: &Reservation,
        origin: &Origin,
        now: Timestamp,
        done: &mut Reconciled,
    ) -> Result<(), ReconcileError> {
        let attempt = Attempt {
            id: AttemptId::random().map_err(|_| ReconcileError::Randomness)?,
            device: device.id.clone(),
            proof: Proof::of_key(reservation.key, None, false),
            origin: origin.clone(),
            now,
            prepared: None,
        };
        let version = device.version;
        device.reserve(&attempt);
        if !self.registry.replace(&device, version, origin).await? {
            return Ok(());
        }
        if let Some(credential) = device.reservation.as_mut().and_then(|held| held.left.take()) {
            self.platform.retire(&credential.thing, &credential.certificate_name).await?;
            self.record(origin, Some(&device.id), Outcome::Removed { certificate: &credential.certificate });
            done.removed += 1;
        }
        let version = device.version;
        device.abandon(now);
        if self.registry.replace(&device, version, origin).await? {
            done.released += 1;
            self.record(origin, Some(&device.id), Outcome::Released { reason: "abandoned" });
        }
        Ok(())
    }

    /// Searches the platform's certificates, the youngest first, for those that attempts left, and removes them.
    /// Returns whether it got through.
    async fn remove_leftovers(
        &self,
        leftovers: &[Leftovers],
        origin: &Origin,
        now: Timestamp,
        done: &mut Reconciled,
    ) -> Result<bool, ReconcileError> {
        let Some(oldest) = leftovers.iter().map(|leftovers| leftovers.unsettled.since).min() else { return Ok(false) };
        let mut after = None;
        for _ in 0..self.portion.pages {
            let page = self.platform.certificates(after.as_deref(), Self::PAGE).await?;
            for certificate in &page.items {
                if certificate.created_at < oldest {
                    return Ok(true);
                }
                // A pending certificate is the platform's to remove, or waits for its device.
                let settling = now < certificate.created_at.after(Self::GRACE);
                if settling || matches!(certificate.standing, Standing::Pending | Standing::Revoked) {
                    continue;
                }
                if let Some(leftover) = self.leftover(certificate, leftovers).await? {
                    self.remove_leftover(leftover, certificate, origin, done).await?;
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The device for which an attempt brought the key of this certificate, where the certificate is not the device's.
    async fn leftover<'a>(
        &self,
        certificate: &CertificateSummary,
        leftovers: &'a [Leftovers],
    ) -> Result<Option<&'a Leftovers>, ReconcileError> {
        if self.registry.device_of(&certificate.id).await?.is_some() {
            return Ok(None);
        }
        let Some(registered) = self.platform.describe(&certificate.id).await? else { return Ok(None) };
        let owner = leftovers.iter().find(|leftovers| leftovers.device.attempted(&registered));
        Ok(owner)
    }

    async fn remove_leftover(
        &self,
        Leftovers { device, deleted, .. }: &Leftovers,
        certificate: &CertificateSummary,
        origin: &Origin,
        done: &mut Reconciled,
    ) -> Result<(), ReconcileError> {
        let Some(registered) = self.platform.describe(&certificate.id).await? else { return Ok(()) };
        // The index may lag, and the device may have come back since.
        match self.registry.find(&device.id).await? {
            Some(current) if current.knows(&certificate.id) => return Ok(()),
            Some(current) if current.generation == device.generation && current.version != device.version => {
                return Ok(());
            }
            // Whoever has the id now brought this key as well, and settles it.
            Some(current) if current.generation != device.generation && current.attempted(&registered) => {
                return Ok(());
            }
            None if !deleted => return Ok(()),
            _ => {}
        }
        let things = self.platform.things_of(&registered.issued.name).await?;
        if registered.ca.is_some() && registered.standing != Standing::Active {
            return Ok(());
        }
        for thing in &things {
            disarm(&self.platform, &registered, thing).await?;
        }
        if registered.ca.is_none() && things.is_empty() {
            if self.platform.has_policy(&registered.issued.name).await? {
                self.platform.set_standing(&certificate.id, Standing::Inactive).await?;
            } else {
                self.platform.remove(&certificate.id).await?;
            }
        }
        done.removed += 1;
        self.record(origin, Some(&device.id), Outcome::Removed { certificate: &certificate.id });
        Ok(())
    }

    /// Compares the next devices with the platform.
    async fn compare_devices(
        &self,
        origin: &Origin,
        now: Timestamp,
        done: &mut Reconciled,
    ) -> Result<(), ReconcileError> {
        const PLACE: &str = "reconcile-devices";
        let after = self.registry.place(PLACE).await?.and_then(|place| place.parse().ok());
        let page = self.registry.list(&DeviceFilter::default(), after.as_ref(), self.portion.compared).await?;
        let succession = Succeed { registry: &self.registry, platform: &self.platform, audit: &self.audit };
        for device in &page.devices {
            if device.succession_ends().is_some_and(|end| end <= now) {
                done.removed += device.superseded.len();
                Box::pin(succession.end::<ReconcileError>(device.clone(), origin, now)).await?;
                continue;
            }
            let is_settled = matches!(device.state, State::Provisioned | State::Revoked);
            let Some(credential) = device.credential.as_ref().filter(|_| is_settled) else {
                continue;
            };
            if now < device.updated_at.after(Self::GRACE) {
                continue;
            }
            let standing = self.platform.describe(&credential.certificate).await?.map(|there| there.standing);
            if device.state == State::Revoked {
                if standing.is_some_and(|standing| standing != Standing::Revoked) {
                    // Whoever should have done it at once did not get to it.
                    Box::pin(self.enforce().status(&device.id, origin)).await?;
                }
                continue;
            }
            let (reason, advice) = match (standing, device.status.enabled) {
                (None, _) => ("certificate-gone", "`cvm device delete ID`, and add it again if it is to come back"),
                (Some(Standing::Active), false) => {
                    // Whoever should have done it at once did not get to it.
                    Box::pin(self.enforce().status(&device.id, origin)).await?;
                    continue;
                }
                (Some(Standing::Active), true) | (Some(_), false) => continue,
                (Some(_), true) => {
                    ("certificate-not-active", "`cvm device disable ID` and `cvm device enable ID` activate it again")
                }
            };
            done.drift += 1;
            let certificate = Some(&credential.certificate);
            let outcome = Outcome::Drift { reason, advice, certificate, thing: Some(&credential.thing) };
            self.record(origin, Some(&device.id), outcome);
        }
        let next = page.next.as_ref().map(DeviceId::as_str);
        Ok(self.registry.move_to(PLACE, next).await?)
    }

    /// Compares the next certificates with the registry. A certificate that is attached to nothing, as those that claim
    /// are, has nothing to do with a device.
    async fn compare_certificates(
        &self,
        origin: &Origin,
        now: Timestamp,
        done: &mut Reconciled,
    ) -> Result<(), ReconcileError> {
        const PLACE: &str = "reconcile-certificates";
        let after = self.registry.place(PLACE).await?;
        let page = self.platform.certificates(after.as_deref(), self.portion.compared).await?;
        for certificate in &page.items {
            let settling = now < certificate.created_at.after(Self::GRACE);
            if settling
                || certificate.standing != Standing::Active
                || self.registry.device_of(&certificate.id).await?.is_some()
            {
                continue;
            }
            let Some(registered) = self.platform.describe(&certificate.id).await? else { continue };
            if let Some(thing) = self.platform.things_of(&registered.issued.name).await?.first() {
                // One that was superseded is in no index, and in power until its device has the new one.
                if self.device_of_thing(thing).await?.is_some_and(|device| device.knows(&certificate.id)) {
                    continue;
                }
                done.drift += 1;
                let outcome = Outcome::Drift {
                    reason: "certificate-without-device",
                    advice: "find out who made the certificate; deactivate it if nobody did",
                    certificate: Some(&certificate.id),
                    thing: Some(thing),
                };
                self.record(origin, None, outcome);
            }
        }
        Ok(self.registry.move_to(PLACE, page.next.as_deref()).await?)
    }

    /// Compares the next things with the registry.
    async fn compare_things(&self, origin: &Origin, done: &mut Reconciled) -> Result<(), ReconcileError> {
        const PLACE: &str = "reconcile-things";
        let after = self.registry.place(PLACE).await?;
        let page = self.platform.things(after.as_deref(), self.portion.compared).await?;
        for thing in &page.items {
            if self.device_of_thing(thing).await?.is_some() {
                continue;
            }
            done.drift += 1;
            let outcome = Outcome::Drift {
                reason: "thing-without-device",
                advice: "delete the thing, or register its device again with `cvm device add`",
                certificate: None,
                thing: Some(thing),
            };
            self.record(origin, None, outcome);
        }
        Ok(self.registry.move_to(PLACE, page.next.as_deref()).await?)
    }

    /// The device that a thing is of: it is known by the device's own id, or by its certificates.
    async fn device_of_thing(&self, thing: &ThingName) -> Result<Option<Device>, ReconcileError> {
        if let Ok(id) = thing.as_str().parse()
            && let Some(device) = self.registry.find(&id).await?
        {
            return Ok(Some(device));
        }
        let certificates: BTreeSet<_> = self.platform.all_certificates_of(thing).await?.into_iter().collect();
        for certificate in &certificates {
            if let Some(owner) = self.registry.device_of(certificate).await? {
                return Ok(self.registry.find(&owner.device).await?);
            }
        }
        Ok(None)
    }

    const fn enforce(&self) -> Enforce<'_, R, P, A> {
        Enforce { registry: &self.registry, platform: &self.platform, audit: &self.audit }
    }

    fn record(&self, origin: &Origin, device: Option<&DeviceId>, outcome: Outcome<'_>) {
        self.audit.record(&AuditRecord { origin, device, key: None, outcome });
    }
}
