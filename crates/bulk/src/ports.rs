//! What jobs need from the world.

use std::error::Error;
use std::fs::File;

use cvm_provisioning::RegistryError;

use crate::{Job, JobId, ObjectPath};

/// Where jobs are kept. After each write of a job the store sees to it that a [`Worker`](crate::Worker) is called for it,
/// so that none can be there, and not at its end, without a worker to come.
pub trait JobStore: Send + Sync {
    /// Puts a new job there.
    fn create(&self, job: &Job) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// The job of this id, if there is one.
    fn find(&self, id: JobId) -> impl Future<Output = Result<Option<Job>, RegistryError>> + Send;

    /// Puts the job in the place of the one of this version, and says whether that was there.
    fn replace(&self, job: &Job, version: u64) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// The jobs there are, in no order; those that ended long ago are not kept.
    fn list(&self) -> impl Future<Output = Result<Vec<Job>, RegistryError>> + Send;
}

/// An object that was fetched.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fetched {
    /// What tells this state of the object from others.
    pub etag: String,
    /// Its length, in bytes.
    pub length: u64,
}

/// Where the files of jobs are.
pub trait Objects: Send + Sync {
    /// Writes the object into a file, if it still is the one with this tag.
    fn fetch(
        &self,
        object: &ObjectPath,
        etag: Option<&str>,
        file: &mut File,
    ) -> impl Future<Output = Result<Fetched, ObjectError>> + Send;

    /// The object's bytes, if it is there.
    fn get(&self, object: &ObjectPath) -> impl Future<Output = Result<Option<Vec<u8>>, ObjectError>> + Send;

    /// Puts an object there.
    fn put(&self, object: &ObjectPath, bytes: Vec<u8>) -> impl Future<Output = Result<(), ObjectError>> + Send;

    /// Puts an object there where none is, and says whether that was so.
    fn put_new(&self, object: &ObjectPath, bytes: Vec<u8>) -> impl Future<Output = Result<bool, ObjectError>> + Send;

    /// Begins an object that is written in parts, and returns the upload's id. `job` is kept with it.
    fn begin(&self, object: &ObjectPath, job: JobId) -> impl Future<Output = Result<String, ObjectError>> + Send;

    /// Writes the part of this number, from 1, over one of the same number, and returns what tells it from others. All
    /// but the last one have 5 MiB at least.
    fn part(
        &self,
        object: &ObjectPath,
        upload: &str,
        number: usize,
        bytes: Vec<u8>,
    ) -> impl Future<Output = Result<String, ObjectError>> + Send;

    /// Makes the object of its parts; again is the same as once.
    fn complete(
        &self,
        object: &ObjectPath,
        upload: &str,
        parts: &[String],
        job: JobId,
    ) -> impl Future<Output = Result<(), ObjectError>> + Send;

    /// Gives an upload up; again is the same as once.
    fn abort(&self, object: &ObjectPath, upload: &str) -> impl Future<Output = Result<(), ObjectError>> + Send;
}

/// Why something was not done with an object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// It is not the one any more that the work was begun with.
    #[error("the object was changed in the meantime")]
    Changed,
    /// What was fetched cannot be kept here.
    #[error("the object cannot be written to the disk")]
    Disk(#[source] std::io::Error),
    /// There is no such object.
    #[error("there is no such object")]
    NotFound,
    /// It will not be done if it is asked for again.
    #[error("it was refused")]
    Refused {
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// It is larger than there is room for.
    #[error("the object has {length} bytes, and there is room for {room}")]
    TooLarge {
        /// Its length.
        length: u64,
        /// The most that is taken.
        room: u64,
    },
    /// It may be done if it is asked for again.
    #[error("it cannot be done now")]
    Unavailable {
        /// What went wrong.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl ObjectError {
    /// Whether it may be done if it is asked for again.
    pub const fn is_for_now(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
