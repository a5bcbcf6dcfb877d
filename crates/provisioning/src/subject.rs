use std::fmt;
use std::str::FromStr;

use crate::name::{self, BadName};
use crate::{DeviceId, SubjectAttribute};

/// The names in the subject of a signing request, or of a certificate that was issued with the subject of one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Subject {
    common_name: Result<Option<DeviceId>, BadName>,
    serial_number: Result<Option<DeviceId>, BadName>,
    has_wildcard: bool,
}

impl Subject {
    /// Reads a DER-encoded `Name`.
    pub(crate) fn read(der: &[u8]) -> Self {
        let text = name::text(der, SubjectAttribute::CommonName).ok().flatten();
        Self {
            common_name: name::common_name(der),
            serial_number: name::serial_number(der),
            has_wildcard: text.is_some_and(|text| text.contains(WILDCARDS)),
        }
    }

    /// The device id in the common name, if it has one.
    ///
    /// # Errors
    ///
    /// [`BadName`] if the common name is ambiguous or no device id, such as AWS IoT's own `AWS IoT Certificate`.
    pub fn common_name(&self) -> Result<Option<&DeviceId>, BadName> {
        self.common_name.as_ref().map(Option::as_ref).map_err(|error| *error)
    }

    /// The device id in the serialNumber, if it has one.
    ///
    /// # Errors
    ///
    /// [`BadName`] if the serialNumber is ambiguous or no device id.
    pub fn serial_number(&self) -> Result<Option<&DeviceId>, BadName> {
        self.serial_number.as_ref().map(Option::as_ref).map_err(|error| *error)
    }
}

/// What a name in a policy of AWS IoT must not have: it could stand for the names of other devices.
const WILDCARDS: [char; 8] = ['*', '?', '#', '+', '/', '$', '{', '}'];

/// Which attribute of a signing request's subject names the device.
///
/// It decides what a request is for that names no device otherwise, and which subjects a request may have that does. AWS
/// IoT copies the subject into its certificates, where a policy can refer to it; a private CA ignores it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum DeviceIdFrom {
    /// The common name. One that is no device id names nobody.
    #[default]
    CommonName,
    /// The serialNumber. The common name may be anything, such as the product.
    SerialNumber,
    /// The common name, or else the serialNumber.
    Either,
    /// None: the subject is not looked at, and a request has to name its device otherwise.
    None,
}

impl DeviceIdFrom {
    /// The device that the subject names, if it names one.
    ///
    /// # Errors
    ///
    /// [`BadName`] if the attribute is ambiguous or no device id.
    pub fn device(self, subject: &Subject) -> Result<Option<&DeviceId>, BadName> {
        let (common_name, serial_number) = (subject.common_name(), subject.serial_number());
        match self {
            Self::CommonName => common_name,
            Self::SerialNumber => serial_number,
            Self::Either => match (common_name, serial_number) {
                (Ok(None) | Err(_), Ok(Some(device))) => Ok(Some(device)),
                (common_name, _) => common_name,
            },
            Self::None => Ok(None),
        }
    }

    /// Whether a request for this device may have this subject: it names the device, or nobody.
    pub fn allows(self, subject: &Subject, device: &DeviceId) -> bool {
        let (common_name, serial_number) = (subject.common_name(), subject.serial_number());
        match self {
            Self::CommonName => match common_name {
                Ok(named) => named.is_none_or(|named| named == device),
                Err(BadName::CommonName(_)) => !subject.has_wildcard,
                Err(_) => false,
            },
            Self::SerialNumber => serial_number.is_ok_and(|named| named.is_none_or(|named| named == device)),
            Self::Either => {
                let named = [common_name.ok().flatten(), serial_number.ok().flatten()];
                named.contains(&Some(device)) || named == [None, None]
            }
            Self::None => true,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::CommonName => "commonName",
            Self::SerialNumber => "serialNumber",
            Self::Either => "either",
            Self::None => "none",
        }
    }
}

impl FromStr for DeviceIdFrom {
    type Err = InvalidDeviceIdFrom;

    fn from_str(text: &str) -> Result<Self, InvalidDeviceIdFrom> {
        let all = [Self::CommonName, Self::SerialNumber, Self::Either, Self::None];
        all.into_iter().find(|from| from.name() == text).ok_or(InvalidDeviceIdFrom)
    }
}

impl fmt::Display for DeviceIdFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text is no [`DeviceIdFrom`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected commonName, serialNumber, either or none")]
pub struct InvalidDeviceIdFrom;

#[cfg(test)]
mod tests {
    use DeviceIdFrom::{CommonName, Either, None, SerialNumber};

    use super::*;
    use crate::InvalidDeviceId;
    use crate::der::{OID, SEQUENCE, SET, UTF8_STRING, encode};

    fn subject(common_name: &str, serial_number: &str) -> Subject {
        let mut name = Vec::new();
        for (attribute, text) in
            [(SubjectAttribute::CommonName, common_name), (SubjectAttribute::SerialNumber, serial_number)]
        {
            if !text.is_empty() {
                let value = [encode(OID, &[attribute.oid()]), encode(UTF8_STRING, &[text.as_bytes()])].concat();
                name.extend(encode(SET, &[&encode(SEQUENCE, &[&value])]));
            }
        }
        Subject::read(&encode(SEQUENCE, &[&name]))
    }

    fn named(from: DeviceIdFrom, common_name: &str, serial_number: &str) -> Result<Option<String>, BadName> {
        let subject = subject(common_name, serial_number);
        from.device(&subject).map(|device| device.map(ToString::to_string))
    }

    #[test]
    fn the_attribute_that_is_configured_names_the_device() {
        let all = [CommonName, SerialNumber, Either, None];
        for (common_name, serial_number, expected) in [
            ("sn-1", "sn-2", [Some("sn-1"), Some("sn-2"), Some("sn-1"), Option::None]),
            ("", "sn-2", [Option::None, Some("sn-2"), Some("sn-2"), Option::None]),
            ("sn-1", "", [Some("sn-1"), Option::None, Some("sn-1"), Option::None]),
            ("", "", [Option::None; 4]),
        ] {
            let found = all.map(|from| named(from, common_name, serial_number).unwrap());
            assert_eq!(found.each_ref().map(Option::as_deref), expected, "{common_name} {serial_number}");
        }
        let no_id = Err(BadName::CommonName(InvalidDeviceId::Character));
        assert_eq!([CommonName, Either].map(|from| named(from, "Acme 7", "")), [no_id.clone(), no_id]);
        assert_eq!(named(Either, "Acme 7", "sn-2"), Ok(Some("sn-2".to_owned())));
        assert_eq!(named(SerialNumber, "", "7 8"), Err(BadName::SerialNumber(InvalidDeviceId::Character)));
    }

    #[test]
    fn a_request_may_have_a_subject_that_names_its_device_or_nobody() {
        let device = "sn-1".parse().unwrap();
        for (common_name, serial_number, allowed) in [
            ("", "", [true, true, true, true]),
            ("sn-1", "", [true, true, true, true]),
            ("sn-2", "", [false, true, false, true]),
            ("Fleet Provisioning Demo", "", [true, true, true, true]),
            ("Lumos", "sn-1", [false, true, true, true]),
            ("Lumos", "sn-2", [false, false, false, true]),
            ("AWS IoT Certificate", "sn-2", [true, false, false, true]),
            ("sn-1", "sn-2", [true, false, true, true]),
        ] {
            let subject = subject(common_name, serial_number);
            let found = [CommonName, SerialNumber, Either, None].map(|from| from.allows(&subject, &device));
            assert_eq!(found, allowed, "{common_name} {serial_number}");
        }
    }

    #[test]
    fn threat_17_a_common_name_with_wildcards_is_nobodys_where_it_gets_into_the_certificate() {
        let device = "sn-1".parse().unwrap();
        for name in ["*", "sn-?", "#", "a/+", "${iot:ClientId}"] {
            assert!(!CommonName.allows(&subject(name, ""), &device), "{name}");
        }
    }

    #[test]
    fn the_words_are_those_of_the_template() {
        for from in [CommonName, SerialNumber, Either, None] {
            assert_eq!(from.to_string().parse(), Ok(from));
        }
        assert_eq!("CN".parse::<DeviceIdFrom>(), Err(InvalidDeviceIdFrom));
    }
}
