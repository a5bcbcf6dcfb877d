//! The files that an import writes: the tokens it makes, and the lines that failed.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use cvm_bulk::{FailedLine, ImportFiles, KeptTokens};

use super::{ImportArguments, ImportError};

/// The files of one import.
pub(super) struct Files {
    tokens: Option<(PathBuf, File)>,
    errors: Option<(PathBuf, File)>,
    shown: usize,
}

impl Files {
    /// Failures that are shown where no file takes them.
    const SHOWN: usize = 20;

    /// Opens them, and says which tokens are in them already. An import that goes on had written so many bytes of failed
    /// lines; what stands after them is of the batch that was cut off, and comes again.
    pub(super) fn open(arguments: &ImportArguments, failures: u64) -> Result<(Self, KeptTokens), ImportError> {
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
        Ok((Self { tokens, errors, shown: 0 }, kept))
    }

    /// Puts the failed lines on the disk, and says how many bytes there are.
    pub(super) fn keep_failures(&mut self) -> Result<u64, ImportError> {
        let Some((path, file)) = &mut self.errors else { return Ok(0) };
        let kept = file.sync_data().and_then(|()| file.stream_position());
        kept.map_err(|source| ImportError::Write { path: path.clone(), source })
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

impl ImportFiles for Files {
    type Error = ImportError;

    async fn keep_tokens(&mut self, lines: &str) -> Result<(), ImportError> {
        let (path, file) = self.tokens.as_mut().ok_or(ImportError::NoTokens)?;
        let written = file.write_all(lines.as_bytes()).and_then(|()| file.sync_all());
        written.map_err(|source| ImportError::Write { path: path.clone(), source })
    }

    fn fail(&mut self, line: FailedLine) -> Result<(), ImportError> {
        let json = serde_json::json!(line);
        match &mut self.errors {
            Some((path, file)) => {
                writeln!(file, "{json}").map_err(|source| ImportError::Write { path: path.clone(), source })
            }
            None => {
                self.shown += 1;
                if self.shown <= Self::SHOWN {
                    // Nobody is left to be told that stderr is closed.
                    let _ = writeln!(io::stderr().lock(), "{json}");
                }
                Ok(())
            }
        }
    }
}
