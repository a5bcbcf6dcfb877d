use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A device's serial number or registration id: 1 to 128 characters of `[A-Za-z0-9:_.-]`.
///
/// There is one canonical form, the text itself: case is kept and nothing is trimmed, so two ids are the same device
/// exactly when they are the same bytes. `.` and `..` are refused, because an id becomes a file name and a topic level.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId(String);

impl DeviceId {
    /// The longest id, in characters: what AWS IoT takes as a thing name and a client id.
    pub const MAX_LENGTH: usize = 128;

    /// The id as text, safe in a thing name, a log line or a file name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceId {
    type Err = InvalidDeviceId;

    fn from_str(text: &str) -> Result<Self, InvalidDeviceId> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for DeviceId {
    type Error = InvalidDeviceId;

    fn try_from(text: String) -> Result<Self, InvalidDeviceId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_' | b'.' | b'-');
        match text.as_str() {
            "" => Err(InvalidDeviceId::Empty),
            "." | ".." => Err(InvalidDeviceId::Dots),
            _ if text.len() > Self::MAX_LENGTH => Err(InvalidDeviceId::TooLong { length: text.len() }),
            _ if !text.bytes().all(allowed) => Err(InvalidDeviceId::Character),
            _ => Ok(Self(text)),
        }
    }
}

impl From<DeviceId> for String {
    fn from(id: DeviceId) -> Self {
        id.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no [`DeviceId`]. The text itself is never repeated: it is a stranger's.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDeviceId {
    /// A character outside the alphabet, which includes blanks, control characters and everything beyond ASCII.
    #[error("a device id is made of the characters A-Z a-z 0-9 : _ . - only")]
    Character,
    /// `.` or `..`.
    #[error("a device id may contain dots but not be . or ..")]
    Dots,
    /// Nothing at all.
    #[error("a device id has at least one character")]
    Empty,
    /// Longer than [`DeviceId::MAX_LENGTH`].
    #[error("a device id has at most {max} characters, this one has {length}", max = DeviceId::MAX_LENGTH)]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_14_an_id_has_one_form_or_is_refused() {
        for good in ["A", "sn-0001", "AA:BB:CC:00:11:22", "model_7.2", &"x".repeat(128)] {
            assert_eq!(good.parse::<DeviceId>().unwrap().as_str(), good);
        }
        for bad in [
            "sn 1",
            " sn",
            "sn ",
            "sn\0",
            "sn\n",
            "sn%00",
            "../sn",
            "sn/1",
            "sn#",
            "sn+",
            "$aws",
            "*",
            "?",
            "${iot:ClientId}",
            "\u{feff}sn",
            "ѕn-0001",
            "ｓｎ",
            "sn\u{200b}",
        ] {
            assert_eq!(bad.parse::<DeviceId>(), Err(InvalidDeviceId::Character), "{bad:?}");
        }
        assert_eq!("".parse::<DeviceId>(), Err(InvalidDeviceId::Empty));
        assert_eq!("..".parse::<DeviceId>(), Err(InvalidDeviceId::Dots));
        assert_eq!("x".repeat(129).parse::<DeviceId>(), Err(InvalidDeviceId::TooLong { length: 129 }));
    }

    #[test]
    fn ids_that_differ_in_case_are_two_devices() {
        assert_ne!("SN1".parse::<DeviceId>(), "sn1".parse::<DeviceId>());
    }
}
