//! How long a server that asks for a slower pace, or whose answer was lost, is waited for.

use std::time::{Duration, Instant};

use cvm_provisioning::AttemptId;

/// One wait after the other, up to an end.
#[derive(Debug)]
pub(super) struct Patience {
    ends: Instant,
    pause: Duration,
}

impl Patience {
    /// Of somebody who waits for one answer.
    pub(super) const SHORT: Duration = Duration::from_secs(60);
    /// Of an import, which has been at it for a while already.
    pub(super) const LONG: Duration = Duration::from_secs(600);
    /// The longest pause, and the longest that is obeyed: a longer one is better spent elsewhere.
    const LONGEST: Duration = Duration::from_secs(60);
    const SHORTEST: Duration = Duration::from_millis(200);

    pub(super) fn new(length: Duration) -> Self {
        Self { ends: Instant::now() + length, pause: Self::SHORTEST }
    }

    /// The next pause: what was asked for, or else one that grows, and a random part of it, so that what was turned
    /// away together does not come back together. `None` where it has been waited for long enough.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let part = AttemptId::random().map_or(0, |id| 4 * id.spread(250));
        let pause = match asked {
            Some(asked) => asked.saturating_add(Duration::from_millis(part)),
            None => {
                self.pause = (2 * self.pause).min(Self::LONGEST / 6);
                self.pause.mul_f64(0.5 + part as f64 / 2_000.0)
            }
        };
        let is_obeyed = asked.is_none_or(|asked| asked <= Self::LONGEST);
        (is_obeyed && pause <= self.ends.saturating_duration_since(Instant::now())).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_waited_for_but_not_for_ever() {
        let mut patience = Patience::new(Patience::SHORT);
        let asked = Duration::from_secs(5);
        assert!(patience.next(Some(asked)).is_some_and(|pause| (asked..2 * asked).contains(&pause)));
        assert!(patience.next(Some(Duration::from_secs(3_600))).is_none());
        assert!(patience.next(Some(Duration::MAX / 2)).is_none());
        let pauses: Vec<_> = (0..9).map(|_| patience.next(None).unwrap()).collect();
        assert!(pauses[0] < pauses[8] && pauses[8] <= Duration::from_secs(10), "{pauses:?}");
        assert!(Patience::new(Duration::ZERO).next(None).is_none());
    }
}
