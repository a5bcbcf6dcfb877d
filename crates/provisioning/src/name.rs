//! An attribute in a subject, and the ways in which a subject is ambiguous.

use crate::der::{self, BadDer, OID, PRINTABLE_STRING, SEQUENCE, SET, UTF8_STRING};
use crate::{DeviceId, InvalidDeviceId};

/// An attribute of a subject that can name a device (RFC 5280 appendix A.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SubjectAttribute {
    /// id-at-commonName, 2.5.4.3.
    CommonName,
    /// id-at-serialNumber, 2.5.4.5.
    SerialNumber,
}

impl SubjectAttribute {
    pub(crate) const fn oid(self) -> &'static [u8] {
        match self {
            Self::CommonName => &[0x55, 0x04, 0x03],
            Self::SerialNumber => &[0x55, 0x04, 0x05],
        }
    }
}

/// The device id that a DER-encoded `Name` claims in its common name, if it has one. Other attributes are ignored.
pub(crate) fn common_name(subject: &[u8]) -> Result<Option<DeviceId>, BadName> {
    text(subject, SubjectAttribute::CommonName)?.map(|name| name.parse().map_err(BadName::CommonName)).transpose()
}

/// The same of its serialNumber.
pub(crate) fn serial_number(subject: &[u8]) -> Result<Option<DeviceId>, BadName> {
    text(subject, SubjectAttribute::SerialNumber)?.map(|name| name.parse().map_err(BadName::SerialNumber)).transpose()
}

/// The text of this attribute in a DER-encoded `Name`, if it has one. Other attributes are ignored.
pub(crate) fn text(subject: &[u8], attribute: SubjectAttribute) -> Result<Option<String>, BadName> {
    let mut found = None;
    der::read_all(subject, |outer| {
        outer.expect(SEQUENCE)?.read(|name| {
            while !name.is_empty() {
                let Some(text) = name.expect(SET)?.read(|set| attribute_in(set, attribute))? else { continue };
                if found.replace(text).is_some() {
                    return Err(BadName::Repeated);
                }
            }
            Ok(())
        })
    })?;
    Ok(found)
}

/// The text of the wanted attribute, if this relative distinguished name has it. It is then alone in there: of several
/// attributes, readers could disagree on which is the name.
fn attribute_in(attributes: &mut der::Reader<'_>, wanted: SubjectAttribute) -> Result<Option<String>, BadName> {
    let (mut found, mut count) = (None, 0);
    // At least one (X.501 section 9.3).
    while count == 0 || !attributes.is_empty() {
        let (oid, value) = attributes
            .expect(SEQUENCE)?
            .read(|attribute| Ok::<_, BadDer>((attribute.expect(OID)?.content, attribute.element()?)))?;
        count += 1;
        found = Some(value).filter(|_| oid == wanted.oid()).or(found);
    }
    let Some(value) = found else { return Ok(None) };
    if count > 1 {
        return Err(BadName::MultiValued);
    }
    if !matches!(value.tag, PRINTABLE_STRING | UTF8_STRING) {
        return Err(BadName::StringType { found: string_type(value.tag) });
    }
    match str::from_utf8(value.content) {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(_) => Err(BadName::CommonName(InvalidDeviceId::Character)),
    }
}

fn string_type(tag: u8) -> &'static str {
    match tag {
        0x14 => "TeletexString",
        0x16 => "IA5String",
        0x1c => "UniversalString",
        0x1e => "BMPString",
        _ => "another type",
    }
}

/// Why a subject is not accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BadName {
    /// The common name is no device id.
    #[error("the common name is no device id: {0}; leave it out or put the device id there")]
    CommonName(#[from] InvalidDeviceId),
    /// The subject is not the DER of a name.
    #[error("the subject is not a DER-encoded name: {0}")]
    Encoding(#[from] BadDer),
    /// The name beside other attributes in one relative distinguished name, as in `CN=a+OU=b`.
    #[error("the name in the subject is part of a multi-valued RDN, as in CN=a+OU=b: put it in an RDN of its own")]
    MultiValued,
    /// The serialNumber is no device id.
    #[error("the serialNumber in the subject is no device id: {0}; leave it out or put the device id there")]
    SerialNumber(#[source] InvalidDeviceId),
    /// The name in an encoding that RFC 5280 section 4.1.2.4 lets nobody choose today.
    #[error("the name in the subject is a {found}: encode it as UTF8String or PrintableString")]
    StringType {
        /// The ASN.1 type that came.
        found: &'static str,
    },
    /// The attribute that names the device more than once, so that readers could disagree on which counts.
    #[error("the subject names the device more than once: send one name, the device id, or none")]
    Repeated,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::der::encode;

    const COMMON_NAME: &[u8] = SubjectAttribute::CommonName.oid();

    fn attribute(oid: &[u8], string: u8, text: &[u8]) -> Vec<u8> {
        encode(SEQUENCE, &[&encode(OID, &[oid]), &encode(string, &[text])])
    }

    fn name(relative: &[&[&[u8]]]) -> Vec<u8> {
        let sets = relative.iter().flat_map(|attributes| encode(SET, attributes)).collect::<Vec<_>>();
        encode(SEQUENCE, &[&sets])
    }

    #[test]
    fn the_common_name_is_the_claimed_id_and_the_rest_is_ignored() {
        let cn = |string| attribute(COMMON_NAME, string, b"sn-0001");
        let organisation = attribute(&[0x55, 0x04, 0x0a], 0x1e, b"\0A");
        assert_eq!(common_name(&name(&[])), Ok(None));
        assert_eq!(common_name(&name(&[&[&organisation]])), Ok(None));
        for string in [UTF8_STRING, PRINTABLE_STRING] {
            let subject = name(&[&[&organisation], &[&cn(string)]]);
            assert_eq!(common_name(&subject), Ok(Some("sn-0001".parse().unwrap())));
        }
    }

    #[test]
    fn the_serial_number_is_another_attribute_than_the_common_name() {
        let cn = attribute(COMMON_NAME, UTF8_STRING, b"Thermostat 7");
        let number = attribute(SubjectAttribute::SerialNumber.oid(), PRINTABLE_STRING, b"sn-0001");
        let subject = name(&[&[&cn], &[&number]]);
        assert_eq!(text(&subject, SubjectAttribute::SerialNumber), Ok(Some("sn-0001".to_owned())));
        assert_eq!(text(&subject, SubjectAttribute::CommonName), Ok(Some("Thermostat 7".to_owned())));
        assert_eq!(common_name(&subject), Err(BadName::CommonName(InvalidDeviceId::Character)));
        let twice = name(&[&[&number], &[&number]]);
        assert_eq!(text(&twice, SubjectAttribute::SerialNumber), Err(BadName::Repeated));
    }

    #[test]
    fn threat_17_an_ambiguous_subject_is_refused() {
        let cn = attribute(COMMON_NAME, UTF8_STRING, b"sn-0001");
        let unit = attribute(&[0x55, 0x04, 0x0b], UTF8_STRING, b"unit");
        assert_eq!(common_name(&name(&[&[&cn], &[&cn]])), Err(BadName::Repeated));
        assert_eq!(common_name(&name(&[&[&cn, &cn]])), Err(BadName::MultiValued));
        assert_eq!(common_name(&name(&[&[&cn, &unit]])), Err(BadName::MultiValued));
        assert_eq!(common_name(&name(&[&[&unit, &cn]])), Err(BadName::MultiValued));
        assert_eq!(common_name(&name(&[&[]])), Err(BadName::Encoding(BadDer::Truncated)));
    }

    #[test]
    fn several_attributes_in_one_rdn_do_not_matter_beside_the_name() {
        let cn = attribute(COMMON_NAME, UTF8_STRING, b"sn-0001");
        let unit = attribute(&[0x55, 0x04, 0x0b], UTF8_STRING, b"unit");
        let subject = name(&[&[&unit, &unit], &[&cn]]);
        assert_eq!(common_name(&subject), Ok(Some("sn-0001".parse().unwrap())));
        assert_eq!(serial_number(&subject), Ok(None));
    }

    #[test]
    fn threat_17_a_common_name_in_an_old_encoding_is_refused() {
        for (tag, found) in [
            (0x14, "TeletexString"),
            (0x16, "IA5String"),
            (0x1c, "UniversalString"),
            (0x1e, "BMPString"),
            (0x04, "another type"),
        ] {
            let subject = name(&[&[&attribute(COMMON_NAME, tag, b"sn-0001")]]);
            assert_eq!(common_name(&subject), Err(BadName::StringType { found }));
        }
    }

    #[test]
    fn threat_17_a_common_name_that_is_no_device_id_is_refused() {
        for text in [&b"\xef\xbb\xbfsn-0001"[..], b"sn 1", b"sn\0", b"\xff\xfe", "ѕn-0001".as_bytes()] {
            let subject = name(&[&[&attribute(COMMON_NAME, UTF8_STRING, text)]]);
            assert_eq!(common_name(&subject), Err(BadName::CommonName(InvalidDeviceId::Character)), "{text:02x?}");
        }
        let empty = name(&[&[&attribute(COMMON_NAME, UTF8_STRING, b"")]]);
        assert_eq!(common_name(&empty), Err(BadName::CommonName(InvalidDeviceId::Empty)));
    }
}
