//! Whether the machine's clock can be right: certificates that are made under a wrong one are of no use.

use std::time::Duration;

use cvm_provisioning::Timestamp;

/// 2026-11-01, before this version was released.
const EARLIEST: Timestamp = Timestamp::from_seconds(1_793_491_200);
/// How long after that this version may be in use.
const LIFETIME: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Checks a time that the machine's clock shows.
pub(crate) fn check(now: Timestamp) -> Result<(), ImplausibleClock> {
    if now < EARLIEST || now > EARLIEST.after(LIFETIME) { Err(ImplausibleClock { now }) } else { Ok(()) }
}

/// The machine's clock shows a time that cannot be right.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the clock of this machine is wrong: it shows {now}, and this version was released after {EARLIEST}")]
pub(crate) struct ImplausibleClock {
    now: Timestamp,
}

impl ImplausibleClock {
    /// What to do next.
    pub(crate) const ADVICE: &str = "set the clock (`timedatectl set-ntp true`), then run the same command again";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_38_a_time_before_the_release_or_decades_after_it_is_no_time() {
        for wrong in [0, 946_684_800, 1_793_491_199, 4_000_000_000, i64::MAX] {
            assert!(check(Timestamp::from_seconds(wrong)).is_err(), "{wrong}");
        }
        for right in [1_793_491_200, 1_800_000_000, 2_500_000_000] {
            assert_eq!(check(Timestamp::from_seconds(right)), Ok(()));
        }
    }
}
