use std::path::{Path, PathBuf};

use cvm_authority::{KeyError, unencrypted_key};
use cvm_provisioning::{Csr, DeviceId, KeyFingerprint};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData};
use zeroize::Zeroizing;

use super::VendError;
use crate::file;

/// The device's private key: a file, and the request for a certificate that it signed.
#[derive(Debug)]
pub(super) struct Key {
    path: PathBuf,
    csr: Csr,
    is_new: bool,
}

impl Key {
    /// The longest file that is read, in bytes; an RSA key of 4096 bits has 3.2 kB of PEM.
    const MAX_FILE: usize = 16 * 1024;

    /// The key in this file.
    pub(super) fn load(path: &Path, device: &DeviceId) -> Result<Self, VendError> {
        let unusable = |source: rcgen::Error| VendError::Key { path: path.to_owned(), source: source.into() };
        let text = Zeroizing::new(file::read_text(path, Self::MAX_FILE)?);
        let block = unencrypted_key(&text).map_err(|error| match error {
            KeyError::Encrypted => VendError::EncryptedKey { path: path.to_owned() },
            error => VendError::Key { path: path.to_owned(), source: error.into() },
        })?;
        let pair = KeyPair::from_pem(block).map_err(unusable)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, device.as_str());
        let request = params.serialize_request(&pair).map_err(unusable)?;
        // The service's own rules: what it would refuse is not sent.
        let csr = Csr::from_der(request.der())
            .map_err(|source| VendError::Key { path: path.to_owned(), source: source.into() })?;
        Ok(Self { path: path.to_owned(), csr, is_new: false })
    }

    /// The key as one that this run has made.
    pub(super) fn just_made(self) -> Self {
        Self { is_new: true, ..self }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn csr(&self) -> &Csr {
        &self.csr
    }

    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }
}

/// Which key this private key belongs to.
pub(super) fn fingerprint_of(private_key_pem: &str) -> Option<KeyFingerprint> {
    let pair = KeyPair::from_pem(private_key_pem).ok()?;
    Some(KeyFingerprint::of(&pair.subject_public_key_info()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_the_service_would_refuse_is_not_sent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let id = "sn-0001".parse().unwrap();
        for (algorithm, good) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, true),
            (&rcgen::PKCS_ECDSA_P384_SHA384, true),
            (&rcgen::PKCS_ED25519, false),
        ] {
            let pair = KeyPair::generate_for(algorithm).unwrap();
            std::fs::write(&path, pair.serialize_pem()).unwrap();
            let key = Key::load(&path, &id);
            assert_eq!(key.is_ok(), good, "{algorithm:?}");
            if let Ok(key) = key {
                assert_eq!(key.csr().common_name(), Some(&id));
                assert_eq!(fingerprint_of(&pair.serialize_pem()).as_ref(), Some(key.csr().key().fingerprint()));
            }
        }
        let pem = KeyPair::generate().unwrap().serialize_pem();
        let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        std::fs::write(&path, format!("Bag Attributes\n    localKeyID: 01\n{parameters}{pem}")).unwrap();
        assert_eq!(Some(Key::load(&path, &id).unwrap().csr().key().fingerprint()), fingerprint_of(&pem).as_ref());
        for encrypted in [
            pem.replace("PRIVATE", "ENCRYPTED PRIVATE"),
            pem.replace("PRIVATE", "EC PRIVATE").replacen(
                '\n',
                "\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n",
                1,
            ),
        ] {
            std::fs::write(&path, encrypted).unwrap();
            let error = Key::load(&path, &id).unwrap_err();
            assert!(matches!(error, VendError::EncryptedKey { .. }), "{error}");
            assert!(error.advice().contains("openssl pkey -in"), "{}", error.advice());
        }
        std::fs::write(&path, "no key").unwrap();
        assert!(matches!(Key::load(&path, &id), Err(VendError::Key { .. })));
    }
}
