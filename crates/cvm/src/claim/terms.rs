use std::num::NonZeroU64;
use std::str::FromStr;

use clap::Args;
use cvm_provisioning::{Claim, Timestamp};

use crate::arguments::TimeToLive;

/// How much a claim is good for. What is left out stays as it is.
#[derive(Args, Debug)]
pub(super) struct TermsArguments {
    /// How many reservations it may make in all, one or more for each device; `any` takes a limit away
    #[arg(long, value_name = "N")]
    quota: Option<Quota>,
    /// Let it end after 90s, 15m, 12h, 7d, 2w ...; `never` takes an end away
    #[arg(long, value_name = "TIME")]
    expires: Option<Expiry>,
}

impl TermsArguments {
    /// The claim on these terms.
    pub(super) fn revise(&self, claim: Claim, now: Timestamp) -> Claim {
        let quota = match self.quota {
            Some(Quota(quota)) => quota.map(NonZeroU64::get),
            None => claim.quota,
        };
        let expires_at = match self.expires {
            Some(Expiry(lifetime)) => lifetime.map(|lifetime| now.after(lifetime.duration())),
            None => claim.expires_at,
        };
        Claim { quota, expires_at, ..claim }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Quota(Option<NonZeroU64>);

impl FromStr for Quota {
    type Err = InvalidTerm;

    fn from_str(text: &str) -> Result<Self, InvalidTerm> {
        match text {
            "any" => Ok(Self(None)),
            // `parse` would take a sign.
            _ if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().map(|quota| Self(Some(quota))).map_err(|_| InvalidTerm::Quota)
            }
            _ => Err(InvalidTerm::Quota),
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Expiry(Option<TimeToLive>);

impl FromStr for Expiry {
    type Err = InvalidTerm;

    fn from_str(text: &str) -> Result<Self, InvalidTerm> {
        match text {
            "never" => Ok(Self(None)),
            _ => text.parse().map(|lifetime| Self(Some(lifetime))).map_err(|_| InvalidTerm::Expiry),
        }
    }
}

/// A word says nothing about how much a claim is good for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum InvalidTerm {
    #[error("expected `never`, or a number and one of the units s m h d w, such as 26w, and ten years at most")]
    Expiry,
    #[error("expected `any`, or a number from 1 on; `cvm claim revoke` ends a claim")]
    Quota,
}

#[cfg(test)]
mod tests {
    use cvm_provisioning::CertificateId;
    use cvm_testkit::fixture::{NOW, later};

    use super::*;

    fn terms(quota: Option<&str>, expires: Option<&str>) -> TermsArguments {
        TermsArguments {
            quota: quota.map(|text| text.parse().unwrap()),
            expires: expires.map(|text| text.parse().unwrap()),
        }
    }

    #[test]
    fn what_is_not_said_stays_as_it_is() {
        let claim = Claim { used: 3, ..Claim::new(CertificateId::of(b"claim"), NOW) };
        let limited = terms(Some("5"), Some("1m")).revise(claim.clone(), NOW);
        assert_eq!(limited, Claim { quota: Some(5), expires_at: Some(later(60)), ..claim.clone() });
        assert_eq!(terms(None, None).revise(limited.clone(), later(9)), limited);
        assert_eq!(terms(Some("any"), Some("never")).revise(limited, later(9)), claim);
    }

    #[test]
    fn a_quota_of_nothing_is_no_quota() {
        for bad in ["", "0", "-1", "+1", "1.5", "none", "99999999999999999999"] {
            assert_eq!(bad.parse::<Quota>(), Err(InvalidTerm::Quota), "{bad:?}");
        }
        for bad in ["", "0d", "26", "2027-01-01"] {
            assert_eq!(bad.parse::<Expiry>(), Err(InvalidTerm::Expiry), "{bad:?}");
        }
    }
}
