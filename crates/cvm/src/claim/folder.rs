use std::path::{Path, PathBuf};

use cvm_authority::unencrypted_key;
use cvm_provisioning::{Certificate, CertificateId, Csr};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use zeroize::Zeroizing;

use super::create::CreateError;
use crate::file::{self, FileError};

/// Where a claim's files go. A claim that is not in use yet has its certificate under another name, so that a run that
/// was cut off is told from one that came to its end.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// The longest key file that is read, in bytes: far above the 241 of a P-256 key.
    const MAX_KEY: usize = 16 * 1024;

    /// The folder at this path, made where it is not there, for nobody else to look into. One that has a finished claim
    /// is left alone.
    pub(super) fn open(path: &Path) -> Result<Self, CreateError> {
        file::private_folder(path)?;
        let folder = Self(path.to_owned());
        let path = folder.certificate();
        if path.exists() { Err(FileError::Exists { path }.into()) } else { Ok(folder) }
    }

    pub(super) fn key(&self) -> PathBuf {
        self.0.join("claim.key")
    }

    pub(super) fn certificate(&self) -> PathBuf {
        self.0.join("claim.pem")
    }

    fn unfinished(&self) -> PathBuf {
        self.0.join("claim.unfinished.pem")
    }

    /// A request for a certificate for the key in this folder, which is made where there is none. It is on the disk
    /// when this returns. The request has no subject: a claim is no device.
    pub(super) fn request(&self) -> Result<Csr, CreateError> {
        let path = self.key();
        let unusable = |source: rcgen::Error| CreateError::Key { path: path.clone(), source: source.into() };
        if !path.exists() {
            let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(unusable)?;
            file::create(&path, &pair.serialize_pem())?;
        }
        let text = Zeroizing::new(file::read_private_text(&path, Self::MAX_KEY)?);
        let block = unencrypted_key(&text);
        let block = block.map_err(|source| CreateError::Key { path: path.clone(), source: source.into() })?;
        let pair = KeyPair::from_pem(block).map_err(unusable)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&pair).map_err(unusable)?;
        Csr::from_der(request.der()).map_err(|source| CreateError::Key { path: path.clone(), source: source.into() })
    }

    /// The certificate that an earlier run got for this key and did not take into use.
    pub(super) fn left(&self, request: &Csr) -> Result<Option<CertificateId>, CreateError> {
        let path = self.unfinished();
        if !path.exists() {
            return Ok(None);
        }
        let certificate = Certificate::parse(&file::read_text(&path, Certificate::MAX_TEXT)?);
        match certificate {
            Ok(certificate) if certificate.lint(request.key().fingerprint()).is_ok() => Ok(Some(*certificate.id())),
            _ => Err(CreateError::Other { path }),
        }
    }

    /// Keeps a certificate that is not in use yet.
    pub(super) fn keep(&self, certificate: &Certificate) -> Result<(), FileError> {
        file::replace(&self.unfinished(), certificate.pem())
    }

    /// Gives the certificate its name: the claim is in use.
    pub(super) fn finish(&self) -> Result<(), FileError> {
        let path = self.certificate();
        std::fs::rename(self.unfinished(), &path).map_err(|source| FileError::Write { path, source })
    }
}
