use std::path::{Path, PathBuf};

use clap::Args;
use cvm_authority::Passphrase;
use zeroize::Zeroizing;

use super::OwnCaError;
use crate::file;

/// Where the passphrase of the CA's keys is. It is never a word of the command line, which everybody can read.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct PassphraseArguments {
    /// The file with the passphrase of the CA's keys, where they have one; only its owner may read it
    #[arg(long, env = "CVM_CA_PASSPHRASE_FILE", value_name = "FILE")]
    ca_passphrase_file: Option<PathBuf>,
}

impl PassphraseArguments {
    /// The file with the passphrase, if one was named.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.ca_passphrase_file.as_deref()
    }

    /// Reads the passphrase, if a file was named. It is not kept: the file is asked again when it is needed again.
    pub(crate) fn read(&self) -> Result<Option<Passphrase>, OwnCaError> {
        self.ca_passphrase_file.as_deref().map(read).transpose()
    }
}

/// The longest file with a passphrase, in bytes.
const MAX_PASSPHRASE: usize = 1024;

/// The passphrase in a file: all of it but the newline at its end.
pub(crate) fn read(path: &Path) -> Result<Passphrase, OwnCaError> {
    let mut text = Zeroizing::new(file::read_private_text(path, MAX_PASSPHRASE)?);
    let length = text.strip_suffix('\n').map_or(text.len(), |line| line.strip_suffix('\r').unwrap_or(line).len());
    text.truncate(length);
    Passphrase::new(text).map_err(|_| OwnCaError::EmptyPassphrase { path: path.to_owned() })
}
