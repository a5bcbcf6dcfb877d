//! The files that an import writes: the tokens it makes, and the lines that failed.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use cvm_bulk::{FailedLine, ImportFiles, ImportStanding, KeptTokens};

use super::journal::Journal;
use super::{ImportArguments, ImportError};
use crate::output::{Output, printable};

/// The files of one import.
pub(super) struct Files<'a> {
    journal: Option<Journal>,
    /// Whether the registry may have been written to.
    begun: bool,
    tokens: Option<(PathBuf, File)>,
    errors: Option<(PathBuf, File)>,
    output: &'a Output,
    shown: usize,
}

impl<'a> Files<'a> {
    /// Failures that are shown where no file takes them.
    const SHOWN: usize = 20;

    /// Opens them, and returns the tokens that are in them already. A resumed import had written so many bytes of failed
    /// lines as its journal says; what stands after them is of the batch that was cut off, and comes again.
    pub(super) fn open(
        arguments: &ImportArguments,
        journal: Option<Journal>,
        output: &'a Output,
    ) -> Result<(Self, KeptTokens), ImportError> {
        let failures = journal.as_ref().map_or(0, |journal| journal.entry.failures);
        let mut kept = KeptTokens::default();
        let tokens = match arguments.tokens.as_ref().filter(|_| !arguments.dry_run) {
            Some(path) if arguments.resume && path.exists() => {
                let failed = |source| ImportError::Read { path: path.clone(), source };
                Some((path.clone(), go_on_with_tokens(path, &mut kept).map_err(failed)?))
            }
            Some(path) => Some((path.clone(), create(path, true)?)),
            None => None,
        };
        let errors = match &arguments.errors {
            Some(path) if arguments.resume && path.exists() => {
                let failed = |source| ImportError::Write { path: path.clone(), source };
                let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
                Some((path.clone(), go_on_at(file, failures).map_err(failed)?))
            }
            Some(path) => Some((path.clone(), create(path, false)?)),
            None => None,
        };
        Ok((Self { journal, begun: arguments.resume, tokens, errors, output, shown: 0 }, kept))
    }

    /// Puts the failed lines and the journal on the disk. There is no journal before the first line is written to the
    /// registry: nothing would be done twice.
    pub(super) fn checkpoint(&mut self, standing: &ImportStanding) -> Result<(), ImportError> {
        let failures = match &mut self.errors {
            Some((path, file)) => {
                let kept = file.sync_data().and_then(|()| file.stream_position());
                kept.map_err(|source| ImportError::Write { path: path.clone(), source })?
            }
            None => 0,
        };
        let Some(journal) = &mut self.journal else { return Ok(()) };
        journal.entry.standing.clone_from(standing);
        journal.entry.failures = failures;
        if self.begun { journal.keep() } else { Ok(()) }
    }

    /// Removes the journal: the import is through.
    pub(super) fn end(mut self) -> Result<(), ImportError> {
        self.begun = true;
        self.journal.take().map_or(Ok(()), Journal::end)
    }
}

/// Removes the new file of tokens if the import ends before a device could depend on one.
impl Drop for Files<'_> {
    fn drop(&mut self) {
        if let (false, Some((path, _))) = (self.begun, &self.tokens) {
            // Best effort: the tokens in it are worth nothing.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A file for its owner's eyes alone.
fn create(path: &Path, new: bool) -> Result<File, ImportError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(new).create(true).truncate(!new);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|source| ImportError::Write { path: path.to_owned(), source })
}

/// Reads the file of tokens and makes it ready to be written on: the end of a line that was cut off goes.
fn go_on_with_tokens(path: &Path, kept: &mut KeptTokens) -> io::Result<File> {
    let mut reader = BufReader::new(OpenOptions::new().read(true).write(true).open(path)?);
    let end = kept.read(&mut reader)?;
    go_on_at(reader.into_inner(), end)
}

fn go_on_at(mut file: File, end: u64) -> io::Result<File> {
    file.set_len(end.min(file.metadata()?.len()))?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}

impl ImportFiles for Files<'_> {
    type Error = ImportError;

    async fn keep_tokens(&mut self, lines: &str) -> Result<(), ImportError> {
        let (path, file) = self.tokens.as_mut().ok_or(ImportError::NoTokens)?;
        let written = file.write_all(lines.as_bytes()).and_then(|()| file.sync_all());
        written.map_err(|source| ImportError::Write { path: path.clone(), source })
    }

    fn begin(&mut self) -> Result<(), ImportError> {
        if let Some(journal) = self.journal.as_mut().filter(|journal| !journal.is_kept) {
            journal.keep()?;
        }
        self.begun = true;
        Ok(())
    }

    fn fail(&mut self, line: FailedLine) -> Result<(), ImportError> {
        if let Some((path, file)) = &mut self.errors {
            let json = serde_json::json!(line);
            return writeln!(file, "{json}").map_err(|source| ImportError::Write { path: path.clone(), source });
        }
        self.shown += 1;
        if self.shown <= Self::SHOWN {
            // If stderr is closed, nobody reads it.
            let _ = show(&line, self.output);
        }
        Ok(())
    }
}

/// A failed line on stderr, for people or for programs.
fn show(line: &FailedLine, output: &Output) -> io::Result<()> {
    if output.is_json() {
        return writeln!(io::stderr().lock(), "{}", serde_json::json!(line));
    }
    let FailedLine { line, device_id, message, .. } = line;
    let device = device_id.as_ref().map(|id| format!(", {id}")).unwrap_or_default();
    output.redraw("")?;
    output.note(format_args!("line {line}{device}: {}", printable(message)))
}
