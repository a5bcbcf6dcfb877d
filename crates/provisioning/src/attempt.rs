use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use aws_lc_rs::error::Unspecified;

use crate::{
    CertificateId, Credential, DeviceId, GroupCredential, KeyFingerprint, Origin, Proof, State, Superseded, Timestamp,
};

/// One try of one device at being provisioned.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attempt {
    /// Tells this try from every other.
    pub id: AttemptId,
    /// Who the device says it is.
    pub device: DeviceId,
    /// What it sent to prove it.
    pub proof: Proof,
    /// Where the request came in; written down with each change that it makes.
    pub origin: Origin,
    /// When the request came in.
    pub now: Timestamp,
    /// What was signed for it with a CA of our own, before it holds the device. The platform does not know of it yet, and
    /// learns of it only where the reservation has it.
    pub prepared: Option<Credential>,
}

impl Attempt {
    /// How long an attempt may hold a device. Longer than any door lets a request run, so that an attempt whose lease
    /// has ended is dead and not merely slow.
    pub const LEASE: Duration = Duration::from_secs(30);

    /// A lease that ends later than this from now was given while a clock was ahead. Clocks of servers that share a registry
    /// differ by less than five minutes.
    pub const LONGEST_LEASE: Duration = Duration::from_secs(30 + 5 * 60);

    /// When another attempt may take over.
    pub fn lease_ends(&self) -> Timestamp {
        self.now.after(Self::LEASE)
    }
}

/// Tells one attempt from every other: 128 random bits.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AttemptId(u128);

impl AttemptId {
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

    /// The id of every try to give a device this certificate. A door whose certificate exists before the device asks is
    /// called more than once for it, by design of the platform, and all those calls are one attempt.
    pub fn of(certificate: &CertificateId) -> Self {
        let mut bits = [0; 16];
        bits.copy_from_slice(&certificate.as_bytes()[..16]);
        Self(u128::from_be_bytes(bits))
    }

    /// A number below `end` that differs from attempt to attempt, to spread what would come at once.
    pub const fn spread(self, end: u8) -> u64 {
        (self.0 % end as u128) as u64
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for AttemptId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

/// The right of one key to become one device, for a bounded time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reservation {
    /// The attempt that holds it.
    pub owner: AttemptId,
    /// The key that the attempt brought.
    pub key: KeyFingerprint,
    /// The certificate that the attempt is about, where it existed before.
    pub certificate: Option<CertificateId>,
    /// What the device shared with others, where it showed it.
    pub group: Option<GroupCredential>,
    /// When another attempt may take over.
    pub expires_at: Timestamp,
    /// The state that the device is in again where the attempt comes to nothing.
    pub from: State,
    /// What was made, by this attempt or an earlier one, and nobody was given: the same key takes it up, another key has
    /// it retired.
    pub left: Option<Credential>,
    /// Attempts since it was last known what they left behind. More than one means that an attempt died without a
    /// word, and that the platform has to be asked.
    pub attempts: u32,
}

impl Reservation {
    /// Whether its attempt may still be at work. A lease of a clock that was ahead does not count: the device would wait until
    /// then.
    pub fn is_leased(&self, now: Timestamp) -> bool {
        now < self.expires_at && now.until(self.expires_at) <= Attempt::LONGEST_LEASE
    }
}

/// What a failed attempt knows of what it leaves behind.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "an attempt has one of them")]
pub enum Leftover {
    /// This certificate, or nothing at all: the next attempt can build on it.
    Known(Option<Credential>),
    /// An earlier attempt's remains were not cleared away: the next attempt has to look again.
    Unknown,
}

/// What there is beside the certificate of an attempt that has ended well.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Beside {
    /// The device's earlier certificates that stay in power for now.
    pub superseded: Vec<Superseded>,
    /// What earlier attempts may have left.
    pub remains: Remains,
}

impl Beside {
    /// Nothing: the attempt was the device's first.
    pub const NOTHING: Self = Self { superseded: Vec::new(), remains: Remains::Nothing };
}

/// Whether earlier attempts may have left certificates that nobody knows of, once an attempt has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Remains {
    /// No: this attempt was the only one.
    Nothing,
    /// Perhaps: the reconciler has to look through the platform's certificates.
    Unsettled,
}

/// The attempt no longer holds the device: its lease ran out and another took over, or an operator stepped in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the reservation was lost to another attempt or to an operator's change")]
pub struct ReservationLost {
    /// Whether an attempt with the same key holds the device now. It may have found this one's certificate and be about
    /// to commit it.
    pub to_same_key: bool,
}

/// 128 random bits.
pub(crate) fn random_bits() -> Result<u128, Unspecified> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(u128::from_be_bytes(bytes))
}
