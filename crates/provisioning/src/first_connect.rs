//! Just-in-time registration: a device with a factory certificate connects for the first time, and the platform, which
//! has verified the certificate against a CA of ours, asks what to do with it.
//!
//! Six calls in five steps; an event for a certificate that is in already is the first call alone:
//!
//! ```text
//! 1 describe                      the event has no certificate in it
//! 2 reserve                       the right CA or certificate, the right state: the device is this certificate's
//! 3 ensure thing || attach policy
//! 4 attach thing
//! 5 activate                      the one act that gives power, so it comes last
//! ```
//!
//! **Nothing has to be given back.** Every event for one certificate is one attempt, so an event that is delivered twice
//! or after a crash goes on where the first one stopped. The reservation becomes final when the device connects
//! ([`Confirm`](crate::Confirm)), or when the reconciler finds the certificate in place.
//!
//! **Why a clone cannot wait for the lease to run out.** Whoever takes over a reservation looks at the thing first. An
//! active certificate there, for another key that was reserved before, is in a device: it stays, and the newcomer is the
//! clone.

use std::collections::BTreeMap;
use std::error::Error;

use futures_util::future::{join, join_all};

use crate::vend::decide;
use crate::{
    Attempt, AttemptId, Audit, AuditRecord, CertificateDefect, CertificateId, Certificates, Changes as _, Credential,
    Decision, Denial, Device, DeviceNaming, DeviceStore, GroupCredential, Origin, Outcome, ParametersError, Platform,
    PlatformError, Proof, Refusal, RefusedKeys, RegisteredCertificate, RegistryError, Reserve, Resources, Standing,
    Templates, Timestamp, Unnamed,
};

/// Just-in-time registration, with what it needs.
#[derive(Debug)]
pub struct FirstConnect<R, P, A> {
    /// The device registry.
    pub registry: R,
    /// Where things are made and certificates activated.
    pub platform: P,
    /// Where decisions are written down.
    pub audit: A,
    /// What devices become.
    pub templates: Templates,
    /// Keys that no device may have.
    pub refused_keys: RefusedKeys,
    /// How a certificate names its device.
    pub naming: DeviceNaming,
    /// What becomes of a certificate that is refused.
    pub refused_certificates: RefusedCertificates,
}

/// What becomes of a certificate that is refused for what it is. One that merely came too early, or whose device is
/// disabled, is left as it is whatever is said here.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum RefusedCertificates {
    /// It stays pending: powerless, and asked about again at its next connection.
    #[default]
    Leave,
    /// It is set inactive: powerless, and not asked about again until an operator deletes it.
    Deactivate,
    /// It is revoked.
    Revoke,
}

/// The platform's word that a certificate was registered at a first connection.
#[derive(Debug)]
pub struct Registration {
    /// The certificate.
    pub certificate: CertificateId,
    /// The CA that issued it, as the event has it.
    pub ca: CertificateId,
    /// Where the event came in.
    pub origin: Origin,
    /// When it came in.
    pub now: Timestamp,
}

/// What became of a registration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admission {
    /// The certificate has power now.
    Admitted,
    /// The event is old news.
    Ignored,
    /// The certificate stays without power.
    Refused,
}

/// A registration that has to be tried again; trying again goes on where this try stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FirstConnectError {
    /// Another certificate holds the device at the moment.
    #[error("another attempt for this device is under way")]
    InProgress {
        /// When it is over at the latest.
        until: Timestamp,
    },
    /// The parameters of the registry item do not fit its template.
    #[error("the device's parameters do not fit its provisioning template")]
    Parameters(#[source] ParametersError),
    /// The platform did not do its part.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The registry did not do its part.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl FirstConnectError {
    /// The stable word for it in audit records.
    fn code(&self) -> &'static str {
        match self {
            Self::InProgress { .. } => "interrupted",
            Self::Parameters(_) => "parameters",
            Self::Platform(PlatformError::Throttled { .. }) => "platform-throttled",
            Self::Platform(_) => "platform",
            Self::Registry(RegistryError::Throttled { .. }) => "registry-throttled",
            Self::Registry(_) => "registry",
        }
    }
}

/// Why a certificate cannot even be asked about at the registry.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
enum Unacceptable {
    #[error("the event names another CA than the platform")]
    Ca,
    #[error("the certificate has expired")]
    Expired,
    #[error("the certificate is no device's")]
    Defect(#[source] CertificateDefect),
    #[error("the key must not be used by a device")]
    Key,
    #[error("the certificate does not name its device")]
    Unnamed(#[source] Unnamed),
}

impl Unacceptable {
    const fn code(&self) -> &'static str {
        match self {
            Self::Ca => "other-ca",
            Self::Defect(_) => "certificate-defect",
            Self::Expired => "certificate-expired",
            Self::Key => "key-refused",
            Self::Unnamed(_) => "unnamed-device",
        }
    }

    const fn advice(&self) -> &'static str {
        match self {
            Self::Ca => "find out who sends events that are not the platform's",
            Self::Defect(_) => "have the factory issue a device certificate, not a CA's",
            Self::Expired => "have the factory issue a new certificate for the device",
            Self::Key => "the device needs a new key and a new certificate",
            Self::Unnamed(_) => "compare the certificate's subject with DEVICE_ID_FROM and DEVICE_ID_PATTERN",
        }
    }
}

impl<R, P, A> FirstConnect<R, P, A>
where
    R: DeviceStore,
    P: Platform + Certificates,
    A: Audit,
{
    /// Decides about one registration, and does what the decision asks for.
    ///
    /// # Errors
    ///
    /// [`FirstConnectError`]; the event is to be delivered again then.
    pub async fn admit(&self, registration: Registration) -> Result<Admission, FirstConnectError> {
        let Registration { certificate, ca, origin, now } = &registration;
        let describe = self.platform.describe(certificate).await;
        let registered = match describe.map_err(|error| self.failed(origin, None, error.into()))? {
            Some(registered) if registered.standing == Standing::Pending => registered,
            there => {
                let reason = if there.is_none() { "certificate-gone" } else { "certificate-not-pending" };
                self.record(origin, None, Outcome::Ignored { reason, certificate });
                return Ok(Admission::Ignored);
            }
        };
        let attempt = match self.attempt(&registered, *ca, origin, *now) {
            Ok(attempt) => attempt,
            Err(unacceptable) => {
                self.turn_away(certificate, &unacceptable, origin);
                return match unacceptable {
                    // Whoever sent this is not the platform, and must not have a certificate taken away.
                    Unacceptable::Ca => Ok(Admission::Refused),
                    _ => self.reject(certificate).await,
                };
            }
        };
        match self.admit_device(&registered, &attempt, origin).await {
            Err(error @ FirstConnectError::InProgress { .. }) => {
                self.record(origin, Some(&attempt), Outcome::Waited);
                Err(error)
            }
            Err(error) => Err(self.failed(origin, Some(&attempt), error)),
            decided => decided,
        }
    }

    /// What the certificate asks for, checked as far as it can be without the registry.
    fn attempt(
        &self,
        registered: &RegisteredCertificate,
        ca: CertificateId,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<Attempt, Unacceptable> {
        let certificate = &registered.issued.certificate;
        if registered.ca != Some(ca) {
            return Err(Unacceptable::Ca);
        }
        certificate.lint(certificate.key()).map_err(Unacceptable::Defect)?;
        if Timestamp::from(certificate.not_after()) < now {
            return Err(Unacceptable::Expired);
        }
        if self.refused_keys.contains(certificate.key()) || self.platform.has_key(certificate.key()) {
            return Err(Unacceptable::Key);
        }
        let device = self.naming.device(certificate).map_err(Unacceptable::Unnamed)?;
        let proof = Proof::of_certificate(*certificate.id(), *certificate.key(), GroupCredential::Ca(ca));
        Ok(Attempt { id: AttemptId::of(certificate.id()), device, proof, origin: origin.clone(), now, prepared: None })
    }

    async fn admit_device(
        &self,
        registered: &RegisteredCertificate,
        attempt: &Attempt,
        origin: &Origin,
    ) -> Result<Admission, FirstConnectError> {
        let certificate = registered.issued.certificate.id();
        let (held, taken_over) = match self.registry.reserve(attempt).await? {
            Reserve::Held(device) => {
                let attempts = device.reservation.as_ref().map_or(0, |reservation| reservation.attempts);
                (device, attempts > 1)
            }
            Reserve::KeyInUse { owner, device } => {
                tracing::warn!(device = %attempt.device, %owner, key = %attempt.proof.key, "the key is another device's");
                let denial = Denial::KeyInUse;
                self.record(origin, Some(attempt), Outcome::Refused { reason: denial.code(), advice: denial.advice() });
                return self.refuse(denial, Some(&device), attempt).await;
            }
            Reserve::Refused(found) => match (decide(found.as_ref(), attempt), found) {
                // The registry has it already, and the platform not yet: what is missing is done now.
                (Decision::Replay(_), Some(device)) => (device, false),
                (Decision::Wait { until }, _) => return Err(FirstConnectError::InProgress { until }),
                (Decision::Deny(denial), found) => {
                    let outcome = Outcome::Refused { reason: denial.code(), advice: denial.advice() };
                    self.record(origin, Some(attempt), outcome);
                    return self.refuse(denial, found.as_ref(), attempt).await;
                }
                (Decision::Quarantine, found) => return self.quarantine(found.as_ref(), attempt, origin).await,
                // The store refused what the decision allows: it saw a change that has been undone since.
                (Decision::Provision | Decision::Replay(_), _) => {
                    return Err(FirstConnectError::InProgress { until: attempt.now });
                }
            },
        };
        let resources = self.templates.evaluate(&held, &BTreeMap::new()).map_err(FirstConnectError::Parameters)?;
        if taken_over && let Some(credential) = self.rival(&held, attempt, &resources).await? {
            let device = self.restore(held, credential, attempt).await?;
            return self.quarantine(Some(&device), attempt, origin).await;
        }
        self.empower(registered, &resources).await?;
        let thing = &resources.thing.name;
        self.record(origin, Some(attempt), Outcome::Provisioned { certificate, thing });
        Ok(Admission::Admitted)
    }

    /// Steps 3 to 5; each of them again is the same as once.
    async fn empower(
        &self,
        registered: &RegisteredCertificate,
        resources: &Resources,
    ) -> Result<(), FirstConnectError> {
        let (name, thing) = (&registered.issued.name, &resources.thing);
        let policies = join_all(resources.policy_names().map(|policy| self.platform.attach_policy(policy, name)));
        let (made, policies) = join(self.platform.ensure_thing(thing), policies).await;
        made?;
        policies.into_iter().collect::<Result<(), _>>()?;
        let attach = self.platform.attach_thing(&thing.name, name, resources.certificate.principal_type);
        let groups = join_all(thing.groups.iter().map(|group| self.platform.join_group(&thing.name, group)));
        let (attached, groups) = join(attach, groups).await;
        attached?;
        groups.into_iter().collect::<Result<(), _>>()?;
        self.platform.set_standing(registered.issued.certificate.id(), Standing::Active).await?;
        Ok(())
    }

    /// The certificate that an earlier attempt for another key has got into power without anybody having seen it yet.
    async fn rival(
        &self,
        device: &Device,
        attempt: &Attempt,
        resources: &Resources,
    ) -> Result<Option<Credential>, PlatformError> {
        let there = self.platform.certificates_of(&resources.thing.name).await?;
        let reserved = |key| device.unsettled.as_ref().is_some_and(|unsettled| unsettled.keys.contains(key));
        let rival = there.iter().find(|registered| {
            let key = registered.issued.certificate.key();
            *key != attempt.proof.key && reserved(key)
        });
        Ok(rival.map(|rival| Credential::of(&rival.issued, resources.thing.name.clone(), attempt.now)))
    }

    /// Gives a device back to the certificate that it had before `attempt` took it over.
    async fn restore(
        &self,
        mut device: Device,
        credential: Credential,
        attempt: &Attempt,
    ) -> Result<Device, FirstConnectError> {
        let version = device.version;
        device.confirm(credential, attempt.now);
        if self.registry.replace(&device, version, &attempt.origin).await? {
            return Ok(device);
        }
        Err(FirstConnectError::InProgress { until: attempt.now })
    }

    /// Sets the device aside for a person; the certificate that it has stays as it is.
    async fn quarantine(
        &self,
        device: Option<&Device>,
        attempt: &Attempt,
        origin: &Origin,
    ) -> Result<Admission, FirstConnectError> {
        let kept = device.and_then(|device| device.credential.as_ref());
        let outcome = Outcome::Quarantined {
            certificate: kept.map(|credential| &credential.certificate),
            provisioned_key: kept.map(|credential| &credential.key),
        };
        self.record(origin, Some(attempt), outcome);
        self.refuse(Denial::Cloned, device, attempt).await
    }

    /// Writes a refusal down, and takes the certificate out of the way where that was asked for.
    async fn refuse(
        &self,
        denial: Denial,
        found: Option<&Device>,
        attempt: &Attempt,
    ) -> Result<Admission, FirstConnectError> {
        let refusal = Refusal::new(denial, found, attempt);
        self.registry.refuse(&attempt.device, found, &refusal, &attempt.origin).await?;
        match (denial, &attempt.proof.certificate) {
            (Denial::Cloned | Denial::Revoked | Denial::Unknown | Denial::WrongProof, Some(certificate)) => {
                self.reject(certificate).await
            }
            // It may be let in another time.
            _ => Ok(Admission::Refused),
        }
    }

    async fn reject(&self, certificate: &CertificateId) -> Result<Admission, FirstConnectError> {
        let standing = match self.refused_certificates {
            RefusedCertificates::Leave => return Ok(Admission::Refused),
            RefusedCertificates::Deactivate => Standing::Inactive,
            RefusedCertificates::Revoke => Standing::Revoked,
        };
        self.platform.set_standing(certificate, standing).await?;
        Ok(Admission::Refused)
    }

    fn turn_away(&self, certificate: &CertificateId, unacceptable: &Unacceptable, origin: &Origin) {
        let error: &dyn Error = unacceptable;
        tracing::info!(%certificate, error, "a certificate was not acceptable");
        let (reason, advice) = (unacceptable.code(), unacceptable.advice());
        self.record(origin, None, Outcome::Refused { reason, advice });
    }

    fn failed(&self, origin: &Origin, attempt: Option<&Attempt>, error: FirstConnectError) -> FirstConnectError {
        self.record(origin, attempt, Outcome::Failed { reason: error.code() });
        error
    }

    fn record(&self, origin: &Origin, attempt: Option<&Attempt>, outcome: Outcome<'_>) {
        let device = attempt.map(|attempt| &attempt.device);
        self.audit.record(&AuditRecord { origin, device, key: attempt.map(|attempt| &attempt.proof.key), outcome });
    }
}
