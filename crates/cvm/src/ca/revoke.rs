use std::path::PathBuf;

use clap::Args;
use cvm_provisioning::ReasonText;

use super::CaError;
use crate::certificate;
use crate::error::CommandError;
use crate::output::Output;
use crate::registry_api::ServerArguments;

/// Revoke a certificate of a server's CA that no device has, for good
///
/// For what the registry does not know: a certificate that was handed out after the backup that the server goes on with, or that
/// somebody else has made with the CA's key. The server's log names each that is shown to it. What a device has is revoked
/// with `cvm device revoke`. It takes a token with the role admin.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct RevokeArguments {
    /// The certificate, in PEM or DER
    certificate: PathBuf,
    /// Why, for whoever reads the server's log; up to 200 characters on one line
    #[arg(long, value_name = "TEXT")]
    reason: ReasonText,
    #[command(flatten)]
    server: ServerArguments,
}

const EXAMPLES: &str = "\
Examples:
  cvm ca revoke sn-0001.pem --reason 'made after the backup of Monday' \\
      --server https://cvm.example.com --operator-token-file admin.token
  cvm ca revoke shown.der --reason 'not one of ours'";

pub(super) async fn run(
    RevokeArguments { certificate, reason, server }: RevokeArguments,
    output: &Output,
) -> Result<(), CommandError> {
    let certificate = certificate::read(&certificate).map_err(CaError::from)?;
    let server = server.open(output).map_err(CaError::from)?.ok_or(CaError::NoServer)?;
    let revoked = server.revoke(&certificate, &reason).await.map_err(CaError::from)?;
    output.json(&revoked)?;
    output.done(format_args!("{} is revoked", revoked.certificate_id))?;
    output.note(format_args!("its number {} is in the server's lists within moments", revoked.serial_number))?;
    Ok(())
}
