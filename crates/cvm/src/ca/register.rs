use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use cvm_authority::{Authority, SubjectText};
use cvm_aws::{CertificateAuthorities, CertificateAuthority, JustInTimeProvisioning, Registration};
use cvm_provisioning::TemplateName;
use serde::Serialize;

use super::authority;
use super::view::CaView;
use super::{CaError, now};
use crate::ca_key::CaKey;
use crate::error::CommandError;
use crate::output::Output;

/// Register a CA with AWS IoT, so that devices with its certificates register themselves at their first connect
///
/// What becomes of such a certificate is decided by the function that the stack has for it (just-in-time registration),
/// or with --jitp by a provisioning template that AWS IoT runs itself. A CA that is registered already is made what is
/// asked for here, so the command can be run again.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct RegisterArguments {
    /// The CA's certificate in PEM
    #[arg(long, value_name = "FILE")]
    ca_cert: PathBuf,
    /// The CA's private key in PEM, `-` for stdin, or kms:KEY in AWS KMS; AWS IoT never sees it
    #[arg(long, value_name = "FILE")]
    ca_key: PathBuf,
    /// Have AWS IoT run this provisioning template, of type JITP, for each new device
    #[arg(long, value_name = "TEMPLATE_NAME", requires = "role_arn")]
    jitp: Option<TemplateName>,
    /// The role with which AWS IoT runs it
    #[arg(long, value_name = "ARN", requires = "jitp")]
    role_arn: Option<RoleArn>,
    /// Register it, but take no certificates of it yet
    #[arg(long)]
    inactive: bool,
}

const EXAMPLES: &str = "\
Examples:
  cvm ca register --ca-cert factory-1/ca.pem --ca-key factory-1/ca.key
  cvm ca register --ca-cert ca.pem --ca-key ca.key --jitp fleet \\
      --role-arn arn:aws:iam::123456789012:role/jitp
  cvm ca register --ca-cert ca.pem --ca-key kms:alias/devices
  cvm ca register --ca-cert ca.pem --ca-key ca.key --inactive";

pub(super) async fn run(
    arguments: RegisterArguments,
    authorities: &CertificateAuthorities,
    output: &Output,
) -> Result<(), CommandError> {
    let authority = authority::open(&arguments.ca_cert, &arguments.ca_key, now()).await.map_err(CaError::from)?;
    let provisioning = arguments.jitp.zip(arguments.role_arn);
    let registration = Registration {
        is_active: !arguments.inactive,
        provisioning: provisioning
            .map(|(template, role)| JustInTimeProvisioning { template: Some(template), role_arn: role.0 }),
    };
    let change = Box::pin(register(&authority, authorities, &registration)).await?;

    let certificate = authority.certificate();
    let view = CaView::from(&CertificateAuthority {
        id: *certificate.id(),
        is_active: registration.is_active,
        auto_registration: true,
        provisioning: registration.provisioning,
        not_before: Some(certificate.not_before().into()),
        not_after: Some(certificate.not_after().into()),
        pem: Some(certificate.pem().to_owned()),
    });
    output.json(&Registered { ca: &view, change })?;
    output.done(format_args!("the CA {} {change}", certificate.id()))?;
    match (&view.template, registration.is_active) {
        (_, false) => output.note("it is inactive: run this again without --inactive to take its certificates"),
        (Some(template), true) => output.done(format_args!("AWS IoT runs the template {template} for each new device")),
        (None, true) => output.done("a device that connects with one of its certificates registers itself"),
    }?;
    output.say(format_args!(
        "\nNext:\n  cvm ca issue --ca-cert {} --ca-key {} --device ID --out devices",
        crate::output::shell_word(&arguments.ca_cert.to_string_lossy()),
        crate::output::shell_word(&arguments.ca_key.to_string_lossy()),
    ))?;
    Ok(())
}

/// Has AWS IoT take the CA, or makes the one it has what it is to be.
async fn register(
    authority: &Authority<CaKey>,
    authorities: &CertificateAuthorities,
    registration: &Registration,
) -> Result<Change, CaError> {
    let certificate = authority.certificate();
    let mut found = authorities.find(certificate.id()).await?;
    if found.is_none() {
        let code: RegistrationCode = authorities.registration_code().await?.parse()?;
        let verification = authority.prove_possession(&code.0, now()).await?;
        if authorities.register(certificate, verification.pem(), registration).await? {
            return Ok(Change::Registered);
        }
        // Somebody else was faster.
        found = authorities.find(certificate.id()).await?;
    }
    let found = found.ok_or(CaError::Vanished)?;
    Ok(if authorities.update(&found, registration).await? { Change::Updated } else { Change::None })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Registered<'a> {
    #[serde(flatten)]
    ca: &'a CaView,
    change: Change,
}

/// What had to be done.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Change {
    None,
    Registered,
    Updated,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "was registered already, as asked",
            Self::Registered => "is registered with AWS IoT",
            Self::Updated => "was registered already, and is now as asked",
        })
    }
}

/// The name of an IAM role: `arn:<partition>:iam::<account>:role/<path and name>`, at most 2,048 characters (AWS IoT
/// API reference, RegistrationConfig).
#[derive(Clone, Debug)]
struct RoleArn(String);

impl FromStr for RoleArn {
    type Err = InvalidRoleArn;

    fn from_str(text: &str) -> Result<Self, InvalidRoleArn> {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let ["arn", partition, "iam", "", account, role] = parts[..] else { return Err(InvalidRoleArn) };
        let is_role = role.strip_prefix("role/").is_some_and(|name| !name.is_empty());
        let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        if text.len() > 2048 || !partition.starts_with("aws") || !is_account || !is_role {
            return Err(InvalidRoleArn);
        }
        Ok(Self(text.to_owned()))
    }
}

/// A text is no [`RoleArn`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected a role's ARN, such as arn:aws:iam::123456789012:role/jitp")]
struct InvalidRoleArn;

/// The code that AWS IoT wants to see certified: `(0x)?[a-fA-F0-9]+`, at most 64 characters (AWS IoT API reference,
/// GetRegistrationCode).
#[derive(Debug)]
struct RegistrationCode(SubjectText);

impl FromStr for RegistrationCode {
    type Err = CaError;

    fn from_str(text: &str) -> Result<Self, CaError> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(CaError::RegistrationCode);
        }
        text.parse().map(Self).map_err(|_| CaError::RegistrationCode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_named_by_its_arn() {
        for good in ["arn:aws:iam::123456789012:role/jitp", "arn:aws-cn:iam::123456789012:role/service-role/jitp"] {
            assert_eq!(good.parse::<RoleArn>().unwrap().0, good);
        }
        for bad in [
            "",
            "jitp",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::123456789012:user/jitp",
            "arn:aws:iam::1:role/jitp",
            "arn:aws:s3:::bucket",
        ] {
            assert_eq!(bad.parse::<RoleArn>().unwrap_err(), InvalidRoleArn, "{bad}");
        }
    }

    #[test]
    fn what_is_certified_for_aws_iot_is_a_code_and_no_device() {
        assert!("a".repeat(64).parse::<RegistrationCode>().is_ok());
        assert!("0xAb12".parse::<RegistrationCode>().is_ok());
        for bad in ["", "0x", "sn-0001", "CN=a", &"a".repeat(65)] {
            assert!(matches!(bad.parse::<RegistrationCode>(), Err(CaError::RegistrationCode)), "{bad}");
        }
    }
}
