use std::fmt;

use crate::der::{self, BIT_STRING, BadDer, CONTEXT_0, INTEGER, OCTET_STRING, OID, Reader, SEQUENCE, SET};
use crate::pem;
use crate::signature::verify;
use crate::{BadKey, BadName, BadPem, BadSignature, DeviceId, PublicKey, Subject};

/// A certificate signing request (PKCS #10, RFC 2986), reduced to what counts: a key, the proof that the sender holds
/// it, and perhaps the id that the sender claims.
///
/// Everything else in a request is a wish and none is granted: other subject attributes and the requested extensions
/// (alternative names, extended key usage and so on) are not read, because the platform's profile alone decides what
/// the certificate says. The one exception is a request to become a CA, by basic constraints or by the key usages
/// `keyCertSign` and `cRLSign`. It is refused, because no device means it.
#[derive(Clone, Eq, PartialEq)]
pub struct Csr {
    der: Vec<u8>,
    key: PublicKey,
    pem: String,
    subject: Subject,
}

impl Csr {
    /// The labels of a request in PEM: that of RFC 7468 section 7, and the older one.
    pub const LABELS: [&str; 2] = LABELS;

    /// The longest PEM text, in characters: what `CreateCertificateFromCsr` takes (AWS IoT API reference).
    pub const MAX_PEM: usize = 4096;

    /// The longest DER, in bytes: what fits into [`Csr::MAX_PEM`] once it is encoded.
    pub const MAX_DER: usize = 2973;

    /// The longest text that [`Csr::parse`] looks at, in bytes: twice the longest PEM, for escapes and indentation.
    pub const MAX_TEXT: usize = 2 * Self::MAX_PEM;

    /// Reads a request from text: one PEM block, `CERTIFICATE REQUEST` or the older `NEW CERTIFICATE REQUEST`, or the
    /// base64 of the DER without boundaries.
    ///
    /// CRLF, missing newlines, newlines escaped twice for JSON (esp-aws-iot issue 74), a byte order mark and a NUL at the
    /// end are put right.
    ///
    /// # Errors
    ///
    /// [`CsrError::Pem`] and [`CsrError::PrivateKey`] for the text, else as [`Csr::from_der`].
    pub fn parse(text: &str) -> Result<Self, CsrError> {
        Self::from_der(&pem::decode(text, &LABELS, Self::MAX_TEXT)?)
    }

    /// Reads a request from DER, to the last byte, and verifies its signature over the bytes that were read.
    ///
    /// # Errors
    ///
    /// [`CsrError`] says which rule the request breaks. The size is checked before anything else.
    pub fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > Self::MAX_DER {
            return Err(CsrError::TooLong { length: der.len() });
        }
        if is_private_key(der) {
            return Err(CsrError::PrivateKey);
        }
        let (info, algorithm, signature) = der::read_all(der, |outer| {
            outer.expect(SEQUENCE)?.read(|request| {
                Ok::<_, BadDer>((request.expect(SEQUENCE)?, request.expect(SEQUENCE)?, request.bit_string()?))
            })
        })?;
        let (key, subject) = info.read(request_info)?;
        verify(&key, algorithm.encoded, info.encoded, signature)?;
        Ok(Self { der: der.to_vec(), key, pem: pem::encode(LABELS[0], der).to_string(), subject })
    }

    /// The key to certify. The sender has proved to hold its private half.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The names in its subject. They are a claim and nothing more.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The device id in its common name, if that is one.
    pub fn common_name(&self) -> Option<&DeviceId> {
        self.subject.common_name().ok().flatten()
    }

    /// The request as canonical PEM (LF, 64 columns), however it came: what is sent on to AWS IoT.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The request as DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }
}

/// The body stays out of logs.
impl fmt::Debug for Csr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Csr").field("key", &self.key).field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// Why a request is not accepted, in words for whoever writes the firmware.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CsrError {
    /// The request asks for a CA certificate.
    #[error("the request asks for a CA certificate: leave out CA:TRUE, keyCertSign and cRLSign")]
    Authority,
    /// The request asks for a key that is made for it to be encrypted.
    #[error("the request asks for its private key to be encrypted, which is not done: leave the attribute out")]
    EncryptedKey,
    /// Not a DER-encoded request.
    #[error("the request is not a DER-encoded PKCS #10 request: {0}")]
    Encoding(#[from] BadDer),
    /// The key is not accepted.
    #[error(transparent)]
    Key(#[from] BadKey),
    /// The subject is not accepted.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The text is not one PEM block or base64.
    #[error("the request cannot be read: {0}")]
    Pem(BadPem),
    /// A private key was sent. It is burnt.
    #[error("{}", BadPem::PrivateKey)]
    PrivateKey,
    /// The signature does not count.
    #[error(transparent)]
    Signature(#[from] BadSignature),
    /// Longer than [`Csr::MAX_DER`].
    #[error("the request has {length} bytes of DER, at most {max} are taken: leave out extensions", max = Csr::MAX_DER)]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// A version other than 1, which is encoded as 0.
    #[error(
        "the request's version is encoded as {found}: set it to 0, which stands for version 1, the only one of PKCS #10"
    )]
    Version {
        /// How it is encoded, or 255 for all that are larger.
        found: u8,
    },
}

impl From<BadPem> for CsrError {
    fn from(error: BadPem) -> Self {
        match error {
            BadPem::PrivateKey => Self::PrivateKey,
            other => Self::Pem(other),
        }
    }
}

/// Of a request in PEM: that of RFC 7468 section 7, and the older one.
pub(crate) const LABELS: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];

/// extensionRequest, 1.2.840.113549.1.9.14 (RFC 2985 section 5.4.2).
const EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];
/// id-ce-basicConstraints, 2.5.29.19.
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
/// id-ce-keyUsage, 2.5.29.15.
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
/// keyCertSign and cRLSign, the bits 5 and 6 from the left (RFC 5280 section 4.2.1.3).
const AUTHORITY_USAGES: u8 = 0b0000_0110;

/// PKCS #8, PKCS #1 and SEC 1 private keys all start with their version, 0 or 1. A request starts with a SEQUENCE.
pub(crate) fn is_private_key(der: &[u8]) -> bool {
    let outer = Reader::new(der).expect(SEQUENCE).map(|outer| outer.content);
    outer.is_ok_and(|content| matches!(content, [INTEGER, 1, 0 | 1, ..]))
}

/// `CertificationRequestInfo`. Attributes are mandatory but may be empty; some encoders leave them out, which is let
/// pass.
fn request_info(info: &mut Reader<'_>) -> Result<(PublicKey, Subject), CsrError> {
    expect_version(info)?;
    let subject = subject(info)?;
    let key = PublicKey::from_spki(info.expect(SEQUENCE)?.encoded)?;
    if let Some(attributes) = info.optional(CONTEXT_0)? {
        attributes.read(refuse_authority)?;
    }
    Ok((key, subject))
}

/// The `version` of a request: 0, which is version 1.
pub(crate) fn expect_version(info: &mut Reader<'_>) -> Result<(), CsrError> {
    match info.unsigned_integer()? {
        [0] => Ok(()),
        [found] => Err(CsrError::Version { found: *found }),
        _ => Err(CsrError::Version { found: u8::MAX }),
    }
}

/// The subject of a request. A common name that is no device id is accepted, because the device can be named otherwise; one
/// that readers could disagree on is not.
pub(crate) fn subject(info: &mut Reader<'_>) -> Result<Subject, CsrError> {
    let subject = Subject::read(info.expect(SEQUENCE)?.encoded);
    match subject.common_name() {
        Ok(_) | Err(BadName::CommonName(_)) => Ok(subject),
        Err(error) => Err(error.into()),
    }
}

/// Reads the attributes for the one wish that is answered.
fn refuse_authority(attributes: &mut Reader<'_>) -> Result<(), CsrError> {
    while !attributes.is_empty() {
        let (oid, values) = attributes
            .expect(SEQUENCE)?
            .read(|attribute| Ok::<_, BadDer>((attribute.expect(OID)?.content, attribute.expect(SET)?)))?;
        if oid == EXTENSION_REQUEST {
            values.read(|values| values.expect(SEQUENCE)?.read(refuse_authority_extensions))?;
        }
    }
    Ok(())
}

fn refuse_authority_extensions(extensions: &mut Reader<'_>) -> Result<(), CsrError> {
    while !extensions.is_empty() {
        let (oid, value) = extensions.expect(SEQUENCE)?.read(|extension| {
            let oid = extension.expect(OID)?.content;
            extension.boolean_or_false()?;
            Ok::<_, BadDer>((oid, extension.expect(OCTET_STRING)?.content))
        })?;
        let authority = match oid {
            BASIC_CONSTRAINTS => der::read_all(value, |outer| outer.expect(SEQUENCE)?.read(is_authority))?,
            KEY_USAGE => der::read_all(value, |outer| outer.expect(BIT_STRING))?
                .content
                .get(1)
                .is_some_and(|usages| usages & AUTHORITY_USAGES != 0),
            _ => false,
        };
        if authority {
            return Err(CsrError::Authority);
        }
    }
    Ok(())
}

/// `BasicConstraints` (RFC 5280 section 4.2.1.9).
fn is_authority(constraints: &mut Reader<'_>) -> Result<bool, BadDer> {
    let authority = constraints.boolean_or_false()?;
    constraints.optional(INTEGER)?;
    Ok(authority)
}
