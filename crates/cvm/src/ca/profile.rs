//! The certificates that are made here, each by its one profile (RFC 5280).

use std::str::FromStr;
use std::time::Duration;

use aws_lc_rs::error::Unspecified;
use cvm_provisioning::{Certificate, DeviceId};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SerialNumber,
};
use time::OffsetDateTime;

/// When a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Validity {
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl Validity {
    /// A certificate is valid this long before it is made, for those whose clocks are slow.
    const BACKDATED: Duration = Duration::from_secs(5 * 60);

    /// From now on for so many days.
    pub(super) fn of_days(days: u16, now: OffsetDateTime) -> Self {
        // Fractions of a second have no place in a certificate.
        let now = now.truncate_to_second();
        Self { not_before: now - Self::BACKDATED, not_after: now + time::Duration::days(days.into()) }
    }

    /// The same, but neither begun before the CA's validity nor ended after it.
    pub(super) fn within(self, authority: &Certificate) -> Self {
        Self {
            not_before: self.not_before.max(authority.not_before()),
            not_after: self.not_after.min(authority.not_after()),
        }
    }

    pub(super) fn not_after(self) -> OffsetDateTime {
        self.not_after
    }
}

/// A CA that signs device certificates and no other CAs.
pub(super) fn authority(
    name: &SubjectText,
    organization: Option<&SubjectText>,
    validity: Validity,
) -> Result<CertificateParams, Unspecified> {
    let mut subject = DistinguishedName::new();
    if let Some(organization) = organization {
        subject.push(DnType::OrganizationName, organization.0.as_str());
    }
    subject.push(DnType::CommonName, name.0.as_str());
    let mut params = params(subject, validity)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// A device that authenticates itself as the client of a TLS connection, and nothing else.
pub(super) fn device(id: &DeviceId, validity: Validity) -> Result<CertificateParams, Unspecified> {
    client(id.as_str(), validity)
}

/// The proof for AWS IoT that a CA's key is at hand: a certificate for the registration code (AWS IoT Developer Guide,
/// *Register a CA certificate in DEFAULT mode*).
pub(super) fn verification(code: &str, validity: Validity) -> Result<CertificateParams, Unspecified> {
    client(code, validity)
}

fn client(common_name: &str, validity: Validity) -> Result<CertificateParams, Unspecified> {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    let mut params = params(subject, validity)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// What all of them have. The library's own validity, of two thousand years, and its serial number, which is made of
/// the key, are never used.
fn params(subject: DistinguishedName, validity: Validity) -> Result<CertificateParams, Unspecified> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    params.serial_number = Some(serial_number()?);
    Ok(params)
}

/// 159 random bits: the longest serial number that is positive and has 20 octets (RFC 5280 section 4.1.2.2).
fn serial_number() -> Result<SerialNumber, Unspecified> {
    let mut bytes = [0; 20];
    while bytes == [0; 20] {
        aws_lc_rs::rand::fill(&mut bytes)?;
        bytes[0] &= 0x7f;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

/// A CA's name or its organisation: 1 to 64 characters, which are ub-common-name and ub-organization-name of RFC 5280
/// appendix A.1, without control characters and without blanks at its ends.
#[derive(Clone, Debug)]
pub(super) struct SubjectText(String);

impl SubjectText {
    /// The longest name, in characters.
    pub(super) const MAX_LENGTH: usize = 64;

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SubjectText {
    type Err = InvalidSubjectText;

    fn from_str(text: &str) -> Result<Self, InvalidSubjectText> {
        let length = text.chars().count();
        if !(1..=Self::MAX_LENGTH).contains(&length) {
            return Err(InvalidSubjectText::Length { length });
        }
        if text.trim() != text || text.chars().any(char::is_control) {
            return Err(InvalidSubjectText::Character);
        }
        Ok(Self(text.to_owned()))
    }
}

/// Why a text is no part of a CA's subject.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub(super) enum InvalidSubjectText {
    #[error("expected a name without control characters and without blanks at its ends")]
    Character,
    #[error("expected 1 to {max} characters, this name has {length}", max = SubjectText::MAX_LENGTH)]
    Length { length: usize },
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn threat_53_a_serial_number_is_random_positive_and_at_most_20_octets() {
        let serials: HashSet<Vec<u8>> = (0..10_000).map(|_| serial_number().unwrap().to_bytes()).collect();
        assert_eq!(serials.len(), 10_000);
        assert!(serials.iter().all(|serial| serial.len() == 20 && serial[0] < 0x80));
        let ored = serials.iter().fold([0_u8; 20], |mut all, serial| {
            all.iter_mut().zip(serial).for_each(|(all, byte)| *all |= byte);
            all
        });
        assert_eq!((ored[0], &ored[1..]), (0x7f, &[0xff; 19][..]), "every one of the 159 bits is used");
    }

    #[test]
    fn a_name_fits_a_subject_or_is_refused() {
        for good in ["Factory 1", "工場", &"x".repeat(64)] {
            assert_eq!(good.parse::<SubjectText>().unwrap().as_str(), good);
        }
        assert_eq!("".parse::<SubjectText>().unwrap_err(), InvalidSubjectText::Length { length: 0 });
        assert_eq!("x".repeat(65).parse::<SubjectText>().unwrap_err(), InvalidSubjectText::Length { length: 65 });
        for bad in [" Factory", "Factory ", "a\nb", "a\0"] {
            assert_eq!(bad.parse::<SubjectText>().unwrap_err(), InvalidSubjectText::Character, "{bad:?}");
        }
    }
}
