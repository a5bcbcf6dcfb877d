use clap::Args;
use cvm_aws::AwsIot;
use cvm_provisioning::{CertificateId, Claim, ClaimStore, ReasonText, Status};
use serde::Serialize;

use super::name::ClaimName;
use super::view::ClaimView;
use super::{ClaimError, change};
use crate::error::CommandError;
use crate::output::Output;
use crate::registry::now;

/// End a claim
///
/// The registry comes first: from then on nothing is claimed with the certificate. Then AWS IoT deactivates and revokes
/// it, so that it does not even connect. Devices that were provisioned with it keep their certificates. Once more is the
/// same as once.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct RevokeArguments {
    /// The claim: the id of its certificate, or the first digits of it
    #[arg(value_name = "ID")]
    claim: ClaimName,
    /// Why, for whoever asks later; up to 200 characters on one line
    #[arg(long, value_name = "TEXT", default_value = "no reason given")]
    reason: ReasonText,
    /// Leave the certificate on AWS IoT as it is, for want of the rights
    #[arg(long)]
    registry_only: bool,
}

const EXAMPLES: &str = "\
Examples:
  cvm claim revoke e3b0c44298fc --reason 'found in a firmware image'
  cvm claim revoke e3b0c44298fc --registry-only";

/// What became of the certificate on AWS IoT.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum OnAwsIot {
    Absent,
    Revoked,
    Untouched,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Revoked {
    #[serde(flatten)]
    claim: ClaimView,
    on_aws_iot: OnAwsIot,
}

pub(super) async fn run(
    arguments: &RevokeArguments,
    registry: &impl ClaimStore,
    iot: &AwsIot,
    output: &Output,
) -> Result<(), CommandError> {
    let id = arguments.claim.id(registry).await?;
    let claim = disable(registry, &id, &arguments.reason).await?;
    output.done(format_args!("claim {id} is revoked in the registry: nothing is claimed with it any more"))?;
    let on_aws_iot = if arguments.registry_only {
        OnAwsIot::Untouched
    } else {
        match iot.revoke(&id).await {
            Ok(true) => OnAwsIot::Revoked,
            Ok(false) => OnAwsIot::Absent,
            Err(error) => return Err(ClaimError::HalfRevoked { id, source: error.into() }.into()),
        }
    };
    output.json(&Revoked { claim: ClaimView::from(&claim), on_aws_iot })?;
    match on_aws_iot {
        OnAwsIot::Absent => output.note("AWS IoT does not list its certificate, as with those for trusted users")?,
        OnAwsIot::Revoked => output.done("its certificate is revoked on AWS IoT: it does not connect any more")?,
        OnAwsIot::Untouched => output.note(format_args!(
            "its certificate is on AWS IoT as it was, and may still connect; `cvm claim revoke {id}` ends that"
        ))?,
    }
    output.note("devices that were provisioned with it keep their certificates")?;
    output.say(format_args!("\nNext:\n  cvm claim report {id}"))?;
    Ok(())
}

/// Disables the claim. One that was disabled before stays so since then, and for the reason that it was.
async fn disable(registry: &impl ClaimStore, id: &CertificateId, reason: &ReasonText) -> Result<Claim, ClaimError> {
    change(registry, id, |found| {
        let claim = found.ok_or_else(|| ClaimError::NotFound { name: id.to_string() })?;
        let status = if claim.status.enabled { Status::disabled(Some(reason.clone()), now()) } else { claim.status };
        Ok(Claim { status, ..claim })
    })
    .await
}
