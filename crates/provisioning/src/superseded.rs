use std::time::Duration;

use crate::confirm::disarm;
use crate::{
    Attempt, Audit, AuditRecord, CertificateId, CertificateLedger, Certificates, Change, Changes as _, Credential,
    Device, DeviceStore, Door, KeyFingerprint, LedgerChange, Origin, Outcome, Platform, PlatformError, Put,
    RegistryError, ThingName, Timestamp,
};

/// A certificate that a newer one has taken the place of. It stays in power until the newer one was seen, so that a device
/// which never got that one still has one that works.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Superseded {
    /// The certificate's id on the platform.
    pub certificate: CertificateId,
    /// The platform's own name of it.
    pub certificate_name: String,
    /// The key that it is for.
    pub key: KeyFingerprint,
    /// The thing that it is attached to.
    pub thing: ThingName,
    /// Since when there is a newer one.
    pub since: Timestamp,
}

impl Superseded {
    /// How long it stays in power where the newer one is never seen.
    pub const GRACE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

    fn of(credential: &Credential, since: Timestamp) -> Self {
        let Credential { certificate, certificate_name, key, thing, .. } = credential.clone();
        Self { certificate, certificate_name, key, thing, since }
    }

    /// What the ledger of our own CA is to have of it when it has lost its power.
    pub(crate) const fn revoked(&self, at: Timestamp) -> LedgerChange {
        LedgerChange::Revoke { certificate: self.certificate, at }
    }
}

/// What becomes of a device's certificates when it gets a new one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Succession {
    /// Those that stay in power for now, the oldest first.
    pub(crate) kept: Vec<Superseded>,
    /// Those that go before there is a new one, because the device is known not to need them.
    pub(crate) outdated: Vec<Superseded>,
}

/// Takes superseded certificates out of power, with what that needs.
pub(crate) struct Succeed<'a, R, P, A> {
    pub(crate) registry: &'a R,
    pub(crate) platform: &'a P,
    pub(crate) audit: &'a A,
}

impl<R, P, A> Succeed<'_, R, P, A>
where
    R: DeviceStore,
    P: Certificates + Platform,
    A: Audit,
{
    /// Takes what `device` had before its newest certificate out of power. Where somebody writes to the device at the same
    /// time, the registry hears of it later, from whoever does this again.
    pub(crate) async fn end<E>(&self, mut device: Device, origin: &Origin, now: Timestamp) -> Result<(), E>
    where
        E: From<PlatformError> + From<RegistryError>,
    {
        if device.superseded.is_empty() {
            return Ok(());
        }
        for superseded in &device.superseded {
            if let Some(there) = self.platform.describe(&superseded.certificate).await? {
                disarm(self.platform, &there, &superseded.thing).await?;
                let outcome = Outcome::Removed { certificate: &superseded.certificate };
                self.audit.record(&AuditRecord { origin, device: Some(&device.id), key: None, outcome });
            }
        }
        let version = device.version;
        device.end_succession(now);
        self.registry.replace(&device, version, origin).await?;
        Ok(())
    }
}

/// Takes superseded certificates of our own CA out of power whose time is over at `now`, those of at most `limit` devices, and
/// says how many devices that were. A device that changes at the same time is left to the next time.
///
/// # Errors
///
/// [`RegistryError`].
pub async fn end_successions<R: CertificateLedger + DeviceStore>(
    registry: &R,
    now: Timestamp,
    limit: u16,
) -> Result<usize, RegistryError> {
    let by = Origin::new(Door::Succession, String::new());
    let mut ended = 0;
    for id in registry.successions_due(now, limit).await? {
        let Some(before) = registry.find(&id).await? else { continue };
        if before.succession_ends().is_none_or(|end| now < end) {
            continue;
        }
        let mut after = before.clone();
        let superseded = after.end_succession(now);
        let mut change = Change::replace(&before, after, &by);
        change.ledger.extend(superseded.iter().map(|superseded| superseded.revoked(now)));
        ended += usize::from(registry.put(&change).await? == Put::Done);
    }
    Ok(ended)
}

impl Device {
    /// The most certificates that stay in power beside the newest one. Each of them is a renewal whose answer was lost.
    pub const MAX_SUPERSEDED: usize = 3;

    /// What becomes of the certificates that it has when `attempt` gets it a new one.
    pub(crate) fn succession(&self, attempt: &Attempt) -> Succession {
        let shown = attempt.proof.shown.map(|shown| shown.id);
        let Some(credential) = &self.credential else {
            return Succession { kept: self.superseded.clone(), outdated: Vec::new() };
        };
        let own = Superseded::of(credential, attempt.now);
        if credential.may_be_reissued(&attempt.proof, attempt.now) {
            // Its key was made here, and the device says that it never got it.
            return Succession { kept: self.superseded.clone(), outdated: vec![own] };
        }
        if shown == Some(own.certificate) {
            return Succession { kept: vec![own], outdated: self.superseded.clone() };
        }
        let mut kept = self.superseded.clone();
        kept.push(own);
        let mut outdated = Vec::new();
        while kept.len() > Self::MAX_SUPERSEDED {
            let oldest = kept.iter().position(|superseded| Some(superseded.certificate) != shown).unwrap_or(0);
            outdated.push(kept.remove(oldest));
        }
        Succession { kept, outdated }
    }

    /// When those that were superseded are to lose their power: the newest certificate is in use, or they had time enough.
    /// `None` where there are none.
    pub fn succession_ends(&self) -> Option<Timestamp> {
        let newest = self.superseded.iter().map(|superseded| superseded.since).max()?;
        let used = self.credential.as_ref().and_then(|credential| credential.used_at);
        Some(used.unwrap_or_else(|| newest.after(Superseded::GRACE)))
    }

    /// Lets the superseded certificates go, and returns them.
    pub fn end_succession(&mut self, now: Timestamp) -> Vec<Superseded> {
        self.touch(now);
        std::mem::take(&mut self.superseded)
    }

    /// Whether this certificate is the device's: the newest one, or one that still counts beside it.
    pub(crate) fn holds(&self, certificate: &CertificateId) -> bool {
        self.has(certificate) || self.superseded.iter().any(|superseded| superseded.certificate == *certificate)
    }
}
