use clap::Args;
use cvm_aws::{CertificateAuthorities, CertificateAuthority};
use cvm_provisioning::CertificateId;

use super::CaError;
use super::view::CaView;
use crate::error::CommandError;
use crate::output::Output;

/// Take no new certificates of a CA any more
///
/// Devices whose certificates are active stay connected: each certificate is deactivated on its own.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct DeactivateArguments {
    /// The CA's id: the SHA-256 of its certificate, as `cvm ca list` has it
    #[arg(value_name = "CA_ID")]
    id: CertificateId,
}

const EXAMPLES: &str = "\
Examples:
  cvm ca list
  cvm ca deactivate \\
      2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

pub(super) async fn run(
    DeactivateArguments { id }: &DeactivateArguments,
    authorities: &CertificateAuthorities,
    output: &Output,
) -> Result<(), CommandError> {
    let found = authorities.find(id).await.map_err(CaError::from)?.ok_or(CaError::NotFound { id: *id })?;
    let is_off = !found.is_active && !found.auto_registration;
    if !is_off {
        authorities.deactivate(id).await.map_err(CaError::from)?;
    }
    let authority = CertificateAuthority { is_active: false, auto_registration: false, ..found };
    output.json(&CaView::from(&authority))?;
    if is_off {
        output.done(format_args!("the CA {id} was inactive already"))?;
    } else {
        output.done(format_args!("the CA {id} is inactive: no new certificate of it is taken"))?;
    }
    output.note(format_args!(
        "its device certificates that are active stay so; \
         `aws iot list-certificates-by-ca --ca-certificate-id {id}` lists them"
    ))?;
    Ok(())
}
