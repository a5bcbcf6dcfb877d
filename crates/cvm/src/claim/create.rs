use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use cvm_aws::AwsIot;
use cvm_provisioning::{
    CertificateId, Certificates, Claim, ClaimStore, Csr, InvalidName, IssuedCertificate, Platform, PolicyName, Standing,
};
use serde::Serialize;

use super::folder::Folder;
use super::terms::TermsArguments;
use super::view::{ClaimView, terms};
use super::{ClaimError, change};
use crate::aws::AwsError;
use crate::error::CommandError;
use crate::file::FileError;
use crate::output::{Output, shell_word};
use crate::registry::now;

/// Have a claim certificate made for a key that is made here, and register it
///
/// It is let in last: before that it has its policy, and the registry knows it. If something fails on the way, run the
/// same command again: it goes on with what is in DIR.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct CreateArguments {
    /// The AWS IoT policy of claims, output ClaimPolicyName of the stack: it must let them ask for certificates only
    #[arg(long, value_name = "NAME", value_parser = policy_name)]
    policy: PolicyName,
    /// Where the files go: claim.key and claim.pem, with mode 0600
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    terms: TermsArguments,
}

const EXAMPLES: &str = "\
Examples:
  cvm claim create --policy cvm-claim --out claim
  cvm claim create --policy cvm-claim --out batch-7 --quota 500 --expires 12w";

fn policy_name(text: &str) -> Result<PolicyName, InvalidName> {
    text.to_owned().try_into()
}

pub(super) async fn run(
    arguments: &CreateArguments,
    registry: &impl ClaimStore,
    iot: &AwsIot,
    output: &Output,
) -> Result<(), CommandError> {
    let folder = Folder::open(&arguments.out).map_err(ClaimError::from)?;
    let request = folder.request().map_err(ClaimError::from)?;
    output.done(format_args!("the claim's key is in {}", folder.key().display()))?;
    let issued = certificate(&folder, &request, iot).await.map_err(ClaimError::from)?;
    let id = *issued.certificate.id();
    output.done(format_args!("certificate {id} is made, and not let in yet"))?;

    let claim = take_into_use(arguments, &issued, registry, iot).await?;
    folder
        .finish()
        .map_err(|error| CreateError::Unfinished { id, is_active: true, source: error.into() })
        .map_err(ClaimError::from)?;
    report(&claim, &issued, &folder, output)?;
    Ok(())
}

/// The certificate that an earlier run left, or a new one. It is on the disk when this returns, and not active.
async fn certificate(folder: &Folder, request: &Csr, iot: &AwsIot) -> Result<IssuedCertificate, CreateError> {
    let failed = |error| CreateError::NoCertificate { source: AwsError::from(error) };
    if let Some(id) = folder.left(request)? {
        match iot.describe(&id).await.map_err(failed)? {
            Some(there) if there.standing == Standing::Revoked => return Err(CreateError::Revoked { id }),
            Some(there) => return Ok(there.issued),
            None => {}
        }
    }
    let issued = iot.issue_inactive(request).await.map_err(failed)?;
    folder.keep(&issued.certificate)?;
    Ok(issued)
}

/// Gives the certificate its policy, makes the registry know it and has it let in, in this order: nothing that is let
/// in is unknown.
async fn take_into_use(
    arguments: &CreateArguments,
    issued: &IssuedCertificate,
    registry: &impl ClaimStore,
    iot: &AwsIot,
) -> Result<Claim, ClaimError> {
    let id = *issued.certificate.id();
    let failed = |error: AwsError, is_active| CreateError::Unfinished { id, is_active, source: error.into() };
    let attached = iot.attach_policy(&arguments.policy, &issued.name).await;
    attached.map_err(|error| failed(error.into(), false))?;

    let registered = change(registry, &id, |found| {
        let claim = found.unwrap_or_else(|| Claim::new(id, now()));
        if !claim.status.enabled {
            return Err(CreateError::Revoked { id }.into());
        }
        Ok(arguments.terms.revise(claim, now()))
    });
    let claim = registered.await.map_err(|error| match error {
        ClaimError::Create(error) => error,
        other => CreateError::Unfinished { id, is_active: false, source: other.into() },
    })?;

    if let Err(error) = iot.set_standing(&id, Standing::Active).await {
        // The call may have done it, and its answer been lost.
        let is_active = iot.set_standing(&id, Standing::Inactive).await.is_err();
        return Err(failed(error.into(), is_active).into());
    }
    Ok(claim)
}

fn report(claim: &Claim, issued: &IssuedCertificate, folder: &Folder, output: &Output) -> std::io::Result<()> {
    let id = claim.certificate;
    let (key, certificate) = (folder.key().display().to_string(), folder.certificate().display().to_string());
    output.json(&Created {
        claim: ClaimView::from(claim),
        certificate_arn: &issued.name,
        files: Files { private_key: &key, certificate: &certificate },
    })?;
    output.done(format_args!("claim {id} is registered, {}", terms(claim)))?;
    output.done(format_args!("certificate {id} is let in: {certificate}"))?;
    output.say(format_args!(
        "\nNext:\n  put {} and {} into the devices\n  cvm device add ID --claim {id}",
        shell_word(&key),
        shell_word(&certificate)
    ))
}

/// What was made and where it is. The private key is in its file and nowhere else.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Created<'a> {
    #[serde(flatten)]
    claim: ClaimView,
    certificate_arn: &'a str,
    files: Files<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Files<'a> {
    private_key: &'a str,
    certificate: &'a str,
}

/// Why a claim certificate was not made, or is not in use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CreateError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path} holds no key that can be used", path = path.display())]
    Key { path: PathBuf, source: Box<dyn Error + Send + Sync> },
    #[error("no claim certificate was made")]
    NoCertificate { source: AwsError },
    #[error("{path} is no certificate for the key beside it", path = path.display())]
    Other { path: PathBuf },
    #[error("the claim {id} was revoked before it was in use")]
    Revoked { id: CertificateId },
    #[error("the claim certificate {id} is made, and is not ready for use")]
    Unfinished { id: CertificateId, is_active: bool, source: Box<dyn Error + Send + Sync> },
}

impl CreateError {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Key { .. } => "key",
            Self::NoCertificate { source } => source.code(),
            Self::Other { .. } => "other-certificate",
            Self::Revoked { .. } => "revoked",
            Self::Unfinished { .. } => "unfinished",
        }
    }

    pub(super) fn advice(&self) -> String {
        match self {
            Self::File(error @ FileError::Exists { .. }) => {
                format!("there is a claim in use; {}", error.advice())
            }
            Self::File(error) => error.advice(),
            Self::Key { .. } | Self::Other { .. } | Self::Revoked { .. } => {
                "give another --out: what is in this folder leads to no claim".to_owned()
            }
            Self::NoCertificate { source } => {
                format!("{}; only the key is left, and the same command again goes on with it", source.advice())
            }
            Self::Unfinished { id, is_active, .. } => format!(
                "run the same command again, which goes on with it; it is {}, and to give it up: \
                 `cvm claim revoke {id}`, `aws iot delete-certificate --force-delete --certificate-id {id}`",
                if *is_active { "registered, and may be active" } else { "not active" }
            ),
        }
    }
}
