//! How far an import has come, beside its file, so that one that was cut off goes on where it was.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use cvm_provisioning::{Attestation, EnrolmentToken};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::{ImportError, ImportLine, Summary};

/// The journal of one import.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    pub(super) entry: Entry,
}

/// What is written after each batch.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    /// The file's length and the digest of its beginning: another file is not gone on with.
    source: String,
    /// Records of the file that are through, whatever became of them.
    pub(super) records: u64,
    /// What became of them.
    pub(super) summary: Summary,
}

impl Journal {
    /// Bytes of the file that tell it from others.
    const BEGINNING: u64 = 64 * 1024;

    /// The journal of an import that begins, or goes on.
    pub(super) fn open(file: &Path, resume: bool) -> Result<Self, ImportError> {
        let failed = |source| ImportError::Read { path: file.to_owned(), source };
        let mut name = file.as_os_str().to_owned();
        name.push(".cvm-import");
        let path = PathBuf::from(name);
        let opened = File::open(file).map_err(failed)?;
        let length = opened.metadata().map_err(failed)?.len();
        let mut beginning = Vec::new();
        opened.take(Self::BEGINNING).read_to_end(&mut beginning).map_err(failed)?;
        let hash = digest(&SHA256, &beginning);
        let hash: String = hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let begun = Entry { source: format!("{length}-{hash}"), ..Entry::default() };
        let found = match fs::read(&path) {
            Ok(json) => Some(serde_json::from_slice(&json).map_err(|_| ImportError::Journal { path: path.clone() })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(ImportError::Read { path, source }),
        };
        match found {
            None => Ok(Self { path, entry: begun }),
            Some(_) if !resume => Err(ImportError::CutOff { path }),
            Some(entry @ Entry { .. }) if entry.source == begun.source => Ok(Self { path, entry }),
            Some(_) => Err(ImportError::Journal { path }),
        }
    }

    /// Writes down how far it has come: the old words or the new ones, whenever the machine stops.
    pub(super) fn keep(&mut self, records: u64, summary: &Summary) -> Result<(), ImportError> {
        self.entry.records = records;
        self.entry.summary = summary.clone();
        let failed = |source| ImportError::Write { path: self.path.clone(), source };
        let folder =
            self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let mut file = NamedTempFile::new_in(folder).map_err(failed)?;
        serde_json::to_writer(&mut file, &self.entry).map_err(|error| failed(error.into()))?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&self.path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// Ends it: the import is through.
    pub(super) fn end(self) -> Result<(), ImportError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ImportError::Write { path: self.path, source: error })
            }
            _ => Ok(()),
        }
    }
}

/// The tokens that the batch which was cut off has on the disk already: devices may have got them.
#[derive(Debug, Default)]
pub(super) struct KeptTokens(BTreeMap<u64, Kept>);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    line: u64,
    token: Option<String>,
    second_token: Option<String>,
}

impl KeptTokens {
    /// Reads the file of tokens and makes it ready to be written on: the end of a line that was cut off goes.
    pub(super) fn of(path: &Path) -> io::Result<(Self, File)> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut reader = BufReader::new(file);
        let (mut kept, mut end, mut line) = (BTreeMap::new(), 0, String::new());
        while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
            end += line.len() as u64;
            if let Ok(token) = serde_json::from_str::<Kept>(&line) {
                kept.insert(token.line, token);
            }
            line.clear();
        }
        let mut file = reader.into_inner();
        file.set_len(end)?;
        file.seek(SeekFrom::End(0))?;
        file.flush()?;
        Ok((Self(kept), file))
    }

    /// Gives a line the tokens that were made for it before, and says whether there were any.
    pub(super) fn give(&self, line: &mut ImportLine) -> bool {
        let Some(kept) = self.0.get(&line.line) else { return false };
        let token = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<EnrolmentToken>().ok());
        let (Some(primary), secondary) = (token(&kept.token), token(&kept.second_token)) else { return false };
        let attestation = match &mut line.entry.module {
            Some((_, settings)) => &mut settings.attestation,
            None => &mut line.entry.settings.attestation,
        };
        if let Some(Attestation::Token { digest, second, .. }) = attestation {
            *digest = primary.digest();
            *second = secondary.as_ref().map(EnrolmentToken::digest).or(*second);
        }
        true
    }
}
