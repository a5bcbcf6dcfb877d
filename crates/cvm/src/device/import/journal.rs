//! How far an import has come, beside its file, so that one that was cut off goes on where it was.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use cvm_authority::temporary_file;
use cvm_bulk::ImportStanding;
use serde::{Deserialize, Serialize};

use super::ImportError;

/// The journal of one import.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    pub(super) entry: Entry,
    /// Whether it is on the disk.
    pub(super) is_kept: bool,
}

/// What is written after each batch.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    /// The file's length and the digest of its beginning: another file is not gone on with.
    source: String,
    #[serde(flatten)]
    pub(super) standing: ImportStanding,
    /// How many bytes of failed lines were written.
    #[serde(default)]
    pub(super) failures: u64,
}

impl Journal {
    /// Bytes of the file that tell it from others.
    const BEGINNING: u64 = 64 * 1024;

    /// The journal of an import from this file.
    pub(super) fn path(file: &Path) -> PathBuf {
        let mut name = file.as_os_str().to_owned();
        name.push(".cvm-import");
        PathBuf::from(name)
    }

    /// The journal of an import that begins, or is resumed. It is not on the disk before [`Journal::keep`].
    pub(super) fn open(file: &Path, resume: bool) -> Result<Self, ImportError> {
        let failed = |source| ImportError::Read { path: file.to_owned(), source };
        let path = Self::path(file);
        let opened = File::open(file).map_err(failed)?;
        let length = opened.metadata().map_err(failed)?.len();
        let mut beginning = Vec::new();
        opened.take(Self::BEGINNING).read_to_end(&mut beginning).map_err(failed)?;
        let hash = digest(&SHA256, &beginning);
        let hash: String = hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let begun = Entry { source: format!("{length}-{hash}"), ..Entry::default() };
        let found = match fs::read(&path) {
            Ok(json) => Some(serde_json::from_slice(&json).map_err(|_| ImportError::Journal { path: path.clone() })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(ImportError::Read { path, source }),
        };
        match found {
            None => Ok(Self { path, entry: begun, is_kept: false }),
            Some(_) if !resume => Err(ImportError::CutOff { path }),
            Some(entry @ Entry { .. }) if entry.source == begun.source => Ok(Self { path, entry, is_kept: true }),
            Some(_) => Err(ImportError::Journal { path }),
        }
    }

    /// Writes the entry to the disk: a crash leaves the old one or the new one.
    pub(super) fn keep(&mut self) -> Result<(), ImportError> {
        let failed = |source| ImportError::Write { path: self.path.clone(), source };
        let mut file = temporary_file(&self.path).map_err(failed)?;
        serde_json::to_writer(&mut file, &self.entry).map_err(|error| failed(error.into()))?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&self.path).map_err(|error| failed(error.error))?;
        self.is_kept = true;
        Ok(())
    }

    /// Ends it: the import is through.
    pub(super) fn end(self) -> Result<(), ImportError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ImportError::Write { path: self.path, source: error })
            }
            _ => Ok(()),
        }
    }
}
