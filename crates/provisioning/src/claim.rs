//! Claims: certificates that devices share for their first connection, so that they can ask for one of their own.

use crate::{CertificateId, Denial, DeviceId, Status, Timestamp, TrustedUser};

/// A claim certificate, as the registry knows it. What the registry does not know claims nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    /// The certificate that devices share.
    pub certificate: CertificateId,
    /// Whether an operator lets it claim anything: the kill switch.
    pub status: Status,
    /// How many reservations it may make in all; `None` is any number.
    pub quota: Option<u64>,
    /// How many it has made.
    pub used: u64,
    /// From when on it claims nothing.
    pub expires_at: Option<Timestamp>,
    /// The trusted user and the one device that it was made out for.
    pub made_out: Option<MadeOut>,
    /// When it was registered.
    pub created_at: Timestamp,
}

/// For whom a claim is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MadeOut {
    /// The trusted user who asked for it.
    pub user: TrustedUser,
    /// The one device that it may claim.
    pub device: DeviceId,
}

impl Claim {
    /// A claim certificate that any device whose item accepts it may use.
    pub fn new(certificate: CertificateId, now: Timestamp) -> Self {
        Self {
            certificate,
            status: Status::enabled(now),
            quota: None,
            used: 0,
            expires_at: None,
            made_out: None,
            created_at: now,
        }
    }

    /// Whether it may claim this device at this moment.
    ///
    /// # Errors
    ///
    /// The [`Denial`] that says why not.
    pub fn admits(&self, device: &DeviceId, now: Timestamp) -> Result<(), Denial> {
        self.is_in_force(now)?;
        match &self.made_out {
            Some(made_out) if made_out.device != *device => Err(Denial::ClaimForAnother),
            _ => Ok(()),
        }
    }

    /// Whether it may make one more reservation at this moment.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.is_in_force(now).is_ok() && self.has_quota().is_ok()
    }

    fn is_in_force(&self, now: Timestamp) -> Result<(), Denial> {
        if !self.status.enabled {
            return Err(Denial::ClaimRevoked);
        }
        match self.expires_at {
            Some(end) if end <= now => Err(Denial::ClaimExpired),
            _ => Ok(()),
        }
    }

    /// Whether its quota allows one more reservation.
    ///
    /// # Errors
    ///
    /// [`Denial::ClaimUsedUp`].
    pub fn has_quota(&self) -> Result<(), Denial> {
        match self.quota {
            Some(quota) if quota <= self.used => Err(Denial::ClaimUsedUp),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    #[test]
    fn threat_11_a_claim_ends_when_it_is_revoked_expired_or_used_up() {
        let claim = Claim::new(CertificateId::of(b"claim"), NOW);
        let device: DeviceId = "sn-1".parse().unwrap();
        assert_eq!(claim.admits(&device, NOW), Ok(()));
        let revoked = Status::disabled("leaked".parse().ok(), NOW);
        assert_eq!(Claim { status: revoked, ..claim.clone() }.admits(&device, NOW), Err(Denial::ClaimRevoked));
        let expired = Claim { expires_at: Some(NOW), ..claim.clone() };
        assert_eq!(expired.admits(&device, NOW), Err(Denial::ClaimExpired));
        assert_eq!(expired.admits(&device, Timestamp::from_seconds(NOW.seconds() - 1)), Ok(()));
        assert_eq!(Claim { quota: Some(2), used: 1, ..claim.clone() }.has_quota(), Ok(()));
        assert_eq!(Claim { quota: Some(2), used: 2, ..claim }.has_quota(), Err(Denial::ClaimUsedUp));
    }

    #[test]
    fn a_claim_made_out_for_a_device_claims_no_other() {
        let made_out = MadeOut { user: "installer".parse().unwrap(), device: "sn-1".parse().unwrap() };
        let claim = Claim { made_out: Some(made_out), ..Claim::new(CertificateId::of(b"claim"), NOW) };
        assert_eq!(claim.admits(&"sn-1".parse().unwrap(), NOW), Ok(()));
        assert_eq!(claim.admits(&"sn-2".parse().unwrap(), NOW), Err(Denial::ClaimForAnother));
    }
}
