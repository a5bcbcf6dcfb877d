//! How much may be asked: token buckets, in front of everything that costs something.

use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// Buckets of one kind: whatever comes, they take 4 MiB, and never more.
const BUCKETS: usize = 1 << 16;

/// So many at once, and as many more in each such time: `600/m`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Rate {
    number: NonZeroU32,
    each: Duration,
}

impl Rate {
    fn quota(self) -> Quota {
        // A bucket that fills within an hour has a period that is not zero.
        let one = (self.each / self.number.get()).max(Duration::from_nanos(1));
        Quota::with_period(one).unwrap_or(Quota::per_second(NonZeroU32::MIN)).allow_burst(self.number)
    }
}

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let (number, unit) = text.split_once('/').ok_or(InvalidRate)?;
        let each = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            _ => return Err(InvalidRate),
        };
        let is_number = number.len() <= 7 && number.bytes().all(|byte| byte.is_ascii_digit());
        let number = Some(number).filter(|_| is_number).and_then(|number| number.parse().ok()).ok_or(InvalidRate)?;
        Ok(Self { number, each: Duration::from_secs(each) })
    }
}

/// A text is no [`Rate`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a rate is a number, of 1 to 9999999, and one of /s /m /h, such as 600/m")]
pub(super) struct InvalidRate;

/// A bucket for each that asks, as far as there are buckets: who asks shares one with whoever falls into the same. Which
/// these are nobody can choose, as the hash has a key of its own in each process, and so no flood of names makes the
/// memory grow or takes aim at somebody.
pub(super) struct Buckets<C: Clock = DefaultClock> {
    all: Vec<RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>>,
    clock: C,
    hash: RandomState,
}

impl Buckets {
    pub(super) fn new(rate: Rate) -> Self {
        Self::with_clock(rate, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Buckets<C> {
    fn with_clock(rate: Rate, clock: C) -> Self {
        let bucket = || RateLimiter::direct_with_clock(rate.quota(), clock.clone());
        Self { all: std::iter::repeat_with(bucket).take(BUCKETS).collect(), clock, hash: RandomState::new() }
    }

    /// Takes one out of the bucket of this one.
    ///
    /// # Errors
    ///
    /// How long it lasts until there is one.
    pub(super) fn take(&self, who: &impl Hash) -> Result<(), Duration> {
        self.bucket(who).check().map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// Takes as many out as are there, up to this.
    pub(super) fn spill(&self, who: &impl Hash, number: NonZeroU32) {
        // Where there are not as many, the next ones are told to wait soon enough.
        let _ = self.bucket(who).check_n(number);
    }

    fn bucket(&self, who: &impl Hash) -> &RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>> {
        let place = self.hash.hash_one(who) % BUCKETS as u64;
        &self.all[usize::try_from(place).unwrap_or_default()]
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    #[test]
    fn a_rate_is_a_number_and_a_time() {
        let rate: Rate = "600/m".parse().unwrap();
        assert_eq!((rate.number.get(), rate.each), (600, Duration::from_secs(60)));
        for bad in ["", "600", "0/s", "-1/s", "+1/s", "1/d", "10000000/s", "1.5/s", "/s", "1/ s"] {
            assert_eq!(bad.parse::<Rate>(), Err(InvalidRate), "{bad:?}");
        }
    }

    #[test]
    fn threat_02_a_sweep_is_slowed_down_and_others_are_not() {
        let clock = FakeRelativeClock::default();
        let buckets = Buckets::with_clock("3/m".parse().unwrap(), clock.clone());
        for _ in 0..3 {
            assert_eq!(buckets.take(&"sweeper"), Ok(()));
        }
        let wait = buckets.take(&"sweeper").unwrap_err();
        assert!(wait > Duration::from_secs(19) && wait <= Duration::from_secs(20), "{wait:?}");
        clock.advance(wait);
        assert_eq!(buckets.take(&"sweeper"), Ok(()));
        assert!(buckets.take(&"sweeper").is_err());
        // One in 65,536 falls into the same bucket.
        assert!((0..3).any(|number| buckets.take(&number).is_ok()));
    }

    #[test]
    fn what_is_spilt_is_gone() {
        let buckets = Buckets::with_clock("30/h".parse().unwrap(), FakeRelativeClock::default());
        buckets.spill(&1, NonZeroU32::new(20).unwrap());
        buckets.spill(&1, NonZeroU32::new(20).unwrap());
        assert_eq!((0..30).filter(|_| buckets.take(&1).is_ok()).count(), 10);
    }
}
