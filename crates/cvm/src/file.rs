//! Files that nobody but their owner may read.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Reads a file, or stdin for `-`, of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: usize) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let most = limit as u64 + 1;
    if path == Path::new("-") {
        io::stdin().lock().take(most).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)).map_err(failed)?;
    }
    if bytes.len() > limit {
        return Err(FileError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

/// The same, of text.
pub(crate) fn read_text(path: &Path, limit: usize) -> Result<String, FileError> {
    String::from_utf8(read(path, limit)?).map_err(|_| FileError::NotText { path: path.to_owned() })
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

/// A file with this content that is on the disk and waits to be renamed. It has mode 0600 from the start, which is how
/// `tempfile` makes files.
fn written_beside(path: &Path, content: &str) -> io::Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut file = NamedTempFile::new_in(folder)?;
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
            Self::Exists { .. } => "give another name, or move that file away if it is no longer needed",
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
    fn a_file_is_private_and_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        create(&path, "one").unwrap();
        assert!(matches!(create(&path, "two"), Err(FileError::Exists { .. })));
        assert_eq!(read_text(&path, 3).unwrap(), "one");
        replace(&path, "three").unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), "three");
        assert!(matches!(read(&path, 4), Err(FileError::TooLarge { limit: 4, .. })));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }
}
