//! Files that nobody but their owner may read.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use cvm_authority::temporary_file;
use tempfile::NamedTempFile;

use crate::output::shell_word;

/// Reads a file, or stdin for `-`, of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: usize) -> Result<Vec<u8>, FileError> {
    if path == Path::new("-") {
        return read_from(io::stdin().lock(), path, limit);
    }
    let file = File::open(path).map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    read_from(file, path, limit)
}

/// The same, of text, without the byte order mark that editors may write before it.
pub(crate) fn read_text(path: &Path, limit: usize) -> Result<String, FileError> {
    text(path, read(path, limit)?)
}

/// The same, of a secret: a file that others than its owner may read is refused.
pub(crate) fn read_private_text(path: &Path, limit: usize) -> Result<String, FileError> {
    if path == Path::new("-") {
        return read_text(path, limit);
    }
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::mode(&file.metadata().map_err(failed)?) & 0o077 != 0 {
        return Err(FileError::Exposed { path: path.to_owned() });
    }
    text(path, read_from(file, path, limit)?)
}

/// Makes a folder, and those above it that are missing, for nobody else to look into; one that is there is left as it is.
pub(crate) fn private_folder(path: &Path) -> Result<(), FileError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|source| FileError::Write { path: path.to_owned(), source })
}

/// Takes these permissions (mode bits) from a folder that may have been made by somebody else. A folder of another owner is left
/// as it is, with a line in the log: its owner has to do it.
pub(crate) fn take_permissions(path: &Path, taken: u32) -> Result<(), FileError> {
    use std::os::unix::fs::PermissionsExt as _;
    let found = std::fs::metadata(path).map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    let mode = found.permissions().mode() & 0o7777;
    if mode & taken != 0
        && let Err(error) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & !taken))
    {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(path = %path.display(), error, "other users of this machine may change this folder");
    }
    Ok(())
}

/// Puts a file with mode 0600 in the place of what may be there. A crash leaves the old file or the new one, whole.
pub(crate) fn replace(path: &Path, content: &str) -> Result<(), FileError> {
    let failed = |source| FileError::Write { path: path.to_owned(), source };
    written_beside(path, content).map_err(failed)?.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Makes a file with mode 0600 where there is none yet.
pub(crate) fn create(path: &Path, content: &str) -> Result<(), FileError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => FileError::Exists { path: path.to_owned() },
        _ => FileError::Write { path: path.to_owned(), source },
    };
    written_beside(path, content).map_err(failed)?.persist_noclobber(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Takes a file from everybody but its owner.
pub(crate) fn make_private(path: &Path) -> Result<(), FileError> {
    #[cfg(unix)]
    {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        let set = std::fs::set_permissions(path, permissions);
        set.map_err(|source| FileError::Write { path: path.to_owned(), source })?;
    }
    Ok(())
}

/// Has the disk have the names in a folder that is there.
pub(crate) fn sync_folder(path: &Path) -> Result<(), FileError> {
    if !path.exists() {
        return Ok(());
    }
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(|source| FileError::Write { path: path.to_owned(), source })
}

/// The folder that a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn read_from(source: impl Read, path: &Path, limit: usize) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let result = source.take(limit as u64 + 1).read_to_end(&mut bytes);
    result.map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    if bytes.len() > limit {
        return Err(FileError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

fn text(path: &Path, bytes: Vec<u8>) -> Result<String, FileError> {
    let mut text = String::from_utf8(bytes).map_err(|_| FileError::NotText { path: path.to_owned() })?;
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
    }
    Ok(text)
}

/// What editors may write before a text.
pub(crate) const BYTE_ORDER_MARK: char = '\u{feff}';

/// A file with this content that is on the disk and waits to be renamed, with mode 0600 from the start.
fn written_beside(path: &Path, content: &str) -> io::Result<NamedTempFile> {
    let mut file = temporary_file(path)?;
    file.write_all(content.as_bytes())?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FileError {
    #[error("{path} is there already", path = path.display())]
    Exists { path: PathBuf },
    #[error("{path} is a secret, and others than its owner may read it", path = path.display())]
    Exposed { path: PathBuf },
    #[error("{path} is not text", path = path.display())]
    NotText { path: PathBuf },
    #[error("{path} cannot be read", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} has more than the {limit} bytes that such a file can have", path = path.display())]
    TooLarge { path: PathBuf, limit: usize },
    #[error("{path} cannot be written", path = path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl FileError {
    /// What to do next.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Exists { .. } => "give another name, or move what is there away if it is no longer needed",
            Self::Exposed { path } => return format!("`chmod 600 {}`", shell_word(&path.to_string_lossy())),
            Self::NotText { .. } | Self::TooLarge { .. } => "check that it is the file you mean",
            Self::Read { .. } => "check the name and that you may read it",
            Self::Write { .. } => "check that its folder is there and that you may write to it",
        }
        .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn threat_54_a_secret_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.key");
        create(&path, "secret").unwrap();
        assert_eq!(read_private_text(&path, 6).unwrap(), "secret");
        for mode in [0o640, 0o604, 0o620, 0o666] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = read_private_text(&path, 6).unwrap_err();
            assert!(matches!(error, FileError::Exposed { .. }), "{mode:o}: {error}");
            assert_eq!(error.advice(), format!("`chmod 600 {}`", path.display()));
        }
    }

    #[test]
    fn a_file_is_private_and_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        create(&path, "one").unwrap();
        assert!(matches!(create(&path, "two"), Err(FileError::Exists { .. })));
        assert_eq!(read_text(&path, 3).unwrap(), "one");
        replace(&path, "three").unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), "three");
        assert!(matches!(read(&path, 4), Err(FileError::TooLarge { limit: 4, .. })));
        replace(&path, "\u{feff}four").unwrap();
        assert_eq!(read_text(&path, 7).unwrap(), "four");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }
}
