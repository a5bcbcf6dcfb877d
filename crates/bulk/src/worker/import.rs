//! The worker's part of an import.

use std::io::{BufRead as _, BufReader, Seek as _};

use cvm_interchange::{Format, ImportReader};
use cvm_provisioning::DeviceStore;

use super::{Stop, Worker};
use crate::{
    FailedLine, Folder, Import, ImportError, ImportFiles, Job, JobStore, KeptTokens, ObjectError, ObjectPath, Objects,
    Work,
};

impl<R: DeviceStore, J: JobStore, O: Objects> Worker<R, J, O> {
    /// Goes on with an import, and says whether it is done.
    pub(super) async fn import(
        &self,
        job: &mut Job,
        mut again: bool,
        go_on: &mut impl FnMut() -> bool,
    ) -> Result<bool, Stop> {
        let by = job.origin();
        let folder_name = job.id;
        let Work::Import { request, standing, etag, .. } = &mut job.work else { return Ok(true) };
        let (request, mut standing) = (request.clone(), standing.clone());
        let folder = request.output.folder(folder_name);
        let on_disk = |source| Stop::at(&request.input)(ObjectError::Disk(source));
        let mut file = tempfile::tempfile().map_err(on_disk)?;
        let fetched = self.objects.fetch(&request.input, etag.as_deref(), &mut file).await;
        let fetched = fetched.map_err(Stop::at(&request.input))?;
        *etag = Some(fetched.etag);
        file.rewind().map_err(on_disk)?;
        let mut source = BufReader::new(file);
        let beginning = source.fill_buf().map_err(on_disk)?;
        let format = request.format.unwrap_or_else(|| Format::detect(&request.input.key, beginning));
        let reader = ImportReader::new(source, format, request.options);
        let mut reader = reader.map_err(|error| Stop::Failed(format!("{}: {error}", request.input)))?;
        // What was through before is read over.
        for passed in reader.by_ref().take(usize::try_from(standing.records).unwrap_or(usize::MAX)) {
            drop(passed);
        }
        let import = Import { operations: &self.operations, by: &by, clock: self.clock, dry_run: request.dry_run };
        loop {
            let again = std::mem::take(&mut again);
            let mut files = JobFiles::new(&self.objects, &folder, standing.records, again);
            let kept = if again { Some(files.kept_tokens().await?) } else { None };
            let advanced =
                import.advance(&mut reader, self.portion.lines, kept.as_ref(), &mut files, &mut standing).await;
            let more = advanced.map_err(|error| match error {
                ImportError::File(error) => Stop::Failed(error.to_string()),
                ImportError::Files(stop) => stop,
                ImportError::Registry(error) => error.into(),
            })?;
            files.put_failures().await?;
            if !more {
                return Ok(true);
            }
            job.progress = percent(reader.bytes_read(), fetched.length);
            if let Work::Import { standing: kept, .. } = &mut job.work {
                kept.clone_from(&standing);
            }
            if !go_on() {
                if let Work::Import { begun, .. } = &mut job.work {
                    *begun = false;
                }
                return Ok(false);
            }
            self.advance(job).await?;
        }
    }
}

/// How much of a file was read; 100 is said only of a job that is done.
fn percent(read: u64, length: u64) -> u8 {
    u8::try_from(read.saturating_mul(100).checked_div(length).unwrap_or(0)).unwrap_or(99).min(99)
}

/// What a batch writes beside the registry, as objects that are named by the record it begins at.
struct JobFiles<'a, O> {
    objects: &'a O,
    folder: &'a Folder,
    begin: u64,
    /// Whether another worker may have begun with it, and still be there.
    again: bool,
    /// How many objects of tokens there are for this batch.
    token_objects: usize,
    failures: String,
}

impl<'a, O: Objects> JobFiles<'a, O> {
    const fn new(objects: &'a O, folder: &'a Folder, begin: u64, again: bool) -> Self {
        Self { objects, folder, begin, again, token_objects: 0, failures: String::new() }
    }

    /// The tokens that were kept for this batch before.
    async fn kept_tokens(&mut self) -> Result<KeptTokens, Stop> {
        let mut kept = KeptTokens::default();
        loop {
            let object = self.token_object()?;
            let Some(text) = self.objects.get(&object).await.map_err(Stop::at(&object))? else { return Ok(kept) };
            let read = kept.read(&mut text.as_slice());
            read.map_err(|source| Stop::at(&object)(ObjectError::Disk(source)))?;
            self.token_objects += 1;
        }
    }

    fn token_object(&self) -> Result<ObjectPath, Stop> {
        match self.token_objects {
            0 => self.object(&format!("tokens-{:09}.jsonl", self.begin)),
            // Made when the batch was done again: a device that was there before is not any more.
            number => self.object(&format!("tokens-{:09}-{number}.jsonl", self.begin)),
        }
    }

    /// Puts the failed lines there.
    ///
    /// A worker that slept while another one did its batch again takes what that one did for a failure. So it is the
    /// later one whose report counts, and stands there for that even if it is empty.
    async fn put_failures(&mut self) -> Result<(), Stop> {
        let object = self.object(&format!("errors-{:09}.jsonl", self.begin))?;
        let failures = std::mem::take(&mut self.failures);
        match self.again {
            true => self.objects.put(&object, failures.into_bytes()).await.map_err(Stop::at(&object)),
            false if failures.is_empty() => Ok(()),
            false => self.put_new(&object, &failures).await,
        }
    }

    /// Puts an object there that nobody else has put there: what another worker made of this batch is not written over.
    async fn put_new(&self, object: &ObjectPath, text: &str) -> Result<(), Stop> {
        if self.objects.put_new(object, text.as_bytes().to_vec()).await.map_err(Stop::at(object))? {
            return Ok(());
        }
        // It is ours where only the answer was lost.
        let there = self.objects.get(object).await.map_err(Stop::at(object))?;
        if there.as_deref() == Some(text.as_bytes()) { Ok(()) } else { Err(Stop::Lost) }
    }

    fn object(&self, name: &str) -> Result<ObjectPath, Stop> {
        self.folder.object(name).map_err(|error| Stop::Failed(error.to_string()))
    }
}

impl<O: Objects> ImportFiles for JobFiles<'_, O> {
    type Error = Stop;

    async fn keep_tokens(&mut self, lines: &str) -> Result<(), Stop> {
        self.put_new(&self.token_object()?, lines).await
    }

    fn fail(&mut self, line: FailedLine) -> Result<(), Stop> {
        let json = serde_json::to_string(&line).map_err(|error| Stop::Failed(error.to_string()))?;
        self.failures.push_str(&json);
        self.failures.push('\n');
        Ok(())
    }
}
