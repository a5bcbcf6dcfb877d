use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::PossibleValuesParser;
use cvm_interchange::{
    ColumnMapping, DefaultProof, Defaults, Format, ImportLine, ImportReader, LineError, Options, UnreadableFile,
};
use cvm_provisioning::{
    AttemptId, CertificateId, DeviceId, DeviceStore, GroupName, ImportMode, Imported, OperationError, Operations,
    Origin, RegistryError, TemplateName,
};
use futures_util::StreamExt as _;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

mod journal;

use super::DeviceError;
use crate::error::{CommandError, with_causes};
use crate::operation;
use crate::output::Output;
use crate::progress::{Progress, Standing};
use crate::registry::{now, origin};
use journal::{Journal, KeptTokens};

/// Register, change or delete many devices from a file
///
/// The file is a table in CSV, the identity registry's lines of JSON, AWS IoT bulk registration, or a manifest of
/// Espressif's or Microchip's; the signatures of a manifest are not checked. A line that cannot be used is told and
/// passed over. How far it has come is kept beside the file, in FILE.cvm-import: if it is cut off, run it again with
/// --resume, and nothing is done twice.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ImportArguments {
    /// The file, `-` for stdin
    file: PathBuf,
    /// The file's format; by its beginning where none is given
    #[arg(long, value_parser = PossibleValuesParser::new(Format::ALL.map(Format::name)))]
    format: Option<String>,
    /// What is done with devices whose lines do not say it: createOrUpdate for JSON, create for the others
    #[arg(long, value_parser = PossibleValuesParser::new(ImportMode::ALL.map(ImportMode::name)))]
    mode: Option<String>,
    /// The group of devices whose lines have none
    #[arg(long, value_name = "NAME")]
    group: Option<GroupName>,
    /// The provisioning template of devices whose lines have none
    #[arg(long, value_name = "NAME")]
    template: Option<TemplateName>,
    /// How new devices prove themselves whose lines do not say it: token, claim, trusted-user or ca=ID
    #[arg(long, value_name = "PROOF", value_parser = proof, default_value = "token")]
    proof: DefaultProof,
    /// Write the enrolment tokens that are made to this new file, with mode 0600, as lines of JSON
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Write the lines that failed to this file, as lines of JSON
    #[arg(long, value_name = "FILE")]
    errors: Option<PathBuf>,
    /// The name of a column that is not known by its own, such as device=SN; repeatable
    #[arg(long = "column", value_name = "FIELD=NAME")]
    columns: Vec<ColumnMapping>,
    /// Pass over columns that nothing is known of
    #[arg(long)]
    ignore_unknown_columns: bool,
    /// Put devices back as `cvm device export` wrote them
    #[arg(long, conflicts_with_all = ["mode", "group", "template"])]
    restore: bool,
    /// Check every line, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Go on with an import of this file that was cut off; give the same options and the same --tokens
    #[arg(long, conflicts_with = "dry_run")]
    resume: bool,
}

const EXAMPLES: &str = "\
Examples:
  cvm device import serials.csv --dry-run
  cvm device import serials.csv --tokens tokens.jsonl --errors bad.jsonl
  cvm device import serials.csv --tokens tokens.jsonl --resume
  cvm device import serials.csv --proof claim --group berlin
  cvm device import list.csv --column device=SN --ignore-unknown-columns
  cvm device import devices.txt --tokens tokens.jsonl
  cvm device import devices.jsonl --restore";

/// Lines that are worked on before the next ones are read.
const BATCH: usize = 1_024;
/// Writes at once.
const CONCURRENCY: usize = 32;
/// How long a throttled registry is waited for.
const PATIENCE: Duration = Duration::from_secs(600);

pub(super) async fn run(
    arguments: &ImportArguments,
    operations: &Operations<impl DeviceStore>,
    output: &Output,
) -> Result<(), CommandError> {
    let mut reader = arguments.reader().map_err(DeviceError::from)?;
    let mut journal = arguments.journal().map_err(DeviceError::from)?;
    let (mut files, kept) = Files::open(arguments).map_err(DeviceError::from)?;
    let by = origin();
    let mut progress = Progress::start(output);
    let begun = journal.as_ref().map(|journal| journal.entry.clone()).unwrap_or_default();
    let (mut records, mut summary) = (begun.records, begun.summary);
    if let Some(journal) = &mut journal {
        journal.keep(records, &summary).map_err(DeviceError::from)?;
    }
    // What was through before is read over.
    for passed in reader.by_ref().take(usize::try_from(records).unwrap_or(usize::MAX)) {
        drop(passed);
    }
    let mut cut_off = arguments.resume.then_some(kept);
    loop {
        let mut lines = Vec::new();
        for read in reader.by_ref().take(BATCH) {
            records += 1;
            match read {
                Ok(line) => lines.push(line),
                Err(error) if error.problem.is_of_the_file() => {
                    return Err(DeviceError::from(ImportError::Line(error)).into());
                }
                Err(error) => {
                    summary.failed += 1;
                    let text = error.problem.to_string();
                    files
                        .fail(error.line, error.device.as_ref(), error.problem.code(), &text)
                        .map_err(DeviceError::from)?;
                }
            }
        }
        if lines.is_empty() && reader.size_hint().1 == Some(0) {
            break;
        }
        summary.twins += lines.iter().filter(|line| line.twin).count() as u64;
        let batch = Batch { lines, cut_off: cut_off.take() };
        import(arguments, operations, batch, &by, &mut files, &mut summary).await?;
        if let Some(journal) = &mut journal {
            journal.keep(records, &summary).map_err(DeviceError::from)?;
        }
        progress.tell(Standing { done: summary.lines(), part: None })?;
    }
    let elapsed = progress.finish();
    if let Some(journal) = journal {
        journal.end().map_err(DeviceError::from)?;
    }
    summary.report(arguments, elapsed, output)
}

/// Lines that are worked on together.
struct Batch {
    lines: Vec<ImportLine>,
    /// Of the batch that was cut off, some lines may be done; these are the tokens that they may have.
    cut_off: Option<KeptTokens>,
}

/// Works off some lines.
async fn import(
    arguments: &ImportArguments,
    operations: &Operations<impl DeviceStore>,
    Batch { mut lines, cut_off }: Batch,
    by: &Origin,
    files: &mut Files,
    summary: &mut Summary,
) -> Result<(), CommandError> {
    if arguments.dry_run {
        summary.checked += lines.len() as u64;
        return Ok(());
    }
    let looks = lines.iter_mut().map(|line| leave_proof(operations, line));
    let looked: Vec<_> = stream::iter(looks).buffer_unordered(CONCURRENCY).collect().await;
    looked.into_iter().collect::<Result<Vec<_>, _>>().map_err(DeviceError::Registry)?;
    let mut on_disk = BTreeSet::new();
    if let Some(kept) = &cut_off {
        on_disk.extend(lines.iter_mut().filter_map(|line| kept.give(line).then_some(line.line)));
    }
    files.keep_tokens(lines.iter().filter(|line| !on_disk.contains(&line.line))).map_err(DeviceError::from)?;
    let again = cut_off.is_some();
    let writes = lines.iter().map(|line| async move {
        let written = match write(operations, line, by).await {
            Err(error) if again => was_done(operations, line).await.ok_or(error),
            written => written,
        };
        (line, written)
    });
    let mut written = stream::iter(writes).buffer_unordered(CONCURRENCY);
    while let Some((line, result)) = written.next().await {
        match result {
            Ok(imported) => summary.count(imported),
            Err(OperationError::Registry(error)) if !matches!(error, RegistryError::Corrupt { .. }) => {
                return Err(DeviceError::Registry(error).into());
            }
            Err(error) => {
                summary.failed += 1;
                let device = Some(&line.entry.id);
                files
                    .fail(line.line, device, operation::code(&error), &with_causes(&error))
                    .map_err(DeviceError::from)?;
            }
        }
    }
    Ok(())
}

/// What was done with this line before the import was cut off, if the registry is as if it had been done.
async fn was_done(operations: &Operations<impl DeviceStore>, line: &ImportLine) -> Option<Imported> {
    let found = patiently(async || operations.registry.find(&line.entry.id).await).await.ok()?;
    let deletes = matches!(line.entry.mode, ImportMode::Delete | ImportMode::DeleteIfMatchETag);
    match (&line.entry.module, found) {
        (None, None) => deletes.then_some(Imported::Deleted),
        (Some((module, _)), Some(device)) if deletes => {
            (!device.modules.contains_key(module)).then_some(Imported::Deleted)
        }
        (Some((module, settings)), Some(device)) => {
            let there = device.modules.get(module)?;
            let same = settings.attestation.as_ref().is_none_or(|attestation| *attestation == there.attestation);
            same.then_some(Imported::Created)
        }
        (None, Some(device)) if !deletes => {
            let mut set = device.clone();
            line.entry.settings.clone().apply(&mut set, now()).ok()?;
            (set == device).then_some(Imported::Created)
        }
        _ => None,
    }
}

/// A device that is there keeps the proof that it has, and has no use for a token.
async fn leave_proof(operations: &Operations<impl DeviceStore>, line: &mut ImportLine) -> Result<(), RegistryError> {
    let updates = matches!(line.entry.mode, ImportMode::CreateOrUpdate | ImportMode::CreateOrUpdateIfMatchETag);
    if !updates || !line.proof_if_new || line.device.is_some() {
        return Ok(());
    }
    let id = line.entry.id.clone();
    if patiently(async || operations.registry.find(&id).await).await?.is_some() {
        line.entry.settings.attestation = None;
        line.keys = cvm_interchange::Keys::default();
    }
    Ok(())
}

async fn write(
    operations: &Operations<impl DeviceStore>,
    line: &ImportLine,
    by: &Origin,
) -> Result<Imported, OperationError> {
    let mut waited = Backoff::new();
    loop {
        let result = match &line.device {
            None => operations.import(&line.entry, by, now()).await,
            Some(device) => match operations.registry.add(device, by).await {
                Ok(true) => Ok(Imported::Created),
                Ok(false) if operations.registry.find(&device.id).await?.as_ref() == Some(&**device) => {
                    Ok(Imported::Unchanged)
                }
                Ok(false) => Err(OperationError::Exists),
                Err(error) => Err(error.into()),
            },
        };
        match result {
            Err(OperationError::Registry(RegistryError::Throttled { .. })) if waited.pause().await => {}
            result => return result,
        }
    }
}

/// Does this again for as long as the registry is throttled.
async fn patiently<T>(mut call: impl AsyncFnMut() -> Result<T, RegistryError>) -> Result<T, RegistryError> {
    let mut waited = Backoff::new();
    loop {
        match call().await {
            Err(RegistryError::Throttled { .. }) if waited.pause().await => {}
            result => return result,
        }
    }
}

/// Waits that grow to 20 seconds, each of a random part of that, so that what was refused at once does not come back at
/// once.
struct Backoff {
    began: Instant,
    longest: u64,
}

impl Backoff {
    fn new() -> Self {
        Self { began: Instant::now(), longest: 100 }
    }

    /// Waits; `false` where that has been done for long enough.
    async fn pause(&mut self) -> bool {
        if self.began.elapsed() > PATIENCE {
            return false;
        }
        let part = AttemptId::random().map_or(100, |id| id.spread(200));
        tokio::time::sleep(Duration::from_millis(self.longest * (part + 1) / 200)).await;
        self.longest = (2 * self.longest).min(20_000);
        true
    }
}

impl ImportArguments {
    /// The journal; what comes through a pipe cannot be read again, and needs none.
    fn journal(&self) -> Result<Option<Journal>, ImportError> {
        if self.dry_run || self.file == Path::new("-") {
            return if self.resume { Err(ImportError::Pipe) } else { Ok(None) };
        }
        Journal::open(&self.file, self.resume).map(Some)
    }

    fn reader(&self) -> Result<ImportReader<Box<dyn BufRead>>, ImportError> {
        let failed = |source| ImportError::Read { path: self.file.clone(), source };
        let mut source: Box<dyn BufRead> = match self.file == Path::new("-") {
            true => Box::new(io::stdin().lock()),
            false => Box::new(BufReader::new(File::open(&self.file).map_err(failed)?)),
        };
        let beginning = source.fill_buf().map_err(failed)?;
        let named = self.format.as_deref().and_then(|name| Format::ALL.into_iter().find(|known| known.name() == name));
        let format = named.unwrap_or_else(|| Format::detect(&self.file.to_string_lossy(), beginning));
        let mode = self.mode.as_deref().and_then(|mode| mode.parse().ok());
        let defaults = Defaults { mode, group: self.group.clone(), template: self.template.clone(), proof: self.proof };
        let options = Options {
            defaults,
            columns: self.columns.clone(),
            ignore_unknown_columns: self.ignore_unknown_columns,
            restore: self.restore,
        };
        Ok(ImportReader::new(source, format, options)?)
    }
}

fn proof(text: &str) -> Result<DefaultProof, String> {
    Ok(match text {
        "token" => DefaultProof::Token,
        "claim" => DefaultProof::Claim,
        "trusted-user" => DefaultProof::TrustedUser,
        _ => {
            let id = text.strip_prefix("ca=").ok_or("expected token, claim, trusted-user or ca=ID")?;
            DefaultProof::Ca(id.parse::<CertificateId>().map_err(|error| error.to_string())?)
        }
    })
}

/// The files that an import writes.
struct Files {
    tokens: Option<(PathBuf, File)>,
    errors: Option<(PathBuf, File)>,
    shown: usize,
}

impl Files {
    /// Failures that are shown where no file takes them.
    const SHOWN: usize = 20;

    fn open(arguments: &ImportArguments) -> Result<(Self, KeptTokens), ImportError> {
        let create = |path: &PathBuf, new: bool| {
            let mut options = OpenOptions::new();
            options.write(true).create_new(new).create(true).truncate(!new);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let file = options.open(path).map_err(|source| ImportError::Write { path: path.clone(), source })?;
            Ok::<_, ImportError>((path.clone(), file))
        };
        let mut kept = KeptTokens::default();
        let tokens = match arguments.tokens.as_ref().filter(|_| !arguments.dry_run) {
            Some(path) if arguments.resume && path.exists() => {
                let failed = |source| ImportError::Read { path: path.clone(), source };
                let (read, file) = KeptTokens::of(path).map_err(failed)?;
                kept = read;
                Some((path.clone(), file))
            }
            Some(path) => Some(create(path, true)?),
            None => None,
        };
        let errors = arguments.errors.as_ref().map(|path| create(path, false)).transpose()?;
        Ok((Self { tokens, errors, shown: 0 }, kept))
    }

    /// Puts the tokens that were made on the disk, before any device depends on one.
    fn keep_tokens<'a>(&mut self, lines: impl Iterator<Item = &'a ImportLine>) -> Result<(), ImportError> {
        let made = lines.filter(|line| line.keys.primary.is_some() || line.keys.secondary.is_some());
        let text: String = made
            .map(|ImportLine { line, entry, keys, .. }| {
                let module = entry.module.as_ref().map(|(module, _)| module);
                let [token, second] = [&keys.primary, &keys.secondary].map(|key| key.as_ref().map(|key| key.reveal()));
                let value = json!({
                    "line": line, "deviceId": entry.id, "moduleId": module, "token": token, "secondToken": second,
                });
                format!("{value}\n")
            })
            .collect();
        if text.is_empty() {
            return Ok(());
        }
        let (path, file) = self.tokens.as_mut().ok_or(ImportError::NoTokens)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        written.map_err(|source| ImportError::Write { path: path.clone(), source })
    }

    fn fail(&mut self, line: u64, device: Option<&DeviceId>, code: &str, message: &str) -> Result<(), ImportError> {
        let value = json!({ "line": line, "deviceId": device, "code": code, "message": message });
        match &mut self.errors {
            Some((path, file)) => {
                let written = writeln!(file, "{value}");
                written.map_err(|source| ImportError::Write { path: path.clone(), source })
            }
            None => {
                self.shown += 1;
                if self.shown <= Self::SHOWN {
                    // Nobody is left to be told that stderr is closed.
                    let _ = writeln!(io::stderr().lock(), "{value}");
                }
                Ok(())
            }
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
struct Summary {
    checked: u64,
    created: u64,
    updated: u64,
    unchanged: u64,
    deleted: u64,
    failed: u64,
    twins: u64,
}

impl Summary {
    const fn lines(&self) -> u64 {
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

    fn report(&self, arguments: &ImportArguments, elapsed: Duration, output: &Output) -> Result<(), CommandError> {
        let Self { checked, created, updated, unchanged, deleted, failed, twins } = self;
        let rate = self.lines() as f64 / elapsed.as_secs_f64().max(0.001);
        let errors = arguments.errors.as_ref().map(|path| Value::from(path.display().to_string()));
        output.json(&json!({
            "dryRun": arguments.dry_run, "checked": checked, "created": created, "updated": updated,
            "unchanged": unchanged, "deleted": deleted, "failed": failed, "perSecond": rate.round(), "errors": errors,
        }))?;
        if *twins > 0 {
            output.note(format_args!("{twins} lines have tags or properties, which are not kept here"))?;
        }
        if arguments.dry_run {
            output.say(format_args!("{checked} lines can be imported, {failed} cannot; nothing was written"))?;
        } else {
            output.say(format_args!(
                "{created} created, {updated} updated, {unchanged} unchanged, {deleted} deleted, {failed} failed; \
                 {rate:.0} a second"
            ))?;
        }
        match (*failed, &arguments.errors) {
            (0, _) => Ok(()),
            (failed, file) => Err(DeviceError::from(ImportError::Failed { failed, file: file.clone() }).into()),
        }
    }
}

/// Why an import did not do all that it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ImportError {
    #[error("an earlier import of this file was cut off; {path} says how far it came", path = path.display())]
    CutOff { path: PathBuf },
    #[error("{failed} lines failed")]
    Failed { failed: u64, file: Option<PathBuf> },
    #[error("{path} is the journal of another file, or none", path = path.display())]
    Journal { path: PathBuf },
    #[error(transparent)]
    Line(LineError),
    #[error("tokens are made for these devices, and there is no file to keep them in")]
    NoTokens,
    #[error("what comes through a pipe cannot be gone on with")]
    Pipe,
    #[error("{path} cannot be read", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Unreadable(#[from] UnreadableFile),
    #[error("{path} cannot be written", path = path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl ImportError {
    pub(super) const fn code(&self) -> &'static str {
        match self {
            Self::CutOff { .. } => "cut-off",
            Self::Failed { .. } => "lines-failed",
            Self::Journal { .. } | Self::Line(_) | Self::Read { .. } | Self::Write { .. } => "file",
            Self::NoTokens | Self::Pipe => "usage",
            Self::Unreadable(_) => "format",
        }
    }

    pub(super) fn advice(&self) -> String {
        match self {
            Self::CutOff { path } => format!("go on with --resume, or delete {} to begin anew", path.display()),
            Self::Failed { file: Some(file), .. } => format!("{} says which and why", file.display()),
            Self::Failed { file: None, .. } => "add --errors FILE to have them all in a file".to_owned(),
            Self::Journal { path } => format!("delete {} to begin anew", path.display()),
            Self::NoTokens => "give --tokens FILE, or another --proof".to_owned(),
            Self::Pipe => "write it to a file, and import that".to_owned(),
            Self::Unreadable(_) => "see `cvm device import --help` for --column, --format and the formats".to_owned(),
            Self::Line(_) | Self::Read { .. } => "check that it is the file you mean".to_owned(),
            Self::Write { .. } => "give a file that is not there yet, in a folder that you may write to".to_owned(),
        }
    }

    pub(super) const fn is_usage(&self) -> bool {
        matches!(self, Self::NoTokens | Self::Pipe)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use clap::Parser;
    use cvm_provisioning::{
        Attestation, Device, DeviceCounts, DeviceFilter, EnrolmentToken, Page, TokenDigest, Tombstone,
    };
    use cvm_testkit::MemoryRegistry;
    use futures_util::FutureExt as _;

    use super::*;
    use crate::output::Format as OutputFormat;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        import: ImportArguments,
    }

    /// A registry whose owner dies after so many writes, the last of which takes effect or does not.
    struct Dying {
        registry: MemoryRegistry,
        left: AtomicUsize,
        takes_effect: bool,
    }

    impl Dying {
        async fn write(&self, write: impl Future<Output = Result<bool, RegistryError>>) -> Result<bool, RegistryError> {
            let dead = || RegistryError::Unavailable { source: "dead".into() };
            match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
                Ok(1) if self.takes_effect => write.await.and(Err(dead())),
                Ok(0 | 1) | Err(_) => Err(dead()),
                Ok(_) => write.await,
            }
        }
    }

    impl DeviceStore for Dying {
        async fn add(&self, device: &Device, by: &Origin) -> Result<bool, RegistryError> {
            self.write(self.registry.add(device, by)).await
        }

        async fn find(&self, id: &DeviceId) -> Result<Option<Device>, RegistryError> {
            self.registry.find(id).await
        }

        async fn list(
            &self,
            filter: &DeviceFilter,
            after: Option<&DeviceId>,
            limit: u16,
        ) -> Result<Page, RegistryError> {
            self.registry.list(filter, after, limit).await
        }

        async fn replace(&self, device: &Device, version: u64, by: &Origin) -> Result<bool, RegistryError> {
            self.write(self.registry.replace(device, version, by)).await
        }

        async fn remove(&self, tombstone: &Tombstone, version: u64, by: &Origin) -> Result<bool, RegistryError> {
            self.write(self.registry.remove(tombstone, version, by)).await
        }

        async fn count(&self) -> Result<DeviceCounts, RegistryError> {
            self.registry.count().await
        }
    }

    const ROWS: usize = 2 * BATCH + 100;

    /// Imports until the registry dies, then goes on to the end, and returns the tokens by device.
    fn cut_off_after(writes: usize, takes_effect: bool, mode: &str) -> (MemoryRegistry, BTreeMap<String, TokenDigest>) {
        let folder = tempfile::tempdir().unwrap();
        let [file, tokens] = ["serials.csv", "tokens.jsonl"].map(|name| folder.path().join(name));
        let rows: String = (0..ROWS).map(|row| format!("sn-{row}\n")).collect();
        fs::write(&file, format!("serial\n{rows}")).unwrap();
        let arguments = |resume: &[&str]| {
            let given = ["import", file.to_str().unwrap(), "--tokens", tokens.to_str().unwrap(), "--mode", mode];
            Command::try_parse_from(given.iter().chain(resume)).unwrap().import
        };
        let output = Output::new(OutputFormat::Json);
        let registry = MemoryRegistry::default();
        let dying = Dying { registry: registry.clone(), left: writes.into(), takes_effect };
        let first = run(&arguments(&[]), &Operations { registry: dying }, &output).now_or_never().unwrap();
        assert!(first.is_err(), "{writes}");
        let alive = Operations { registry: registry.clone() };
        let begun_anew = run(&arguments(&[]), &alive, &output).now_or_never().unwrap().unwrap_err();
        assert!(begun_anew.advice().contains("--resume"), "{}", begun_anew.advice());
        // A line of the tokens that the machine had no time to finish.
        let mut torn = OpenOptions::new().append(true).open(&tokens).unwrap();
        torn.write_all(br#"{"line":99999,"tok"#).unwrap();
        let resumed = run(&arguments(&["--resume"]), &alive, &output).now_or_never().unwrap();
        assert!(resumed.is_ok(), "{writes}: {resumed:?}");
        assert!(!folder.path().join("serials.csv.cvm-import").exists());
        let kept = fs::read_to_string(&tokens).unwrap();
        let kept = kept.lines().map(|line| {
            let value: Value = serde_json::from_str(line).unwrap();
            let token: EnrolmentToken = value["token"].as_str().unwrap().parse().unwrap();
            (value["deviceId"].as_str().unwrap().to_owned(), token.digest())
        });
        let kept: Vec<_> = kept.collect();
        assert_eq!(kept.len(), ROWS, "{writes}: each device has one token");
        (registry, kept.into_iter().collect())
    }

    #[test]
    fn threat_41_an_import_that_is_cut_off_anywhere_goes_on_and_does_nothing_twice() {
        for mode in ["create", "createOrUpdate"] {
            for boundary in [1, BATCH, 2 * BATCH, ROWS] {
                for writes in boundary.saturating_sub(1)..=(boundary + 1).min(ROWS) {
                    for takes_effect in [true, false] {
                        if writes == 0 {
                            continue;
                        }
                        let (registry, tokens) = cut_off_after(writes, takes_effect, mode);
                        for (device, token) in tokens {
                            let id = device.parse().unwrap();
                            let stored = registry.find(&id).now_or_never().unwrap().unwrap().unwrap();
                            assert_eq!(stored.version, 1, "{mode} {writes}: written once");
                            let works =
                                matches!(stored.attestation, Attestation::Token { digest, .. } if digest == token);
                            assert!(works, "{mode} {writes} {takes_effect}: the token of {device} is its own");
                        }
                    }
                }
            }
        }
    }
}
