//! A moment as documents have it: RFC 3339.

use std::fmt;

use cvm_provisioning::{InvalidTimestamp, Timestamp};
use serde::{Deserialize, Serialize};

/// A moment that is written as text.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct Moment(pub Timestamp);

impl Moment {
    /// How the identity registry writes a moment that is not known: the beginning of the year 1.
    pub const UNKNOWN: Self = Self(Timestamp::from_seconds(-62_135_596_800));
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Timestamp> for Moment {
    fn from(moment: Timestamp) -> Self {
        Self(moment)
    }
}

impl From<Moment> for String {
    fn from(moment: Moment) -> Self {
        moment.to_string()
    }
}

impl TryFrom<String> for Moment {
    type Error = InvalidTimestamp;

    fn try_from(text: String) -> Result<Self, InvalidTimestamp> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_that_is_not_known_is_the_first_of_the_year_1() {
        assert_eq!(Moment::UNKNOWN.to_string(), "0001-01-01T00:00:00Z");
        assert_eq!(Moment::try_from(Moment::UNKNOWN.to_string()), Ok(Moment::UNKNOWN));
    }
}
