//! A claim as it is shown. The JSON is a promise: names stay, and every field is always there, `null` where it has
//! nothing to say.

use cvm_provisioning::{Claim, Timestamp};
use serde::Serialize;

use crate::output::count;

/// A claim in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClaimView {
    claim_certificate_id: String,
    status: &'static str,
    status_reason: Option<String>,
    status_since: String,
    quota: Option<u64>,
    used: u64,
    expires_at: Option<String>,
    made_out_for: Option<String>,
    made_out_to: Option<String>,
    created_at: String,
}

impl From<&Claim> for ClaimView {
    fn from(claim: &Claim) -> Self {
        Self {
            claim_certificate_id: claim.certificate.to_string(),
            status: claim.status.name(),
            status_reason: claim.status.reason.as_ref().map(ToString::to_string),
            status_since: claim.status.since.to_string(),
            quota: claim.quota,
            used: claim.used,
            expires_at: claim.expires_at.map(|end| end.to_string()),
            made_out_for: claim.made_out.as_ref().map(|made_out| made_out.device.to_string()),
            made_out_to: claim.made_out.as_ref().map(|made_out| made_out.user.to_string()),
            created_at: claim.created_at.to_string(),
        }
    }
}

/// Whether it claims anything at this moment, in a word.
pub(super) fn standing(claim: &Claim, now: Timestamp) -> &'static str {
    match claim.status.enabled {
        false => "disabled",
        true if claim.expires_at.is_some_and(|end| end <= now) => "expired",
        true if claim.has_quota().is_err() => "used up",
        true => "enabled",
    }
}

/// What it has claimed, of how much.
pub(super) fn used(claim: &Claim) -> String {
    match claim.quota {
        Some(quota) => format!("{}/{quota}", claim.used),
        None => claim.used.to_string(),
    }
}

/// What it is good for, in words.
pub(super) fn terms(claim: &Claim) -> String {
    let until = claim.expires_at.map_or_else(|| "without an end".to_owned(), |end| format!("until {end}"));
    match claim.quota {
        Some(quota) => format!("for {}, {} used, {until}", count(quota, "reservation"), claim.used),
        None => format!("for any number of reservations, {until}"),
    }
}
