use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_lc_rs::error::Unspecified;
use cvm_provisioning::Timestamp;
use data_encoding::HEXLOWER;

/// A certificate's serial number: positive, and at most 20 octets (RFC 5280 section 4.1.2.2).
///
/// It is written as lower-case hexadecimal without a prefix; both cases are read.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SerialNumber(Vec<u8>);

impl SerialNumber {
    /// The longest serial number, in octets.
    pub const MAX_LENGTH: usize = 20;

    /// 31 bits that grow with the time and with each number, and 128 random ones: together as many as a positive number
    /// of 20 octets has. Those that are made one after the other stand side by side in an index, so that a database
    /// writes the latest page of it alone, however many there are.
    ///
    /// Nobody is asked whether it is taken: even of 2^40 that begin alike, two are the same with a chance of 2^-49.
    pub(crate) fn random(now: Timestamp) -> Result<Self, Unspecified> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let mut bytes = [0; Self::MAX_LENGTH];
        let (place, random) = bytes.split_at_mut(4);
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let second = u32::try_from(now.seconds() & 0x7fff_ffff).unwrap_or_default();
        // What comes after the last one begins at the front.
        place.copy_from_slice(&(second.wrapping_add(made) & 0x7fff_ffff).to_be_bytes());
        // All of them zero is as unlikely as any other number, and may be none.
        while random.iter().all(|byte| *byte == 0) {
            aws_lc_rs::rand::fill(random)?;
        }
        Ok(Self(significant(&bytes).to_vec()))
    }

    /// Reads the content of an ASN.1 INTEGER, big-endian; zeros in front do not count.
    ///
    /// # Errors
    ///
    /// [`InvalidSerialNumber`] for zero and for what has more than 20 octets.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidSerialNumber> {
        match significant(bytes) {
            [] => Err(InvalidSerialNumber::Zero),
            // A number whose first bit is set takes an octet more in DER.
            [first, rest @ ..] if rest.len() + 1 + usize::from(first >> 7) > Self::MAX_LENGTH => {
                Err(InvalidSerialNumber::TooLong)
            }
            significant => Ok(Self(significant.to_vec())),
        }
    }

    /// The number, big-endian, without zeros in front.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for SerialNumber {
    type Err = InvalidSerialNumber;

    fn from_str(text: &str) -> Result<Self, InvalidSerialNumber> {
        // Twice 20 octets, and one of zeros that some tools put in front.
        if text.len() > 2 * Self::MAX_LENGTH + 2 {
            return Err(InvalidSerialNumber::TooLong);
        }
        let digits: Option<Vec<u8>> =
            text.chars().map(|digit| digit.to_digit(16).and_then(|digit| digit.try_into().ok())).collect();
        let digits = digits.ok_or(InvalidSerialNumber::Character)?;
        let bytes: Vec<u8> =
            digits.rchunks(2).rev().map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
        Self::from_bytes(&bytes)
    }
}

impl fmt::Display for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SerialNumber({self})")
    }
}

/// Why something is no [`SerialNumber`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSerialNumber {
    /// A character that is no hexadecimal digit.
    #[error("a serial number is written in the digits 0-9 a-f only, without colons, blanks or a prefix")]
    Character,
    /// More than [`SerialNumber::MAX_LENGTH`] octets.
    #[error("a serial number has at most {max} octets", max = SerialNumber::MAX_LENGTH)]
    TooLong,
    /// Nothing, or zero.
    #[error("a serial number is not zero")]
    Zero,
}

fn significant(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn threat_53_a_serial_number_has_128_random_bits_is_positive_and_has_at_most_20_octets() {
        let now = Timestamp::from_seconds(1_800_000_000);
        let serials: HashSet<SerialNumber> = (0..10_000).map(|_| SerialNumber::random(now).unwrap()).collect();
        assert_eq!(serials.len(), 10_000);
        let (mut ored, mut anded) = ([0_u8; 16], [0xff_u8; 16]);
        for serial in &serials {
            let random = &serial.as_bytes()[4..];
            assert!(serial.as_bytes().len() == 20 && serial.as_bytes()[0] < 0x80, "{serial}");
            ored.iter_mut().zip(random).for_each(|(all, byte)| *all |= byte);
            anded.iter_mut().zip(random).for_each(|(all, byte)| *all &= byte);
        }
        assert_eq!((ored, anded), ([0xff; 16], [0; 16]), "every bit is used");
    }

    #[test]
    fn threat_38_no_clock_makes_a_serial_number_that_is_not_allowed() {
        for now in [i64::MIN, -1, 0, 1, 1 << 31, u32::MAX.into(), i64::MAX] {
            let serial = SerialNumber::random(Timestamp::from_seconds(now)).unwrap();
            assert_eq!(SerialNumber::from_bytes(serial.as_bytes()), Ok(serial), "{now}");
        }
    }

    #[test]
    fn later_serial_numbers_stand_behind_earlier_ones() {
        let serial = |second| SerialNumber::random(Timestamp::from_seconds(second)).unwrap().to_string();
        let made = [1_700_000_000, 1_700_000_000, 1_700_000_000, 1_700_000_001, 1_700_001_000].map(serial);
        assert!(made.is_sorted(), "{made:?}");
    }

    #[test]
    fn a_serial_number_is_read_as_it_is_written() {
        for (text, written) in [("1", "01"), ("0A", "0a"), ("00ff01", "ff01"), (&"7f".repeat(20), &"7f".repeat(20))] {
            let serial: SerialNumber = text.parse().unwrap();
            assert_eq!(serial.to_string(), *written);
            assert_eq!(SerialNumber::from_bytes(serial.as_bytes()), Ok(serial));
        }
        for (text, error) in [
            ("", InvalidSerialNumber::Zero),
            ("0000", InvalidSerialNumber::Zero),
            ("0x01", InvalidSerialNumber::Character),
            ("01:02", InvalidSerialNumber::Character),
            (&"80".repeat(20), InvalidSerialNumber::TooLong),
            (&"01".repeat(21), InvalidSerialNumber::TooLong),
        ] {
            assert_eq!(text.parse::<SerialNumber>(), Err(error), "{text}");
        }
    }
}
