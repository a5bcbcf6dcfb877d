//! A directory that is open, and what is done in it: no name leads out of it, and no link is followed.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, fsync, linkat, mkdirat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

/// A directory that is open. Names are single parts of paths, which the callers see to.
#[derive(Debug)]
pub(super) struct Directory(OwnedFd);

impl Directory {
    /// The directory at this path, wherever it leads.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// The directory of this name in it.
    pub(super) fn directory(&self, name: &str) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(openat(&self.0, name, flags, Mode::empty())?))
    }

    /// The same, made where it is not there, for nobody else to look into.
    pub(super) fn made(&self, name: &str) -> io::Result<Self> {
        match mkdirat(&self.0, name, Mode::RWXU) {
            Ok(()) => fsync(&self.0)?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        self.directory(name)
    }

    /// A file to be read, if it is a regular one.
    pub(super) fn read(&self, name: &str) -> io::Result<File> {
        // One that waits for somebody to write, or is a terminal, is opened without more.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(openat(&self.0, name, flags, Mode::empty())?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
        }
    }

    /// Whether something else than a file has this name.
    pub(super) fn has_other_than_file(&self, name: &str) -> io::Result<bool> {
        match statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A file that is not there yet, for nobody else to read.
    pub(super) fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?))
    }

    /// Gives a file its place in a directory, whatever was there, and returns when that is on the disk.
    pub(super) fn move_to(&self, name: &str, directory: &Self, new: &str) -> io::Result<()> {
        renameat(&self.0, name, &directory.0, new)?;
        Ok(fsync(&directory.0)?)
    }

    /// The same, if nothing has its place; says whether that was so.
    pub(super) fn move_to_new(&self, name: &str, directory: &Self, new: &str) -> io::Result<bool> {
        let is_new = match linkat(&self.0, name, &directory.0, new, AtFlags::empty()) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        fsync(&directory.0)?;
        self.remove(name)?;
        Ok(is_new)
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        if_there(unlinkat(&self.0, name, AtFlags::empty()))
    }

    /// Removes a directory of files, if it is there.
    pub(super) fn remove_directory(&self, name: &str) -> io::Result<()> {
        match self.directory(name) {
            Ok(directory) => directory.names()?.iter().try_for_each(|name| directory.remove(name))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        if_there(unlinkat(&self.0, name, AtFlags::REMOVEDIR))
    }

    /// Removes what was not changed for this long, files and directories of files.
    pub(super) fn remove_older(&self, age: Duration, kept: &str) -> io::Result<()> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        for name in self.names()?.iter().filter(|name| *name != kept) {
            let Ok(stat) = statat(&self.0, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let changed = Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or_default());
            if now.saturating_sub(changed) < age {
                continue;
            }
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => self.remove_directory(name)?,
                _ => self.remove(name)?,
            }
        }
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            // A name that is no text is none of ours.
            if let Ok(name) = entry?.file_name().to_str()
                && !matches!(name, "." | "..")
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }
}

fn if_there(done: Result<(), Errno>) -> io::Result<()> {
    match done {
        Err(Errno::NOENT) => Ok(()),
        done => Ok(done?),
    }
}
