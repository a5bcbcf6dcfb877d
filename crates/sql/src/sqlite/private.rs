//! The registry's folder and files are for their owner alone, whatever the umask is and whatever was there before: another
//! user who may open the lock file can hold its lock.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

const FOLDER: u32 = 0o700;
const FILE: u32 = 0o600;

/// Creates a folder and its missing parents with mode 0700, and gives an existing one that mode.
pub(super) fn folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER).create(path)?;
    restrict(path, FOLDER)
}

/// Opens a file for writing with mode 0600; creates it if it is missing.
pub(super) fn file(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).mode(FILE).open(path)?;
    restrict(path, FILE)?;
    Ok(file)
}

/// Gives a file mode 0600 if it exists.
pub(super) fn existing(path: &Path) -> io::Result<()> {
    match restrict(path, FILE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Takes every permission from others than the owner. A mode that is stricter already, such as that of a file which may
/// only be read, stays.
fn restrict(path: &Path, mode: u32) -> io::Result<()> {
    let found = fs::metadata(path)?.permissions().mode() & 0o7777;
    if found & !mode == 0 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(found & mode))
}
