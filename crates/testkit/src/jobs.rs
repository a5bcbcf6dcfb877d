use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cvm_bulk::{Fetched, Job, JobId, JobStore, ObjectError, ObjectPath, Objects};
use cvm_provisioning::RegistryError;

/// Jobs in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryJobs {
    jobs: Arc<Mutex<BTreeMap<JobId, Job>>>,
}

impl MemoryJobs {
    fn jobs(&self) -> MutexGuard<'_, BTreeMap<JobId, Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JobStore for MemoryJobs {
    async fn create(&self, job: &Job) -> Result<(), RegistryError> {
        self.jobs().entry(job.id).or_insert_with(|| job.clone());
        Ok(())
    }

    async fn find(&self, id: JobId) -> Result<Option<Job>, RegistryError> {
        Ok(self.jobs().get(&id).cloned())
    }

    async fn replace(&self, job: &Job, version: u64) -> Result<bool, RegistryError> {
        let mut jobs = self.jobs();
        let there = jobs.get_mut(&job.id).filter(|there| there.version == version);
        Ok(there.map(|there| job.clone_into(there)).is_some())
    }

    async fn list(&self) -> Result<Vec<Job>, RegistryError> {
        Ok(self.jobs().values().cloned().collect())
    }
}

/// Objects in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryObjects {
    shelves: Arc<Mutex<Shelves>>,
}

#[derive(Debug, Default)]
struct Shelves {
    objects: BTreeMap<ObjectPath, Vec<u8>>,
    uploads: BTreeMap<String, BTreeMap<usize, Vec<u8>>>,
    completed: BTreeMap<ObjectPath, JobId>,
    begun: usize,
}

impl MemoryObjects {
    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The objects below this address, by their addresses.
    pub fn below(&self, prefix: &str) -> BTreeMap<String, String> {
        let shelves = self.shelves();
        let named = shelves.objects.iter().map(|(path, bytes)| (path.to_string(), bytes));
        let below = named.filter(|(path, _)| path.starts_with(prefix));
        below.map(|(path, bytes)| (path, String::from_utf8_lossy(bytes).into_owned())).collect()
    }

    /// Uploads that are neither complete nor given up.
    pub fn uploads(&self) -> usize {
        self.shelves().uploads.len()
    }
}

/// What tells bytes from others.
fn tag(bytes: &[u8]) -> String {
    cvm_provisioning::KeyFingerprint::of(bytes).to_string()
}

impl Objects for MemoryObjects {
    async fn fetch(&self, object: &ObjectPath, etag: Option<&str>, file: &mut File) -> Result<Fetched, ObjectError> {
        let shelves = self.shelves();
        let bytes = shelves.objects.get(object).ok_or(ObjectError::NotFound)?;
        if etag.is_some_and(|etag| etag != tag(bytes)) {
            return Err(ObjectError::Changed);
        }
        file.write_all(bytes).map_err(ObjectError::Disk)?;
        Ok(Fetched { etag: tag(bytes), length: bytes.len() as u64 })
    }

    async fn get(&self, object: &ObjectPath) -> Result<Option<Vec<u8>>, ObjectError> {
        Ok(self.shelves().objects.get(object).cloned())
    }

    async fn put(&self, object: &ObjectPath, bytes: Vec<u8>) -> Result<(), ObjectError> {
        self.shelves().objects.insert(object.clone(), bytes);
        Ok(())
    }

    async fn put_new(&self, object: &ObjectPath, bytes: Vec<u8>) -> Result<bool, ObjectError> {
        let mut shelves = self.shelves();
        let is_new = !shelves.objects.contains_key(object);
        shelves.objects.entry(object.clone()).or_insert(bytes);
        Ok(is_new)
    }

    async fn begin(&self, _: &ObjectPath, _: JobId) -> Result<String, ObjectError> {
        let mut shelves = self.shelves();
        shelves.begun += 1;
        let id = shelves.begun.to_string();
        shelves.uploads.insert(id.clone(), BTreeMap::new());
        Ok(id)
    }

    async fn part(&self, _: &ObjectPath, upload: &str, number: usize, bytes: Vec<u8>) -> Result<String, ObjectError> {
        let mut shelves = self.shelves();
        let parts = shelves.uploads.get_mut(upload).ok_or_else(gone)?;
        let tag = tag(&bytes);
        parts.insert(number, bytes);
        Ok(tag)
    }

    async fn complete(
        &self,
        object: &ObjectPath,
        upload: &str,
        tags: &[String],
        job: JobId,
    ) -> Result<(), ObjectError> {
        let mut shelves = self.shelves();
        let Some(parts) = shelves.uploads.get(upload) else {
            return if shelves.completed.get(object) == Some(&job) { Ok(()) } else { Err(gone()) };
        };
        if !parts.values().map(|part| tag(part)).eq(tags.iter().cloned()) {
            return Err(ObjectError::Refused { source: "these are not the parts".into() });
        }
        let whole = parts.values().flatten().copied().collect();
        shelves.uploads.remove(upload);
        shelves.objects.insert(object.clone(), whole);
        shelves.completed.insert(object.clone(), job);
        Ok(())
    }

    async fn abort(&self, _: &ObjectPath, upload: &str) -> Result<(), ObjectError> {
        self.shelves().uploads.remove(upload);
        Ok(())
    }
}

fn gone() -> ObjectError {
    ObjectError::Refused { source: "there is no such upload".into() }
}
