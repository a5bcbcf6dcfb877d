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
mod renewal;

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
///
/// With --renew the device presents the certificate that it has, in place of a token, and gets the next one for a new key.
/// The old files stay in place until the new ones are on the disk. Programs that have read the old files go on with them:
/// restart those afterwards.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VendArguments {
    /// The vending API: the stack's output ApiUrl, with /v1/certificates or without
    #[arg(long, env = "CVM_URL")]
    url: Address,
    /// The id to ask for a certificate under
    #[arg(long, value_name = "ID", required_unless_present = "renew")]
    device: Option<DeviceId>,
    /// The file with the enrolment token, `-` for stdin; without it the environment variable CVM_TOKEN is looked at
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certify this private key (PKCS #8, PEM) instead of one made in DIR
    #[arg(long, value_name = "FILE", conflicts_with = "service_key")]
    key: Option<PathBuf>,
    /// Renew the certificate in this folder of an earlier run, which is the proof
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = ["device", "token_file", "service_key", "out", "insecure"]
    )]
    renew: Option<PathBuf>,
    /// Renew for the same key, which gets a new certificate in the second half of the validity of its last one; a key that
    /// is not in DIR is always kept, and named with --key
    #[arg(long, requires = "renew")]
    keep_key: bool,
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
    /// Send the token over plain http to another machine, where everybody on the way can read it
    #[arg(long)]
    insecure: bool,
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
  cvm vend --url https://api.example.com --renew ./sn-0001

A key of the device's own:
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 \\
      -out sn-0002.key";

/// Runs `cvm vend`.
pub(crate) async fn run(arguments: VendArguments, output: &Output) -> Result<(), CommandError> {
    match (arguments.renew.clone(), arguments.device.clone()) {
        (Some(folder), _) => renew(arguments, folder, output).await,
        (None, Some(device)) => vend(arguments, device, output).await,
        (None, None) => Err(VendError::NoDevice { path: PathBuf::from("the command line") }.into()),
    }
}

/// Fetches the first certificate of a device, or the one that it has again.
async fn vend(arguments: VendArguments, device: DeviceId, output: &Output) -> Result<(), CommandError> {
    let VendArguments { url, token_file, key, service_key, parameters, out, root_ca, insecure, .. } = arguments;
    let parameters = by_name(parameters).map_err(VendError::Argument)?;
    if url.is_plain() && !url.is_local() {
        if !insecure {
            return Err(VendError::Plain { address: url }.into());
        }
        output.note("the URL is plain http: everybody on the way can read the token and the answer")?;
    }
    let token = enrolment_token(token_file.as_deref(), std::env::var_os("CVM_TOKEN"))?;
    let caller = Caller::new(url, root_ca.as_deref(), None)?;

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

/// Fetches the next certificate of a device with the one that it has.
async fn renew(arguments: VendArguments, folder: PathBuf, output: &Output) -> Result<(), CommandError> {
    let VendArguments { url, key: elsewhere, parameters, root_ca, keep_key, .. } = arguments;
    let parameters = by_name(parameters).map_err(VendError::Argument)?;
    if url.is_plain() {
        return Err(VendError::PlainRenewal { address: url }.into());
    }
    let (folder, device) = Folder::of_vended(folder)?;
    if folder.complete_renewal()? {
        output.done("completed a renewal that was interrupted")?;
    }
    let current = elsewhere.clone().unwrap_or_else(|| folder.private_key());
    let caller = Caller::new(url, root_ca.as_deref(), Some(folder.identity(&current)?))?;
    let keeps = keep_key || elsewhere.is_some();
    let key = if keeps { Key::load(&current, &device)? } else { folder.next_key(&device)? };
    if !keeps && !key.is_new() {
        output.done(format_args!("took the key of an earlier try: {}", key.path().display()))?;
    }
    let answer = Box::pin(caller.call(&device, Some(&key), None, &parameters, output)).await?;
    let answer = Answer::check(&answer, &device, Some(key.csr())).map_err(VendError::Answer)?;
    folder.keep_renewed(&answer)?;
    report(&answer, &folder, &current, output)?;
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
    use crate::file::{self, FileError};
    use crate::token::TokenError;

    #[test]
    fn the_file_speaks_before_the_variable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        file::create(&path, &format!("{}\n", "a".repeat(43))).unwrap();
        let variable = || Some(OsString::from("b".repeat(43)));
        assert_eq!(enrolment_token(Some(&path), variable()).unwrap().unwrap().reveal(), "a".repeat(43));
        assert_eq!(enrolment_token(None, variable()).unwrap().unwrap().reveal(), "b".repeat(43));
        assert!(enrolment_token(None, Some(OsString::new())).unwrap().is_none());
        assert!(matches!(enrolment_token(None, Some("short".into())), Err(VendError::Token(_))));
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let exposed = enrolment_token(Some(&path), None).unwrap_err();
        assert!(matches!(exposed, VendError::Token(TokenError::File(FileError::Exposed { .. }))), "{exposed}");
    }
}
