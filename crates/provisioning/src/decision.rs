//! The one decision behind every door.

use std::time::Duration;

use crate::{Attempt, Credential, Device, KeyFingerprint, KeyOrigin, Proof, State, Timestamp};

/// What is to be done with an attempt.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a request has one of them")]
pub enum Decision {
    /// Make the device what it says it is.
    Provision,
    /// It was provisioned with this very key before, and the answer got lost: give the same answer again.
    Replay(Credential),
    /// Another attempt for this device is under way.
    Wait {
        /// When that attempt is over at the latest.
        until: Timestamp,
    },
    /// Refuse, and set the device aside for a person: the right proof came with another key.
    Quarantine,
    /// Refuse.
    Deny(Denial),
}

/// Why an attempt is refused. The caller is never told; the audit record is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Denial {
    /// The claim has expired.
    ClaimExpired,
    /// The claim was made out for another device.
    ClaimForAnother,
    /// An operator revoked the claim.
    ClaimRevoked,
    /// The registry does not know the claim.
    ClaimUnknown,
    /// As many devices as the claim allows were provisioned with it.
    ClaimUsedUp,
    /// The right proof came with another key than the one provisioned: a clone, or a device that lost its key.
    Cloned,
    /// An operator disabled the device.
    Disabled,
    /// Another device has the key.
    KeyInUse,
    /// The device asked us to make its key, which its registry item does not allow.
    KeyRequired,
    /// The registry item asks for another provisioning template.
    OtherTemplate,
    /// A person has yet to decide.
    Quarantined,
    /// Its certificate was withdrawn for good.
    Revoked,
    /// The registry does not know the device.
    Unknown,
    /// The proof is not the one that the registry item asks for.
    WrongProof,
}

impl Denial {
    /// Every denial there is.
    pub const ALL: [Self; 14] = [
        Self::ClaimExpired,
        Self::ClaimForAnother,
        Self::ClaimRevoked,
        Self::ClaimUnknown,
        Self::ClaimUsedUp,
        Self::Cloned,
        Self::Disabled,
        Self::KeyInUse,
        Self::KeyRequired,
        Self::OtherTemplate,
        Self::Quarantined,
        Self::Revoked,
        Self::Unknown,
        Self::WrongProof,
    ];

    /// The denial of this code.
    pub fn from_code(code: &str) -> Option<Self> {
        match code {
            // Up to version 0.1 a device with too many wrong proofs was blocked for some minutes.
            "blocked" => Some(Self::WrongProof),
            code => Self::ALL.into_iter().find(|denial| denial.code() == code),
        }
    }

    /// The stable word for it in audit records.
    pub const fn code(self) -> &'static str {
        match self {
            Self::ClaimExpired => "claim-expired",
            Self::ClaimForAnother => "claim-for-another-device",
            Self::ClaimRevoked => "claim-revoked",
            Self::ClaimUnknown => "unknown-claim",
            Self::ClaimUsedUp => "claim-used-up",
            Self::Cloned => "cloned",
            Self::Disabled => "disabled",
            Self::KeyInUse => "key-in-use",
            Self::KeyRequired => "key-required",
            Self::OtherTemplate => "other-template",
            Self::Quarantined => "quarantined",
            Self::Revoked => "revoked",
            Self::Unknown => "unknown-device",
            Self::WrongProof => "wrong-proof",
        }
    }

    /// What the operator who reads the audit record can do next.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::ClaimExpired => "ask for a new claim, or `cvm claim add` another certificate",
            Self::ClaimForAnother => "ask for a claim for this device",
            Self::ClaimRevoked => "`cvm claim report ID` lists what was provisioned with it; do not admit it again",
            Self::ClaimUnknown => "`cvm claim add ID` registers a claim certificate of yours",
            Self::ClaimUsedUp => {
                "`cvm claim report ID` lists what was provisioned with it; `cvm claim add ID --quota N` allows more"
            }
            Self::Cloned => "find out which key is the device's, then `cvm device approve ID` or `approve ID --keep`",
            Self::Disabled => "`cvm device enable ID` lets it in",
            Self::KeyInUse => "have the device make a key of its own; if it is the other device, delete that one first",
            Self::KeyRequired => "send a CSR, or register the device with `--key-origin service`",
            Self::OtherTemplate => "have the device ask for the template that `cvm device show ID` names",
            Self::Quarantined => "`cvm device show ID` has both keys, `cvm device approve ID` decides",
            Self::Revoked => "delete and register the device again if it is to come back",
            Self::Unknown => "`cvm device add ID` puts it on the allowlist",
            Self::WrongProof => "compare what the device sends with `cvm device show ID`",
        }
    }
}

impl Device {
    /// How long after it was made a key of ours, whose answer was lost, can be replaced by a new one.
    pub const REISSUE_WINDOW: Duration = Duration::from_secs(300);

    /// Whether `attempt` may become this device. Reads only; what follows from the answer is a change of its own.
    pub fn decide(&self, attempt: &Attempt) -> Decision {
        let Attempt { proof, now, .. } = attempt;
        if !self.status.enabled {
            return Decision::Deny(Denial::Disabled);
        }
        // Whoever holds the key of the device's own certificate is the device.
        let shown = proof.shown.filter(|shown| self.holds(&shown.id));
        if shown.is_none() && !self.attestation.accepts(proof, *now) {
            return Decision::Deny(Denial::WrongProof);
        }
        if proof.key_made_here && self.key_origin == KeyOrigin::Device {
            return Decision::Deny(Denial::KeyRequired);
        }
        match (&self.state, &self.reservation) {
            (State::Reserved, Some(held)) if held.owner == attempt.id => Decision::Provision,
            (State::Reserved, Some(held)) if held.is_leased(*now) => Decision::Wait { until: held.expires_at },
            // An attempt that died has changed nothing about who may be let in.
            (State::Reserved, Some(held)) => match self.decide_from(held.from, proof, *now, shown.is_some()) {
                // Whether it is a clone is decided when it is settled what the attempt has left.
                Decision::Quarantine => Decision::Wait { until: now.after(Attempt::LEASE) },
                decision => decision,
            },
            (state, _) => self.decide_from(*state, proof, *now, shown.is_some()),
        }
    }

    /// What is decided in a state about a proof that is the device's.
    fn decide_from(&self, state: State, proof: &Proof, now: Timestamp, is_shown: bool) -> Decision {
        match (state, &self.credential) {
            (State::Registered | State::Reserved, _) => Decision::Provision,
            // The same key in another certificate is the same device, whose earlier answer was lost. The same key after
            // the end of its certificate is the same device, too, which was off for long.
            (State::Provisioned, Some(credential)) if credential.key == proof.key => match proof.certificate {
                Some(certificate) if certificate != credential.certificate => Decision::Provision,
                None if credential.is_expired(now) => Decision::Provision,
                _ if credential.is_renewable(proof) => Decision::Provision,
                _ => Decision::Replay(credential.clone()),
            },
            (State::Provisioned, Some(_)) if is_shown => Decision::Provision,
            (State::Provisioned, Some(credential)) if credential.may_be_reissued(proof, now) => Decision::Provision,
            (State::Provisioned, _) => Decision::Quarantine,
            (State::Quarantined, _) => Decision::Deny(Denial::Quarantined),
            (State::Revoked, _) => Decision::Deny(Denial::Revoked),
        }
    }
}

impl Credential {
    /// Whether a key that we made may be replaced: only by another of ours, only right after, and only as long as no
    /// device has connected with the answer that this one says it never got.
    pub(crate) fn may_be_reissued(&self, proof: &Proof, now: Timestamp) -> bool {
        let unused = self.used_at.is_none() && now < self.issued_at.after(Device::REISSUE_WINDOW);
        self.key_made_here && proof.key_made_here && proof.shown.is_none() && unused
    }

    /// Whether the device may have another certificate for the same key: it shows this one, and this one is old.
    pub(crate) fn is_renewable(&self, proof: &Proof) -> bool {
        proof.shown.is_some_and(|shown| shown.renewable && shown.id == self.certificate)
    }
}

/// What a store writes for an attempt that was not let in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// Why.
    pub denial: Denial,
    /// The key that was shown.
    pub key: KeyFingerprint,
    /// When.
    pub at: Timestamp,
    /// Whether the audit trail gets an entry for it; the others are counted.
    pub noted: bool,
}

impl Refusal {
    /// Refusals of one device for one reason are one entry of the audit trail for at least this long, so that guessing
    /// cannot fill the disk.
    pub const INTERVAL: Duration = Duration::from_secs(60 * 60);

    /// The refusal of `attempt` on the device that was `found`.
    pub fn new(denial: Denial, found: Option<&Device>, attempt: &Attempt) -> Self {
        let at = attempt.now;
        let last = found.and_then(|device| device.last_refusal);
        let is_in_interval = last.is_some_and(|last| {
            last.denial == denial && last.noted_at <= at && at < last.noted_at.after(Self::INTERVAL)
        });
        Self { denial, key: attempt.proof.key, at, noted: denial == Denial::Cloned || !is_in_interval }
    }
}
