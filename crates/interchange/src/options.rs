//! How the file of an import is read, and what its lines do not say.

use std::str::FromStr;

use cvm_provisioning::{Attestation, CertificateId, EnrolmentToken, GroupName, ImportMode, TemplateName};
use serde::{Deserialize, Serialize};

use crate::{ColumnMapping, ImportLine};

/// What is said for all lines that do not say it themselves.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Defaults {
    /// What is to be done; `None` is what the format says.
    pub mode: Option<ImportMode>,
    /// The group.
    pub group: Option<GroupName>,
    /// The provisioning template.
    pub template: Option<TemplateName>,
    /// How a new device proves itself.
    pub proof: DefaultProof,
}

/// How a new device proves itself whose line does not say so: `token`, `claim`, `trusted-user` or `ca=` and its id.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(into = "String", try_from = "String")]
pub enum DefaultProof {
    /// With a factory certificate of this CA.
    Ca(CertificateId),
    /// With any claim certificate that the registry knows.
    Claim,
    /// With an enrolment token that is made for it.
    #[default]
    Token,
    /// By the word of a trusted user.
    TrustedUser,
}

impl FromStr for DefaultProof {
    type Err = InvalidDefaultProof;

    fn from_str(text: &str) -> Result<Self, InvalidDefaultProof> {
        match text {
            "claim" => Ok(Self::Claim),
            "token" => Ok(Self::Token),
            "trusted-user" => Ok(Self::TrustedUser),
            _ => match text.strip_prefix("ca=").map(str::parse) {
                Some(Ok(id)) => Ok(Self::Ca(id)),
                _ => Err(InvalidDefaultProof),
            },
        }
    }
}

impl TryFrom<String> for DefaultProof {
    type Error = InvalidDefaultProof;

    fn try_from(text: String) -> Result<Self, InvalidDefaultProof> {
        text.parse()
    }
}

impl From<DefaultProof> for String {
    fn from(proof: DefaultProof) -> Self {
        match proof {
            DefaultProof::Ca(id) => format!("ca={id}"),
            DefaultProof::Claim => "claim".to_owned(),
            DefaultProof::Token => "token".to_owned(),
            DefaultProof::TrustedUser => "trusted-user".to_owned(),
        }
    }
}

/// A text is no [`DefaultProof`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the proof is token, claim, trusted-user, or ca= and the id of a CA, 64 hexadecimal digits")]
pub struct InvalidDefaultProof;

/// How a file is to be read.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Options {
    /// What lines do not say.
    #[serde(flatten)]
    pub defaults: Defaults,
    /// Columns of other names.
    pub columns: Vec<ColumnMapping>,
    /// Whether columns that nothing is known of are passed over.
    pub ignore_unknown_columns: bool,
    /// Whether devices are to be put back as they were exported.
    pub restore: bool,
}

impl Defaults {
    /// Adds what the line does not say. A device that is there keeps the proof that it has.
    pub(crate) fn complete(&self, line: &mut ImportLine) -> Result<(), ()> {
        let ImportLine { entry, keys, proof_if_new, .. } = line;
        let creates = match entry.mode {
            ImportMode::Create | ImportMode::CreateOrUpdate | ImportMode::CreateOrUpdateIfMatchETag => true,
            ImportMode::Update | ImportMode::UpdateIfMatchETag => false,
            ImportMode::Delete | ImportMode::DeleteIfMatchETag => return Ok(()),
        };
        if entry.module.is_some() {
            return Ok(());
        }
        entry.settings.group = entry.settings.group.take().or_else(|| self.group.clone().map(Some));
        entry.settings.template = entry.settings.template.take().or_else(|| self.template.clone().map(Some));
        *proof_if_new = keys.primary.is_some();
        if creates && entry.settings.attestation.is_none() {
            *proof_if_new = true;
            entry.settings.attestation = Some(match self.proof {
                DefaultProof::Ca(id) => Attestation::Ca { id: Some(id) },
                DefaultProof::Claim => Attestation::Claim { certificate: None },
                DefaultProof::TrustedUser => Attestation::TrustedUser { claim: None },
                DefaultProof::Token => {
                    let token = EnrolmentToken::generate().map_err(|_| ())?;
                    let attestation = Attestation::Token { digest: token.digest(), second: None, expires_at: None };
                    keys.primary = Some(token);
                    attestation
                }
            });
        }
        Ok(())
    }
}
