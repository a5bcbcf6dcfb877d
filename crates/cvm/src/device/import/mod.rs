use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::PossibleValuesParser;
use cvm_bulk::{Summary, advance};
use cvm_interchange::{ColumnMapping, DefaultProof, Defaults, Format, ImportReader, Options};
use cvm_provisioning::{GroupName, ImportMode, TemplateName};
use serde_json::{Value, json};

mod error;
mod files;
mod journal;
#[cfg(test)]
mod tests;

use super::{DeviceError, DeviceRegistry};
use crate::error::CommandError;
use crate::output::{Output, count};
use crate::progress::{Progress, Standing};
pub(super) use error::ImportError;
use files::Files;
use journal::Journal;

/// Register, change or delete many devices from a file
///
/// The file is a table in CSV, the identity registry's JSON, as lines or as an array, AWS IoT bulk registration, or a manifest
/// of Espressif's or Microchip's; the signatures of a manifest are not checked. A line that cannot be used is reported and
/// skipped. Progress is kept in FILE.cvm-import: if the import is interrupted, run it again with --resume, and nothing
/// is done twice.
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
    #[arg(long, value_name = "PROOF", default_value = "token")]
    proof: DefaultProof,
    /// Write the enrolment tokens that are made to this new file, with mode 0600, as lines of JSON
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Write the lines that failed to this file, as lines of JSON
    #[arg(long, value_name = "FILE")]
    errors: Option<PathBuf>,
    /// Name the column that holds a field, such as device=Nr, or have it ignored with ignore=Status; repeatable
    #[arg(long = "column", value_name = "FIELD=NAME")]
    columns: Vec<ColumnMapping>,
    /// Ignore columns of unknown names
    #[arg(long)]
    ignore_unknown_columns: bool,
    /// Put devices back as `cvm device export` wrote them
    #[arg(long, conflicts_with_all = ["mode", "group", "template"])]
    restore: bool,
    /// Check every line, also against the registry, and write nothing
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
  cvm device import list.csv --column device=Nr --column ignore=Status
  cvm device import devices.txt --tokens tokens.jsonl
  cvm device import devices.jsonl --restore
  cvm device import serials.csv --tokens tokens.jsonl \\
      --server https://cvm.example.com --operator-token-file anna.token";

/// Lines that are worked on before it is written down.
const BATCH: usize = 1_024;

pub(super) async fn run(
    arguments: &ImportArguments,
    registry: &impl DeviceRegistry,
    output: &Output,
) -> Result<(), CommandError> {
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            // The signal ends the process then, as it does by default.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        imported = import(arguments, registry, output) => imported,
        () = interrupted => Err(DeviceError::from(arguments.interrupted()).into()),
    }
}

async fn import(
    arguments: &ImportArguments,
    registry: &impl DeviceRegistry,
    output: &Output,
) -> Result<(), CommandError> {
    let length = arguments.length();
    let journal = arguments.journal().map_err(DeviceError::from)?;
    let mut standing = journal.as_ref().map(|journal| journal.entry.standing.clone()).unwrap_or_default();
    let (mut files, kept) = Files::open(arguments, journal, output).map_err(DeviceError::from)?;
    let mut kept = arguments.resume.then_some(kept);
    let mut reader = arguments.reader().map_err(DeviceError::from)?;
    if let Some(guess) = reader.guess() {
        output.note(guess)?;
    }
    let before = standing.summary.lines();
    let mut progress = Progress::start(output);
    // Skips the lines that are done.
    for done in reader.by_ref().take(usize::try_from(standing.records).unwrap_or(usize::MAX)) {
        drop(done);
    }
    let passed = reader.bytes_read();
    loop {
        let (dry_run, kept) = (arguments.dry_run, kept.take());
        let is_first = standing.records == 0;
        let advanced = advance(registry, dry_run, &mut reader, BATCH, kept.as_ref(), &mut files, &mut standing).await;
        match advanced.map_err(DeviceError::from) {
            Ok(true) => {}
            Ok(false) => break,
            Err(refused) => {
                // A restore makes no tokens, and what it did already is unchanged the next time: it can begin anew.
                if arguments.restore && is_first && refused.is_refusal() {
                    files.end().map_err(DeviceError::from)?;
                }
                return Err(refused.into());
            }
        }
        files.checkpoint(&standing).map_err(DeviceError::from)?;
        let part = |length: u64| (reader.bytes_read() - passed) as f64 / length.saturating_sub(passed).max(1) as f64;
        progress.tell(Standing { done: standing.summary.lines() - before, part: length.map(part) })?;
    }
    let rate = (standing.summary.lines() - before) as f64 / progress.finish().as_secs_f64().max(0.001);
    files.end().map_err(DeviceError::from)?;
    report(&standing.summary, rate, arguments, output)
}

impl ImportArguments {
    /// The file's length in bytes; what comes through a pipe has none.
    fn length(&self) -> Option<u64> {
        std::fs::metadata(&self.file).ok().filter(std::fs::Metadata::is_file).map(|file| file.len())
    }

    /// The journal; what comes through a pipe cannot be read again, and needs none.
    fn journal(&self) -> Result<Option<Journal>, ImportError> {
        if self.dry_run || self.file == Path::new("-") {
            return if self.resume { Err(ImportError::Pipe) } else { Ok(None) };
        }
        Journal::open(&self.file, self.resume).map(Some)
    }

    /// What a user who pressed Ctrl-C has to know.
    fn interrupted(&self) -> ImportError {
        let is_pipe = self.file == Path::new("-");
        let can_be_resumed = !self.dry_run && !is_pipe && Journal::path(&self.file).exists();
        ImportError::Interrupted { dry_run: self.dry_run, is_pipe, can_be_resumed }
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

fn report(summary: &Summary, rate: f64, arguments: &ImportArguments, output: &Output) -> Result<(), CommandError> {
    let Summary { checked, created, updated, unchanged, deleted, failed, twins } = summary;
    let errors = arguments.errors.as_ref().map(|path| Value::from(path.display().to_string()));
    output.json(&json!({
        "dryRun": arguments.dry_run, "checked": checked, "created": created, "updated": updated,
        "unchanged": unchanged, "deleted": deleted, "failed": failed, "perSecond": rate.round(), "errors": errors,
    }))?;
    if *twins > 0 {
        output.note(format_args!("not kept here: the tags or properties of {}", count(*twins, "line")))?;
    }
    if arguments.dry_run {
        output
            // Scripts search for this text, so that it is the same for one line.
            .say(format_args!(
                "{checked} {unit} can be imported, {failed} cannot; nothing was written",
                unit = "lines"
            ))?;
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
