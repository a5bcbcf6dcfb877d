//! The platform that is our own CA: any broker that trusts its certificates and reads its revocation lists.

use cvm_provisioning::{
    Certificate, CertificateAuthority, CertificateId, CertificateLedger, Certificates, Csr, Departures, DeviceId,
    IssuedCertificate, KeyFingerprint, LedgerEntry, Platform, PlatformError, PolicyName, RegisteredCertificate,
    RegistryError, Standing, Thing, ThingGroupName, ThingName, ThingPrincipalType, Timestamp,
};

use crate::{Profile, SharedAuthorities, Signer};

const ISSUE: &str = "issue a certificate";

/// Our own CA as a platform. Clones share it.
///
/// A certificate is in the ledger before anybody gets it, and leaves its power by standing in a revocation list. There
/// are no things, policies and groups: what a device may do is its broker's to say, by the name in its certificate.
#[derive(Debug)]
pub struct OwnPlatform<S, L> {
    authorities: SharedAuthorities<S>,
    profile: Profile,
    ledger: L,
    clock: fn() -> Timestamp,
}

impl<S, L: Clone> Clone for OwnPlatform<S, L> {
    fn clone(&self) -> Self {
        let authorities = self.authorities.clone();
        Self { authorities, profile: self.profile.clone(), ledger: self.ledger.clone(), clock: self.clock }
    }
}

impl<S, L> OwnPlatform<S, L> {
    /// The platform whose certificates these CAs issue by this profile, and which remembers them in this ledger.
    pub fn new(authorities: SharedAuthorities<S>, profile: Profile, ledger: L, clock: fn() -> Timestamp) -> Self {
        Self { authorities, profile, ledger, clock }
    }
}

impl<S: Signer, L: Send + Sync> CertificateAuthority for OwnPlatform<S, L> {
    async fn certify(&self, csr: &Csr, thing: &ThingName) -> Result<(IssuedCertificate, LedgerEntry), PlatformError> {
        let refused = |source| PlatformError::Refused { action: ISSUE, source };
        let id: DeviceId = thing.as_str().parse().map_err(|error| refused(Box::new(error)))?;
        let now = (self.clock)();
        let issued = self.authorities.load().issue(&self.profile, &id, csr.key(), now).await;
        let issued = issued.map_err(|error| match error.is_for_now() {
            true => PlatformError::Unavailable { action: ISSUE, source: error.into() },
            false => refused(error.into()),
        })?;
        let certificate = issued.certificate().clone();
        let entry = LedgerEntry {
            id: *certificate.id(),
            issuer: issued.issuer().to_string(),
            serial: issued.serial_number().to_string(),
            pem: certificate.pem().to_owned(),
            thing: thing.clone(),
            not_after: certificate.not_after().into(),
            standing: Standing::Active,
            since: now,
        };
        Ok((IssuedCertificate { name: certificate.id().to_string(), certificate }, entry))
    }

    fn has_key(&self, key: &KeyFingerprint) -> bool {
        self.authorities.load().iter().any(|authority| authority.has_key(key))
    }
}

impl<S: Signer, L: CertificateLedger> Platform for OwnPlatform<S, L> {
    async fn issue(&self, csr: &Csr, thing: &ThingName) -> Result<IssuedCertificate, PlatformError> {
        let (issued, entry) = self.certify(csr, thing).await?;
        self.ledger.enter(&entry).await.map_err(unavailable(ISSUE))?;
        Ok(issued)
    }

    fn has_key(&self, key: &KeyFingerprint) -> bool {
        CertificateAuthority::has_key(self, key)
    }

    async fn ensure_thing(&self, _: &Thing) -> Result<(), PlatformError> {
        Ok(())
    }

    async fn attach_thing(&self, _: &ThingName, _: &str, _: ThingPrincipalType) -> Result<(), PlatformError> {
        Ok(())
    }

    async fn attach_policy(&self, _: &PolicyName, _: &str) -> Result<(), PlatformError> {
        Ok(())
    }

    async fn join_group(&self, _: &ThingName, _: &ThingGroupName) -> Result<(), PlatformError> {
        Ok(())
    }

    async fn certificates_of(&self, thing: &ThingName) -> Result<Vec<RegisteredCertificate>, PlatformError> {
        let entries = self.ledger.entries_of(thing).await.map_err(unavailable("look for certificates"))?;
        entries.iter().filter(|entry| entry.standing == Standing::Active).map(registered).collect()
    }

    async fn retire(&self, _: &ThingName, certificate_name: &str) -> Result<(), PlatformError> {
        let Ok(id) = certificate_name.parse() else { return Ok(()) };
        let now = (self.clock)();
        self.ledger.set_standing(&id, Standing::Revoked, now).await.map_err(unavailable("revoke a certificate"))
    }
}

impl<S: Signer, L: CertificateLedger> Certificates for OwnPlatform<S, L> {
    async fn describe(&self, certificate: &CertificateId) -> Result<Option<RegisteredCertificate>, PlatformError> {
        let entry = self.ledger.entry(certificate).await.map_err(unavailable("look for a certificate"))?;
        entry.as_ref().map(registered).transpose()
    }

    async fn set_standing(&self, certificate: &CertificateId, standing: Standing) -> Result<(), PlatformError> {
        let now = (self.clock)();
        let set = self.ledger.set_standing(certificate, standing, now).await;
        set.map_err(unavailable("change what a certificate may do"))
    }

    async fn things_of(&self, certificate_name: &str) -> Result<Vec<ThingName>, PlatformError> {
        let Ok(id) = certificate_name.parse() else { return Ok(Vec::new()) };
        let entry = self.ledger.entry(&id).await.map_err(unavailable("look for a certificate"))?;
        Ok(entry.into_iter().map(|entry| entry.thing).collect())
    }
}

impl<S: Signer, L: CertificateLedger> Departures for OwnPlatform<S, L> {
    /// The broker is somebody else's: it looks at the revocation list when the device connects again.
    async fn disconnect(&self, _: &str) -> Result<(), PlatformError> {
        Ok(())
    }

    async fn remove_thing(&self, _: &ThingName) -> Result<bool, PlatformError> {
        Ok(true)
    }
}

fn registered(entry: &LedgerEntry) -> Result<RegisteredCertificate, PlatformError> {
    let certificate =
        Certificate::parse(&entry.pem).map_err(|source| PlatformError::Defective { source: source.into() })?;
    let issued = IssuedCertificate { name: entry.id.to_string(), certificate };
    Ok(RegisteredCertificate { issued, ca: None, standing: entry.standing })
}

fn unavailable(action: &'static str) -> impl FnOnce(RegistryError) -> PlatformError {
    move |error| match error {
        RegistryError::Throttled { source } => PlatformError::Throttled { action, source },
        error => PlatformError::Unavailable { action, source: error.into() },
    }
}
