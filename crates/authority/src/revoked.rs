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
            Standing::Revoked => RevocationReason::Unspecified,
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

/// Why a certificate is not to be trusted (RFC 5280 section 5.3.1), as far as the ledger knows it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RevocationReason {
    /// The device is kept out until somebody lets it in again: the one reason that a later list may take back.
    CertificateHold,
    /// It is for good, and nobody has said in a word of the RFC's why: a list says nothing rather than what may be wrong.
    Unspecified,
}

impl RevocationReason {
    /// Its number in a list, in which [`RevocationReason::Unspecified`] has none.
    pub const fn code(self) -> Option<u8> {
        match self {
            Self::CertificateHold => Some(6),
            Self::Unspecified => None,
        }
    }

    pub(crate) const fn of_library(self) -> rcgen::RevocationReason {
        match self {
            Self::CertificateHold => rcgen::RevocationReason::CertificateHold,
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
            reason: RevocationReason::Unspecified,
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
