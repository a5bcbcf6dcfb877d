//! The files of jobs in one folder of this machine, and nowhere else.

mod directory;

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256, digest};
use cvm_provisioning::AttemptId;
use data_encoding::HEXLOWER;
use rustix::io::Errno;

use self::directory::Directory;
use crate::objects::is_file;
use crate::{Fetched, JobId, ObjectError, ObjectPath, Objects};

/// The directory in the folder that is ours: no path of a job's file leads into it.
const OWN: &str = ".cvm";
/// The file in it that tells this folder from others.
const ID: &str = "id";
/// The largest file that is read at once, in bytes: the tokens of one portion.
const MAX_READ: u64 = 16 * 1024 * 1024;
/// The largest file that is fetched, in bytes: some ten million devices.
const ROOM: u64 = 4_000_000_000;
/// When what was begun and not brought to its end is nobody's any more: a job gives up long before that.
const FORGOTTEN: Duration = Duration::from_secs(24 * 60 * 60);

/// The files of jobs in a folder, of mode 0600. Each is written whole or not at all, whenever the machine stops, and none
/// outside of the folder is read or written: links are refused wherever they lead.
///
/// All of it waits for the disk, so it belongs on a thread of its own.
#[derive(Clone, Debug)]
pub struct FolderObjects {
    path: Arc<Path>,
    id: Arc<str>,
}

impl FolderObjects {
    /// The files in this folder, which has to be there. Servers that share it do so by whichever path.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read and written.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let own = Directory::open(&path)?.made(OWN)?;
        // What cannot be removed is in nobody's way.
        let _ = own.remove_older(FORGOTTEN, ID);
        let id = match read_id(&own) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = random()?;
                let written = write(&own, &mut made.as_bytes())?;
                // Another server may have made it in between.
                own.move_to_new(&written, &own, ID)?;
                read_id(&own)?
            }
            id => id?,
        };
        Ok(Self { path: path.into(), id: id.into() })
    }

    /// What tells this folder from others, on whichever machine.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The folder, and the directory in it that is ours. One that is not mounted any more is waited for.
    fn folder(&self) -> Result<(Directory, Directory), ObjectError> {
        let opened = Directory::open(&self.path).and_then(|folder| {
            let own = folder.directory(OWN)?;
            Ok((read_id(&own)?, folder, own))
        });
        match opened {
            Ok((id, folder, own)) if id == *self.id => Ok((folder, own)),
            Ok(_) => Err(ObjectError::Unavailable { source: "another folder is in the place of this one".into() }),
            Err(source) => Err(ObjectError::Unavailable { source: source.into() }),
        }
    }

    /// The file as it is, to be read.
    fn read(&self, object: &ObjectPath) -> Result<File, ObjectError> {
        let mut parts = parts(object)?;
        let name = parts.pop().unwrap_or_default();
        let directory = parts.into_iter().try_fold(self.folder()?.0, |directory, part| directory.directory(part));
        directory.and_then(|directory| directory.read(name)).map_err(object_error)
    }

    /// Where the file is to be: its directory, which is made, and its name there.
    fn place<'a>(&self, folder: Directory, object: &'a ObjectPath) -> Result<(Directory, &'a str), ObjectError> {
        let mut parts = parts(object)?;
        let name = parts.pop().unwrap_or_default();
        let directory = parts.into_iter().try_fold(folder, |directory, part| directory.made(part));
        Ok((directory.map_err(object_error)?, name))
    }

    fn assemble(&self, object: &ObjectPath, upload: &str, tags: &[String]) -> Result<(), ObjectError> {
        let (folder, own) = self.folder()?;
        let parts = own.directory(upload_name(upload)?).map_err(object_error)?;
        if !tags.iter().all(|tag| is_plain(tag)) {
            return Err(ObjectError::NotFound);
        }
        let whole = random().map_err(object_error)?;
        let made = own.create(&whole).and_then(|mut file| {
            for (tag, number) in tags.iter().zip(1..) {
                io::copy(&mut parts.read(&part_name(number, tag))?, &mut file)?;
            }
            file.sync_all()
        });
        let (directory, name) = self.place(folder, object)?;
        let moved = made.and_then(|()| own.move_to(&whole, &directory, name));
        moved.or_else(|error| own.remove(&whole).and(Err(error))).map_err(object_error)?;
        own.remove_directory(upload).map_err(object_error)
    }

    /// Whether the file has been made of these parts, whose tags have their lengths and digests.
    fn is_made_of(&self, object: &ObjectPath, tags: &[String]) -> Result<bool, ObjectError> {
        let mut file = match self.read(object) {
            Err(ObjectError::NotFound) => return Ok(false),
            file => file?,
        };
        for tag in tags {
            let length = tag.split_once('-').and_then(|(length, _)| length.parse().ok()).unwrap_or_default();
            let (length, digest) = digested((&file).take(length), |_| Ok(()))?;
            if tag_of(length, &digest) != *tag {
                return Ok(false);
            }
        }
        Ok(file.read(&mut [0]).map_err(object_error)? == 0)
    }
}

impl Objects for FolderObjects {
    async fn fetch(&self, object: &ObjectPath, etag: Option<&str>, file: &mut File) -> Result<Fetched, ObjectError> {
        let source = self.read(object)?;
        let length = source.metadata().map_err(object_error)?.len();
        if length > ROOM {
            return Err(ObjectError::TooLarge { length, room: ROOM });
        }
        let copied = digested(source.take(ROOM), |bytes| file.write_all(bytes).map_err(ObjectError::Disk));
        let (length, digest) = copied?;
        match etag.is_none_or(|etag| etag == digest) {
            true => Ok(Fetched { etag: digest, length }),
            false => Err(ObjectError::Changed),
        }
    }

    async fn get(&self, object: &ObjectPath) -> Result<Option<Vec<u8>>, ObjectError> {
        let file = match self.read(object) {
            Err(ObjectError::NotFound) => return Ok(None),
            file => file?,
        };
        let mut bytes = Vec::new();
        let length = file.take(MAX_READ + 1).read_to_end(&mut bytes).map_err(object_error)? as u64;
        if length > MAX_READ {
            return Err(ObjectError::TooLarge { length, room: MAX_READ });
        }
        Ok(Some(bytes))
    }

    async fn put(&self, object: &ObjectPath, bytes: Vec<u8>) -> Result<(), ObjectError> {
        let (folder, own) = self.folder()?;
        let (directory, name) = self.place(folder, object)?;
        let written = write(&own, &mut bytes.as_slice()).map_err(object_error)?;
        let moved = own.move_to(&written, &directory, name);
        moved.or_else(|error| own.remove(&written).and(Err(error))).map_err(object_error)
    }

    async fn put_new(&self, object: &ObjectPath, bytes: Vec<u8>) -> Result<bool, ObjectError> {
        let (folder, own) = self.folder()?;
        let (directory, name) = self.place(folder, object)?;
        let written = write(&own, &mut bytes.as_slice()).map_err(object_error)?;
        let moved = own.move_to_new(&written, &directory, name);
        moved.or_else(|error| own.remove(&written).and(Err(error))).map_err(object_error)
    }

    async fn begin(&self, object: &ObjectPath, job: JobId) -> Result<String, ObjectError> {
        let (folder, own) = self.folder()?;
        let (directory, name) = self.place(folder, object)?;
        if directory.has_other_than_file(name).map_err(object_error)? {
            return Err(refused("something else than a file is there"));
        }
        let upload = format!("{job}-{}", random().map_err(object_error)?);
        own.made(&upload).map_err(object_error)?;
        Ok(upload)
    }

    async fn part(&self, _: &ObjectPath, upload: &str, number: usize, bytes: Vec<u8>) -> Result<String, ObjectError> {
        let parts = self.folder()?.1.directory(upload_name(upload)?);
        let parts = parts.map_err(|error| gone(object_error(error)))?;
        let tag = tag_of(bytes.len() as u64, &HEXLOWER.encode(digest(&SHA256, &bytes).as_ref()));
        let written = write(&parts, &mut bytes.as_slice()).map_err(object_error)?;
        // Under a name of its own: whoever writes another part of this number does not take this one away.
        parts.move_to(&written, &parts, &part_name(number, &tag)).map_err(object_error)?;
        Ok(tag)
    }

    async fn complete(&self, object: &ObjectPath, upload: &str, tags: &[String], _: JobId) -> Result<(), ObjectError> {
        match self.assemble(object, upload, tags) {
            // It is complete already, or it was given up.
            Err(ObjectError::NotFound) if self.is_made_of(object, tags)? => self.abort(object, upload).await,
            Err(error) => Err(gone(error)),
            Ok(()) => Ok(()),
        }
    }

    async fn abort(&self, _: &ObjectPath, upload: &str) -> Result<(), ObjectError> {
        self.folder()?.1.remove_directory(upload_name(upload)?).map_err(object_error)
    }
}

/// The parts of the path to a file. Jobs are kept elsewhere, and what is read there is not believed.
fn parts(object: &ObjectPath) -> Result<Vec<&str>, ObjectError> {
    if object.bucket.is_some() || !is_file(&object.key) {
        return Err(refused("it is no path in the folder of the jobs"));
    }
    Ok(object.key.split('/').collect())
}

fn upload_name(upload: &str) -> Result<&str, ObjectError> {
    is_plain(upload).then_some(upload).ok_or_else(|| refused("there is no such upload"))
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn part_name(number: usize, tag: &str) -> String {
    format!("{number:05}-{tag}")
}

/// What tells a part from others, and finds it in the whole: its length and its digest.
fn tag_of(length: u64, digest: &str) -> String {
    format!("{length}-{digest}")
}

/// Reads to the end, and returns how much that is, and its digest.
fn digested(
    mut source: impl Read,
    mut sink: impl FnMut(&[u8]) -> Result<(), ObjectError>,
) -> Result<(u64, String), ObjectError> {
    let (mut context, mut length, mut buffer) = (Context::new(&SHA256), 0, vec![0; 256 * 1024]);
    loop {
        let read = source.read(&mut buffer).map_err(object_error)?;
        if read == 0 {
            return Ok((length, HEXLOWER.encode(context.finish().as_ref())));
        }
        length += read as u64;
        context.update(&buffer[..read]);
        sink(&buffer[..read])?;
    }
}

/// Writes a file of some name to the disk.
fn write(directory: &Directory, bytes: &mut impl Read) -> io::Result<String> {
    let name = random()?;
    let mut file = directory.create(&name)?;
    let written = io::copy(bytes, &mut file).and_then(|_| file.sync_all());
    written.or_else(|error| directory.remove(&name).and(Err(error)))?;
    Ok(name)
}

fn read_id(own: &Directory) -> io::Result<String> {
    let mut id = String::new();
    own.read(ID)?.take(64).read_to_string(&mut id)?;
    Ok(id)
}

fn random() -> io::Result<String> {
    let id = AttemptId::random().map_err(|_| io::Error::other("the system has no randomness to give"))?;
    Ok(id.to_string())
}

fn refused(why: &'static str) -> ObjectError {
    ObjectError::Refused { source: why.into() }
}

/// An upload of which something is not there.
fn gone(error: ObjectError) -> ObjectError {
    if matches!(error, ObjectError::NotFound) { refused("there is no such upload") } else { error }
}

/// What an error of the system means: some are there for as long as the folder is as it is, and others may pass.
fn object_error(error: io::Error) -> ObjectError {
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT) => ObjectError::NotFound,
        Some(Errno::LOOP | Errno::NOTDIR) => refused("there is a link, or no folder, in its path"),
        Some(
            Errno::ACCESS
            | Errno::EXIST
            | Errno::FBIG
            | Errno::ISDIR
            | Errno::NAMETOOLONG
            | Errno::NXIO
            | Errno::PERM
            | Errno::ROFS
            | Errno::XDEV,
        ) => ObjectError::Refused { source: error.into() },
        None if error.kind() == io::ErrorKind::InvalidInput => ObjectError::Refused { source: error.into() },
        _ => ObjectError::Unavailable { source: error.into() },
    }
}
