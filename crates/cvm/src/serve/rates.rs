//! How much may be asked: token buckets, in front of everything that costs something.

use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock, Reference as _};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// Buckets of one kind: whatever comes, they take 5 MiB, and never more.
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
    all: Vec<Bucket<C>>,
    clock: C,
    begin: C::Instant,
    hash: RandomState,
}

struct Bucket<C: Clock> {
    limiter: RateLimiter<NotKeyed, InMemoryState, C, StateInformationMiddleware>,
    /// Until when it is empty, in nanoseconds since the beginning, as far as [`Buckets::count`] has seen.
    empty_until: AtomicU64,
}

impl Buckets {
    pub(super) fn new(rate: Rate) -> Self {
        Self::with_clock(rate, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Buckets<C> {
    fn with_clock(rate: Rate, clock: C) -> Self {
        let bucket = || Bucket {
            limiter: RateLimiter::direct_with_clock(rate.quota(), clock.clone()).with_middleware(),
            empty_until: AtomicU64::new(0),
        };
        let all = std::iter::repeat_with(bucket).take(BUCKETS).collect();
        Self { all, begin: clock.now(), clock, hash: RandomState::new() }
    }

    /// Takes one out of the bucket of this one.
    ///
    /// # Errors
    ///
    /// How long it lasts until there is one.
    pub(super) fn take(&self, who: &impl Hash) -> Result<(), Duration> {
        let taken = self.bucket(who).limiter.check();
        taken.map(drop).map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// Takes one out of the bucket after the fact, or what is left.
    pub(super) fn count(&self, who: &impl Hash) {
        let bucket = self.bucket(who);
        let wait = match bucket.limiter.check() {
            Ok(left) if left.remaining_burst_capacity() > 0 => return,
            Ok(left) => left.quota().replenish_interval(),
            Err(not_until) => not_until.wait_time_from(self.clock.now()),
        };
        let nanoseconds = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        bucket.empty_until.store(self.elapsed().saturating_add(nanoseconds), Ordering::Relaxed);
    }

    /// Looks whether there is one in the bucket, as far as it was counted; nothing is taken out.
    ///
    /// # Errors
    ///
    /// How long it lasts until there is one.
    pub(super) fn look(&self, who: &impl Hash) -> Result<(), Duration> {
        match self.bucket(who).empty_until.load(Ordering::Relaxed).saturating_sub(self.elapsed()) {
            0 => Ok(()),
            nanoseconds => Err(Duration::from_nanos(nanoseconds)),
        }
    }

    /// Takes as many out as are there, up to this.
    pub(super) fn spill(&self, who: &impl Hash, number: NonZeroU32) {
        // Where there are not as many, the next ones are told to wait soon enough.
        let _ = self.bucket(who).limiter.check_n(number);
    }

    fn elapsed(&self) -> u64 {
        self.clock.now().duration_since(self.begin).into()
    }

    fn bucket(&self, who: &impl Hash) -> &Bucket<C> {
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
    fn what_is_counted_afterwards_is_seen_before_the_next_time() {
        let clock = FakeRelativeClock::default();
        let buckets = Buckets::with_clock("2/m".parse().unwrap(), clock.clone());
        for _ in 0..100 {
            assert_eq!(buckets.look(&1), Ok(()), "to look costs nothing");
        }
        buckets.count(&1);
        assert_eq!(buckets.look(&1), Ok(()));
        buckets.count(&1);
        assert_eq!(buckets.look(&1), Err(Duration::from_secs(30)));
        clock.advance(Duration::from_secs(30));
        assert_eq!(buckets.look(&1), Ok(()));
        buckets.count(&1);
        buckets.count(&1);
        assert_eq!(buckets.look(&1), Err(Duration::from_secs(30)));
    }

    #[test]
    fn what_is_spilt_is_gone() {
        let buckets = Buckets::with_clock("30/h".parse().unwrap(), FakeRelativeClock::default());
        buckets.spill(&1, NonZeroU32::new(20).unwrap());
        buckets.spill(&1, NonZeroU32::new(20).unwrap());
        assert_eq!((0..30).filter(|_| buckets.take(&1).is_ok()).count(), 10);
    }
}
