//! Why the server does not start, or does not go on.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use cvm_authority::{CrlError, IssueError};
use cvm_http::InvalidEndpoint;
use cvm_provisioning::{PlatformError, RegistryError, TemplateName};
use cvm_sql::OpenError;

use super::settings::SettingsError;
use super::tls_files::TlsFilesError;
use crate::aws::AwsError;
use crate::database;
use crate::file::FileError;
use crate::own_ca::OwnCaError;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ServeError {
    #[error(transparent)]
    Aws(#[from] AwsError),
    #[error(transparent)]
    Ca(#[from] OwnCaError),
    #[error("the provisioning template {template} cannot be looked at")]
    ClaimTemplate { template: TemplateName, source: PlatformError },
    #[error("the revocation list was not made")]
    Crl(#[from] CrlError),
    #[error("{address:?} is what AWS IoT says, and no endpoint")]
    Endpoint { address: String, source: InvalidEndpoint },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the certificate of the server was not made")]
    Issue(#[from] IssueError),
    #[error("the folder of jobs {path} cannot be used", path = path.display())]
    JobFolder { path: PathBuf, source: io::Error },
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(
        "the registry is empty, and the CA has published revocation lists up to number {number} in {lists}: the registry was lost",
        lists = lists.display()
    )]
    LostRegistry { lists: PathBuf, number: u64 },
    #[error(
        "the registry is older than the published revocation lists: it is at number {known}, and {lists} at {number}",
        lists = lists.display()
    )]
    OldRegistry { lists: PathBuf, number: u64, known: u64 },
    #[error("the provisioning template {template} has no pre-provisioning hook: a claim would let in every device")]
    NoHook { template: TemplateName },
    #[error("there is no AWS region to work in")]
    NoRegion,
    #[error("the table {table} is no registry of a stack: it has no {lack}")]
    NoRegistry { table: String, lack: &'static str },
    #[error("{path} is not the folder of a server: it has no operators", path = path.display())]
    NoServer { path: PathBuf },
    #[error("there is no operator's token {id}")]
    NoToken { id: String },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(
        "the registry is of the CA whose root has the key {expected}, and the folder of the CA has {}",
        found.as_ref().map_or_else(|| "none".to_owned(), |found| format!("that of {found}"))
    )]
    OtherAuthority { expected: String, found: Option<String> },
    #[error("the registry is of the AWS account at {found}, and these are the credentials of the one at {wanted}")]
    OtherAccount { found: String, wanted: String },
    #[error("the registry is of the platform `{found}`, and cannot be that of `{wanted}`")]
    OtherPlatform { found: String, wanted: String },
    #[error("the CA's certificate cannot be used")]
    OwnCa { source: Box<dyn Error + Send + Sync> },
    #[error("the system has no randomness to give")]
    Randomness,
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("the table {table} cannot be looked at")]
    Table { table: String, source: RegistryError },
    #[error("{path} is no operator's token", path = path.display())]
    Token { path: PathBuf },
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("TLS cannot be offered")]
    Tls { source: Box<dyn Error + Send + Sync> },
    #[error(transparent)]
    TlsFiles(#[from] TlsFilesError),
    #[error("the worker of jobs cannot be started")]
    Worker { source: io::Error },
}

impl ServeError {
    /// The stable word for it in JSON.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Aws(error) => error.code(),
            Self::Ca(error) => error.code(),
            Self::Crl(_) | Self::Issue(_) | Self::OwnCa { .. } => "ca",
            Self::File(_) | Self::JobFolder { .. } | Self::Token { .. } => "file",
            Self::Listen { .. } => "listen",
            Self::Worker { .. } => "worker",
            Self::Settings(_) => "usage",
            Self::ClaimTemplate { .. } | Self::Endpoint { .. } | Self::NoHook { .. } | Self::NoRegion => "aws",
            Self::NoServer { .. } | Self::NoToken { .. } => "not-found",
            Self::NoRegistry { .. }
            | Self::LostRegistry { .. }
            | Self::OldRegistry { .. }
            | Self::Open(_)
            | Self::OtherAccount { .. }
            | Self::OtherAuthority { .. }
            | Self::OtherPlatform { .. }
            | Self::Registry(_)
            | Self::Table { .. } => "registry",
            Self::Randomness => "randomness",
            Self::Tls { .. } | Self::TlsFiles(_) => "tls",
        }
    }

    /// What to do next.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Aws(error) => error.advice().to_owned(),
            Self::Ca(error) => error.advice(),
            Self::ClaimTemplate { source: PlatformError::Unavailable { .. } | PlatformError::Throttled { .. }, .. } => {
                "start it again when AWS IoT answers".to_owned()
            }
            Self::ClaimTemplate { .. } => {
                "check --claim-template, AWS_REGION and the rights of your credentials; docs/serve.md lists them".to_owned()
            }
            Self::NoHook { .. } => {
                "give the output FleetTemplateName of the stack that the table is of, whose hook asks its registry about \
                 each device"
                    .to_owned()
            }
            Self::Endpoint { .. } => "give the endpoint with --broker".to_owned(),
            Self::File(error) => error.advice(),
            Self::JobFolder { .. } => {
                "see that it belongs to whoever runs this and that its disk has room, or give another --job-folder"
                    .to_owned()
            }
            Self::Listen { address, source } => match source.kind() {
                io::ErrorKind::AddrNotAvailable => {
                    "give an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all of them".to_owned()
                }
                io::ErrorKind::PermissionDenied => {
                    format!("give another port than {}, or allow this one (CAP_NET_BIND_SERVICE)", address.port())
                }
                _ => format!("stop the program that listens on {address}, or give another address"),
            },
            Self::LostRegistry { number, .. } => format!(
                "restore the registry from a backup (docs/serve.md, \"Backups\"), or check --data and --database; to start \
                 with an empty registry, in which nothing is revoked, give --accept-lost-registry {number} once"
            ),
            Self::OldRegistry { number, .. } => format!(
                "put the newest registry back (docs/serve.md, \"Backups\"), or check --data and --database; to start with this \
                 one, in which nothing is revoked that was revoked since, give --accept-lost-registry {number} once"
            ),
            Self::NoRegion => "`export AWS_REGION=`, or name a profile with AWS_PROFILE".to_owned(),
            Self::NoRegistry { .. } => {
                "give the output TableName of a stack, whose functions enforce what operators decide; without a stack, \
                 give a database of your own"
                    .to_owned()
            }
            Self::OtherAccount { .. } => {
                "give the credentials of that account (AWS_PROFILE), or another --data or --database".to_owned()
            }
            Self::OtherAuthority { .. } => {
                "put the folder ca/ of that CA into that of --data, from a copy or from a server that has it; or begin \
                 anew with another --data or --database"
                    .to_owned()
            }
            Self::OtherPlatform { .. } => {
                "give another --data or --database, or the --platform and the AWS_REGION that it was begun with"
                    .to_owned()
            }
            Self::Table { .. } => {
                "check the name of the table, AWS_REGION and the rights of your credentials; docs/serve.md lists them"
                    .to_owned()
            }
            Self::NoServer { .. } => {
                "give --data, the folder of `cvm serve`, which its first start makes together with a first token".to_owned()
            }
            Self::NoToken { .. } => "`cvm token list` has those there are".to_owned(),
            Self::Open(error) => database::advice(error),
            Self::Registry(_) => {
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
