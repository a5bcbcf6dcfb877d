//! The device registry's item and every change it can go through.
//!
//! A change is a method here and one conditional write in a store; the contract suite holds each store to these
//! methods. The states and who moves between them:
//!
//! ```text
//! registered --reserve(key)--> reserved --commit(certificate)--> provisioned --revoke--> revoked
//!      ^                         |  ^                              |
//!      |                         +--+ the lease ran out            | another key asks
//!      +------------------- approve -------------------------- quarantined (old certificate untouched)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use aws_lc_rs::error::Unspecified;
use serde::{Deserialize, Serialize};

use crate::attempt::random_bits;
use crate::{
    Attempt, AttemptId, Attestation, Beside, CertificateId, Credential, Denial, DeviceId, ETag, GroupCredential,
    GroupName, Hierarchy, KeyFingerprint, Leftover, Module, ModuleId, ReasonText, Refusal, Remains, Reservation,
    ReservationLost, Status, Superseded, TemplateName, Timestamp,
};

/// One device, as the registry knows it: all that a decision needs, so that a decision is one write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Device {
    /// Its serial number or registration id.
    pub id: DeviceId,
    /// New each time the id is deleted and made again, so that nothing of the old device counts for the new one.
    pub generation: GenerationId,
    /// One more with each write: the entity tag of operators' changes.
    pub version: u64,
    /// Whether an operator lets it in at all.
    pub status: Status,
    /// The enrolment group, or the batch, that operators count it to.
    pub group: Option<GroupName>,
    /// Where it stands among gateways.
    pub hierarchy: Hierarchy,
    /// The identities on it.
    pub modules: BTreeMap<ModuleId, Module>,
    /// How it proves itself.
    pub attestation: Attestation,
    /// Whether its key may be made by us, because it cannot make one.
    pub key_origin: KeyOrigin,
    /// The provisioning template that says what it becomes; `None` is the configured default.
    pub template: Option<TemplateName>,
    /// Values of template parameters that the operator chose.
    pub parameters: BTreeMap<String, String>,
    /// Names of the template parameters that the device may set for itself.
    pub settable_parameters: BTreeSet<String>,
    /// How far its provisioning has come.
    pub state: State,
    /// The attempt that holds, or last held, the right to provision it. Only in [`State::Reserved`].
    pub reservation: Option<Reservation>,
    /// Its certificate and what else it was given last.
    pub credential: Option<Credential>,
    /// What it was given before and is still in power, the oldest first.
    pub superseded: Vec<Superseded>,
    /// What attempts may have left on the platform that the registry does not know.
    pub unsettled: Option<Unsettled>,
    /// Wrong proofs since it was last provisioned or an operator looked.
    pub wrong_proofs: u32,
    /// The last attempt that was not let in, for whoever asks why the device does not come up.
    pub last_refusal: Option<LastRefusal>,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Device {
    /// A device that has just been put on the allowlist.
    pub fn new(id: DeviceId, generation: GenerationId, attestation: Attestation, now: Timestamp) -> Self {
        Self {
            id,
            generation,
            version: 1,
            status: Status::enabled(now),
            group: None,
            hierarchy: Hierarchy::default(),
            modules: BTreeMap::new(),
            attestation,
            key_origin: KeyOrigin::Device,
            template: None,
            parameters: BTreeMap::new(),
            settable_parameters: BTreeSet::new(),
            state: State::Registered,
            reservation: None,
            credential: None,
            superseded: Vec::new(),
            unsettled: None,
            wrong_proofs: 0,
            last_refusal: None,
            created_at: now,
            updated_at: now,
        }
    }

    /// Gives one attempt the right to provision this device. Call it only where [`Device::decide`] said
    /// [`Decision::Provision`](crate::Decision::Provision). The holder's own second call changes nothing.
    pub fn reserve(&mut self, attempt: &Attempt) {
        if self.is_held_by(attempt) {
            return;
        }
        let key = attempt.proof.key;
        let earlier = self.reservation.take();
        // A key that was made here is replaced because nobody has it.
        let is_reissued = attempt.proof.key_made_here && attempt.proof.shown.is_none();
        let from = if is_reissued { State::Registered } else { self.state };
        self.state = State::Reserved;
        self.reservation = Some(Reservation {
            owner: attempt.id,
            key,
            certificate: attempt.proof.certificate,
            group: attempt.proof.group,
            expires_at: attempt.lease_ends(),
            from: earlier.as_ref().map_or(from, |earlier| earlier.from),
            attempts: earlier.as_ref().map_or(0, |earlier| earlier.attempts) + 1,
            // What an earlier attempt left is not forgotten for what nobody has seen yet.
            left: earlier.and_then(|earlier| earlier.left).or_else(|| attempt.prepared.clone()),
        });
        let unsettled = self.unsettled.get_or_insert_with(|| Unsettled { since: attempt.now, keys: BTreeSet::new() });
        unsettled.keys.insert(key);
        self.touch(attempt.now);
    }

    /// What may be left of earlier attempts when `attempt`, which has just reserved this device, has ended well.
    pub fn remains_beside(&self, attempt: &Attempt) -> Remains {
        let own = Unsettled { since: attempt.now, keys: BTreeSet::from([attempt.proof.key]) };
        let alone = self.reservation.as_ref().is_some_and(|held| held.attempts == 1);
        if alone && self.unsettled.as_ref() == Some(&own) { Remains::Nothing } else { Remains::Unsettled }
    }

    /// Ends a reservation with success: from now on `credential` is the device's.
    ///
    /// # Errors
    ///
    /// [`ReservationLost`] when `owner` no longer holds the reservation, or an operator disabled the device meanwhile.
    pub fn commit(
        &mut self,
        owner: AttemptId,
        credential: Credential,
        beside: Beside,
        now: Timestamp,
    ) -> Result<(), ReservationLost> {
        let committed = self.credential.as_ref().is_some_and(|there| there.certificate == credential.certificate);
        if self.state == State::Provisioned && committed {
            // The write took effect before and its answer was lost, or another attempt has done it for us.
            return Ok(());
        }
        if !self.status.enabled || !self.is_reserved_by(owner) {
            return Err(ReservationLost { to_same_key: self.is_reserved_for(&credential.key) });
        }
        self.settle(beside.remains);
        self.provision(credential, beside.superseded, now);
        Ok(())
    }

    pub(crate) fn provision(&mut self, credential: Credential, superseded: Vec<Superseded>, now: Timestamp) {
        self.state = State::Provisioned;
        self.reservation = None;
        self.credential = Some(credential);
        self.superseded = superseded;
        self.wrong_proofs = 0;
        self.touch(now);
    }

    /// Makes `credential` the device's on the word of the platform, whichever attempt got it: a device connected with
    /// it, or it is active and attached. A certificate that it replaces is left to be settled.
    pub fn confirm(&mut self, credential: Credential, now: Timestamp) {
        let reservation = self.reservation.take();
        let group = reservation.as_ref().and_then(|held| held.group).or(credential.group);
        let mut unsettled = self.unsettled.take().unwrap_or_else(|| Unsettled { since: now, keys: BTreeSet::new() });
        let replaced = self.credential.as_ref().filter(|earlier| earlier.certificate != credential.certificate);
        let left = reservation.as_ref().and_then(|held| held.left.as_ref());
        let replaced = replaced.or_else(|| left.filter(|left| left.certificate != credential.certificate));
        let several = reservation.as_ref().is_some_and(|held| held.attempts > 1) || replaced.is_some();
        unsettled.keys.extend(replaced.map(|earlier| earlier.key));
        unsettled.keys.insert(credential.key);
        self.unsettled = (several || unsettled.keys.len() > 1).then_some(unsettled);
        self.state = State::Provisioned;
        self.credential = Some(Credential { group, ..credential });
        self.wrong_proofs = 0;
        self.touch(now);
    }

    /// Writes down that the platform saw the device connect with its certificate.
    pub fn mark_used(&mut self, now: Timestamp) {
        if let Some(credential) = self.credential.as_mut().filter(|credential| credential.used_at.is_none()) {
            credential.used_at = Some(now);
            self.touch(now);
        }
    }

    /// Ends a reservation without success, so that the next attempt need not wait for the lease to run out. Where
    /// `owner` no longer holds it, there is nothing to end.
    pub fn release(&mut self, owner: AttemptId, left: Leftover, remains: Remains, now: Timestamp) {
        let Some(reservation) = self.reservation.as_mut().filter(|held| held.owner == owner) else { return };
        reservation.expires_at = now;
        if let Leftover::Known(credential) = left {
            reservation.attempts = 0;
            reservation.left = credential;
            if reservation.left.is_none() && remains == Remains::Nothing {
                self.state = reservation.from;
                self.reservation = None;
                self.unsettled = None;
            }
        }
        self.touch(now);
    }

    /// Gives up a reservation whose attempt came to nothing: the device is what it was before.
    pub fn abandon(&mut self, now: Timestamp) {
        if self.state == State::Reserved {
            self.state = self.reservation.take().map_or(State::Registered, |reservation| reservation.from);
            self.touch(now);
        }
    }

    fn settle(&mut self, remains: Remains) {
        if remains == Remains::Nothing {
            self.unsettled = None;
        }
    }

    /// Writes down that an attempt was not let in. A wrong proof is counted; a clone puts the device into quarantine, and
    /// leaves the certificate it has as it is.
    ///
    /// Counting is no change of the device: its version stays, so that guessing can neither starve the device nor make
    /// an operator's conditional write fail.
    ///
    /// In quarantine nothing is written any more: the clone's key is there for the person who decides.
    pub fn refuse(&mut self, refusal: &Refusal) {
        if self.state == State::Quarantined {
            return;
        }
        match refusal.denial {
            Denial::WrongProof => self.wrong_proofs = self.wrong_proofs.saturating_add(1),
            // Only a provisioned device can be cloned, and not by the key that it has.
            Denial::Cloned
                if self.state != State::Provisioned
                    || self.credential.as_ref().is_none_or(|credential| credential.key == refusal.key) =>
            {
                return;
            }
            Denial::Cloned => {
                self.state = State::Quarantined;
                self.touch(refusal.at);
            }
            Denial::ClaimExpired
            | Denial::ClaimForAnother
            | Denial::ClaimRevoked
            | Denial::ClaimUnknown
            | Denial::ClaimUsedUp
            | Denial::Disabled
            | Denial::KeyInUse
            | Denial::KeyRequired
            | Denial::OtherTemplate
            | Denial::Quarantined
            | Denial::Revoked
            | Denial::Unknown => {}
        }
        let Refusal { denial, key, at, noted } = *refusal;
        let counted = LastRefusal::new(denial, key, at);
        self.last_refusal = Some(match self.last_refusal {
            Some(last) if !noted => {
                let since_noted = last.since_noted.saturating_add(1);
                LastRefusal { noted_at: last.noted_at, since_noted, ..counted }
            }
            _ => counted,
        });
    }

    /// The keys that the device has, is about to have, or is registered with. No other device may have one of them.
    pub fn keys(&self) -> BTreeSet<KeyFingerprint> {
        let held = self.reservation.as_ref();
        let left = held.and_then(|held| held.left.as_ref());
        let credentials = self.credential.iter().chain(left).map(|credential| credential.key);
        let superseded = self.superseded.iter().map(|superseded| superseded.key);
        credentials.chain(superseded).chain(held.map(|held| held.key)).chain(self.registered_key()).collect()
    }

    /// The key that the device is registered with, and proves itself by.
    pub fn registered_key(&self) -> Option<KeyFingerprint> {
        match self.attestation {
            Attestation::PublicKey { key } => Some(key),
            _ => None,
        }
    }

    /// Whether this is the same state of the device, whatever was refused in it: an export has no refusals.
    pub fn is_but_for_refusals(&self, other: &Self) -> bool {
        let without = |device: &Self| Self { last_refusal: None, wrong_proofs: 0, ..device.clone() };
        self == other || without(self) == without(other)
    }

    /// The last attempt that was not let in, if its cause is still there: the device got no certificate and used none since,
    /// and its state would have it refused again.
    pub fn unresolved_refusal(&self) -> Option<&LastRefusal> {
        let refusal = self.last_refusal.as_ref()?;
        let succeeded =
            self.credential.as_ref().map(|has| has.used_at.map_or(has.issued_at, |at| at.max(has.issued_at)));
        let has_cause = match refusal.denial {
            Denial::Cloned | Denial::Quarantined => self.state == State::Quarantined,
            Denial::Disabled => !self.status.enabled,
            Denial::Revoked => self.state == State::Revoked,
            Denial::WrongProof => self.wrong_proofs > 0,
            Denial::ClaimExpired
            | Denial::ClaimForAnother
            | Denial::ClaimRevoked
            | Denial::ClaimUnknown
            | Denial::ClaimUsedUp
            | Denial::KeyInUse
            | Denial::KeyRequired
            | Denial::OtherTemplate
            | Denial::Unknown => true,
        };
        (has_cause && succeeded.is_none_or(|at| at <= refusal.at)).then_some(refusal)
    }

    /// The latest moment at which something happened to the device, as far as it says.
    pub fn last_moment(&self) -> Timestamp {
        let credential = self.credential.iter();
        let given = credential.flat_map(|credential| [Some(credential.issued_at), credential.used_at]).flatten();
        let modules = self.modules.values().flat_map(|module| [module.created_at, module.updated_at]);
        [self.created_at, self.updated_at, self.status.since]
            .into_iter()
            .chain(given)
            .chain(modules)
            .chain(self.superseded.iter().map(|superseded| superseded.since))
            .chain(self.last_refusal.map(|refusal| refusal.at))
            .chain(self.unsettled.as_ref().map(|unsettled| unsettled.since))
            .max()
            .unwrap_or(self.updated_at)
    }

    /// What names this very state of the device.
    pub fn etag(&self) -> ETag {
        ETag::of(self.generation, self.version)
    }

    /// Keeps the device out until it is enabled again.
    pub fn disable(&mut self, reason: Option<ReasonText>, now: Timestamp) {
        self.status = Status::disabled(reason, now);
        self.touch(now);
    }

    /// Lets a disabled device in again, and forgets its wrong proofs.
    pub fn enable(&mut self, reason: Option<ReasonText>, now: Timestamp) {
        self.status = Status { reason, ..Status::enabled(now) };
        self.wrong_proofs = 0;
        self.touch(now);
    }

    /// Lets the next key that comes with the right proof replace the one that the device has. The certificate that it
    /// has stays in power until that key comes.
    ///
    /// # Errors
    ///
    /// [`NotProvisioned`] when there is nothing to renew.
    pub fn renew(&mut self, now: Timestamp) -> Result<(), NotProvisioned> {
        match self.state {
            State::Provisioned | State::Quarantined => self.state = State::Registered,
            State::Registered | State::Reserved | State::Revoked => {
                return Err(NotProvisioned { state: self.state.name() });
            }
        }
        self.wrong_proofs = 0;
        self.touch(now);
        Ok(())
    }

    /// Takes its certificates out of power for good, and lets no key in any more. A device that is to come back is deleted
    /// and registered again.
    ///
    /// # Errors
    ///
    /// [`NothingToRevoke`] when it has no certificate, or is about to get one: it can be disabled at once.
    pub fn revoke(&mut self, reason: ReasonText, now: Timestamp) -> Result<(), NothingToRevoke> {
        if self.credential.is_none() || self.state == State::Reserved {
            return Err(NothingToRevoke { state: self.state.name() });
        }
        self.state = State::Revoked;
        self.status.reason = Some(reason);
        self.touch(now);
        Ok(())
    }

    /// Whether it is to have no power, whatever certificates it has.
    pub(crate) fn is_kept_out(&self) -> bool {
        !self.status.enabled || self.state == State::Revoked
    }

    /// Ends a quarantine the way a person decided.
    ///
    /// # Errors
    ///
    /// [`NotQuarantined`] when there is nothing to decide.
    pub fn approve(&mut self, verdict: Verdict, now: Timestamp) -> Result<(), NotQuarantined> {
        match (&self.state, verdict) {
            (State::Quarantined, Verdict::KeepCertificate) => self.state = State::Provisioned,
            (State::Quarantined, Verdict::AdmitNextKey) => self.state = State::Registered,
            (State::Registered | State::Reserved | State::Provisioned | State::Revoked, _) => {
                return Err(NotQuarantined { state: self.state.name() });
            }
        }
        self.wrong_proofs = 0;
        self.touch(now);
        Ok(())
    }

    /// The certificate by which a [`CertificateIndex`](crate::CertificateIndex) finds the device: the one that it is
    /// reserved for, or else the one that it has.
    pub fn indexed_certificate(&self) -> Option<CertificateId> {
        let awaited = self.reservation.as_ref().and_then(|reservation| reservation.certificate);
        awaited.or_else(|| self.credential.as_ref().map(|credential| credential.certificate))
    }

    /// Whether a device is known to have connected with this certificate.
    pub fn is_used(&self, certificate: &CertificateId) -> bool {
        let own = self.credential.as_ref().filter(|credential| credential.certificate == *certificate);
        own.is_some_and(|credential| credential.used_at.is_some())
    }

    /// Whether the device has, or awaits, a certificate for which it showed this credential.
    pub fn enrolled_with(&self, group: GroupCredential) -> bool {
        let reserved = self.reservation.as_ref().and_then(|held| held.group);
        let given = self.credential.as_ref().and_then(|credential| credential.group);
        [reserved, given].contains(&Some(group))
    }

    /// Whether an attempt with this key holds a device that is let in.
    fn is_reserved_for(&self, key: &KeyFingerprint) -> bool {
        let reserved = self.status.enabled && self.state == State::Reserved;
        reserved && self.reservation.as_ref().is_some_and(|held| held.key == *key)
    }

    /// Whether this very attempt holds the device, and its lease has not run out.
    pub fn is_held_by(&self, attempt: &Attempt) -> bool {
        let lease = self.reservation.as_ref().is_some_and(|held| attempt.now < held.expires_at);
        self.is_reserved_by(attempt.id) && lease
    }

    /// What every write makes of the item: one version on.
    pub(crate) fn touch(&mut self, now: Timestamp) {
        self.version += 1;
        self.updated_at = now;
    }

    /// Whether this attempt holds the device.
    pub fn is_reserved_by(&self, owner: AttemptId) -> bool {
        self.state == State::Reserved && self.reservation.as_ref().is_some_and(|held| held.owner == owner)
    }
}

/// What attempts may have left on the platform without the registry knowing: certificates for these keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unsettled {
    /// When the first of the attempts began; what they left is younger.
    pub since: Timestamp,
    /// The keys that they brought.
    pub keys: BTreeSet<KeyFingerprint>,
}

/// Tells a device from an earlier one of the same id: 128 random bits.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct GenerationId(u128);

impl GenerationId {
    /// The id with these bits.
    pub const fn new(bits: u128) -> Self {
        Self(bits)
    }

    /// A new id.
    ///
    /// # Errors
    ///
    /// When the system has no randomness to give.
    pub fn random() -> Result<Self, Unspecified> {
        random_bits().map(Self)
    }
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for GenerationId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

/// Where a device's private key comes from.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum KeyOrigin {
    /// The device makes it, and it never leaves the device.
    #[default]
    Device,
    /// The device may have it made by us, because it cannot make one.
    Service,
}

/// How far a device's provisioning has come.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// On the allowlist, nothing else.
    Registered,
    /// An attempt is, or was, under way.
    Reserved,
    /// It has its certificate.
    Provisioned,
    /// A person has to look: the right proof came with another key than the one provisioned.
    Quarantined,
    /// Its certificate was withdrawn for good.
    Revoked,
}

impl State {
    /// Every state there is.
    pub const ALL: [Self; 5] = [Self::Registered, Self::Reserved, Self::Provisioned, Self::Quarantined, Self::Revoked];

    /// The state of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// The state's name, as it is stored and shown.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Reserved => "reserved",
            Self::Provisioned => "provisioned",
            Self::Quarantined => "quarantined",
            Self::Revoked => "revoked",
        }
    }
}

/// What a person decides about a device in quarantine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The device is real and lost its key: the next key that comes with the right proof replaces the certificate.
    AdmitNextKey,
    /// The other key was a clone's: the device keeps the certificate it has.
    KeepCertificate,
}

/// An attempt that was not let in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LastRefusal {
    /// Why.
    pub denial: Denial,
    /// The key that was shown; in quarantine, the other key.
    pub key: KeyFingerprint,
    /// When.
    pub at: Timestamp,
    /// The time of the refusal for which the audit trail got its last entry.
    pub noted_at: Timestamp,
    /// The number of refusals after that one.
    pub since_noted: u32,
}

impl LastRefusal {
    /// A refusal for which the audit trail has an entry.
    pub const fn new(denial: Denial, key: KeyFingerprint, at: Timestamp) -> Self {
        Self { denial, key, at, noted_at: at, since_noted: 0 }
    }
}

/// There is no certificate to renew: the device may have one as it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the device has no certificate to renew; it is {state}")]
pub struct NotProvisioned {
    /// The state it is in.
    pub state: &'static str,
}

/// There is no certificate to revoke: the device has none, or an attempt to get it one is under way.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the device has no certificate to revoke yet; it is {state}")]
pub struct NothingToRevoke {
    /// The state it is in.
    pub state: &'static str,
}

/// There is no quarantine to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the device is not in quarantine but {state}")]
pub struct NotQuarantined {
    /// The state it is in.
    pub state: &'static str,
}
