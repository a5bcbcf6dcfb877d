use std::fmt;
use std::str::FromStr;

use aws_lc_rs::error::Unspecified;

/// A certificate's serial number: positive, and at most 20 octets (RFC 5280 section 4.1.2.2).
///
/// It is written as lower-case hexadecimal without a prefix; both cases are read.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SerialNumber(Vec<u8>);

impl SerialNumber {
    /// The longest serial number, in octets.
    pub const MAX_LENGTH: usize = 20;

    /// 159 random bits, which is as many as a positive number of 20 octets has.
    ///
    /// Nobody is asked whether it is taken: among 2^40 certificates two are the same with a chance of 2^-80.
    pub(crate) fn random() -> Result<Self, Unspecified> {
        let mut bytes = [0; Self::MAX_LENGTH];
        while bytes == [0; Self::MAX_LENGTH] {
            aws_lc_rs::rand::fill(&mut bytes)?;
            bytes[0] &= 0x7f;
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
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
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
    fn threat_53_a_serial_number_is_random_positive_and_at_most_20_octets() {
        let serials: HashSet<SerialNumber> = (0..10_000).map(|_| SerialNumber::random().unwrap()).collect();
        assert_eq!(serials.len(), 10_000);
        let mut ored = [0_u8; 20];
        for serial in &serials {
            let bytes = serial.as_bytes();
            assert!(bytes.len() < 20 || bytes.len() == 20 && bytes[0] < 0x80, "{serial}");
            ored.iter_mut().rev().zip(bytes.iter().rev()).for_each(|(all, byte)| *all |= byte);
        }
        assert_eq!((ored[0], &ored[1..]), (0x7f, &[0xff; 19][..]), "every one of the 159 bits is used");
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
