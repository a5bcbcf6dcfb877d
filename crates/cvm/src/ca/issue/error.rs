use std::io;
use std::path::PathBuf;

use cvm_provisioning::{CsrError, DeviceId, DeviceKeyError};

use super::folder::FolderError;
use crate::device_list::BadLine;

/// Why certificates were not issued. Those that were issued before are kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum IssueError {
    #[error("{path} holds no certificate signing request that can be used", path = path.display())]
    Csr { path: PathBuf, source: CsrError },
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("no key could be made")]
    KeyGeneration(#[from] DeviceKeyError),
    #[error(transparent)]
    Line(#[from] BadLine),
    #[error(
        "{place}has more than the 64 characters that a common name can have",
        place = line.map_or_else(|| "the device id ".to_owned(), |line| format!("the device id on line {line} "))
    )]
    LongId { line: Option<u64> },
    #[error("there is no device to issue a certificate for")]
    NoDevice,
    #[error("the certificate signing request in {path} is of device {found}", path = path.display())]
    OtherDevice { path: PathBuf, found: DeviceId },
    #[error("{path} has a certificate for another key than the request's", path = path.display())]
    OtherKeyThere { path: PathBuf },
    #[error("the output cannot be written")]
    Output(#[source] io::Error),
    #[error("the CA's key and the list of devices cannot both come from stdin")]
    TwiceStdin,
}

impl IssueError {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Csr { .. } | Self::OtherDevice { .. } => "csr",
            Self::Folder(error) => error.code(),
            Self::KeyGeneration(_) => "key",
            Self::Line(_) | Self::LongId { .. } => "devices",
            Self::NoDevice | Self::TwiceStdin => "usage",
            Self::OtherKeyThere { .. } => "other-key",
            Self::Output(_) => "output",
        }
    }

    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Csr { .. } => "have the device make a P-256 key, and its request with its id as the common name",
            Self::Folder(error) => return error.advice(),
            Self::KeyGeneration(_) => "run the same command again: devices that have their certificate keep it",
            Self::Line(BadLine::Io(_)) => "check the file, then run the same command again",
            Self::Line(_) | Self::LongId { .. } => {
                "correct it, then run the same command again: devices that have their certificate keep it"
            }
            Self::NoDevice | Self::TwiceStdin => "see `cvm ca issue --help`",
            Self::OtherDevice { found, .. } => return format!("check the file, or give --device {found}"),
            Self::OtherKeyThere { .. } => "move that folder away, or give another --out",
            Self::Output(_) => "check where the output goes, then run the same command again",
        }
        .to_owned()
    }

    pub(crate) fn is_usage(&self) -> bool {
        self.code() == "usage"
    }
}
