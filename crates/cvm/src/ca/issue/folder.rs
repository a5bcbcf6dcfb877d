//! The folders of the devices, each of which is there whole or not at all.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use cvm_provisioning::{Certificate, DeviceId, DeviceKey, Timestamp};

use crate::file::{self, FileError};

/// The folder in which each device has its own. One run at a time works in it.
#[derive(Debug)]
pub(super) struct Folders {
    path: PathBuf,
    /// The lock, which the system releases when the process ends, however it does.
    folder: File,
}

impl Folders {
    /// The longest `device.pem` that is read, in bytes: two certificates.
    const MAX_CHAIN: usize = 2 * Certificate::MAX_TEXT;

    pub(super) fn open(path: &Path) -> Result<Self, FolderError> {
        file::private_folder(path)?;
        let folder = File::open(path).map_err(|source| FileError::Write { path: path.to_owned(), source })?;
        match folder.try_lock() {
            Err(TryLockError::WouldBlock) => Err(FolderError::Busy { path: path.to_owned() }),
            // A file system without locks is taken as it is.
            _ => Ok(Self { path: path.to_owned(), folder }),
        }
    }

    pub(super) fn of(&self, id: &DeviceId) -> PathBuf {
        self.path.join(id.as_str())
    }

    /// The certificate that an earlier run has issued for the device, and its folder is complete.
    pub(super) fn find(
        &self,
        id: &DeviceId,
        authority: &Certificate,
        with_key: bool,
        now: Timestamp,
    ) -> Result<Option<Certificate>, FolderError> {
        let path = self.of(id);
        if !path.exists() {
            return Ok(None);
        }
        let chain = path.join(CHAIN);
        if !chain.exists() || with_key && !path.join(KEY).exists() {
            return Err(FolderError::Incomplete { path });
        }
        let text = file::read_text(&chain, Self::MAX_CHAIN)?;
        let end = text.find(END).map_or(text.len(), |start| start + END.len());
        let (leaf, issuer) = text.split_at(end);
        let Ok(certificate) = Certificate::parse(leaf) else { return Err(FolderError::Incomplete { path }) };
        if certificate.common_name() != Ok(Some(id.clone())) {
            return Err(FolderError::OtherDevice { path });
        }
        if Certificate::parse(issuer).ok().as_ref() != Some(authority) {
            return Err(FolderError::OtherCa { path });
        }
        if Timestamp::from(certificate.not_after()) < now {
            return Err(FolderError::Expired { path });
        }
        Ok(Some(certificate))
    }

    /// Keeps a device's certificate with its CA's, and its key where that was made here. What a run that was
    /// interrupted left of the same device is removed.
    pub(super) fn create(
        &self,
        id: &DeviceId,
        key: Option<&DeviceKey>,
        certificate: &Certificate,
        authority: &Certificate,
    ) -> Result<(), FolderError> {
        let partial = self.path.join(format!(".partial-{id}"));
        let failed = |source| FileError::Write { path: partial.clone(), source };
        match fs::remove_dir_all(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error).into()),
            _ => file::private_folder(&partial)?,
        }
        if let Some(key) = key {
            file::create(&partial.join(KEY), key.pem())?;
        }
        file::create(&partial.join(CHAIN), &format!("{}{}", certificate.pem(), authority.pem()))?;
        fs::rename(&partial, self.of(id)).map_err(failed)?;
        Ok(())
    }

    /// Has all folders on the disk.
    pub(super) fn sync(&self) -> Result<(), FolderError> {
        let failed = |source| FileError::Write { path: self.path.clone(), source };
        Ok(self.folder.sync_all().map_err(failed)?)
    }
}

const KEY: &str = "device.key";
/// The device's certificate, then the CA's: as AWS IoT wants them in the first TLS connect (AWS IoT Developer Guide,
/// *Just-in-time registration*).
const CHAIN: &str = "device.pem";
const END: &str = "-----END CERTIFICATE-----\n";

/// Why a device's folder is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FolderError {
    #[error("another run is writing to {path}", path = path.display())]
    Busy { path: PathBuf },
    #[error("the certificate in {path} has expired", path = path.display())]
    Expired { path: PathBuf },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path} is there, but it is not the complete folder of a device", path = path.display())]
    Incomplete { path: PathBuf },
    #[error("the certificate in {path} is of another CA", path = path.display())]
    OtherCa { path: PathBuf },
    #[error("the certificate in {path} is of another device", path = path.display())]
    OtherDevice { path: PathBuf },
}

impl FolderError {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "busy",
            Self::Expired { .. } => "expired",
            Self::File(_) => "file",
            Self::Incomplete { .. } => "incomplete",
            Self::OtherCa { .. } => "other-ca",
            Self::OtherDevice { .. } => "other-device",
        }
    }

    pub(super) fn advice(&self) -> String {
        match self {
            Self::Busy { .. } => "wait for it to end, or give another --out".to_owned(),
            Self::Expired { .. } | Self::Incomplete { .. } | Self::OtherCa { .. } => {
                "move that folder away, then run the same command again: devices that have theirs keep it".to_owned()
            }
            Self::File(error) => error.advice(),
            Self::OtherDevice { .. } => {
                "give another --out; where names differ in case only, the file system has to tell them apart".to_owned()
            }
        }
    }
}
