use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use cvm_authority::{KeyError, KeyFile, KeyFileError, Passphrase};
use serde_json::json;

use super::{CaError, DataArguments};
use crate::error::CommandError;
use crate::output::Output;
use crate::own_ca::{CaFolder, OwnCaError, PassphraseArguments, read_passphrase};

/// Put the keys of a server's CA under a passphrase, change it, or take it away
///
/// The passphrase that they have now is read from the file in CVM_CA_PASSPHRASE_FILE. Each file is written anew as a
/// whole; after an interruption, run the same command again.
///
/// A running server keeps the keys that it has read, and needs the new passphrase for the next rotation and the next start:
/// write it into the file that CVM_CA_PASSPHRASE_FILE names there, which is read again within seconds. A server that was
/// started without one has to be restarted with it. A key that was on the disk without one may be found there by whoever gets the disk: with
/// CVM_CA_PASSPHRASE_FILE set at the first start of `cvm serve`, it never is.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ChangePassphraseArguments {
    #[command(flatten)]
    data: DataArguments,
    #[command(flatten)]
    passphrase: PassphraseArguments,
    /// The file with the new passphrase: one line, that only its owner may read
    #[arg(long, value_name = "FILE", required_unless_present = "remove")]
    new_passphrase_file: Option<PathBuf>,
    /// Leave the keys without a passphrase, protected by the mode of their files alone
    #[arg(long, conflicts_with = "new_passphrase_file")]
    remove: bool,
    /// Which keys: the root's may have a passphrase of its own while it is kept elsewhere
    #[arg(long, value_enum, default_value_t = Keys::All, value_name = "WHICH")]
    keys: Keys,
}

const EXAMPLES: &str = "\
Examples:
  openssl rand -base64 30 > passphrase && chmod 600 passphrase
  cvm ca passphrase --data /var/lib/cvm --new-passphrase-file passphrase
  cvm ca passphrase --ca-passphrase-file passphrase \\
      --new-passphrase-file root-passphrase --keys root
  CVM_CA_PASSPHRASE_FILE=passphrase cvm serve --data /var/lib/cvm";

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Keys {
    All,
    Issuing,
    Root,
}

pub(super) fn run(arguments: &ChangePassphraseArguments, output: &Output) -> Result<(), CommandError> {
    let ChangePassphraseArguments { data, passphrase, new_passphrase_file, remove: _, keys } = arguments;
    let changed = || {
        let before = passphrase.read()?;
        let after = new_passphrase_file.as_deref().map(read_passphrase).transpose()?;
        let paths = paths(&data.folder(), *keys)?;
        for path in &paths {
            change(path, before.as_ref(), after.as_ref())?;
        }
        Ok::<_, OwnCaError>(paths)
    };
    let paths = changed().map_err(CaError::from)?;
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    output.json(&json!({ "keys": paths, "isEncrypted": new_passphrase_file.is_some() }))?;
    for path in paths {
        match new_passphrase_file {
            Some(file) => output.done(format_args!("{path} is under the passphrase in {}", file.display()))?,
            None => output.done(format_args!("{path} is under no passphrase"))?,
        }
    }
    if new_passphrase_file.is_some() {
        output.note(
            "a running server needs the new passphrase: write it into the file of its CVM_CA_PASSPHRASE_FILE, or restart \
             it with --ca-passphrase-file",
        )?;
    }
    Ok(())
}

/// The files of these keys, as far as they are here.
fn paths(folder: &CaFolder, keys: Keys) -> Result<Vec<PathBuf>, OwnCaError> {
    if folder.root()?.is_none() {
        return Err(OwnCaError::NoCa { folder: folder.path().to_owned() });
    }
    let mut paths = Vec::new();
    if keys != Keys::Issuing {
        paths.push(folder.root_key_path());
    }
    if keys != Keys::Root {
        paths.extend(folder.issuing()?.iter().map(|ca| folder.issuing_path(ca.number, "key")));
    }
    paths.retain(|path| path.exists());
    match paths.is_empty() {
        true => Err(OwnCaError::NoRootKey { path: folder.root_key_path() }),
        false => Ok(paths),
    }
}

fn change(path: &Path, before: Option<&Passphrase>, after: Option<&Passphrase>) -> Result<(), OwnCaError> {
    let file = KeyFile::new(path);
    match file.change_passphrase(before, after) {
        // An interruption may have left this one as it is to be.
        Err(KeyFileError::Key { source: KeyError::Encrypted | KeyError::Passphrase, .. })
            if after.is_some() && file.read(after).is_ok() =>
        {
            Ok(())
        }
        done => Ok(done?),
    }
}
