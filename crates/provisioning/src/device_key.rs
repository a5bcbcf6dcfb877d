use std::fmt;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rcgen::{CertificateParams, DistinguishedName, DnType, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use zeroize::Zeroizing;

use crate::{Csr, CsrError, DeviceId, pem};

/// A private key that was made here, for a device that cannot make one.
///
/// It is handed to the device once and neither stored nor logged: there is no `Clone`, no `Serialize`, `Debug` shows
/// nothing, and dropping it wipes it from memory.
pub struct DeviceKey {
    pem: Zeroizing<String>,
}

impl DeviceKey {
    /// Makes a P-256 key, and the request for a certificate with the id as its common name.
    ///
    /// # Errors
    ///
    /// [`DeviceKeyError`] if the cryptographic library fails. Nothing was kept then, and the call may be repeated.
    pub fn generate(id: &DeviceId) -> Result<(Self, Csr), DeviceKeyError> {
        let signer = Signer(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, id.as_str());
        let request = params.serialize_request(&signer).map_err(|_| DeviceKeyError::Library)?;
        let csr = Csr::from_der(request.der()).map_err(DeviceKeyError::Request)?;
        let key = Self { pem: pem::encode("PRIVATE KEY", signer.0.to_pkcs8v1()?.as_ref()) };
        Ok((key, csr))
    }

    /// The key as PKCS #8 PEM (RFC 5958), for the answer to the device and for nothing else.
    pub fn pem(&self) -> &str {
        &self.pem
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceKey(..)")
    }
}

/// Why no key was made.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceKeyError {
    /// The library gives no reason; in practice it has no entropy.
    #[error("the cryptographic library could not make or encode a key: try again")]
    Library,
    /// Our own request does not pass our own rules, which is a defect of this program.
    #[error("the request for the new key was refused: {0}")]
    Request(CsrError),
}

impl From<Unspecified> for DeviceKeyError {
    fn from(_: Unspecified) -> Self {
        Self::Library
    }
}

/// Signs for rcgen. rcgen's own key pair keeps a second copy of the private key that is never wiped.
struct Signer(EcdsaKeyPair);

impl PublicKeyData for Signer {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.0.sign(&SystemRandom::new(), message).map_err(|_| rcgen::Error::RingUnspecified)?;
        Ok(signature.as_ref().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyAlgorithm, KeyFingerprint};

    #[test]
    fn a_generated_key_is_the_key_of_its_request() {
        let id: DeviceId = "sn-0001".parse().unwrap();
        let (key, csr) = DeviceKey::generate(&id).unwrap();
        let pair = rcgen::KeyPair::from_pem(key.pem()).unwrap();
        assert_eq!(*csr.key().fingerprint(), KeyFingerprint::of(&pair.subject_public_key_info()));
        assert_eq!(csr.key().algorithm(), KeyAlgorithm::P256);
        assert_eq!(csr.common_name(), Some(&id));
    }

    #[test]
    fn every_device_gets_its_own_key() {
        let id = "sn-0001".parse().unwrap();
        assert_ne!(DeviceKey::generate(&id).unwrap().1.key(), DeviceKey::generate(&id).unwrap().1.key());
    }

    #[test]
    fn a_private_key_is_not_shown() {
        let (key, _) = DeviceKey::generate(&"sn-0001".parse().unwrap()).unwrap();
        assert_eq!(format!("{key:?}"), "DeviceKey(..)");
    }

    #[test]
    fn the_longest_id_fits_a_request() {
        assert!(DeviceKey::generate(&"x".repeat(DeviceId::MAX_LENGTH).parse().unwrap()).is_ok());
    }
}
