//! The vend: a device asks for its certificate over HTTPS and gets it.
//!
//! Fresh, it is six calls in four steps; a replay is the first call alone:
//!
//! ```text
//! 1 reserve                        the right proof, the right state: this attempt holds the device
//! 2 issue || ensure thing          a certificate that can do nothing yet
//! 3 attach thing || attach policy  both together give it power, and the thing now lists it
//! 4 commit                         the registry knows the certificate; only now does anybody receive it
//! ```
//!
//! **Why the commit comes last.** A replay that is one read must be able to trust what it reads: `provisioned` has to
//! mean that the attachments were made. Written before them, it would promise a certificate that a crash then left
//! powerless, and the device would be bricked by a lost answer.
//!
//! **Why nothing is lost before it.** A failure that we live to see is written down with the certificate it leaves
//! ([`Changes::release`](crate::Changes::release)). If the process dies without a word, the reservation still names the device and the key,
//! and the thing lists the certificate: the next attempt finds it there, takes it up again or retires it. A certificate
//! is never handed out before the registry knows it, so what a crash leaves is in nobody's hands.
//!
//! **With a CA of our own** on a platform that takes its certificates, step 1 is more and step 2 is less: what is issued is
//! known before, and the reservation [records](crate::Attempt::prepared) it in the same write.
//!
//! ```text
//! 1 look, sign, reserve and record
//! 2 register || ensure thing       again is the same as once, so that whoever goes on does both again
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all, join3};

use crate::changes::{TRIES, contended};
use crate::superseded::Succession;
use crate::{
    Attempt, AttemptId, Audit, AuditRecord, Beside, Certificate, Changes as _, Credential, Csr, Decision, Denial,
    Device, DeviceId, DeviceKey, DeviceStore, EnrolmentToken, KeyFingerprint, Leftover, Origin, Outcome,
    ParametersError, Platform, PlatformError, Policy, PolicyName, Proof, Put, Refusal, RefusedKeys, RegistryError,
    Remains, ReservationLost, Resources, ShownCertificate, Templates, Timestamp,
};

/// Where devices ask for their certificates: what a door calls.
pub trait Vending: Send + Sync {
    /// Decides about one request, and does what the decision asks for.
    fn vend(&self, request: VendRequest) -> impl Future<Output = Result<Vended, VendError>> + Send;

    /// Writes down what never became a request.
    fn record(&self, record: &AuditRecord<'_>);
}

impl<R: DeviceStore, P: Platform, A: Audit> Vending for Vend<R, P, A> {
    async fn vend(&self, request: VendRequest) -> Result<Vended, VendError> {
        self.vend(request).await
    }

    fn record(&self, record: &AuditRecord<'_>) {
        self.audit.record(record);
    }
}

/// The vend, with what it needs.
#[derive(Debug)]
pub struct Vend<R, P, A> {
    /// The device registry.
    pub registry: R,
    /// Where certificates and things are made.
    pub platform: P,
    /// Where decisions are written down.
    pub audit: A,
    /// What devices become.
    pub templates: Templates,
    /// Keys that no device may have: known to be compromised, or somebody else's.
    pub refused_keys: RefusedKeys,
}

/// A device's request, checked as far as it can be without the registry.
#[derive(Debug)]
pub struct VendRequest {
    /// Tells this try from every other.
    pub attempt: AttemptId,
    /// Who the device says it is.
    pub device: DeviceId,
    /// The device's key, with the proof that it holds it; `None` asks us to make one.
    pub csr: Option<Csr>,
    /// The bearer token, where one came.
    pub token: Option<EnrolmentToken>,
    /// The certificate that the connection was made with: whoever made it holds its key.
    pub shown: Option<Arc<Certificate>>,
    /// Template parameters that the device wants to set.
    pub parameters: BTreeMap<String, String>,
    /// Where the request came in.
    pub origin: Origin,
    /// When it came in.
    pub now: Timestamp,
}

/// What a device gets.
#[derive(Debug)]
pub struct Vended {
    /// Its certificate, thing and configuration.
    pub credential: Credential,
    /// Its private key, where it was made here. This is the only copy.
    pub private_key: Option<DeviceKey>,
    /// Whether this is an answer given before.
    pub replayed: bool,
}

/// Why a device gets nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VendError {
    /// Another attempt for this device is under way.
    #[error("another attempt for this device is under way")]
    InProgress {
        /// When it is over at the latest.
        until: Timestamp,
    },
    /// The key is on the list of keys that no device may have, or is another device's.
    #[error("this key must not be used by a device")]
    KeyRefused,
    /// No key could be made.
    #[error("no key could be made")]
    KeyGeneration(#[source] crate::DeviceKeyError),
    /// The device set a parameter that it may not set, or to a value that cannot be.
    #[error("the parameters cannot be used")]
    Parameters(#[source] ParametersError),
    /// The platform did not do its part.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The device may not. Whoever asked learns no more than this.
    #[error("the device was refused")]
    Refused,
    /// The registry did not do its part.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl VendError {
    /// The stable word for it in audit records.
    fn code(&self) -> &'static str {
        match self {
            Self::InProgress { .. } => "interrupted",
            Self::KeyRefused => "key-refused",
            Self::KeyGeneration(_) => "key-generation",
            Self::Parameters(_) => "parameters",
            Self::Platform(PlatformError::Throttled { .. }) => "platform-throttled",
            Self::Platform(_) => "platform",
            Self::Refused => "refused",
            Self::Registry(RegistryError::Throttled { .. }) => "registry-throttled",
            Self::Registry(_) => "registry",
        }
    }
}

/// A request with a key, and in the words of the decision.
pub(crate) struct Requested {
    pub(crate) attempt: Attempt,
    pub(crate) csr: Csr,
    pub(crate) private_key: Option<DeviceKey>,
    pub(crate) parameters: BTreeMap<String, String>,
}

impl VendRequest {
    /// Makes the key where none came, and refuses those that nobody may have.
    pub(crate) fn parse(
        self,
        is_refused: impl Fn(&KeyFingerprint) -> bool,
        audit: &impl Audit,
    ) -> Result<Requested, VendError> {
        let Self { attempt, device, csr, token, shown, parameters, origin, now } = self;
        let (csr, private_key) = match csr {
            Some(csr) => (csr, None),
            None => {
                let (key, csr) = DeviceKey::generate(&device).map_err(VendError::KeyGeneration)?;
                (csr, Some(key))
            }
        };
        let token = token.as_ref().map(EnrolmentToken::digest);
        let shown = shown.and_then(|certificate| ShownCertificate::of(&certificate, now));
        let proof = Proof { shown, ..Proof::of_key(*csr.key().fingerprint(), token, private_key.is_some()) };
        let attempt = Attempt { id: attempt, device, proof, origin, now, prepared: None };
        if is_refused(&attempt.proof.key) {
            record(audit, &attempt, Outcome::Refused { reason: "key-refused", advice: "the device needs a new key" });
            return Err(VendError::KeyRefused);
        }
        Ok(Requested { attempt, csr, private_key, parameters })
    }
}

/// What an attempt is told that is given nothing new, written down once.
pub(crate) async fn turn_away<R: DeviceStore, A: Audit>(
    registry: &R,
    audit: &A,
    decision: Decision,
    found: Option<&Device>,
    attempt: &Attempt,
) -> Result<Vended, VendError> {
    let denial = match decision {
        Decision::Replay(credential) => {
            // Whoever was faster may have no answer yet, and never get one.
            let is_recorded = registry.is_recorded(&attempt.device, &credential.certificate).await;
            if !is_recorded.map_err(|error| failed(audit, attempt, error.into()))? {
                record(audit, attempt, Outcome::Waited);
                return Err(VendError::InProgress { until: attempt.now.after(Duration::from_secs(1)) });
            }
            let outcome = Outcome::Replayed { certificate: &credential.certificate, thing: &credential.thing };
            record(audit, attempt, outcome);
            return Ok(Vended { credential, private_key: None, replayed: true });
        }
        Decision::Wait { until } => {
            record(audit, attempt, Outcome::Waited);
            return Err(VendError::InProgress { until });
        }
        // The store refused what the decision allows: it saw a change that has been undone since.
        Decision::Provision => {
            record(audit, attempt, Outcome::Waited);
            return Err(VendError::InProgress { until: attempt.now.after(Duration::from_secs(1)) });
        }
        Decision::Quarantine => {
            let kept = found.and_then(|device| device.credential.as_ref());
            let outcome = Outcome::Quarantined {
                certificate: kept.map(|credential| &credential.certificate),
                provisioned_key: kept.map(|credential| &credential.key),
            };
            record(audit, attempt, outcome);
            Denial::Cloned
        }
        Decision::Deny(denial) => {
            record(audit, attempt, Outcome::Refused { reason: denial.code(), advice: denial.advice() });
            denial
        }
    };
    count(registry, denial, found, attempt).await;
    Err(VendError::Refused)
}

/// Refuses an attempt with the right proof whose key is another device's.
pub(crate) async fn refuse_key<R: DeviceStore, A: Audit>(
    registry: &R,
    audit: &A,
    owner: &DeviceId,
    found: &Device,
    attempt: &Attempt,
) -> VendError {
    let denial = Denial::KeyInUse;
    record(audit, attempt, Outcome::Refused { reason: denial.code(), advice: denial.advice() });
    tracing::warn!(device = %attempt.device, %owner, key = %attempt.proof.key, "the key is another device's");
    count(registry, denial, Some(found), attempt).await;
    VendError::KeyRefused
}

/// Writes a refusal down; without it the refusal is in the log alone.
async fn count<R: DeviceStore>(registry: &R, denial: Denial, found: Option<&Device>, attempt: &Attempt) {
    let refusal = Refusal::new(denial, found, attempt);
    if let Err(error) = registry.refuse(&attempt.device, found, &refusal, &attempt.origin).await {
        let error: &dyn Error = &error;
        tracing::warn!(device = %attempt.device, error, "a refusal was not counted");
    }
}

/// The error, written down.
pub(crate) fn failed(audit: &impl Audit, attempt: &Attempt, error: VendError) -> VendError {
    record(audit, attempt, Outcome::Failed { reason: error.code() });
    error
}

pub(crate) fn record(audit: &impl Audit, attempt: &Attempt, outcome: Outcome<'_>) {
    let (device, key) = (Some(&attempt.device), Some(&attempt.proof.key));
    audit.record(&AuditRecord { origin: &attempt.origin, device, key, outcome });
}

impl<R: DeviceStore, P: Platform, A: Audit> Vend<R, P, A> {
    /// Decides about one request, and does what the decision asks for.
    ///
    /// # Errors
    ///
    /// [`VendError`]; after any of them the device may ask again, and finds what this attempt left in order.
    pub async fn vend(&self, request: VendRequest) -> Result<Vended, VendError> {
        let is_refused = |key: &KeyFingerprint| self.refused_keys.contains(key) || self.platform.has_key(key);
        let request = request.parse(is_refused, &self.audit)?;
        let Requested { mut attempt, csr, private_key, parameters } = request;
        let held = Box::pin(self.reserve(&mut attempt, &csr, &parameters)).await?;
        let held = match held {
            ControlFlow::Continue(held) => held,
            ControlFlow::Break(vended) => return Ok(vended),
        };
        match self.provision(&held, &attempt, &csr, &parameters).await {
            Ok(credential) => {
                let outcome = Outcome::Provisioned { certificate: &credential.certificate, thing: &credential.thing };
                record(&self.audit, &attempt, outcome);
                Ok(Vended { credential, private_key, replayed: false })
            }
            Err(error) => Err(failed(&self.audit, &attempt, error)),
        }
    }

    /// Gives the attempt the right to the device, or the answer that it is given instead.
    async fn reserve(
        &self,
        attempt: &mut Attempt,
        csr: &Csr,
        parameters: &BTreeMap<String, String>,
    ) -> Result<ControlFlow<Vended, Device>, VendError> {
        for _ in 0..TRIES {
            let found = self.registry.find(&attempt.device).await;
            let found = found.map_err(|error| failed(&self.audit, attempt, error.into()))?;
            let device = match (decide(found.as_ref(), attempt), found) {
                (Decision::Provision, Some(device)) => device,
                (decision, found) => {
                    let answer = turn_away(&self.registry, &self.audit, decision, found.as_ref(), attempt);
                    return answer.await.map(ControlFlow::Break);
                }
            };
            if self.platform.prepares() {
                let prepared = Box::pin(self.prepare_for(&device, attempt, csr, parameters)).await;
                attempt.prepared = prepared.map_err(|error| failed(&self.audit, attempt, error))?;
            }
            let mut held = device.clone();
            held.reserve(attempt);
            let put = self.registry.hold(&device, &held, attempt).await;
            match put.map_err(|error| failed(&self.audit, attempt, error.into()))? {
                Put::Done => return Ok(ControlFlow::Continue(held)),
                Put::KeyInUse { owner, .. } => {
                    return Err(refuse_key(&self.registry, &self.audit, &owner, &device, attempt).await);
                }
                Put::Changed => {}
            }
        }
        Err(failed(&self.audit, attempt, contended().into()))
    }

    /// Makes a reserved device what it is to become, and ends the reservation one way or the other.
    async fn provision(
        &self,
        device: &Device,
        attempt: &Attempt,
        csr: &Csr,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Credential, VendError> {
        let mut left = device.leftover();
        let mut beside = Beside { superseded: device.superseded.clone(), remains: device.remains_beside(attempt) };
        let error = match self.build(device, attempt, csr, parameters, &mut left, &mut beside).await {
            Ok(credential) => match self.registry.commit(device, attempt, &credential, &beside).await {
                Ok(Ok(())) => return Ok(credential),
                Ok(Err(ReservationLost { to_same_key })) => {
                    // Somebody else decides about this device now, and does not know this certificate. Only another
                    // attempt with the same key may have found it at the thing, and then it is that one's to keep.
                    if !to_same_key {
                        self.platform.retire(&credential.thing, &credential.certificate_name).await?;
                    }
                    return Err(VendError::InProgress { until: attempt.lease_ends() });
                }
                Err(error) => error.into(),
            },
            Err(error) => error,
        };
        if let Err(unreleased) = self.registry.release(device, attempt, &left, beside.remains).await {
            // The lease runs out by itself, and the next attempt then asks the platform what is there.
            let error: &dyn Error = &unreleased;
            tracing::warn!(device = %attempt.device, error, "a reservation was not released");
        }
        Err(error)
    }

    /// Steps 2 and 3. Keeps in `left` what a failure would leave behind, and in `beside` what there is else.
    async fn build(
        &self,
        device: &Device,
        attempt: &Attempt,
        csr: &Csr,
        parameters: &BTreeMap<String, String>,
        left: &mut Leftover,
        beside: &mut Beside,
    ) -> Result<Credential, VendError> {
        let resources = self.templates.evaluate(device, parameters).map_err(VendError::Parameters)?;
        let found = self.settle(device, attempt, &resources).await?;
        let found = match found {
            None if self.platform.prepares() => {
                *left = Leftover::Known(None);
                Some(Box::pin(self.prepare_again(device, csr, attempt, &resources)).await?)
            }
            found => found,
        };
        // What the device has is no attempt's to leave.
        *left = Leftover::Known(found.clone().filter(|found| !device.has(&found.certificate)));
        if found.as_ref().is_none_or(|found| !device.has(&found.certificate)) {
            let Succession { kept, outdated } = device.succession(attempt);
            for superseded in outdated {
                self.platform.retire(&superseded.thing, &superseded.certificate_name).await?;
            }
            beside.superseded = kept;
        }

        let issue = async {
            match found {
                Some(credential) if self.platform.prepares() && !device.has(&credential.certificate) => {
                    self.platform.register(&credential.pem).await.map(|()| credential)
                }
                Some(credential) => Ok(credential),
                None => self.issue(csr, attempt, &resources).await,
            }
        };
        let (issued, thing) = join(issue, self.platform.ensure_thing(&resources.thing)).await;
        if !matches!(issued, Ok(_) | Err(PlatformError::Throttled { .. })) {
            // A certificate may have been made all the same.
            beside.remains = Remains::Unsettled;
        }
        let credential = issued?;
        if !device.has(&credential.certificate) {
            *left = Leftover::Known(Some(credential.clone()));
        }
        thing?;

        self.attach(&credential, &resources).await?;
        Ok(credential)
    }

    /// Step 3: what gives the certificate its power.
    async fn attach(&self, credential: &Credential, resources: &Resources) -> Result<(), PlatformError> {
        let Credential { thing, certificate_name, .. } = credential;
        let policies = resources.policy_names().map(|policy| self.platform.attach_policy(policy, certificate_name));
        let groups = resources.thing.groups.iter().map(|group| self.platform.join_group(thing, group));
        let (thing, policies, groups) = join3(
            self.platform.attach_thing(thing, certificate_name, resources.certificate.principal_type),
            join_all(policies),
            join_all(groups),
        )
        .await;
        thing?;
        policies.into_iter().chain(groups).collect()
    }

    /// Has a certificate made, and looks at it before anything is done with it.
    async fn issue(&self, csr: &Csr, attempt: &Attempt, resources: &Resources) -> Result<Credential, PlatformError> {
        let issued = self.platform.issue(csr, &resources.thing.name).await?;
        if let Err(defect) = issued.certificate.lint(csr.key().fingerprint()) {
            self.platform.retire(&resources.thing.name, &issued.name).await?;
            return Err(PlatformError::Defective { source: defect.into() });
        }
        Ok(Credential::new(&issued, attempt, resources))
    }

    /// Clears away what earlier attempts left, and returns the certificate that this one can go on with: one for the
    /// same key and the same thing. Only what an earlier attempt of ours can have made is touched.
    async fn settle(
        &self,
        device: &Device,
        attempt: &Attempt,
        resources: &Resources,
    ) -> Result<Option<Credential>, PlatformError> {
        let held = device.reservation.as_ref();
        let mut left: Vec<Credential> = held.and_then(|held| held.left.clone()).into_iter().collect();
        let died = held.is_some_and(|held| held.attempts > 1);
        let mut attached = None;
        if let Some(unsettled) = device.unsettled.as_ref().filter(|_| died) {
            let there = self.platform.certificates_of(&resources.thing.name).await?;
            let unknown = there.iter().filter(|there| {
                let certificate = &there.issued.certificate;
                // A factory certificate is in a device; no attempt of ours made it.
                there.ca.is_none() && unsettled.keys.contains(certificate.key()) && !device.knows(certificate.id())
            });
            let unknown: Vec<_> = unknown.map(|there| Credential::new(&there.issued, attempt, resources)).collect();
            left.extend(unknown);
            attached = Some(there.into_iter().map(|there| *there.issued.certificate.id()).collect::<Vec<_>>());
        }
        // Who died may have had another key, and have retired what was left before anybody could know. A certificate of our
        // own CA is registered again in any case.
        let is_whole = |credential: &Credential| {
            self.platform.prepares() || attached.as_ref().is_none_or(|all| all.contains(&credential.certificate))
        };
        let mut usable = None;
        for credential in left {
            if usable.is_none() && credential.continues(attempt, resources) && is_whole(&credential) {
                usable = Some(Credential { configuration: resources.device_configuration.clone(), ..credential });
            } else {
                self.platform.retire(&credential.thing, &credential.certificate_name).await?;
            }
        }
        Ok(usable.or_else(|| device.keeps(attempt, resources).cloned()))
    }
}

impl Credential {
    /// Whether `attempt` can go on with this certificate instead of having another one made.
    fn continues(&self, attempt: &Attempt, resources: &Resources) -> bool {
        self.key == attempt.proof.key && self.thing == resources.thing.name && !self.is_expired(attempt.now)
    }
}

impl Device {
    /// The certificate that it has, where `attempt` asks for that one and no other.
    pub(crate) fn keeps(&self, attempt: &Attempt, resources: &Resources) -> Option<&Credential> {
        let own = self.credential.as_ref().filter(|own| own.continues(attempt, resources));
        own.filter(|own| !own.is_renewable(&attempt.proof))
    }

    /// What the attempt that has just reserved this device finds left behind by earlier ones.
    fn leftover(&self) -> Leftover {
        let alone = self.reservation.as_ref().is_some_and(|reservation| reservation.attempts <= 1);
        let nothing = self.reservation.as_ref().is_some_and(|reservation| reservation.left.is_none());
        if alone && nothing { Leftover::Known(None) } else { Leftover::Unknown }
    }
}

impl Resources {
    /// The policies to attach. [`Templates::evaluate`] lets no other kind through.
    pub(crate) fn policy_names(&self) -> impl Iterator<Item = &PolicyName> {
        self.policies.iter().filter_map(|policy| match policy {
            Policy::Name(name) => Some(name),
            Policy::Document(_) => None,
        })
    }
}

/// What is to be done with an attempt on a device that may not exist.
pub(crate) fn decide(device: Option<&Device>, attempt: &Attempt) -> Decision {
    device.map_or(Decision::Deny(Denial::Unknown), |device| device.decide(attempt))
}
