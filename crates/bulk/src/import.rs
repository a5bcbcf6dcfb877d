//! An import: the lines of a file, worked off a batch at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;

use cvm_interchange::{ImportLine, ImportReader, Keys, LineError};
use cvm_provisioning::{
    DeviceId, DeviceStore, ImportMode, Imported, OperationError, Operations, Origin, RegistryError, Timestamp,
};
use futures_util::StreamExt as _;
use futures_util::stream;
use serde::{Deserialize, Serialize};

use crate::KeptTokens;
use crate::patience::{Backoff, patiently};
use crate::tokens::token_lines;

/// Writes at once.
const CONCURRENCY: usize = 32;

/// An import, with what it needs.
#[derive(Clone, Copy, Debug)]
pub struct Import<'a, R> {
    /// The registry, and what is done with it.
    pub operations: &'a Operations<R>,
    /// Who asked for it.
    pub by: &'a Origin,
    /// What time it is.
    pub clock: fn() -> Timestamp,
    /// Whether lines are only checked.
    pub dry_run: bool,
}

/// How far an import has come.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ImportStanding {
    /// Records of the file that are through, whatever became of them.
    pub records: u64,
    /// What became of them.
    pub summary: Summary,
}

/// What became of the lines of an import, in numbers.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Summary {
    /// Those that can be imported, where they were checked only.
    pub checked: u64,
    /// Devices and modules that were registered.
    pub created: u64,
    /// Those that were set as their lines say.
    pub updated: u64,
    /// Those that were as their lines say already.
    pub unchanged: u64,
    /// Those that were deleted.
    pub deleted: u64,
    /// Lines that cannot be used, or whose change was refused.
    pub failed: u64,
    /// Lines with something of a twin, which is not kept here.
    pub twins: u64,
}

impl Summary {
    /// How many lines there were.
    pub const fn lines(&self) -> u64 {
        self.checked + self.created + self.updated + self.unchanged + self.deleted + self.failed
    }

    const fn count(&mut self, imported: Imported) {
        match imported {
            Imported::Created => self.created += 1,
            Imported::Deleted => self.deleted += 1,
            Imported::Unchanged => self.unchanged += 1,
            Imported::Updated => self.updated += 1,
        }
    }
}

/// A line that was not imported, and why; its JSON is a line of the error report.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedLine {
    /// Its number, from 1.
    pub line: u64,
    /// The device that it is about, as far as that was understood.
    pub device_id: Option<DeviceId>,
    /// The stable word for the reason.
    pub code: &'static str,
    /// The reason.
    pub message: String,
}

impl FailedLine {
    fn unusable(LineError { line, device, problem }: LineError) -> Self {
        Self { line, device_id: device, code: problem.code(), message: problem.to_string() }
    }

    fn refused(line: &ImportLine, Refused { code, message }: Refused) -> Self {
        Self { line: line.line, device_id: Some(line.entry.id.clone()), code, message }
    }
}

/// What an import writes beside the registry.
pub trait ImportFiles {
    /// Why something cannot be written.
    type Error;

    /// Keeps lines of tokens that were made, for good, before any device depends on one.
    fn keep_tokens(&mut self, lines: &str) -> impl Future<Output = Result<(), Self::Error>>;

    /// Called before the registry is written to.
    ///
    /// # Errors
    ///
    /// Nothing is written then.
    fn begin(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Writes down a line that was not imported.
    fn fail(&mut self, line: FailedLine) -> Result<(), Self::Error>;
}

/// Why an import cannot go on: its files' errors are `E`, its registry's are `R`.
#[derive(Debug, thiserror::Error)]
pub enum ImportError<E, R: std::error::Error = RegistryError> {
    /// The file cannot be read any further.
    #[error(transparent)]
    File(LineError),
    /// What it writes beside the registry cannot be written.
    #[error("the import's files")]
    Files(E),
    /// The registry did not do its part.
    #[error(transparent)]
    Registry(R),
}

/// The registry that an import is written to, wherever it is.
pub trait ImportRegistry {
    /// Why it does not do its part, so that the import cannot go on.
    type Error: std::error::Error;

    /// Which of these devices are there.
    fn there(&self, devices: Vec<DeviceId>) -> impl Future<Output = Result<BTreeSet<DeviceId>, Self::Error>>;

    /// Does what these lines ask for, each by itself, and tells of each what became of it. Where they may have been
    /// done `again`, one whose device is as it says already is no error.
    fn write(
        &self,
        lines: &[ImportLine],
        again: bool,
        told: impl FnMut(&ImportLine, Result<Imported, Refused>),
    ) -> impl Future<Output = Result<(), Self::Error>>;
}

/// Why a line was not done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refused {
    /// The stable word for the reason.
    pub code: &'static str,
    /// The reason.
    pub message: String,
}

impl From<OperationError> for Refused {
    fn from(error: OperationError) -> Self {
        Self { code: error.code(), message: error.to_string() }
    }
}

impl<R: DeviceStore> Import<'_, R> {
    /// Works off the next lines; see [`advance`].
    ///
    /// # Errors
    ///
    /// Those of [`advance`].
    pub async fn advance<F: ImportFiles>(
        &self,
        reader: &mut ImportReader<impl BufRead>,
        batch: usize,
        kept: Option<&KeptTokens>,
        files: &mut F,
        standing: &mut ImportStanding,
    ) -> Result<bool, ImportError<F::Error>> {
        advance(self, self.dry_run, reader, batch, kept, files, standing).await
    }

    async fn write_line(&self, line: &ImportLine, again: bool) -> Result<Imported, OperationError> {
        let Self { operations, by, clock, .. } = self;
        let mut waited = Backoff::new();
        let written = loop {
            let result = match &line.device {
                None => operations.import(&line.entry, by, clock()).await,
                Some(device) => operations.restore(device, by, clock()).await,
            };
            match result {
                Err(OperationError::Registry(RegistryError::Throttled { .. })) if waited.pause().await => {}
                result => break result,
            }
        };
        match written {
            Err(error) if again && line.device.is_none() => {
                let done = patiently(async || operations.was_done(&line.entry, clock()).await).await;
                done.ok().flatten().ok_or(error)
            }
            written => written,
        }
    }
}

impl<R: DeviceStore> ImportRegistry for Import<'_, R> {
    type Error = RegistryError;

    async fn there(&self, devices: Vec<DeviceId>) -> Result<BTreeSet<DeviceId>, RegistryError> {
        let looks = devices.into_iter().map(|id| async move {
            let found = patiently(async || self.operations.registry.find(&id).await).await?;
            Ok(found.map(|device| device.id))
        });
        let found: Vec<_> = stream::iter(looks).buffer_unordered(CONCURRENCY).collect().await;
        found.into_iter().filter_map(Result::transpose).collect()
    }

    async fn write(
        &self,
        lines: &[ImportLine],
        again: bool,
        mut told: impl FnMut(&ImportLine, Result<Imported, Refused>),
    ) -> Result<(), RegistryError> {
        let writes = by_device(lines).into_iter().map(|lines| async move {
            let mut written = Vec::with_capacity(lines.len());
            for line in lines {
                written.push((line, self.write_line(line, again).await));
            }
            written
        });
        let mut written = stream::iter(writes).buffer_unordered(CONCURRENCY);
        while let Some(of_device) = written.next().await {
            for (line, result) in of_device {
                match result {
                    Err(OperationError::Registry(error)) if !matches!(error, RegistryError::Corrupt { .. }) => {
                        return Err(error);
                    }
                    result => told(line, result.map_err(Refused::from)),
                }
            }
        }
        Ok(())
    }
}

/// The lines about each device, in their order: a module is made after its device.
fn by_device(lines: &[ImportLine]) -> Vec<Vec<&ImportLine>> {
    let mut by_device: BTreeMap<&DeviceId, Vec<&ImportLine>> = BTreeMap::new();
    for line in lines {
        by_device.entry(&line.entry.id).or_default().push(line);
    }
    let mut by_device: Vec<_> = by_device.into_values().collect();
    by_device.sort_by_key(|lines| lines.first().map(|line| line.line));
    by_device
}

/// Processes the next lines, `batch` at most, and returns whether there were any. In a dry run nothing is written.
///
/// Of a batch that was cut off, some lines may be done already: `kept` are the tokens that they may have. Done again
/// like this, each device is written once and has the token that was kept for it.
///
/// # Errors
///
/// [`ImportError`]; the batch is to be done again then, with what was kept for it.
pub async fn advance<W: ImportRegistry, F: ImportFiles>(
    registry: &W,
    dry_run: bool,
    reader: &mut ImportReader<impl BufRead>,
    batch: usize,
    kept: Option<&KeptTokens>,
    files: &mut F,
    standing: &mut ImportStanding,
) -> Result<bool, ImportError<F::Error, W::Error>> {
    let begun = standing.records;
    let mut lines = Vec::new();
    for read in reader.by_ref().take(batch) {
        standing.records += 1;
        match read {
            Ok(line) => lines.push(line),
            Err(error) if error.problem.is_of_the_file() => return Err(ImportError::File(error)),
            Err(error) => {
                standing.summary.failed += 1;
                files.fail(FailedLine::unusable(error)).map_err(ImportError::Files)?;
            }
        }
    }
    standing.summary.twins += lines.iter().filter(|line| line.twin).count() as u64;
    if dry_run {
        check_all(registry, &lines, files, &mut standing.summary).await?;
        return Ok(standing.records > begun);
    }
    if let (0, Some(line)) = (begun, lines.first()) {
        // Nothing is kept on the disk for a registry that cannot be reached.
        registry.there(vec![line.entry.id.clone()]).await.map_err(ImportError::Registry)?;
    }
    write_all(registry, lines, kept, files, &mut standing.summary).await?;
    Ok(standing.records > begun)
}

/// Looks for the devices of these lines, and reports those that would be refused because their device is registered, or
/// is not. Modules and devices that are restored are not looked for.
async fn check_all<W: ImportRegistry, F: ImportFiles>(
    registry: &W,
    lines: &[ImportLine],
    files: &mut F,
    summary: &mut Summary,
) -> Result<(), ImportError<F::Error, W::Error>> {
    let is_looked_for = |line: &&ImportLine| line.entry.module.is_none() && line.device.is_none();
    let asked: Vec<_> = lines.iter().filter(is_looked_for).map(|line| line.entry.id.clone()).collect();
    let there =
        if asked.is_empty() { BTreeSet::new() } else { registry.there(asked).await.map_err(ImportError::Registry)? };
    for line in lines {
        let is_there = there.contains(&line.entry.id);
        let refusal = match line.entry.mode {
            _ if !is_looked_for(&line) => None,
            ImportMode::Create => is_there.then_some(OperationError::Exists),
            ImportMode::CreateOrUpdate | ImportMode::CreateOrUpdateIfMatchETag => None,
            ImportMode::Update | ImportMode::UpdateIfMatchETag | ImportMode::Delete | ImportMode::DeleteIfMatchETag => {
                (!is_there).then_some(OperationError::NotFound)
            }
        };
        match refusal {
            None => summary.checked += 1,
            Some(refusal) => {
                summary.failed += 1;
                files.fail(FailedLine::refused(line, refusal.into())).map_err(ImportError::Files)?;
            }
        }
    }
    Ok(())
}

async fn write_all<W: ImportRegistry, F: ImportFiles>(
    registry: &W,
    mut lines: Vec<ImportLine>,
    kept: Option<&KeptTokens>,
    files: &mut F,
    summary: &mut Summary,
) -> Result<(), ImportError<F::Error, W::Error>> {
    leave_proofs(registry, &mut lines).await.map_err(ImportError::Registry)?;
    let mut has_token = BTreeSet::new();
    if let Some(kept) = kept {
        has_token.extend(lines.iter_mut().filter_map(|line| kept.give(line).then_some(line.line)));
    }
    let tokens = token_lines(lines.iter().filter(|line| !has_token.contains(&line.line)));
    if !tokens.is_empty() {
        files.keep_tokens(&tokens).await.map_err(ImportError::Files)?;
    }
    if !lines.is_empty() {
        files.begin().map_err(ImportError::Files)?;
    }
    let mut unwritten = Ok(());
    let written = registry.write(&lines, kept.is_some(), |line, result| match result {
        Ok(imported) => summary.count(imported),
        Err(refused) => {
            summary.failed += 1;
            if unwritten.is_ok() {
                unwritten = files.fail(FailedLine::refused(line, refused));
            }
        }
    });
    written.await.map_err(ImportError::Registry)?;
    unwritten.map_err(ImportError::Files)
}

/// A device that is there keeps the proof that it has, and has no use for a token.
async fn leave_proofs<W: ImportRegistry>(registry: &W, lines: &mut [ImportLine]) -> Result<(), W::Error> {
    let is_left = |line: &ImportLine| {
        let updates = matches!(line.entry.mode, ImportMode::CreateOrUpdate | ImportMode::CreateOrUpdateIfMatchETag);
        updates && line.proof_if_new && line.device.is_none()
    };
    let asked: Vec<_> = lines.iter().filter(|line| is_left(line)).map(|line| line.entry.id.clone()).collect();
    if asked.is_empty() {
        return Ok(());
    }
    let there = registry.there(asked).await?;
    for line in lines.iter_mut().filter(|line| is_left(line) && there.contains(&line.entry.id)) {
        line.entry.settings.attestation = None;
        line.keys = Keys::default();
    }
    Ok(())
}
