use std::path::PathBuf;

use clap::Args;
use cvm_provisioning::Timestamp;
use serde_json::json;

use super::{CaError, DataArguments, now};
use crate::arguments::TimeToLive;
use crate::error::CommandError;
use crate::output::Output;
use crate::own_ca::{KeyPlace, OwnCaError, PassphraseArguments, Root, Rotation, read_passphrase, root_list, rotate};

/// Make the next issuing CA of a server of one's own
///
/// Brokers and devices trust it at once, by ca.pem; it issues when the overlap is over, so that everybody has fetched
/// ca.pem and crl.pem by then. The CA before it stays until it ends, and what it issued is good until then. A server that
/// runs notices within seconds, and need not be restarted. The root's key signs: where it is kept elsewhere, bring it.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct RotateArguments {
    #[command(flatten)]
    data: DataArguments,
    #[command(flatten)]
    passphrase: PassphraseArguments,
    /// How long it is trusted before it issues: longer than the slowest broker takes to fetch ca.pem
    #[arg(long, value_name = "TIME", default_value = "7d")]
    overlap: TimeToLive,
    /// How long it is valid; it ends with the root at the latest
    #[arg(long, value_name = "TIME", default_value = "3650d")]
    validity: TimeToLive,
    /// The id, ARN or alias of a key for signing in AWS KMS, in place of one made here
    #[arg(long, value_name = "KEY")]
    kms_key: Option<String>,
    /// The file with the root's key, where it is not in the folder; kms:KEY is one in AWS KMS
    #[arg(long, value_name = "FILE")]
    root_key: Option<PathBuf>,
    /// The file with the passphrase of the root's key, where that is another one
    #[arg(long, value_name = "FILE")]
    root_passphrase_file: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  cvm ca rotate --data /var/lib/cvm
  cvm ca rotate --overlap 30d --root-key /media/safe/root.key \\
      --root-passphrase-file /media/safe/passphrase
  cvm ca rotate --kms-key alias/cvm-issuing-2
  cvm ca show";

pub(super) async fn run(arguments: &RotateArguments, output: &Output) -> Result<(), CommandError> {
    let RotateArguments { data, passphrase, overlap, validity, kms_key, root_key, root_passphrase_file } = arguments;
    let folder = data.folder();
    let made = async {
        let passphrase = passphrase.read()?;
        let of_root = root_passphrase_file.as_deref().map(read_passphrase).transpose()?;
        // A file that was named and is not there is told by its name.
        let key = match root_key {
            Some(named) => Some(KeyPlace::named(named)),
            None => folder.root_key()?,
        };
        let root = Root::open(&folder, key, of_root.as_ref().or(passphrase.as_ref())).await?;
        let authority = root.authority().ok_or_else(|| OwnCaError::NoRootKey { path: folder.root_key_path() })?;
        let (overlap, validity) = (overlap.duration(), validity.duration());
        let rotation = Rotation { overlap, validity, kms_key: kms_key.clone() };
        let made = rotate(&folder, authority, passphrase.as_ref(), rotation, now()).await?;
        // While the root's key is here: the server cannot renew its list without it.
        root_list(&folder, &root, now()).await?;
        Ok::<_, OwnCaError>(made)
    };
    let made = made.await.map_err(CaError::from)?;
    let from = made.issues_from.unwrap_or_else(now);
    let not_after = Timestamp::from(made.certificate.not_after());
    let bundle = folder.bundle_path().display().to_string();
    output.json(&json!({
        "caId": made.certificate.id(),
        "number": made.number,
        "issuesFrom": from.to_string(),
        "notAfter": not_after.to_string(),
        "files": { "ca": bundle },
    }))?;
    output.done(format_args!("made the CA {}, valid until {not_after}", made.certificate.id()))?;
    output.done(format_args!("it issues from {from}; until then, have every broker fetch {bundle} again"))?;
    Ok(())
}
