use pkcs8::ObjectIdentifier;
use pkcs8::der::asn1::{OctetStringRef, UintRef};
use pkcs8::der::{self, AnyRef, Decode as _, Reader as _, SliceReader, Tag, TagNumber};

use crate::{InvalidSerialNumber, SerialNumber};

/// The question whether some certificates of one CA are revoked (RFC 6960 section 4.1).
///
/// Whoever asks may sign it and say a name: neither counts, because anybody may ask.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OcspRequest {
    certificates: Vec<RequestedCertificate>,
    nonce: Option<Vec<u8>>,
}

/// A certificate that is asked about: the CA by the digests of its name and key, and its number there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RequestedCertificate {
    pub(super) hash: IssuerHash,
    /// Some say NULL behind the name of the hash and some nothing, and look for the same in the answer.
    pub(super) has_null: bool,
    pub(super) name_hash: Vec<u8>,
    pub(super) key_hash: Vec<u8>,
    pub(super) serial_number: SerialNumber,
}

/// With what a CA's name and key are digested. Nothing of the answer's safety hangs on it: its signature does that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum IssuerHash {
    Sha1,
    Sha256,
}

impl IssuerHash {
    /// RFC 3370 section 2.1 and RFC 5754 section 2.2.
    pub(super) const fn object_identifier(self) -> ObjectIdentifier {
        match self {
            Self::Sha1 => ObjectIdentifier::new_unwrap("1.3.14.3.2.26"),
            Self::Sha256 => ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1"),
        }
    }
}

impl OcspRequest {
    /// The longest request, in bytes.
    pub const MAX_LENGTH: usize = 4_096;
    /// The most certificates in one request. RFC 5019 section 2.1.1 has one.
    pub const MAX_CERTIFICATES: usize = 8;
    /// The longest nonce, in octets (RFC 9654 section 2.1).
    pub const MAX_NONCE: usize = 128;

    /// Reads a request in DER.
    ///
    /// # Errors
    ///
    /// [`InvalidOcspRequest`], also for one that is more than these bounds allow.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidOcspRequest> {
        if bytes.len() > Self::MAX_LENGTH {
            return Err(InvalidOcspRequest::TooLong { length: bytes.len() });
        }
        let mut reader = SliceReader::new(bytes)?;
        let request = reader.sequence(|outer| {
            let request = outer.sequence(to_be_signed)?;
            optional(outer, 0)?;
            Ok::<_, InvalidOcspRequest>(request)
        })?;
        reader.finish()?;
        Ok(request)
    }

    /// Those that are asked about: one at least.
    pub fn certificates(&self) -> &[RequestedCertificate] {
        &self.certificates
    }

    /// What the answer has to repeat, so that it is no older one: 1 to [`OcspRequest::MAX_NONCE`] octets.
    pub fn nonce(&self) -> Option<&[u8]> {
        self.nonce.as_deref()
    }
}

impl RequestedCertificate {
    /// Its number.
    pub fn serial_number(&self) -> &SerialNumber {
        &self.serial_number
    }
}

fn to_be_signed(reader: &mut SliceReader<'_>) -> Result<OcspRequest, InvalidOcspRequest> {
    // Version 1 is written as 0, and mostly not at all.
    if let Some(version) = optional(reader, 0)?
        && u8::from_der(version)? != 0
    {
        return Err(InvalidOcspRequest::Version);
    }
    optional(reader, 1)?;
    let certificates = reader.sequence(|list| {
        let mut certificates = Vec::new();
        while !list.is_finished() {
            if certificates.len() == OcspRequest::MAX_CERTIFICATES {
                return Err(InvalidOcspRequest::TooMany);
            }
            certificates.push(list.sequence(|reader| {
                let certificate = reader.sequence(certificate)?;
                extensions(optional(reader, 0)?)?;
                Ok::<_, InvalidOcspRequest>(certificate)
            })?);
        }
        Ok(certificates)
    })?;
    if certificates.is_empty() {
        return Err(InvalidOcspRequest::Encoding);
    }
    Ok(OcspRequest { certificates, nonce: extensions(optional(reader, 2)?)? })
}

fn certificate(reader: &mut SliceReader<'_>) -> Result<RequestedCertificate, InvalidOcspRequest> {
    let (hash, has_null) = reader.sequence(|algorithm| {
        let name = ObjectIdentifier::decode(algorithm)?;
        let has_null = match algorithm.is_finished() {
            true => false,
            false if AnyRef::decode(algorithm)?.is_null() => true,
            false => return Err(InvalidOcspRequest::Encoding),
        };
        let hash = [IssuerHash::Sha1, IssuerHash::Sha256].into_iter().find(|hash| hash.object_identifier() == name);
        Ok((hash.ok_or(InvalidOcspRequest::Hash)?, has_null))
    })?;
    Ok(RequestedCertificate {
        hash,
        has_null,
        name_hash: <&OctetStringRef>::decode(reader)?.as_bytes().to_vec(),
        key_hash: <&OctetStringRef>::decode(reader)?.as_bytes().to_vec(),
        serial_number: SerialNumber::from_bytes(UintRef::decode(reader)?.as_bytes())?,
    })
}

/// The nonce among these extensions. Others are passed over, unless whoever asks says that they must not be.
fn extensions(bytes: Option<&[u8]>) -> Result<Option<Vec<u8>>, InvalidOcspRequest> {
    let Some(bytes) = bytes else { return Ok(None) };
    let mut reader = SliceReader::new(bytes)?;
    let nonce = reader.sequence(|list| {
        let mut nonce = None;
        while !list.is_finished() {
            let (name, is_critical, value) = list.sequence(|extension| {
                let name = ObjectIdentifier::decode(extension)?;
                let is_critical = Tag::peek(extension)? == Tag::Boolean && bool::decode(extension)?;
                Ok::<_, der::Error>((name, is_critical, <&OctetStringRef>::decode(extension)?.as_bytes()))
            })?;
            if name == NONCE {
                let value = <&OctetStringRef>::from_der(value)?.as_bytes();
                let is_good = (1..=OcspRequest::MAX_NONCE).contains(&value.len());
                if !is_good || nonce.replace(value.to_vec()).is_some() {
                    return Err(InvalidOcspRequest::Nonce);
                }
            } else if is_critical {
                return Err(InvalidOcspRequest::Extension);
            }
        }
        Ok(nonce)
    })?;
    reader.finish()?;
    Ok(nonce)
}

/// What is in this explicit tag, if it is the next.
fn optional<'a>(reader: &mut SliceReader<'a>, number: u32) -> Result<Option<&'a [u8]>, der::Error> {
    let tag = Tag::ContextSpecific { constructed: true, number: TagNumber(number) };
    if reader.is_finished() || Tag::peek(reader)? != tag {
        return Ok(None);
    }
    Ok(Some(AnyRef::decode(reader)?.value()))
}

/// id-pkix-ocsp-nonce (RFC 9654 section 2).
pub(super) const NONCE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.2");

/// Why bytes are no [`OcspRequest`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidOcspRequest {
    /// Not DER, or not this structure.
    #[error("it is no OCSP request in DER")]
    Encoding,
    /// An extension that must not be passed over.
    #[error("it has a critical extension that is not known")]
    Extension,
    /// A hash that nobody uses for this.
    #[error("it names the CA by another hash than SHA-1 or SHA-256")]
    Hash,
    /// A nonce of another length, or two.
    #[error("its nonce has not 1 to {max} octets", max = OcspRequest::MAX_NONCE)]
    Nonce,
    /// No certificate can have that number.
    #[error("it asks for a serial number that is none: {0}")]
    SerialNumber(#[from] InvalidSerialNumber),
    /// Longer than [`OcspRequest::MAX_LENGTH`].
    #[error("it has {length} bytes, and {max} is the most", max = OcspRequest::MAX_LENGTH)]
    TooLong {
        /// Its length, in bytes.
        length: usize,
    },
    /// More than [`OcspRequest::MAX_CERTIFICATES`].
    #[error("it asks for more than {max} certificates", max = OcspRequest::MAX_CERTIFICATES)]
    TooMany,
    /// Another version than 1.
    #[error("it is of another version than 1")]
    Version,
}

impl From<der::Error> for InvalidOcspRequest {
    fn from(_: der::Error) -> Self {
        Self::Encoding
    }
}
