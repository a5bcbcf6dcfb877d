use crate::csr::{LABELS, expect_version, is_private_key, subject};
use crate::der::{self, BIT_STRING, BadDer, CONTEXT_0, OID, Reader, SEQUENCE, SET};
use crate::{Csr, CsrError, Subject, pem};

/// A request for a certificate with a key that is made for it, in the form of a signing request (RFC 7030 section
/// 4.4.1): the device has no key yet, so the one in the request is a makeshift, and neither it nor the signature is
/// looked at. What is left is the id that the sender claims.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyRequest {
    subject: Subject,
}

impl KeyRequest {
    /// Reads a request from text, as [`Csr::parse`] does.
    ///
    /// # Errors
    ///
    /// [`CsrError::Pem`] and [`CsrError::PrivateKey`] for the text, else as [`KeyRequest::from_der`].
    pub fn parse(text: &str) -> Result<Self, CsrError> {
        Self::from_der(&pem::decode(text, &LABELS, Csr::MAX_TEXT)?)
    }

    /// Reads a request from DER, to the last byte.
    ///
    /// # Errors
    ///
    /// [`CsrError`] says which rule the request breaks. One who wants the key encrypted beyond TLS gets none, as RFC
    /// 7030 section 4.4.1 has it.
    pub fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > Csr::MAX_DER {
            return Err(CsrError::TooLong { length: der.len() });
        }
        if is_private_key(der) {
            return Err(CsrError::PrivateKey);
        }
        let info = der::read_all(der, |outer| {
            outer.expect(SEQUENCE)?.read(|request| {
                let info = request.expect(SEQUENCE)?;
                request.expect(SEQUENCE)?;
                request.expect(BIT_STRING)?;
                Ok::<_, BadDer>(info)
            })
        })?;
        info.read(|info| {
            expect_version(info)?;
            let subject = subject(info)?;
            info.expect(SEQUENCE)?;
            if let Some(attributes) = info.optional(CONTEXT_0)? {
                attributes.read(refuse_encryption)?;
            }
            Ok(Self { subject })
        })
    }

    /// The names in its subject. They are a claim and nothing more.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }
}

/// id-aa-decryptKeyID, 1.2.840.113549.1.9.16.2.37 (RFC 7030 section 4.4.1.1).
const DECRYPT_KEY_IDENTIFIER: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x10, 0x02, 0x25];
/// id-aa-asymmDecryptKeyID, 1.2.840.113549.1.9.16.2.54 (RFC 7030 section 4.4.1.2).
const ASYMMETRIC_DECRYPT_KEY_IDENTIFIER: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x10, 0x02, 0x36];

fn refuse_encryption(attributes: &mut Reader<'_>) -> Result<(), CsrError> {
    while !attributes.is_empty() {
        let oid = attributes.expect(SEQUENCE)?.read(|attribute| {
            let oid = attribute.expect(OID)?.content;
            attribute.expect(SET)?;
            Ok::<_, BadDer>(oid)
        })?;
        if [DECRYPT_KEY_IDENTIFIER, ASYMMETRIC_DECRYPT_KEY_IDENTIFIER].contains(&oid) {
            return Err(CsrError::EncryptedKey);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::der::{INTEGER, UTF8_STRING, encode};
    use crate::{DeviceKey, SubjectAttribute};

    /// A request whose key and signature are nobody's.
    fn request(attributes: &[u8]) -> Vec<u8> {
        let name =
            encode(SEQUENCE, &[&encode(OID, &[SubjectAttribute::CommonName.oid()]), &encode(UTF8_STRING, &[b"sn-1"])]);
        let subject = encode(SEQUENCE, &[&encode(SET, &[&name])]);
        let info =
            [encode(INTEGER, &[&[0]]), subject, encode(SEQUENCE, &[]), encode(CONTEXT_0, &[attributes])].concat();
        encode(SEQUENCE, &[&encode(SEQUENCE, &[&info]), &encode(SEQUENCE, &[]), &encode(BIT_STRING, &[&[0]])])
    }

    #[test]
    fn neither_the_key_nor_the_signature_counts() {
        let read = KeyRequest::from_der(&request(&[])).unwrap();
        assert_eq!(read.subject().common_name(), Ok(Some(&"sn-1".parse().unwrap())));
        assert!(Csr::from_der(&request(&[])).is_err());
        let (_, csr) = DeviceKey::generate(&"sn-1".parse().unwrap()).unwrap();
        assert_eq!(KeyRequest::parse(csr.pem()), Ok(read));
    }

    #[test]
    fn who_wants_the_key_encrypted_is_not_sent_it_in_the_clear() {
        for oid in [DECRYPT_KEY_IDENTIFIER, ASYMMETRIC_DECRYPT_KEY_IDENTIFIER] {
            let attribute = encode(SEQUENCE, &[&encode(OID, &[oid]), &encode(SET, &[])]);
            assert_eq!(KeyRequest::from_der(&request(&attribute)), Err(CsrError::EncryptedKey));
        }
    }

    #[test]
    fn threat_21_and_22_what_is_not_one_request_is_refused() {
        let whole = request(&[]);
        assert!(KeyRequest::from_der(&whole[..whole.len() - 1]).is_err());
        assert!(KeyRequest::from_der(&[&whole[..], &[0]].concat()).is_err());
        let long = vec![0; Csr::MAX_DER + 1];
        assert_eq!(KeyRequest::from_der(&long), Err(CsrError::TooLong { length: long.len() }));
        let (key, _) = DeviceKey::generate(&"sn-1".parse().unwrap()).unwrap();
        assert_eq!(KeyRequest::parse(key.pem()), Err(CsrError::PrivateKey));
    }
}
