use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use cvm_provisioning::{
    Attestation, BadKey, Csr, CsrError, Device, DeviceId, DeviceStore, EnrolmentToken, GenerationId, InvalidParameter,
    KeyFingerprint, KeyOrigin, Parameters, PublicKey, TemplateName, Templates, Timestamp,
};
use serde::Serialize;

use super::view::{DeviceView, attestation};
use super::{DeviceError, now};
use crate::arguments::{ArgumentError, Assignment, TimeToLive, by_name};
use crate::error::CommandError;
use crate::file::{self, FileError};
use crate::output::{Output, shell_word};
use crate::token::{self, TokenError};

/// Put a device on the allowlist
///
/// Unless told otherwise, the device will prove itself with an enrolment token that is made here and printed this once:
/// the registry keeps its digest only.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct AddArguments {
    /// The device's serial number or registration id
    id: DeviceId,
    /// Take the enrolment token from this file, `-` for stdin, instead of making one
    #[arg(long, value_name = "FILE", group = "proof")]
    token_file: Option<PathBuf>,
    /// Write the enrolment token to this new file, with mode 0600, instead of printing it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["token_file", "public_key", "csr", "public_key_file"])]
    token_out: Option<PathBuf>,
    /// Let the enrolment token expire, after 90s, 15m, 12h, 7d, 2w ...
    #[arg(long, value_name = "TIME", conflicts_with_all = ["public_key", "csr", "public_key_file"])]
    token_ttl: Option<TimeToLive>,
    /// Let the device prove itself with the key of this fingerprint: SHA-256 of its SubjectPublicKeyInfo, in hex
    #[arg(long, value_name = "THUMBPRINT", group = "proof", alias = "public-key-thumbprint")]
    public_key: Option<KeyFingerprint>,
    /// The same, with the key of this certificate signing request, in PEM or DER
    #[arg(long, value_name = "FILE", group = "proof")]
    csr: Option<PathBuf>,
    /// The same, with this public key, in PEM or DER
    #[arg(long, value_name = "FILE", group = "proof")]
    public_key_file: Option<PathBuf>,
    /// Where the private key comes from: `service` for a device that cannot make one
    #[arg(long, value_name = "ORIGIN", value_enum, default_value_t = Origin::Device)]
    key_origin: Origin,
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

The fingerprint of a key, computed elsewhere:
  openssl pkey -in private.key -pubout -outform DER | sha256sum";

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Origin {
    /// The device makes it, and it never leaves the device
    Device,
    /// It is made by the service when the device asks, and handed out once
    Service,
}

/// What the new device proves itself with, and what is to be done with the secret of it.
struct Proof {
    attestation: Attestation,
    made: Option<EnrolmentToken>,
}

pub(super) async fn run(
    arguments: AddArguments,
    registry: &impl DeviceStore,
    output: &Output,
) -> Result<(), CommandError> {
    let now = now();
    let Proof { attestation, made } = proof(&arguments, now).map_err(DeviceError::Add)?;
    let token_out = arguments.token_out.clone();
    let device = device(arguments, attestation, now).map_err(DeviceError::Add)?;

    // The token is on the disk before a device depends on it.
    if let (Some(path), Some(token)) = (&token_out, &made) {
        file::create(path, &format!("{}\n", token.reveal())).map_err(|error| DeviceError::Add(error.into()))?;
    }
    if !registry.add(&device).await.map_err(DeviceError::Registry)? {
        if let Some(path) = &token_out {
            // Best effort: a token that no device has is worth nothing.
            let _ = std::fs::remove_file(path);
        }
        return Err(DeviceError::Add(AddError::Exists { id: device.id }).into());
    }

    let printed = made.as_ref().filter(|_| token_out.is_none()).map(EnrolmentToken::reveal);
    output.json(&Added {
        device: DeviceView::from(&device),
        token: printed,
        token_file: token_out.as_ref().map(|path| path.display().to_string()),
    })?;
    report(&device, printed, token_out.as_deref(), output)?;
    Ok(())
}

fn report(device: &Device, token: Option<&str>, token_out: Option<&Path>, output: &Output) -> std::io::Result<()> {
    output.done(format_args!(
        "{} is registered; it proves itself with {}",
        device.id,
        attestation(&device.attestation)
    ))?;
    let token_file = match (token, token_out, &device.attestation) {
        (Some(token), ..) => {
            output.say(format_args!("\nIts enrolment token, which is shown this once:\n\n  {token}"))?;
            " --token-file FILE".to_owned()
        }
        (None, Some(path), _) => {
            let path = path.display().to_string();
            output.done(format_args!("its enrolment token is in {path}, and nowhere else"))?;
            format!(" --token-file {}", shell_word(&path))
        }
        (None, None, Attestation::Token { .. }) => " --token-file FILE".to_owned(),
        (None, None, _) => " --key FILE".to_owned(),
    };
    let service = if device.key_origin == KeyOrigin::Service { " --service-key" } else { "" };
    output.say(format_args!("\nNext:\n  cvm vend --url URL --device {}{token_file}{service}", device.id))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Added<'a> {
    #[serde(flatten)]
    device: DeviceView,
    token: Option<&'a str>,
    token_file: Option<String>,
}

/// What the device will prove itself with, read or made.
fn proof(arguments: &AddArguments, now: Timestamp) -> Result<Proof, AddError> {
    let key = if let Some(key) = arguments.public_key {
        Some(key)
    } else if let Some(path) = &arguments.csr {
        Some(key_of_csr(path, &arguments.id)?)
    } else if let Some(path) = &arguments.public_key_file {
        Some(key_in(path)?)
    } else {
        None
    };
    if let Some(key) = key {
        if arguments.key_origin == Origin::Service {
            return Err(AddError::TwoKeys);
        }
        return Ok(Proof { attestation: Attestation::PublicKey { key }, made: None });
    }
    let brought = arguments.token_file.as_deref().map(token::read).transpose()?;
    let made = match brought {
        Some(_) => None,
        None => Some(EnrolmentToken::generate().map_err(|_| AddError::Randomness)?),
    };
    let Some(token) = brought.as_ref().or(made.as_ref()) else { return Err(AddError::Randomness) };
    let expires_at = arguments.token_ttl.map(|lifetime| now.after(lifetime.duration()));
    Ok(Proof { attestation: Attestation::Token { digest: token.digest(), expires_at }, made })
}

fn device(arguments: AddArguments, attestation: Attestation, now: Timestamp) -> Result<Device, AddError> {
    let parameters = by_name(arguments.parameters)?;
    let names = parameters.keys().chain(&arguments.settable);
    if names.clone().any(|name| Templates::ID_PARAMETERS.contains(&name.as_str())) {
        return Err(AddError::IdParameter);
    }
    // The template is the service's: what can be checked here are the bounds of names and values.
    Parameters::from_device(parameters.clone())?;
    Parameters::from_device(arguments.settable.iter().map(|name| (name.clone(), String::new())).collect())?;

    let generation = GenerationId::random().map_err(|_| AddError::Randomness)?;
    Ok(Device {
        key_origin: match arguments.key_origin {
            Origin::Device => KeyOrigin::Device,
            Origin::Service => KeyOrigin::Service,
        },
        template: arguments.template,
        parameters,
        settable_parameters: arguments.settable.into_iter().collect(),
        ..Device::new(arguments.id, generation, attestation, now)
    })
}

fn key_of_csr(path: &Path, id: &DeviceId) -> Result<KeyFingerprint, AddError> {
    let bytes = file::read(path, Csr::MAX_TEXT)?;
    let csr = match std::str::from_utf8(&bytes) {
        Ok(text) => Csr::parse(text),
        Err(_) => Csr::from_der(&bytes),
    };
    let csr = csr.map_err(|source| AddError::Csr { path: path.to_owned(), source })?;
    match csr.common_name() {
        Some(name) if name != id => Err(AddError::OtherDevice { path: path.to_owned(), found: name.clone() }),
        _ => Ok(*csr.key().fingerprint()),
    }
}

fn key_in(path: &Path) -> Result<KeyFingerprint, AddError> {
    let bytes = file::read(path, PublicKey::MAX_TEXT)?;
    let key = match std::str::from_utf8(&bytes) {
        Ok(text) => PublicKey::parse(text),
        Err(_) => PublicKey::from_spki(&bytes),
    };
    Ok(*key.map_err(|source| AddError::Key { path: path.to_owned(), source })?.fingerprint())
}

/// Why a device was not registered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AddError {
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    #[error("{path} holds no certificate signing request that can be used", path = path.display())]
    Csr { path: PathBuf, source: CsrError },
    #[error("device {id} is in the registry already")]
    Exists { id: DeviceId },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the parameters SerialNumber and DeviceId are the device's id, and nobody sets them")]
    IdParameter,
    #[error("{path} holds no public key that can be used", path = path.display())]
    Key { path: PathBuf, source: BadKey },
    #[error("the certificate signing request in {path} is of device {found}", path = path.display())]
    OtherDevice { path: PathBuf, found: DeviceId },
    #[error("a parameter cannot be used")]
    Parameter(#[from] InvalidParameter),
    #[error("the system has no randomness to give")]
    Randomness,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("a device that proves itself with its own key cannot have its key made by the service")]
    TwoKeys,
}

impl AddError {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Argument(_) | Self::IdParameter | Self::Parameter(_) | Self::TwoKeys => "usage",
            Self::Csr { .. } | Self::OtherDevice { .. } => "csr",
            Self::Exists { .. } => "exists",
            Self::File(_) => "file",
            Self::Key { .. } => "public-key",
            Self::Randomness => "randomness",
            Self::Token(_) => "token",
        }
    }

    pub(super) fn advice(&self) -> String {
        match self {
            Self::Argument(_) | Self::IdParameter | Self::Parameter(_) => "see `cvm device add --help`".to_owned(),
            Self::Csr { .. } | Self::Key { .. } => {
                "have the device make a P-256 key, and its request with its id as the common name".to_owned()
            }
            Self::Exists { id } => {
                format!("`cvm device show {id}` shows it, `cvm device delete {id}` makes room for another")
            }
            Self::File(error) => error.advice(),
            Self::OtherDevice { found, .. } => format!("check the file, or run `cvm device add {found}` with it"),
            Self::Randomness => "run this again".to_owned(),
            Self::Token(error) => error.advice(),
            Self::TwoKeys => "leave out either --key-origin service or the public key".to_owned(),
        }
    }

    pub(super) fn is_usage(&self) -> bool {
        self.code() == "usage"
    }
}
