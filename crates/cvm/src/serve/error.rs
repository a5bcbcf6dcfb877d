//! Why the server does not start, or does not go on.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use cvm_authority::{CrlError, IssueError};
use cvm_provisioning::RegistryError;
use cvm_sql::OpenError;

use super::settings::SettingsError;
use super::tls_files::TlsFilesError;
use crate::file::FileError;
use crate::own_ca::OwnCaError;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ServeError {
    #[error(transparent)]
    Ca(#[from] OwnCaError),
    #[error("the revocation list was not made")]
    Crl(#[from] CrlError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the certificate of the server was not made")]
    Issue(#[from] IssueError),
    #[error("{address} cannot be listened at")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("there is no operator's token {id}")]
    NoToken { id: String },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the CA's certificate cannot be used")]
    OwnCa { source: Box<dyn Error + Send + Sync> },
    #[error("the system has no randomness to give")]
    Randomness,
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("{path} is no operator's token", path = path.display())]
    Token { path: PathBuf },
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("TLS cannot be offered")]
    Tls { source: Box<dyn Error + Send + Sync> },
    #[error(transparent)]
    TlsFiles(#[from] TlsFilesError),
}

impl ServeError {
    /// The stable word for it in JSON.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Ca(error) => error.code(),
            Self::Crl(_) | Self::Issue(_) | Self::OwnCa { .. } => "ca",
            Self::File(_) | Self::Token { .. } => "file",
            Self::Listen { .. } => "listen",
            Self::Settings(_) => "usage",
            Self::NoToken { .. } => "not-found",
            Self::Open(_) | Self::Registry(_) => "registry",
            Self::Randomness => "randomness",
            Self::Tls { .. } | Self::TlsFiles(_) => "tls",
        }
    }

    /// What to do next.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Ca(error) => error.advice(),
            Self::File(error) => error.advice(),
            Self::Listen { address, .. } => {
                format!("end what listens at {address}, or give another --listen")
            }
            Self::NoToken { .. } => "`cvm token list` has those there are".to_owned(),
            Self::Open(_) | Self::Registry(_) => {
                "look at the folder of --data and at the disk it is on, or at the database that --database names"
                    .to_owned()
            }
            Self::Settings(error) => error.advice(),
            Self::TlsFiles(error) => error.advice(),
            Self::Token { path } => format!("delete {}, and make another with `cvm token create`", path.display()),
            _ => "run it again; if it stays, report it".to_owned(),
        }
    }

    /// Whether the command could never have worked.
    pub(crate) const fn is_usage(&self) -> bool {
        matches!(self, Self::Settings(_))
    }
}
