use std::fmt;

use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_KEY_USAGE};
use x509_parser::prelude::FromDer;

use crate::name::{self, common_name};
use crate::pem;
use crate::{BadName, BadPem, CertificateId, DeviceId, KeyFingerprint, Subject, SubjectAttribute};

/// A device certificate (RFC 5280) that the platform issued or reported.
///
/// It is read, not verified: who signed it is for the platform to answer. [`Certificate::lint`] says whether it is fit
/// to be handed to a device.
#[derive(Clone, Eq, PartialEq)]
pub struct Certificate {
    id: CertificateId,
    is_ca: bool,
    key: KeyFingerprint,
    not_after: OffsetDateTime,
    not_before: OffsetDateTime,
    pem: String,
    subject: Vec<u8>,
}

impl Certificate {
    /// The longest text that is read, in bytes: what AWS IoT takes as a certificate's PEM (AWS IoT API reference).
    pub const MAX_TEXT: usize = 65_536;
    /// The most certificates of a chain: a leaf and more CAs than any platform has above it.
    pub const MAX_CHAIN: usize = 8;

    /// Reads exactly one certificate: a PEM block, or the base64 of the DER.
    ///
    /// # Errors
    ///
    /// [`BadCertificate`] if there is not exactly one, or it cannot be read.
    pub fn parse(text: &str) -> Result<Self, BadCertificate> {
        Self::from_der(&pem::decode(text, &[LABEL], Self::MAX_TEXT)?)
    }

    /// Reads one or more certificates in PEM, one after the other and at most [`Certificate::MAX_CHAIN`]: a chain, whose
    /// first certificate is the leaf.
    ///
    /// # Errors
    ///
    /// [`BadCertificate`] if a block cannot be read, there is none, or there are too many.
    pub fn parse_chain(text: &str) -> Result<Vec<Self>, BadCertificate> {
        if text.len() > Self::MAX_TEXT {
            return Err(BadPem::TooLong { length: text.len(), limit: Self::MAX_TEXT }.into());
        }
        let blocks = text.split_inclusive(END).filter(|block| !block.trim().is_empty());
        let chain = blocks.map(Self::parse).take(Self::MAX_CHAIN + 1).collect::<Result<Vec<_>, _>>()?;
        match chain.len() {
            0 => Err(BadPem::Empty.into()),
            length if length > Self::MAX_CHAIN => Err(BadPem::SeveralBlocks.into()),
            _ => Ok(chain),
        }
    }

    /// Reads exactly one certificate in DER, to the last byte.
    ///
    /// # Errors
    ///
    /// [`BadCertificate::Encoding`] if it is none, or too long.
    pub fn from_der(der: &[u8]) -> Result<Self, BadCertificate> {
        if der.len() > Self::MAX_TEXT {
            return Err(BadCertificate::Encoding);
        }
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| BadCertificate::Encoding)?;
        if !rest.is_empty() {
            return Err(BadCertificate::Encoding);
        }
        Ok(Self {
            id: CertificateId::of(der),
            is_ca: is_ca(&certificate)?,
            key: KeyFingerprint::of(certificate.public_key().raw),
            not_after: certificate.validity().not_after.to_datetime(),
            not_before: certificate.validity().not_before.to_datetime(),
            pem: pem::encode(LABEL, der).to_string(),
            subject: certificate.subject().as_raw().to_vec(),
        })
    }

    /// Checks that the certificate is fit for the device whose request had `csr_key`. It is asked of every certificate
    /// before it is handed out, whoever issued it.
    ///
    /// # Errors
    ///
    /// The first [`CertificateDefect`] found. The certificate is then to be revoked, not delivered.
    pub fn lint(&self, csr_key: &KeyFingerprint) -> Result<(), CertificateDefect> {
        if self.key != *csr_key {
            return Err(CertificateDefect::OtherKey { expected: *csr_key, found: self.key });
        }
        if self.is_ca {
            return Err(CertificateDefect::Authority);
        }
        if self.not_before >= self.not_after {
            return Err(CertificateDefect::Validity);
        }
        Ok(())
    }

    /// The id under which AWS IoT knows the certificate.
    pub fn id(&self) -> &CertificateId {
        &self.id
    }

    /// The key that is certified.
    pub fn key(&self) -> &KeyFingerprint {
        &self.key
    }

    /// The last moment of its validity.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// The first moment of its validity.
    pub fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    /// Whether it can sign certificates: it says CA:TRUE or has the key usage `keyCertSign`.
    pub fn is_ca(&self) -> bool {
        self.is_ca
    }

    /// The device id in its common name, if it has one.
    ///
    /// # Errors
    ///
    /// [`BadName`] if the common name is ambiguous or no device id, such as AWS IoT's own `AWS IoT Certificate`.
    pub fn common_name(&self) -> Result<Option<DeviceId>, BadName> {
        common_name(&self.subject)
    }

    /// The names in its subject.
    pub fn subject(&self) -> Subject {
        Subject::read(&self.subject)
    }

    /// The text of this attribute of the subject, if it is there.
    ///
    /// # Errors
    ///
    /// [`BadName`] if it is there more than once, or in an encoding that is not read.
    pub fn subject_text(&self, attribute: SubjectAttribute) -> Result<Option<String>, BadName> {
        name::text(&self.subject, attribute)
    }

    /// The certificate as DER, as it was read.
    #[expect(clippy::expect_used, reason = "the PEM was encoded from the DER when the certificate was read")]
    pub fn der(&self) -> Vec<u8> {
        pem::decode(&self.pem, &[LABEL], usize::MAX).expect("canonical PEM")
    }

    /// The certificate as canonical PEM: LF, 64 columns.
    pub fn pem(&self) -> &str {
        &self.pem
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Certificate");
        fields.field("id", &self.id).field("key", &self.key).field("not_after", &self.not_after);
        fields.finish_non_exhaustive()
    }
}

/// Why a text is no certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BadCertificate {
    /// Not a DER-encoded X.509 certificate, or more than one.
    #[error("the text is not exactly one DER-encoded X.509 certificate")]
    Encoding,
    /// Not one PEM block or base64.
    #[error("the certificate cannot be read: {0}")]
    Pem(#[from] BadPem),
}

/// Why a certificate must not reach the device.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateDefect {
    /// It could sign other certificates.
    #[error("the certificate is a CA's: revoke it and correct the issuer's profile")]
    Authority,
    /// It certifies another key than the device's.
    #[error("the certificate is for the key {found}, the device has {expected}: revoke it")]
    OtherKey {
        /// The key of the request.
        expected: KeyFingerprint,
        /// The key in the certificate.
        found: KeyFingerprint,
    },
    /// It ends before it begins.
    #[error("the certificate's validity ends before it begins: revoke it and correct the issuer's profile")]
    Validity,
}

const LABEL: &str = "CERTIFICATE";
const END: &str = "-----END CERTIFICATE-----";

/// An extension that cannot be read counts as damage, never as absence.
fn is_ca(certificate: &X509Certificate<'_>) -> Result<bool, BadCertificate> {
    let mut is_ca = false;
    for extension in certificate.extensions() {
        is_ca |= match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(constraints) => constraints.ca,
            ParsedExtension::KeyUsage(usage) => usage.key_cert_sign(),
            _ if extension.oid == OID_X509_EXT_BASIC_CONSTRAINTS || extension.oid == OID_X509_EXT_KEY_USAGE => {
                return Err(BadCertificate::Encoding);
            }
            _ => false,
        };
    }
    Ok(is_ca)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData, date_time_ymd};

    use super::*;

    fn issue(adjust: impl FnOnce(&mut CertificateParams)) -> (Certificate, KeyFingerprint) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2035, 1, 1));
        adjust(&mut params);
        let certificate = Certificate::parse(&params.self_signed(&key).unwrap().pem()).unwrap();
        (certificate, KeyFingerprint::of(&key.subject_public_key_info()))
    }

    #[test]
    fn a_certificate_is_known_by_the_digest_of_its_der() {
        let certificate = Certificate::parse(include_str!("../tests/fixtures/certificate.pem")).unwrap();
        let id = include_str!("../tests/fixtures/certificate.sha256").trim();
        assert_eq!(certificate.id().to_string(), id);
        assert_eq!(certificate.not_after(), date_time_ymd(2049, 12, 31).replace_hour(23).unwrap());
        assert_eq!(certificate.common_name(), Ok(Some("sn-0001".parse().unwrap())));
        assert_eq!(certificate.pem(), include_str!("../tests/fixtures/certificate.pem"));
        assert!(!certificate.is_ca());
        assert_eq!(CertificateId::of(&certificate.der()), *certificate.id());
        assert_eq!(Certificate::from_der(&certificate.der()), Ok(certificate));
    }

    #[test]
    fn threat_16_a_certificate_for_the_devices_key_passes_the_lint() {
        let (certificate, key) = issue(|params| params.is_ca = IsCa::ExplicitNoCa);
        assert_eq!(certificate.lint(&key), Ok(()));
    }

    #[test]
    fn threat_16_a_certificate_for_another_key_is_not_handed_out() {
        let (certificate, found) = issue(|_| ());
        let expected = KeyFingerprint::of(b"another");
        assert_eq!(certificate.lint(&expected), Err(CertificateDefect::OtherKey { expected, found }));
    }

    #[test]
    fn threat_16_a_ca_certificate_is_not_handed_out() {
        let (constraints, key) = issue(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        assert_eq!(constraints.lint(&key), Err(CertificateDefect::Authority));
        let (usage, key) = issue(|params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]);
        assert_eq!(usage.lint(&key), Err(CertificateDefect::Authority));
        let (harmless, key) = issue(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
        assert_eq!(harmless.lint(&key), Ok(()));
    }

    #[test]
    fn threat_16_a_certificate_that_ends_before_it_begins_is_not_handed_out() {
        let (certificate, key) = issue(|params| std::mem::swap(&mut params.not_before, &mut params.not_after));
        assert_eq!(certificate.lint(&key), Err(CertificateDefect::Validity));
    }

    #[test]
    fn what_is_not_one_certificate_is_refused() {
        let text = include_str!("../tests/fixtures/certificate.pem");
        assert_eq!(Certificate::parse(&text.repeat(2)), Err(BadCertificate::Pem(BadPem::SeveralBlocks)));
        let mut der = pem::decode(text, &[LABEL], 4096).unwrap();
        der.push(0);
        assert_eq!(Certificate::parse(&pem::encode(LABEL, &der)), Err(BadCertificate::Encoding));
        assert_eq!(Certificate::from_der(&der), Err(BadCertificate::Encoding));
        assert_eq!(Certificate::from_der(b""), Err(BadCertificate::Encoding));
        let request = pem::encode("CERTIFICATE REQUEST", &[0x30, 0]);
        assert_eq!(Certificate::parse(&request), Err(BadCertificate::Pem(BadPem::Label)));
    }

    #[test]
    fn a_chain_is_read_block_by_block_up_to_its_limit() {
        let text = include_str!("../tests/fixtures/certificate.pem");
        let one = Certificate::parse(text).unwrap();
        assert_eq!(Certificate::parse_chain(text), Ok(vec![one.clone()]));
        assert_eq!(Certificate::parse_chain(&format!("{text}\n{text}")), Ok(vec![one; 2]));
        let longest = text.repeat(Certificate::MAX_CHAIN);
        assert_eq!(Certificate::parse_chain(&longest).unwrap().len(), Certificate::MAX_CHAIN);
        let too_long = Certificate::parse_chain(&text.repeat(Certificate::MAX_CHAIN + 1));
        assert_eq!(too_long, Err(BadCertificate::Pem(BadPem::SeveralBlocks)));
        assert_eq!(Certificate::parse_chain(" \n"), Err(BadCertificate::Pem(BadPem::Empty)));
        assert_eq!(Certificate::parse_chain(&format!("{text}x")), Err(BadCertificate::Pem(BadPem::Base64)));
    }
}
