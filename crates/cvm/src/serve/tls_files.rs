//! A certificate and its key that somebody else puts into two files, and puts there anew before it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cvm_authority::{KeyError, unencrypted_key};
use cvm_provisioning::{BadCertificate, Certificate, Timestamp};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::file::{self, FileError};

/// The longest of the two, in bytes: some certificates and their text.
const MAX_FILE: usize = 256 * 1024;

/// The two files.
#[derive(Clone, Debug)]
pub(super) struct TlsFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// By what it is seen that a file is another: when it was written, and its length. Nothing for one that is not there.
pub(super) type Stamp = Option<(SystemTime, u64)>;

/// What is in the files.
pub(super) struct FromFiles {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) leaf: Certificate,
}

impl TlsFiles {
    /// Reads both, and makes sure that they belong together.
    pub(super) fn read(&self, now: Timestamp) -> Result<FromFiles, TlsFilesError> {
        let text = file::read_text(&self.certificate, MAX_FILE)?;
        let chain = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap_or_default();
        let leaf = chain.first().ok_or_else(|| TlsFilesError::NoCertificate { path: self.certificate.clone() })?;
        let leaf = Certificate::from_der(leaf)
            .map_err(|source| TlsFilesError::Unreadable { path: self.certificate.clone(), source })?;
        if now > leaf.not_after().into() {
            return Err(TlsFilesError::Ended { path: self.certificate.clone(), at: leaf.not_after().into() });
        }
        let key = zeroize::Zeroizing::new(file::read_private_text(&self.key, MAX_FILE)?);
        if unencrypted_key(&key) == Err(KeyError::Encrypted) {
            return Err(TlsFilesError::EncryptedKey { path: self.key.clone() });
        }
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|_| TlsFilesError::NoKey { path: self.key.clone() })?;
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &default_provider()).map_err(|source| {
            TlsFilesError::Mismatch { certificate: self.certificate.clone(), key: self.key.clone(), source }
        })?;
        Ok(FromFiles { chain, key, leaf })
    }

    /// As what they are there at this moment.
    pub(super) fn stamps(&self) -> [Stamp; 2] {
        [stamp(&self.certificate), stamp(&self.key)]
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Why the files are of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TlsFilesError {
    #[error("the private key in {path} is encrypted", path = path.display())]
    EncryptedKey { path: PathBuf },
    #[error("the certificate in {path} has ended at {at}", path = path.display())]
    Ended { path: PathBuf, at: Timestamp },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the key in {key} is not that of the certificate in {certificate}, or of a kind that TLS does not take", key = key.display(), certificate = certificate.display())]
    Mismatch { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("there is no certificate in {path}", path = path.display())]
    NoCertificate { path: PathBuf },
    #[error("there is no private key in {path}", path = path.display())]
    NoKey { path: PathBuf },
    #[error("the first certificate in {path} cannot be read", path = path.display())]
    Unreadable { path: PathBuf, source: BadCertificate },
}

impl TlsFilesError {
    /// What to do next.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::EncryptedKey { .. } => {
                "`openssl pkey -in FILE` writes it decrypted: put it there with mode 0600".to_owned()
            }
            Self::Ended { .. } => "have it renewed".to_owned(),
            Self::File(error) => error.advice(),
            Self::Mismatch { .. } => "put the two files there that were made together".to_owned(),
            Self::NoCertificate { .. } | Self::Unreadable { .. } => {
                "put the chain there in PEM, the server's own certificate first".to_owned()
            }
            Self::NoKey { .. } => "put the key there in PEM, not encrypted, with mode 0600".to_owned(),
        }
    }
}
