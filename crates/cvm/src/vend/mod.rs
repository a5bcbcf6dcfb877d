//! `cvm vend`: play a device.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use cvm_provisioning::{DeviceId, EnrolmentToken};
use serde::Serialize;

mod answer;
mod call;
mod error;
mod folder;
mod key;
mod problem;

pub(crate) use error::VendError;

use self::answer::{Answer, DeviceFile};
use self::call::Caller;
use self::folder::Folder;
use self::key::Key;
use crate::address::Address;
use crate::arguments::{Assignment, by_name};
use crate::error::CommandError;
use crate::output::{Output, shell_word};
use crate::token;

/// Play a device: make a key, have it certified by the vending API, check the answer and keep it
///
/// The key is on the disk before the API is called. If the answer is lost, run the same command again: it finds the
/// key, and the same key gets the same certificate. All files get mode 0600.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VendArguments {
    /// The vending API: the stack's output ApiUrl, with /v1/certificates or without
    #[arg(long, env = "CVM_URL")]
    url: Address,
    /// The id to ask for a certificate under
    #[arg(long, value_name = "ID")]
    device: DeviceId,
    /// The file with the enrolment token, `-` for stdin; without it the environment variable CVM_TOKEN is looked at
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certify this private key (PKCS #8, PEM) instead of one made in DIR
    #[arg(long, value_name = "FILE", conflicts_with = "service_key")]
    key: Option<PathBuf>,
    /// Have the key made by the service, as a device that cannot make one
    #[arg(long)]
    service_key: bool,
    /// A template parameter that the device may set for itself; repeatable
    #[arg(long = "parameter", value_name = "NAME=VALUE")]
    parameters: Vec<Assignment>,
    /// Where the files go: private.key, certificate.pem, root-ca.pem, device.json; ./ID where not given
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Trust these CAs (PEM) for the API's TLS, and no others
    #[arg(long, env = "CVM_SERVER_CA", value_name = "FILE")]
    root_ca: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  cvm vend --url https://api.example.com --device sn-0001 \\
      --token-file sn-0001.token
  cvm vend --url https://api.example.com --device sn-0002 \\
      --key sn-0002.key --out devices/sn-0002
  cvm vend --url https://api.example.com --device sn-0003 \\
      --token-file token --service-key --parameter FirmwareVersion=1.4
  cvm vend --url http://localhost:4566/v1/certificates \\
      --device sn-0004 --token-file - --output json

A key of the device's own:
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 \\
      -out sn-0002.key";

/// Runs `cvm vend`.
pub(crate) async fn run(arguments: VendArguments, output: &Output) -> Result<(), CommandError> {
    let VendArguments { url, device, token_file, key, service_key, parameters, out, root_ca } = arguments;
    let parameters = by_name(parameters).map_err(VendError::Argument)?;
    let token = enrolment_token(token_file.as_deref(), std::env::var_os("CVM_TOKEN"))?;
    let caller = Caller::new(url, root_ca.as_deref())?;
    if caller.is_readable_on_the_way() {
        output.note("the URL is plain http: everybody on the way can read the token and the answer")?;
    }

    let folder = Folder::open(out.unwrap_or_else(|| PathBuf::from(device.as_str())), &device)?;
    let key = match key {
        _ if service_key => None,
        Some(path) => Some(folder.with_key_elsewhere(Key::load(&path, &device)?)?),
        None => Some(folder.own_key(&device)?),
    };
    match &key {
        None => folder.has_no_key()?,
        Some(key) if key.is_new() => output.done(format_args!("made a P-256 key: {}", key.path().display()))?,
        Some(key) => output.done(format_args!("took the key that is there: {}", key.path().display()))?,
    }

    let answer = Box::pin(caller.call(&device, key.as_ref(), token.as_ref(), &parameters, output)).await?;
    let answer = Answer::check(&answer, &device, key.as_ref().map(Key::csr)).map_err(VendError::Answer)?;
    let key_path = folder.keep(&answer, key.as_ref())?;
    report(&answer, &folder, &key_path, output)?;
    Ok(())
}

/// The token in the file, else in the variable. A device that proves itself with its key has none.
fn enrolment_token(file: Option<&Path>, variable: Option<OsString>) -> Result<Option<EnrolmentToken>, VendError> {
    if let Some(path) = file {
        return Ok(Some(token::read(path)?));
    }
    match variable {
        Some(text) if !text.is_empty() => {
            Ok(Some(token::parse(&text.to_string_lossy(), Path::new("the variable CVM_TOKEN"))?))
        }
        _ => Ok(None),
    }
}

fn report(answer: &Answer, folder: &Folder, key_path: &Path, output: &Output) -> io::Result<()> {
    let device = answer.device_file();
    let text = |path: &Path| path.display().to_string();
    output.json(&Report {
        device: &device,
        certificate_pem: &answer.chain_pem(),
        ca_pem: answer.root_ca().pem(),
        files: Files {
            private_key: text(key_path),
            certificate: text(&folder.certificate()),
            root_ca: text(&folder.root_ca()),
            device: text(&folder.device()),
        },
    })?;
    output.done(format_args!(
        "certificate {} is for this key, valid until {}",
        device.certificate_id, device.not_after
    ))?;
    output.done(format_args!("wrote certificate.pem, root-ca.pem and device.json to {}", folder.path().display()))?;

    let (host, port) = answer.endpoint().host_and_port();
    output.say(format_args!(
        "\nNext:\n  mosquitto_pub -h {host} -p {port} -i {thing} -t {topic} -m hello -q 1 \\\n      \
         --cafile {ca} \\\n      --cert {certificate} \\\n      --key {key}",
        thing = device.thing_name,
        topic = shell_word(&format!("{}/hello", answer.topic_prefix())),
        ca = shell_word(&text(&folder.root_ca())),
        certificate = shell_word(&text(&folder.certificate())),
        key = shell_word(&text(key_path)),
    ))
}

/// What was got and where it is. The private key is in its file and nowhere else.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    #[serde(flatten)]
    device: &'a DeviceFile,
    certificate_pem: &'a str,
    ca_pem: &'a str,
    files: Files,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Files {
    private_key: String,
    certificate: String,
    root_ca: String,
    device: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_speaks_before_the_variable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, format!("{}\n", "a".repeat(43))).unwrap();
        let variable = || Some(OsString::from("b".repeat(43)));
        assert_eq!(enrolment_token(Some(&path), variable()).unwrap().unwrap().reveal(), "a".repeat(43));
        assert_eq!(enrolment_token(None, variable()).unwrap().unwrap().reveal(), "b".repeat(43));
        assert!(enrolment_token(None, Some(OsString::new())).unwrap().is_none());
        assert!(matches!(enrolment_token(None, Some("short".into())), Err(VendError::Token(_))));
    }
}
