//! A claim.

use std::error::Error;

use cvm_provisioning::{CertificateId, Claim, DeviceId, MadeOut, ReasonText, Timestamp};
use serde::{Deserialize, Serialize};

use crate::status::status;

/// A claim, field by field.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRecord {
    claim_certificate: CertificateId,
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_reason: Option<ReasonText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<u64>,
    #[serde(default)]
    used: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    made_out_to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    made_out_for: Option<DeviceId>,
    created_at: Timestamp,
}

impl From<&Claim> for ClaimRecord {
    fn from(claim: &Claim) -> Self {
        Self {
            claim_certificate: claim.certificate,
            status: claim.status.name().to_owned(),
            status_reason: claim.status.reason.clone(),
            status_since: Some(claim.status.since),
            quota: claim.quota,
            used: claim.used,
            expires_at: claim.expires_at,
            made_out_to: claim.made_out.as_ref().map(|made_out| made_out.user.to_string()),
            made_out_for: claim.made_out.as_ref().map(|made_out| made_out.device.clone()),
            created_at: claim.created_at,
        }
    }
}

impl TryFrom<ClaimRecord> for Claim {
    type Error = Box<dyn Error + Send + Sync>;

    fn try_from(record: ClaimRecord) -> Result<Self, Self::Error> {
        let status = status(&record.status, record.status_reason, record.status_since.unwrap_or(record.created_at))?;
        let made_out = match (record.made_out_to, record.made_out_for) {
            (Some(user), Some(device)) => Some(MadeOut { user: user.parse()?, device }),
            _ => None,
        };
        Ok(Self {
            certificate: record.claim_certificate,
            status,
            quota: record.quota,
            used: record.used,
            expires_at: record.expires_at,
            made_out,
            created_at: record.created_at,
        })
    }
}
