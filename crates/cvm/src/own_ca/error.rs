use std::path::{Path, PathBuf};

use cvm_authority::{CreateError, CrlError, IssueError, KeyError, KeyFileError, ServerName, SetError, Unfit};
use cvm_aws::KmsKeyError;
use cvm_provisioning::{BadCertificate, Timestamp};

use crate::clock::ImplausibleClock;
use crate::file::FileError;
use crate::output::shell_word;

/// Why the CA of a server cannot be used, or is not what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum OwnCaError {
    #[error("{path} holds no certificate that can be used", path = path.display())]
    Certificate { path: PathBuf, source: BadCertificate },
    #[error(transparent)]
    Clock(#[from] ImplausibleClock),
    #[error("a CA was not made")]
    Create(#[from] CreateError),
    #[error("the revocation list of the root was not made")]
    Crl(#[from] CrlError),
    #[error("no passphrase is in {path}", path = path.display())]
    EmptyPassphrase { path: PathBuf },
    #[error("the key in {path} is under a passphrase, and none was given", path = path.display())]
    Encrypted { path: PathBuf },
    #[error("no CA in {folder} may issue now: they have ended, or have not begun", folder = folder.display())]
    Ended { folder: PathBuf },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the certificate was not issued")]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Key(KeyFileError),
    #[error(transparent)]
    Kms(#[from] KmsKeyError),
    #[error("{path} does not name a key in AWS KMS", path = path.display())]
    KmsName { path: PathBuf },
    #[error("the key {name} in AWS KMS cannot be that of the CA")]
    KmsUnfit { name: String, source: Unfit },
    #[error("{path} is not the moment from which a CA issues", path = path.display())]
    Moment { path: PathBuf },
    #[error("there is no CA in {folder}", folder = folder.display())]
    NoCa { folder: PathBuf },
    #[error("{path} does not exist", path = path.display())]
    NoLists { path: PathBuf },
    #[error("the key that belongs to {certificate} is not at {path}", certificate = certificate.display(), path = path.display())]
    NoKey { certificate: PathBuf, path: PathBuf },
    #[error("the root's key is not at {path}", path = path.display())]
    NoRootKey { path: PathBuf },
    #[error("{path} is for {}, and not all of these names are requested", words(names), path = path.display())]
    OtherNames { path: PathBuf, names: Vec<ServerName> },
    #[error("{path} is not the certificate of a server", path = path.display())]
    NoServerCertificate { path: PathBuf },
    #[error("{certificate} is revoked, and its key must not be used any more", certificate = certificate.display())]
    RevokedServerCertificate { key: PathBuf, certificate: PathBuf },
    #[error("the next CA is there already, and issues from {from}")]
    Pending { from: Timestamp },
    #[error("the system has no randomness to give")]
    Randomness,
    #[error("the CAs are no set")]
    Set(#[from] SetError),
    #[error(transparent)]
    ServerKey(KeyFileError),
    #[error("the CA in {path} cannot be used", path = path.display())]
    Unfit { path: PathBuf, source: Unfit },
    #[error("the passphrase does not open the key in {path}", path = path.display())]
    WrongPassphrase { path: PathBuf },
}

impl OwnCaError {
    /// The stable word for it in JSON.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::EmptyPassphrase { .. } | Self::Encrypted { .. } | Self::WrongPassphrase { .. } => "passphrase",
            Self::Clock(_) => "clock",
            Self::File(_) => "file",
            Self::Key(_)
            | Self::Kms(_)
            | Self::KmsName { .. }
            | Self::KmsUnfit { .. }
            | Self::NoKey { .. }
            | Self::NoRootKey { .. } => "ca-key",
            Self::ServerKey(_) => "key",
            Self::NoCa { .. } | Self::NoLists { .. } => "not-found",
            Self::NoServerCertificate { .. } | Self::OtherNames { .. } | Self::Pending { .. } => "exists",
            Self::RevokedServerCertificate { .. } => "revoked",
            Self::Randomness => "randomness",
            _ => "ca",
        }
    }

    /// What to do next.
    pub(crate) fn advice(&self) -> String {
        let put_back = "put the CA's folder back as it was, from your copy of it";
        match self {
            Self::Clock(_) => ImplausibleClock::ADVICE.to_owned(),
            Self::Encrypted { .. } => {
                "write the passphrase into a file that only its owner can read, and name that in \
                 CVM_CA_PASSPHRASE_FILE or with --ca-passphrase-file"
                    .to_owned()
            }
            Self::WrongPassphrase { path } => format!(
                "give the file with the passphrase of {}; one that was damaged has to come from your copy",
                quoted(path)
            ),
            Self::EmptyPassphrase { path } => format!("write the passphrase into {}, as its only line", quoted(path)),
            Self::Ended { .. } => "`cvm ca rotate` makes the next one; the server need not be ended for it".to_owned(),
            Self::File(error) => error.advice(),
            Self::Key(KeyFileError::Exposed { path }) | Self::ServerKey(KeyFileError::Exposed { path }) => {
                format!("`chmod 600 {}`", quoted(path))
            }
            Self::Kms(_) => {
                "check AWS_REGION, your credentials and the key: `aws kms describe-key --key-id KEY` shows it"
                    .to_owned()
            }
            Self::KmsName { path } => {
                format!("write the key's id, ARN or alias into {}, as its only line", quoted(path))
            }
            Self::KmsUnfit { .. } => put_back.to_owned(),
            Self::Moment { path } => {
                format!("{put_back}; {} holds one line such as 2030-01-31T12:00:00Z", quoted(path))
            }
            Self::NoCa { .. } => {
                "name the server's folder with --data; `cvm serve` makes a CA on its first start".to_owned()
            }
            Self::NoLists { .. } => "start `cvm serve` with this folder once: it writes the file".to_owned(),
            Self::NoKey { path, .. } => {
                format!("put {} back; the key of the root alone may be elsewhere", quoted(path))
            }
            Self::NoRootKey { .. } => "bring it, and name it with --root-key".to_owned(),
            Self::NoServerCertificate { path } => format!("give another --out, or move {} away", quoted(path)),
            Self::RevokedServerCertificate { key, certificate } => {
                format!("run `rm {} {}`, then run the same command again", quoted(key), quoted(certificate))
            }
            Self::OtherNames { path, names } => format!(
                "give all names: {} and the new ones; for other names give another --out, or move {} away",
                words(names),
                quoted(path)
            ),
            Self::Pending { from } => format!("wait until {from}; `cvm ca show` has it"),
            Self::Create(_) | Self::Crl(_) | Self::Issue(_) | Self::Randomness => {
                "run it again; if it stays, report it".to_owned()
            }
            Self::ServerKey(KeyFileError::Key { path, .. }) => {
                let path = quoted(path);
                format!(
                    "put the key back, without a passphrase, or `rm {path}`: the next run makes a new key and certificate"
                )
            }
            Self::ServerKey(_) => "check the owner of the folder and that you may read and write it".to_owned(),
            Self::Certificate { .. } | Self::Key(_) | Self::Set(_) | Self::Unfit { .. } => put_back.to_owned(),
        }
    }
}

impl From<KeyFileError> for OwnCaError {
    fn from(error: KeyFileError) -> Self {
        match error {
            KeyFileError::Key { path, source: KeyError::Encrypted } => Self::Encrypted { path },
            KeyFileError::Key { path, source: KeyError::Passphrase } => Self::WrongPassphrase { path },
            error => Self::Key(error),
        }
    }
}

fn words(names: &[ServerName]) -> String {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    names.join(" ")
}

fn quoted(path: &Path) -> String {
    shell_word(&path.to_string_lossy())
}
