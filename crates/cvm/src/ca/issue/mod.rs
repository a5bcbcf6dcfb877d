//! `cvm ca issue`: device certificates from a CA that is at hand.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use cvm_authority::{Authority, Profile, SubjectText};
use cvm_provisioning::{Certificate, Csr, DeviceId, DeviceKey, Timestamp};
use serde::Serialize;

mod error;
mod folder;
mod manifest;

pub(crate) use error::IssueError;

use self::folder::Folders;
use self::manifest::{Entry, Manifest};
use super::authority::{self, days};
use super::{CaError, now};
use crate::ca_key::CaKey;
use crate::device_list::{Devices, Listed};
use crate::error::CommandError;
use crate::file;
use crate::output::{Output, count, shell_word};
use crate::pem;
use crate::progress::{Progress, Spell, Standing};

/// Issue device certificates, in the factory or for a test
///
/// Each device gets DIR/ID/device.key and DIR/ID/device.pem, its certificate with the CA's behind it; both have mode
/// 0600. A folder is there whole or not at all: a run that was interrupted goes on where it was, and a device that has
/// its folder keeps it. With `--output json` each device is one line of JSON (NDJSON).
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct IssueArguments {
    /// The CA's certificate in PEM
    #[arg(long, value_name = "FILE")]
    ca_cert: PathBuf,
    /// The CA's private key in PEM, `-` for stdin, or kms:KEY in AWS KMS
    #[arg(long, value_name = "FILE")]
    ca_key: PathBuf,
    /// The device's id, which becomes the common name; up to 64 characters
    #[arg(long, value_name = "ID", required_unless_present = "devices")]
    device: Option<DeviceId>,
    /// A file with a device id on each line, `-` for stdin; it is read as it is needed, so it may be of any length
    #[arg(long, value_name = "FILE", conflicts_with = "device")]
    devices: Option<PathBuf>,
    /// Certify the key of this signing request instead of one made here; all else in it is ignored
    #[arg(long, value_name = "FILE", requires = "device", conflicts_with = "devices")]
    csr: Option<PathBuf>,
    /// Where the folders of the devices go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How long a certificate is valid; it never outlives its CA
    #[arg(long, value_name = "N", default_value_t = 3650, value_parser = clap::value_parser!(u16).range(1..=36_500))]
    days: u16,
    /// Write a line of JSON for each device of the list to this file, for the allowlist
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  cvm ca issue --ca-cert ca.pem --ca-key ca.key \\
      --device sn-0001 --out devices
  cvm ca issue --ca-cert ca.pem --ca-key ca.key \\
      --device sn-0002 --csr sn-0002.csr --out devices --days 365
  seq -f sn-%04g 1 500 | cvm ca issue --ca-cert ca.pem --ca-key ca.key \\
      --devices - --out devices --manifest devices.jsonl
  cvm ca issue --ca-cert ca.pem --ca-key ca.key \\
      --devices serials.txt --out devices --manifest devices.jsonl";

pub(super) async fn run(arguments: &IssueArguments, output: &Output) -> Result<(), CommandError> {
    Ok(issue(arguments, output).await?)
}

async fn issue(arguments: &IssueArguments, output: &Output) -> Result<(), CaError> {
    let stdin = Path::new("-");
    if arguments.ca_key == stdin && arguments.devices.as_deref() == Some(stdin) {
        return Err(IssueError::TwiceStdin.into());
    }
    let authority = authority::open(&arguments.ca_cert, &arguments.ca_key, now()).await?;
    let profile = Profile::new(days(arguments.days)).at_least(Duration::ZERO);
    let csr = arguments.csr.as_deref().zip(arguments.device.as_ref()).map(|(path, id)| csr_of(path, id)).transpose()?;
    let mut devices = match (&arguments.device, &arguments.devices) {
        (_, Some(path)) => Devices::open(path)?,
        (Some(id), None) => Devices::one(id),
        (None, None) => return Err(IssueError::NoDevice.into()),
    };
    let mut issuer = Issuer {
        authority,
        profile,
        csr,
        folders: Folders::open(&arguments.out).map_err(IssueError::from)?,
        manifest: arguments.manifest.as_deref().map(Manifest::begin).transpose()?,
        is_list: arguments.devices.is_some(),
        tally: Tally::default(),
    };
    let end = Timestamp::from(issuer.authority.certificate().not_after());
    if end < now().after(days(arguments.days)) {
        output.note(format_args!("the certificates end with their CA, at {end}")).map_err(CaError::output)?;
    }

    let mut progress = Progress::start(output);
    while let Some(listed) = devices.next() {
        let listed = listed.map_err(IssueError::from)?;
        issuer.issue(&listed, output).await?;
        let standing = Standing { done: issuer.tally.total(), part: devices.part() };
        progress.tell(standing).map_err(CaError::output)?;
    }
    let elapsed = progress.finish();
    issuer.folders.sync().map_err(IssueError::from)?;
    if let Some(manifest) = issuer.manifest {
        manifest.finish()?;
    }
    report(arguments, issuer.tally, Spell(elapsed), output).map_err(CaError::output)
}

/// A CA at work.
struct Issuer {
    authority: Authority<CaKey>,
    profile: Profile,
    csr: Option<Csr>,
    folders: Folders,
    manifest: Option<Manifest>,
    is_list: bool,
    tally: Tally,
}

/// What was done with how many devices.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    issued: u64,
    there: u64,
}

impl Tally {
    fn total(self) -> u64 {
        self.issued + self.there
    }
}

impl Issuer {
    /// Gives a device its folder, if it has none.
    async fn issue(&mut self, Listed { id, line }: &Listed, output: &Output) -> Result<(), CaError> {
        if id.as_str().len() > SubjectText::MAX_LENGTH {
            return Err(IssueError::LongId { line: self.is_list.then_some(*line) }.into());
        }
        let found = self.find(id, now())?;
        let is_new = found.is_none();
        let certificate = match found {
            Some(certificate) => certificate,
            None => self.certify(id).await?,
        };
        let entry = Entry::new(id, &certificate);
        if let Some(manifest) = &mut self.manifest {
            manifest.add(&entry)?;
        }
        *(if is_new { &mut self.tally.issued } else { &mut self.tally.there }) += 1;
        let folder = self.folders.of(id).display().to_string();
        output.json_line(&Issued { entry: &entry, folder, is_new }).map_err(CaError::output)
    }

    fn find(&self, id: &DeviceId, now: Timestamp) -> Result<Option<Certificate>, IssueError> {
        let found = self.folders.find(id, self.authority.certificate(), self.csr.is_none(), now)?;
        match (&found, &self.csr) {
            (Some(certificate), Some(csr)) if certificate.key() != csr.key().fingerprint() => {
                Err(IssueError::OtherKeyThere { path: self.folders.of(id) })
            }
            _ => Ok(found),
        }
    }

    async fn certify(&self, id: &DeviceId) -> Result<Certificate, CaError> {
        let made = match &self.csr {
            Some(_) => None,
            None => Some(DeviceKey::generate(id).map_err(IssueError::from)?),
        };
        let (key, csr) = made.as_ref().map(|(key, csr)| (key, csr)).unzip();
        let Some(csr) = csr.or(self.csr.as_ref()) else { return Err(IssueError::NoDevice.into()) };
        let issued = self.authority.issue(&self.profile, id, csr.key(), now()).await?;
        let certificate = issued.certificate();
        self.folders.create(id, key, certificate, self.authority.certificate()).map_err(IssueError::from)?;
        Ok(certificate.clone())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Issued<'a> {
    #[serde(flatten)]
    entry: &'a Entry<'a>,
    folder: String,
    is_new: bool,
}

/// The request of this device, or of one that does not say its name.
fn csr_of(path: &Path, id: &DeviceId) -> Result<Csr, CaError> {
    let bytes = file::read(path, Csr::MAX_TEXT)?;
    let csr = match str::from_utf8(&bytes) {
        Ok(text) => Csr::parse(pem::only_block(text, &Csr::LABELS)),
        Err(_) => Csr::from_der(&bytes),
    };
    let csr = csr.map_err(|source| IssueError::Csr { path: path.to_owned(), source })?;
    match csr.common_name() {
        Some(name) if name != id => Err(IssueError::OtherDevice { path: path.to_owned(), found: name.clone() }.into()),
        _ => Ok(csr),
    }
}

fn report(arguments: &IssueArguments, tally: Tally, elapsed: Spell, output: &Output) -> std::io::Result<()> {
    let Tally { issued, there } = tally;
    let out = arguments.out.display();
    match &arguments.device {
        Some(id) if there == 1 => output.done(format_args!("{id} has its certificate already, in {out}"))?,
        Some(id) => output.done(format_args!("issued the certificate of {id}, in {out}"))?,
        None => {
            let issued = count(issued, "certificate");
            output.done(format_args!("issued {issued} in {elapsed}; already there: {there}"))?;
        }
    }
    if let Some(manifest) = &arguments.manifest {
        output.done(format_args!("wrote {} to {}", count(tally.total(), "line"), manifest.display()))?;
    }
    let Some(id) = &arguments.device else { return Ok(()) };
    output.say(format_args!(
        "\nNext:\n  openssl verify -purpose sslclient -CAfile {} \\\n      {}",
        shell_word(&arguments.ca_cert.to_string_lossy()),
        shell_word(&arguments.out.join(id.as_str()).join("device.pem").to_string_lossy()),
    ))
}
