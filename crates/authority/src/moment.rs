//! Between the domain's moments and those of the library.

use cvm_provisioning::Timestamp;
use time::OffsetDateTime;

/// The same moment; one before the year 0 or after 9999, which no certificate can name, becomes the nearest that can.
pub(crate) fn moment(timestamp: Timestamp) -> OffsetDateTime {
    #[expect(clippy::expect_used, reason = "the library has the years -9999 to 9999")]
    OffsetDateTime::from_unix_timestamp(timestamp.seconds().clamp(YEAR_0, YEAR_9999)).expect("a year it has")
}

/// 0000-01-01T00:00:00Z, in seconds since 1970.
const YEAR_0: i64 = -62_167_219_200;
/// 9999-12-31T23:59:59Z: the last moment that a certificate can name (RFC 5280 section 4.1.2.5).
const YEAR_9999: i64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_that_no_certificate_can_name_becomes_the_nearest_that_can() {
        for (seconds, expected) in
            [(0, 0), (1_795_295_535, 1_795_295_535), (i64::MAX, YEAR_9999), (i64::MIN, YEAR_0), (YEAR_9999, YEAR_9999)]
        {
            assert_eq!(moment(Timestamp::from_seconds(seconds)).unix_timestamp(), expected);
        }
    }
}
