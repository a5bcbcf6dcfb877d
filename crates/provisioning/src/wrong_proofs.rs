use std::time::Duration;

use crate::Timestamp;

/// Wrong proofs shown for a device, and the delay they earned.
///
/// The delay doubles with each wrong proof and ends at five minutes: a guesser is slowed to nothing, while the true
/// device, which anybody who knows its serial number could otherwise lock out, gets its turn.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct WrongProofs {
    /// How many.
    pub count: u32,
    /// Until when every proof is refused unseen.
    pub blocked_until: Option<Timestamp>,
}

impl WrongProofs {
    /// Mistakes that cost nothing: a mistyped token, a wrong file.
    const FREE: u32 = 3;
    /// The longest delay, in seconds.
    const MAX_DELAY: u64 = 300;

    /// The count after one more wrong proof.
    #[must_use]
    pub fn one_more(self, now: Timestamp) -> Self {
        let count = self.count.saturating_add(1);
        let blocked_until = count.checked_sub(Self::FREE + 1).map(|doublings| {
            let delay = 1_u64.checked_shl(doublings).unwrap_or(Self::MAX_DELAY).min(Self::MAX_DELAY);
            now.after(Duration::from_secs(delay))
        });
        Self { count, blocked_until }
    }

    /// Whether proofs are refused unseen at this moment.
    pub fn block(&self, now: Timestamp) -> bool {
        self.blocked_until.is_some_and(|end| now < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_from_the_fourth_mistake_on_and_ends_at_five_minutes() {
        let now = Timestamp::from_seconds(1_000);
        let mut proofs = WrongProofs::default();
        let delays = std::iter::repeat_with(|| {
            proofs = proofs.one_more(now);
            proofs.blocked_until.map_or(0, |end| now.until(end).as_secs())
        });
        let expected = [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300];
        assert_eq!(delays.take(14).collect::<Vec<_>>(), expected);
        proofs.count = u32::MAX;
        assert_eq!(proofs.one_more(now).blocked_until, Some(now.after(Duration::from_secs(300))));
    }
}
