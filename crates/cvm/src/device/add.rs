use std::path::Path;

use clap::{Args, ValueEnum};
use cvm_interchange::DeviceDocument;
use cvm_provisioning::{
    Attestation, Device, DeviceId, EnrolmentToken, GenerationId, GroupName, InvalidSettings, KeyOrigin, Settings,
    TemplateName,
};
use serde::Serialize;

use super::proof::{Proof, ProofArguments, ProofError};
use super::view::{DeviceView, attestation};
use super::{DeviceError, DeviceRegistry};
use crate::arguments::{ArgumentError, Assignment, by_name};
use crate::error::CommandError;
use crate::file::{self, FileError};
use crate::output::{Output, shell_word};
use crate::registry::now;

/// Put a device on the allowlist
///
/// Unless told otherwise, the device will prove itself with an enrolment token that is made here and printed this once:
/// the registry keeps its digest only.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct AddArguments {
    /// The device's serial number or registration id
    id: DeviceId,
    #[command(flatten)]
    proof: ProofArguments,
    /// Where the private key comes from: `service` for a device that cannot make one
    #[arg(long, value_name = "ORIGIN", value_enum, default_value_t = Origin::Device)]
    key_origin: Origin,
    /// The enrolment group, or the batch, that the device is counted to
    #[arg(long, value_name = "NAME")]
    group: Option<GroupName>,
    /// The provisioning template that says what the device becomes; the service's default where none is given
    #[arg(long, value_name = "NAME")]
    template: Option<TemplateName>,
    /// The value of a template parameter; repeatable
    #[arg(long = "parameter", value_name = "NAME=VALUE")]
    parameters: Vec<Assignment>,
    /// A template parameter that the device may set for itself; repeatable
    #[arg(long = "settable", value_name = "NAME")]
    settable: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  cvm device add sn-0001
  cvm device add sn-0001 --token-out sn-0001.token --token-ttl 7d
  (umask 077; openssl rand -hex 32 > sn-0002.token)
  cvm device add sn-0002 --token-file sn-0002.token
  cvm device add sn-0003 --csr sn-0003.csr
  cvm device add sn-0004 --public-key-file sn-0004.pub.pem
  cvm device add sn-0005 --public-key \\
      e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
  cvm device add sn-0006 --key-origin service --template cameras \\
      --parameter Site=berlin --settable FirmwareVersion
  cvm device add sn-0007 --output json | jq -r .token
  cvm device add sn-0008 --certificate sn-0008.pem
  cvm device add sn-0009 --claim
  cvm device add sn-0010 --trusted-user
  cvm device add sn-0011 --ca \\
      e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855

The fingerprint of a key, computed elsewhere:
  openssl pkey -in private.key -pubout -outform DER | sha256sum";

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Origin {
    /// The device makes it, and it never leaves the device
    Device,
    /// It is made by the service when the device asks, and handed out once
    Service,
}

pub(super) async fn run(
    arguments: AddArguments,
    registry: &impl DeviceRegistry,
    output: &Output,
) -> Result<(), CommandError> {
    let now = now();
    let Proof { attestation, made } =
        arguments.proof.proof(&arguments.id, now).map_err(|error| DeviceError::Add(error.into()))?;
    let token_out = arguments.proof.token_out.clone();
    let id = arguments.id.clone();
    let settings = arguments.settings(attestation).map_err(DeviceError::Add)?;
    // What no device can be is told before anything is written.
    let wanted = settings.clone().new_device(id, GenerationId::new(0), now);
    let wanted = wanted.map_err(|error| DeviceError::Add(error.into()))?;

    // The token is on the disk before a device depends on it.
    if let (Some(path), Some(token)) = (&token_out, &made) {
        file::create(path, &format!("{}\n", token.reveal())).map_err(|error| DeviceError::Add(error.into()))?;
    }
    let added = registry.add(&wanted.id, &settings).await;
    match (&added, &token_out) {
        (Err(error), Some(path)) if error.is_refusal() => {
            // Best effort: a token that no device has is worth nothing.
            let _ = std::fs::remove_file(path);
        }
        (Err(_), Some(path)) => output.note(format_args!(
            "{id} may be registered: `cvm device show {id}` shows it; its enrolment token stays in {path}",
            id = wanted.id,
            path = path.display()
        ))?,
        _ => {}
    }
    let device = added?;

    let printed = made.as_ref().filter(|_| token_out.is_none()).map(EnrolmentToken::reveal);
    output.json(&Added {
        device: DeviceView::from(&device),
        token: printed,
        token_file: token_out.as_ref().map(|path| path.display().to_string()),
    })?;
    let words = registry.vending_words();
    report(&wanted, &device, printed, token_out.as_deref(), &words, output)?;
    Ok(())
}

fn report(
    wanted: &Device,
    added: &DeviceDocument,
    token: Option<&str>,
    token_out: Option<&Path>,
    vending_words: &str,
    output: &Output,
) -> std::io::Result<()> {
    output.done(format_args!("{} is registered; it proves itself with {}", wanted.id, attestation(added)))?;
    if let Some(token) = token {
        output.say(format_args!("\nIts enrolment token, which is shown this once:\n\n  {token}"))?;
    }
    if let Some(path) = token_out {
        output.done(format_args!("its enrolment token is in {}, and nowhere else", path.display()))?;
    }
    output.say(format_args!("\nNext:\n  {}", next(wanted, token_out, vending_words)))
}

/// What is to be done with the device now.
fn next(device: &Device, token_out: Option<&Path>, vending_words: &str) -> String {
    let id = &device.id;
    let vend = format!("cvm vend {vending_words} --device {id}");
    match &device.attestation {
        Attestation::Token { .. } => {
            let file = token_out.map_or_else(|| "FILE".to_owned(), |path| shell_word(&path.display().to_string()));
            let service = if device.key_origin == KeyOrigin::Service { " --service-key" } else { "" };
            format!("{vend} --token-file {file}{service}")
        }
        Attestation::PublicKey { .. } => format!("{vend} --key FILE"),
        Attestation::Ca { .. } | Attestation::Certificate { .. } => {
            "connect the device to AWS IoT with its factory certificate; the first connection is closed,\n  \
             and the next one gets in a few seconds later"
                .to_owned()
        }
        Attestation::Claim { .. } => format!(
            "connect the device to AWS IoT with the claim certificate and the client id {id}, and have it\n  \
             ask for its own with the template parameter SerialNumber={id}"
        ),
        Attestation::Nothing => format!("cvm device delete {id}"),
        Attestation::TrustedUser { .. } => {
            format!("have a trusted user ask for a claim: POST /v1/claims with {{\"deviceId\": \"{id}\"}}")
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Added<'a> {
    #[serde(flatten)]
    device: DeviceView<'a>,
    token: Option<&'a str>,
    token_file: Option<String>,
}

impl AddArguments {
    /// What the operator sets.
    fn settings(self, attestation: Attestation) -> Result<Settings, AddError> {
        Ok(Settings {
            attestation: Some(attestation),
            key_origin: Some(match self.key_origin {
                Origin::Device => KeyOrigin::Device,
                Origin::Service => KeyOrigin::Service,
            }),
            template: Some(self.template),
            parameters: Some(by_name(self.parameters)?),
            settable_parameters: Some(self.settable.into_iter().collect()),
            group: Some(self.group),
            ..Settings::default()
        })
    }
}

/// Why a device was not registered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AddError {
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    #[error("device {id} is in the registry already")]
    Exists { id: DeviceId },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the device is not registered: {message}")]
    KeyInUse { message: String },
    #[error(transparent)]
    Proof(#[from] ProofError),
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
}

impl AddError {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Argument(_) | Self::Settings(_) => "usage",
            Self::Exists { .. } => "exists",
            Self::File(_) => "file",
            Self::KeyInUse { .. } => "key-in-use",
            Self::Proof(error) => error.code(),
        }
    }

    pub(super) fn advice(&self) -> String {
        match self {
            Self::Argument(_) => "see `cvm device add --help`".to_owned(),
            Self::Exists { id } => {
                format!("`cvm device show {id}` shows it, `cvm device delete {id}` makes room for another")
            }
            Self::File(error) => error.advice(),
            Self::KeyInUse { .. } => {
                "have the device make a key of its own; if it is the other device, delete that one first".to_owned()
            }
            Self::Proof(error) => error.advice(),
            Self::Settings(InvalidSettings::ServiceKey) => {
                "leave out either --key-origin service or the other proof".to_owned()
            }
            Self::Settings(_) => "see `cvm device add --help`".to_owned(),
        }
    }

    pub(super) fn is_usage(&self) -> bool {
        self.code() == "usage"
    }
}
