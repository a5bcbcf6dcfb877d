use std::time::Duration;

use cvm_provisioning::{LedgerEntry, Standing, Timestamp};

use crate::SerialNumber;

/// A certificate that is not to be trusted any more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RevokedCertificate {
    /// Its serial number, which is one among those of its issuer only.
    pub serial_number: SerialNumber,
    /// When it was revoked.
    pub revoked_at: Timestamp,
    /// Why.
    pub reason: RevocationReason,
    /// The last moment of its validity, after which nobody trusts it anyway.
    pub not_after: Timestamp,
}

impl RevokedCertificate {
    /// How much longer than a revocation list is valid an expired certificate is listed, for clocks that are slow.
    pub const MARGIN: Duration = Duration::from_secs(24 * 60 * 60);

    /// A certificate of the ledger that nobody may let in. One that an operator may let in again is on hold.
    pub fn of_entry(entry: &LedgerEntry) -> Option<Self> {
        let reason = match entry.standing {
            Standing::Active => return None,
            Standing::Inactive | Standing::Pending => RevocationReason::CertificateHold,
            Standing::Revoked => RevocationReason::CessationOfOperation,
        };
        let serial_number = entry.serial.parse().ok()?;
        Some(Self { serial_number, revoked_at: entry.since, reason, not_after: entry.not_after })
    }

    /// Whether it has to be listed at this time, where lists are valid for so long.
    ///
    /// It has, until a list was made that is of a time after its expiry (RFC 5280 section 3.3). Taking a certificate
    /// that has not expired off the list would make it good again (HCSEC-2021-09).
    pub fn is_listed(&self, list_validity: Duration, now: Timestamp) -> bool {
        self.not_after.after(list_validity).after(Self::MARGIN) >= now
    }
}

/// Why a certificate was revoked (RFC 5280 section 5.3.1).
///
/// `removeFromCRL` is left out: it is for lists of changes, which nobody makes here.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RevocationReason {
    /// The device has another name or owner now.
    AffiliationChanged,
    /// The key of a CA may be known to somebody else.
    CaCompromise,
    /// The device is kept out until somebody lets it in again: the one reason that a later list may take back.
    CertificateHold,
    /// The device is out of service.
    CessationOfOperation,
    /// The device's key may be known to somebody else.
    KeyCompromise,
    /// The device may not do any more what the certificate lets it.
    PrivilegeWithdrawn,
    /// The device has a newer certificate.
    Superseded,
    /// None was given.
    Unspecified,
}

impl RevocationReason {
    /// Its number in a list, in which [`RevocationReason::Unspecified`] has none.
    pub const fn code(self) -> Option<u8> {
        match self {
            Self::Unspecified => None,
            Self::KeyCompromise => Some(1),
            Self::CaCompromise => Some(2),
            Self::AffiliationChanged => Some(3),
            Self::Superseded => Some(4),
            Self::CessationOfOperation => Some(5),
            Self::CertificateHold => Some(6),
            Self::PrivilegeWithdrawn => Some(9),
        }
    }

    pub(crate) const fn of_library(self) -> rcgen::RevocationReason {
        match self {
            Self::AffiliationChanged => rcgen::RevocationReason::AffiliationChanged,
            Self::CaCompromise => rcgen::RevocationReason::CaCompromise,
            Self::CertificateHold => rcgen::RevocationReason::CertificateHold,
            Self::CessationOfOperation => rcgen::RevocationReason::CessationOfOperation,
            Self::KeyCompromise => rcgen::RevocationReason::KeyCompromise,
            Self::PrivilegeWithdrawn => rcgen::RevocationReason::PrivilegeWithdrawn,
            Self::Superseded => rcgen::RevocationReason::Superseded,
            Self::Unspecified => rcgen::RevocationReason::Unspecified,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    #[test]
    fn threat_56_a_certificate_that_has_not_expired_is_listed_whatever_the_time_of_its_revocation() {
        let revoked = RevokedCertificate {
            serial_number: "01".parse().unwrap(),
            revoked_at: Timestamp::from_seconds(0),
            reason: RevocationReason::KeyCompromise,
            not_after: Timestamp::from_seconds(1_000_000_000),
        };
        let expiry = revoked.not_after;
        let week = Duration::from_secs(7 * DAY);
        for listed in [Timestamp::from_seconds(0), expiry, expiry.after(week), expiry.after(week * 8 / 7)] {
            assert!(revoked.is_listed(week, listed), "{listed}");
        }
        assert!(!revoked.is_listed(week, expiry.after(Duration::from_secs(8 * DAY + 1))));
        let forever = RevokedCertificate { not_after: Timestamp::from_seconds(i64::MAX), ..revoked };
        assert!(forever.is_listed(week, Timestamp::from_seconds(i64::MAX)));
    }
}
