use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, PersistError};
use zeroize::Zeroizing;

use crate::{KeyError, LocalSigner, Passphrase, temporary_file};

/// A file with a CA's key: PKCS #8 in PEM.
///
/// With a passphrase anybody may read it. Without one its mode is what protects the CA, so it is refused when others
/// than its owner may read or write it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    /// The file of this name, which need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Reads the key. A passphrase that is not needed does no harm.
    ///
    /// # Errors
    ///
    /// [`KeyFileError`].
    pub fn read(&self, passphrase: Option<&Passphrase>) -> Result<LocalSigner, KeyFileError> {
        let (text, is_exposed) = self.text()?;
        // Whoever can read a key that is not encrypted has it: whether it is one is not even asked.
        if is_exposed && !LocalSigner::is_encrypted(&text) {
            return Err(KeyFileError::Exposed { path: self.path.clone() });
        }
        LocalSigner::from_pem(&text, passphrase).map_err(|source| KeyFileError::Key { path: self.path.clone(), source })
    }

    /// Whether the key is under a passphrase. Nothing of it is read but its first line.
    ///
    /// # Errors
    ///
    /// [`KeyFileError::Read`].
    pub fn is_encrypted(&self) -> Result<bool, KeyFileError> {
        let (text, _) = self.text()?;
        Ok(LocalSigner::is_encrypted(&text))
    }

    /// Writes the key where no file is yet, with mode 0600. The file is there whole and on the disk, or not at all.
    ///
    /// # Errors
    ///
    /// [`KeyFileError`]; a key is never written over another.
    pub fn create(&self, signer: &LocalSigner, passphrase: Option<&Passphrase>) -> Result<(), KeyFileError> {
        self.write(signer, passphrase, |file| file.persist_noclobber(&self.path))
    }

    /// Writes the key again, under another passphrase or none: a crash leaves the file as it was or as it is to be. What
    /// was on the disk before may be found there until something else is written over it.
    ///
    /// # Errors
    ///
    /// [`KeyFileError`]; the file is as it was then.
    pub fn change_passphrase(
        &self,
        before: Option<&Passphrase>,
        after: Option<&Passphrase>,
    ) -> Result<(), KeyFileError> {
        self.write(&self.read(before)?, after, |file| file.persist(&self.path))
    }

    /// What is in the file, and whether others may read it.
    fn text(&self) -> Result<(Zeroizing<String>, bool), KeyFileError> {
        let failed = |source| KeyFileError::Read { path: self.path.clone(), source };
        let file = File::open(&self.path).map_err(failed)?;
        let is_exposed = is_exposed(&file).map_err(failed)?;
        let mut text = Zeroizing::new(String::with_capacity(LocalSigner::MAX_TEXT + 1));
        file.take(LocalSigner::MAX_TEXT as u64 + 1).read_to_string(&mut text).map_err(failed)?;
        Ok((text, is_exposed))
    }

    fn write(
        &self,
        signer: &LocalSigner,
        passphrase: Option<&Passphrase>,
        persist: impl FnOnce(NamedTempFile) -> Result<File, PersistError>,
    ) -> Result<(), KeyFileError> {
        let pem = signer.to_pem(passphrase);
        let pem = pem.map_err(|source| KeyFileError::Key { path: self.path.clone(), source })?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        let write = || {
            let mut file = temporary_file(&self.path)?;
            file.write_all(pem.as_bytes())?;
            file.as_file().sync_all()?;
            persist(file)?;
            // The name is on the disk when the folder is.
            File::open(folder)?.sync_all()
        };
        write().map_err(|source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => KeyFileError::Exists { path: self.path.clone() },
            _ => KeyFileError::Write { path: self.path.clone(), source },
        })
    }
}

#[cfg(unix)]
fn is_exposed(file: &File) -> io::Result<bool> {
    Ok(std::os::unix::fs::MetadataExt::mode(&file.metadata()?) & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_exposed(_: &File) -> io::Result<bool> {
    Ok(false)
}

/// Why a key file was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// A key is never overwritten.
    #[error("{path} is there already: a CA's key is never overwritten", path = path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Others may read it, and it has no passphrase.
    #[error("{path} is a secret, and others than its owner may read it: `chmod 600` it", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// There is no key in it that can be used.
    #[error("{path} holds no private key that can be used", path = path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// It is not there, or not for us, or no text.
    #[error("{path} cannot be read", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be put there.
    #[error("{path} cannot be written: check its folder", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
