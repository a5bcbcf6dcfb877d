//! The list of what was issued, for the allowlist.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use cvm_authority::temporary_file;
use cvm_provisioning::{Certificate, CertificateId, DeviceId, KeyFingerprint, Timestamp};
use serde::Serialize;
use tempfile::NamedTempFile;

use crate::file::FileError;

/// A device and the certificate that it has.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry<'a> {
    device_id: &'a DeviceId,
    certificate_id: &'a CertificateId,
    key_fingerprint: &'a KeyFingerprint,
    not_after: String,
}

impl<'a> Entry<'a> {
    pub(super) fn new(device_id: &'a DeviceId, certificate: &'a Certificate) -> Self {
        Self {
            device_id,
            certificate_id: certificate.id(),
            key_fingerprint: certificate.key(),
            not_after: Timestamp::from(certificate.not_after()).to_string(),
        }
    }
}

/// A file of entries, one a line. It takes the place of what is there when it is complete, and not before.
#[derive(Debug)]
pub(super) struct Manifest {
    file: BufWriter<NamedTempFile>,
    path: PathBuf,
}

impl Manifest {
    pub(super) fn begin(path: &Path) -> Result<Self, FileError> {
        let file = temporary_file(path).map_err(|source| FileError::Write { path: path.to_owned(), source })?;
        Ok(Self { file: BufWriter::new(file), path: path.to_owned() })
    }

    pub(super) fn add(&mut self, entry: &Entry<'_>) -> Result<(), FileError> {
        let line = serde_json::to_string(entry).map_err(io::Error::from);
        let written = line.and_then(|line| writeln!(self.file, "{line}"));
        written.map_err(|source| FileError::Write { path: self.path.clone(), source })
    }

    pub(super) fn finish(self) -> Result<(), FileError> {
        let failed = |source| FileError::Write { path: self.path.clone(), source };
        let file = self.file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&self.path).map_err(|error| failed(error.error))?;
        Ok(())
    }
}
