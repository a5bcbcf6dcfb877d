//! Temporary files: a file is written under a temporary name in its folder and then renamed, so that it is whole or not
//! there.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use tempfile::{Builder, NamedTempFile};

/// How the names of temporary files begin.
const PREFIX: &str = ".tmp";
/// The random characters after the prefix.
const RANDOM: usize = 6;

/// An empty temporary file in the folder of `path`, to be renamed to `path`, with mode 0600.
///
/// The writer holds a lock on it. A file that nobody holds was left by a process that was killed: such files of the same
/// `path` are removed first.
///
/// # Errors
///
/// The folder is missing or cannot be written.
pub fn temporary_file(path: &Path) -> io::Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut suffix = OsString::from("-");
    suffix.push(path.file_name().unwrap_or_default());
    suffix.push(".tmp");
    remove_orphans(folder, &suffix);
    loop {
        // `tempfile` makes files with mode 0600.
        let file = Builder::new().prefix(PREFIX).rand_bytes(RANDOM).suffix(&suffix).tempfile_in(folder)?;
        match file.as_file().try_lock() {
            // Another process took it for an orphan before it was locked.
            Err(TryLockError::WouldBlock) => {}
            Ok(()) if !file.path().exists() => {}
            // On a file system without locks, orphans are not removed.
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(file),
        }
    }
}

/// Best effort: an orphan does no harm, and what prevents its removal prevents the write as well.
fn remove_orphans(folder: &Path, suffix: &OsStr) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let (name, suffix) = (name.as_encoded_bytes(), suffix.as_encoded_bytes());
        let is_of_path = name.len() == PREFIX.len() + RANDOM + suffix.len()
            && name.starts_with(PREFIX.as_bytes())
            && name.ends_with(suffix);
        let Some(file) = is_of_path.then(|| File::open(entry.path()).ok()).flatten() else { continue };
        // Held until the file is removed, so that its writer does not take it meanwhile.
        if file.try_lock().is_ok() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_a_killed_process_left_is_removed_and_that_of_a_running_one_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let left = |name: &str| temporary_file(&path(name)).unwrap().keep().unwrap().1;
        let (orphan, of_another) = (left("server.key"), left("other-server.key"));
        let alien = path(".tmpAbCdEf");
        fs::write(&alien, "").unwrap();
        let running = temporary_file(&path("server.key")).unwrap();
        assert!(!orphan.exists() && of_another.exists() && alien.exists());
        let next = temporary_file(&path("server.key")).unwrap();
        assert!(running.path().exists(), "its writer holds it");
        next.persist(path("server.key")).unwrap();
        assert!(path("server.key").exists());
    }
}
