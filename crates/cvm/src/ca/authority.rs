//! A CA that is at hand: its certificate and its private key, in files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cvm_authority::{Authority, KeyError, KeyFileError, Unfit};
use cvm_aws::KmsKeyError;
use cvm_provisioning::{BadCertificate, Certificate, Timestamp};

use super::key;
use crate::ca_key::CaKey;
use crate::certificate;
use crate::file::{self, FileError};
use crate::output::shell_word;

/// Reads a CA whose key belongs to its certificate, and whose certificate lets it sign device certificates now.
///
/// # Errors
///
/// [`AuthorityError`] says which of the two files cannot be used and why. Others must not be able to read the key.
pub(super) async fn open(
    certificate_path: &Path,
    key_path: &Path,
    now: Timestamp,
) -> Result<Authority<CaKey>, AuthorityError> {
    let certificate = read_certificate(certificate_path)?;
    let unfit = |problem| match problem {
        Unfit::OtherKey => {
            AuthorityError::OtherKey { key: key_path.to_owned(), certificate: certificate_path.to_owned() }
        }
        problem => AuthorityError::Unfit { path: certificate_path.to_owned(), problem },
    };
    let authority = Authority::new(certificate, Vec::new(), key::open(key_path).await?).map_err(unfit)?;
    authority.check(now).map_err(unfit)?;
    Ok(authority)
}

/// Reads the certificate of a CA: the first that is one, or the first of all. What its holder may use it for is checked
/// elsewhere.
pub(super) fn read_certificate(path: &Path) -> Result<Certificate, AuthorityError> {
    let bytes = file::read(path, Certificate::MAX_TEXT)?;
    let unusable = |source| AuthorityError::Certificate { path: path.to_owned(), source };
    let all = certificate::parse_all(&bytes).map_err(unusable)?;
    let ca = all.iter().find(|certificate| certificate.is_ca()).or_else(|| all.first());
    ca.cloned().ok_or_else(|| unusable(BadCertificate::Encoding))
}

/// So many days.
pub(super) fn days(number: u16) -> Duration {
    Duration::from_secs(24 * 60 * 60 * u64::from(number))
}

/// Why a CA cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AuthorityError {
    #[error("{path} holds no certificate that can be used", path = path.display())]
    Certificate { path: PathBuf, source: BadCertificate },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    #[error(transparent)]
    Kms(#[from] KmsKeyError),
    #[error("the key in {key} does not belong to the certificate in {certificate}", key = key.display(), certificate = certificate.display())]
    OtherKey { key: PathBuf, certificate: PathBuf },
    #[error("the certificate in {path} cannot be used: {problem}", path = path.display())]
    Unfit { path: PathBuf, problem: Unfit },
}

impl AuthorityError {
    /// The stable word for it in JSON.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Certificate { .. } | Self::Unfit { .. } => "ca-certificate",
            Self::KeyFile(KeyFileError::Key { .. }) | Self::Kms(_) | Self::OtherKey { .. } => "ca-key",
            Self::File(_) | Self::KeyFile(_) => "file",
        }
    }

    /// What to do next.
    pub(super) fn advice(&self) -> String {
        match self {
            Self::Certificate { .. } => "give the CA's certificate in PEM or DER".to_owned(),
            Self::File(error) => error.advice(),
            Self::KeyFile(KeyFileError::Key { source: KeyError::Weak(_), .. }) | Self::Unfit { .. } => {
                "give another CA, or make one with `cvm ca create --name NAME --out DIR`".to_owned()
            }
            Self::KeyFile(KeyFileError::Key { path, .. }) => format!(
                "`openssl pkcs8 -topk8 -nocrypt -in {} -out ca.key` writes the key alone and readable",
                shell_word(&path.to_string_lossy())
            ),
            Self::KeyFile(KeyFileError::Exposed { path }) => {
                format!("`chmod 600 {}`", shell_word(&path.to_string_lossy()))
            }
            Self::KeyFile(KeyFileError::Exists { .. }) => {
                "give another --out: a CA's key is never overwritten".to_owned()
            }
            Self::KeyFile(_) => "check the name, and that you may read it and write to its folder".to_owned(),
            Self::Kms(_) => {
                "check AWS_REGION, your credentials and the key: `aws kms describe-key --key-id KEY` shows it"
                    .to_owned()
            }
            Self::OtherKey { .. } => "give the key and the certificate of one CA".to_owned(),
        }
    }
}
