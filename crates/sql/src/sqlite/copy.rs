//! A copy of the database as it is at one moment, while others go on with it.

use std::fs::File;
use std::path::Path;

use rusqlite::OpenFlags;

use super::{FILE, check_pages, open_error};
use crate::error::OpenError;

/// Copies the database in `folder` into the folder `copy`, where there is none yet. Writers go on meanwhile; what they write
/// is not in the copy, and their log grows until it is made. Each page is looked at, here and in the copy.
pub(crate) fn copy(folder: &Path, copy: &Path) -> Result<(), OpenError> {
    let (from, to) = (folder.join(FILE), copy.join(FILE));
    let failed = |source: rusqlite::Error| OpenError::Copy { path: to.clone(), source: source.into() };
    std::fs::metadata(&from).map_err(|source| OpenError::Missing { path: from.clone(), source })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = rusqlite::Connection::open_with_flags(&from, flags).map_err(open_error(&from))?;
    // Indexes are made anew in the copy, where it would not be seen that they were damaged here.
    check_pages(&database, &from)?;
    // One transaction that reads (sqlite.org, "VACUUM": VACUUM INTO); the copy is not on the disk yet when it ends.
    let name = to.to_str().ok_or_else(|| failed(rusqlite::Error::InvalidPath(to.clone())))?;
    database.execute("VACUUM INTO ?1", [name]).map_err(failed)?;
    let synced = File::open(&to).and_then(|file| file.sync_all());
    synced.map_err(|source| OpenError::Copy { path: to.clone(), source: source.into() })?;
    let made = rusqlite::Connection::open_with_flags(&to, OpenFlags::SQLITE_OPEN_READ_ONLY);
    check_pages(&made.map_err(open_error(&to))?, &to)
}
