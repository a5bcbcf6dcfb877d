use std::path::PathBuf;

use clap::{Args, ValueEnum};
use cvm_authority::{Authority, AuthorityProfile, Curve, KeyFile, LocalSigner, SubjectText, Tier};
use cvm_provisioning::Timestamp;
use serde_json::json;

use super::authority::{AuthorityError, days};
use super::{CaError, now};
use crate::ca_key::CaKey;
use crate::clock;
use crate::error::CommandError;
use crate::file;
use crate::output::{Output, shell_word};

/// Make a CA for device certificates: a key and a self-signed certificate
///
/// It can sign device certificates and no other CAs. Its key is in DIR/ca.key, with mode 0600, and nowhere else: whoever
/// has it can make any device. With --kms-key it is one that AWS KMS has, and never leaves it.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct CreateArguments {
    /// The CA's name, its common name; up to 64 characters
    #[arg(long)]
    name: SubjectText,
    /// Whose CA it is; up to 64 characters
    #[arg(long, value_name = "NAME")]
    organization: Option<SubjectText>,
    /// Where the files go: ca.key and ca.pem, neither of which may be there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How long it is valid; its device certificates end with it
    #[arg(long, value_name = "N", default_value_t = 7300, value_parser = clap::value_parser!(u16).range(1..=36_500))]
    days: u16,
    /// The curve of its key
    #[arg(long, value_enum, default_value_t = KeyAlgorithm::P256, value_name = "CURVE")]
    key_algorithm: KeyAlgorithm,
    /// The id, ARN or alias of a key for signing in AWS KMS, in place of one made here
    #[arg(long, value_name = "KEY", conflicts_with = "key_algorithm")]
    kms_key: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  cvm ca create --name 'Factory 1' --out factory-1
  cvm ca create --name 'Test bench' --organization 'Example Ltd' \\
      --out bench --days 90 --key-algorithm p384
  cvm ca create --name 'Devices 1' --out devices-1 --kms-key alias/devices";

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum KeyAlgorithm {
    P256,
    P384,
}

pub(super) async fn run(arguments: &CreateArguments, output: &Output) -> Result<(), CommandError> {
    let CreateArguments { name, organization, out, days: validity, key_algorithm, kms_key } = arguments;
    let (key_path, certificate_path) = (out.join("ca.key"), out.join("ca.pem"));
    if [&key_path, &certificate_path].iter().any(|path| path.exists()) {
        return Err(CaError::There { path: out.clone() }.into());
    }
    clock::check(now()).map_err(CaError::from)?;
    let curve = match key_algorithm {
        KeyAlgorithm::P256 => Curve::P256,
        KeyAlgorithm::P384 => Curve::P384,
    };
    let key = match kms_key {
        Some(id) => CaKey::of_kms(id).await.map_err(|error| CaError::from(AuthorityError::from(error)))?,
        None => LocalSigner::generate(curve).map_err(CaError::from)?.into(),
    };
    let profile = AuthorityProfile {
        name: name.clone(),
        organization: organization.clone(),
        tier: Tier::Issuing,
        validity: days(*validity),
    };
    let authority = Authority::create(&profile, key, now()).await.map_err(CaError::from)?;
    let certificate = authority.certificate();
    file::private_folder(out).map_err(CaError::from)?;
    // A key without its certificate is of no use to anybody; a certificate without its key cannot be.
    if let CaKey::Local(key) = authority.signer() {
        let written = KeyFile::new(&key_path).create(key, None);
        written.map_err(|error| CaError::from(AuthorityError::from(error)))?;
    }
    file::create(&certificate_path, certificate.pem()).map_err(CaError::from)?;

    let certificate_path = certificate_path.display().to_string();
    let key_path = kms_key.as_ref().map_or_else(|| key_path.display().to_string(), |id| format!("kms:{id}"));
    let not_after = Timestamp::from(certificate.not_after());
    output.json(&json!({
        "caId": certificate.id(),
        "name": name.as_str(),
        "notAfter": not_after.to_string(),
        "files": { "caKey": key_path, "caCert": certificate_path },
    }))?;
    output.done(format_args!("made the CA {}, valid until {not_after}", certificate.id()))?;
    match kms_key {
        Some(_) => output.done("its key is in AWS KMS, and never leaves it")?,
        None => output.done(format_args!("its key is in {key_path}, and nowhere else: keep it offline"))?,
    }
    output.say(format_args!(
        "\nNext:\n  cvm ca register --ca-cert {} --ca-key {}",
        shell_word(&certificate_path),
        shell_word(&key_path)
    ))?;
    Ok(())
}
