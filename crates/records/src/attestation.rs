//! An attestation, field by field: among those of a device, and of a module.

use std::error::Error;

use cvm_provisioning::{Attestation, CertificateId, KeyFingerprint, Timestamp, TokenDigest, TrustedUserClaim};
use serde::{Deserialize, Serialize};

/// The value of `attestation` for [`Attestation::Token`].
pub const TOKEN: &str = "token";
/// The value of `attestation` for [`Attestation::PublicKey`].
pub const PUBLIC_KEY: &str = "publicKey";
/// The value of `attestation` for [`Attestation::Certificate`].
pub const CERTIFICATE: &str = "certificate";
/// The value of `attestation` for [`Attestation::Ca`].
pub const CA: &str = "ca";
const CLAIM: &str = "claim";
const TRUSTED_USER: &str = "trustedUser";
const NOTHING: &str = "nothing";

/// The fields; in the record of a device they stand among the others.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AttestationRecord {
    pub(crate) attestation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_digest: Option<TokenDigest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) second_token_digest: Option<TokenDigest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) public_key: Option<KeyFingerprint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attested_by: Option<CertificateId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) also_attested_by: Option<CertificateId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vouched_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vouched_until: Option<Timestamp>,
}

impl From<&Attestation> for AttestationRecord {
    fn from(attestation: &Attestation) -> Self {
        let of = |kind: &str| Self { attestation: kind.to_owned(), ..Self::default() };
        match attestation {
            Attestation::Token { digest, second, expires_at } => Self {
                token_digest: Some(*digest),
                second_token_digest: *second,
                token_expires_at: *expires_at,
                ..of(TOKEN)
            },
            Attestation::PublicKey { key } => Self { public_key: Some(*key), ..of(PUBLIC_KEY) },
            Attestation::Certificate { id, second } => {
                Self { attested_by: Some(*id), also_attested_by: *second, ..of(CERTIFICATE) }
            }
            Attestation::Ca { id } => Self { attested_by: *id, ..of(CA) },
            Attestation::Claim { certificate } => Self { attested_by: *certificate, ..of(CLAIM) },
            Attestation::TrustedUser { claim } => Self {
                attested_by: claim.as_ref().map(|claim| claim.certificate),
                vouched_by: claim.as_ref().map(|claim| claim.user.to_string()),
                vouched_until: claim.as_ref().map(|claim| claim.expires_at),
                ..of(TRUSTED_USER)
            },
            Attestation::Nothing => of(NOTHING),
        }
    }
}

impl TryFrom<AttestationRecord> for Attestation {
    type Error = Box<dyn Error + Send + Sync>;

    fn try_from(item: AttestationRecord) -> Result<Self, Self::Error> {
        let claim = match (item.attested_by, item.vouched_by, item.vouched_until) {
            (Some(certificate), Some(user), Some(expires_at)) => {
                Some(TrustedUserClaim { certificate, user: user.parse()?, expires_at })
            }
            _ => None,
        };
        Ok(match (item.attestation.as_str(), item.token_digest, item.public_key, item.attested_by) {
            (TOKEN, Some(digest), ..) => {
                Self::Token { digest, second: item.second_token_digest, expires_at: item.token_expires_at }
            }
            (PUBLIC_KEY, _, Some(key), _) => Self::PublicKey { key },
            (CERTIFICATE, .., Some(id)) => Self::Certificate { id, second: item.also_attested_by },
            (CA, .., id) => Self::Ca { id },
            (CLAIM, .., certificate) => Self::Claim { certificate },
            (TRUSTED_USER, ..) => Self::TrustedUser { claim },
            (NOTHING, ..) => Self::Nothing,
            _ => return Err("attestation is none that this version knows, or lacks what belongs to it".into()),
        })
    }
}
