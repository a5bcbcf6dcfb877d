use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment, in whole seconds since 1970-01-01T00:00:00Z; shown as RFC 3339.
///
/// The domain never asks what time it is: the door that took the request says so.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment `seconds` after the epoch.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Seconds since the epoch.
    pub const fn seconds(self) -> i64 {
        self.0
    }

    /// The moment `duration` later; fractions of a second are dropped.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add_unsigned(duration.as_secs()))
    }

    /// The moment `duration` earlier; fractions of a second are dropped.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub_unsigned(duration.as_secs()))
    }

    /// How long until `later`; zero where that is past.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_secs(later.0.saturating_sub(self.0).try_into().unwrap_or(0))
    }
}

impl From<OffsetDateTime> for Timestamp {
    fn from(moment: OffsetDateTime) -> Self {
        Self(moment.unix_timestamp())
    }
}

impl From<SystemTime> for Timestamp {
    fn from(moment: SystemTime) -> Self {
        OffsetDateTime::from(moment).into()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match OffsetDateTime::from_unix_timestamp(self.0).map(|moment| moment.format(&Rfc3339)) {
            Ok(Ok(text)) => f.write_str(&text),
            // Beyond the year 9999 RFC 3339 has no form.
            _ => write!(f, "@{}", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    /// Reads what is shown; fractions of a second are dropped.
    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        match text.strip_prefix('@') {
            Some(seconds) => seconds.parse().map(Self).map_err(|_| InvalidTimestamp),
            None => OffsetDateTime::parse(text, &Rfc3339).map(Self::from).map_err(|_| InvalidTimestamp),
        }
    }
}

/// A text is no [`Timestamp`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected a moment such as 2026-01-31T12:00:00Z (RFC 3339)")]
pub struct InvalidTimestamp;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_reads_as_rfc_3339() {
        assert_eq!(Timestamp::from_seconds(1_795_295_535).to_string(), "2026-11-21T21:12:15Z");
        assert_eq!(Timestamp::from_seconds(i64::MAX).to_string(), format!("@{}", i64::MAX));
        for seconds in [1_795_295_535, -1, i64::MAX] {
            let moment = Timestamp::from_seconds(seconds);
            assert_eq!(moment.to_string().parse(), Ok(moment), "what is shown is read");
        }
        assert_eq!("yesterday".parse::<Timestamp>(), Err(InvalidTimestamp));
    }

    #[test]
    fn the_wait_for_a_past_moment_is_zero() {
        let now = Timestamp::from_seconds(1_000);
        assert_eq!(now.until(now.after(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(now.until(Timestamp::from_seconds(5)), Duration::ZERO);
    }
}
