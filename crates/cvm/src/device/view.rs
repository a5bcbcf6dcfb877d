//! A device as it is shown. The JSON is a promise: names stay, and every field is always there, `null` where it has
//! nothing to say. No digest of a token is ever in it.

use std::collections::{BTreeMap, BTreeSet};

use cvm_provisioning::{
    Attestation, Credential, Device, GroupCredential, KeyOrigin, LastRefusal, Reservation, State, Timestamp,
};
use serde::Serialize;

/// A device in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceView {
    device_id: String,
    status: &'static str,
    status_reason: Option<String>,
    status_since: String,
    group: Option<String>,
    state: &'static str,
    attestation: AttestationView,
    key_origin: KeyOrigin,
    template: Option<String>,
    parameters: BTreeMap<String, String>,
    settable_parameters: BTreeSet<String>,
    certificate: Option<CertificateView>,
    reservation: Option<ReservationView>,
    enrolled_with: Option<String>,
    unsettled_since: Option<String>,
    last_refusal: Option<RefusalView>,
    wrong_proofs: WrongProofsView,
    generation: String,
    version: u64,
    created_at: String,
    updated_at: String,
}

impl From<&Device> for DeviceView {
    fn from(device: &Device) -> Self {
        Self {
            device_id: device.id.to_string(),
            status: device.status.name(),
            status_reason: device.status.reason.as_ref().map(ToString::to_string),
            status_since: device.status.since.to_string(),
            group: device.group.as_ref().map(ToString::to_string),
            state: device.state.name(),
            attestation: AttestationView::from(&device.attestation),
            key_origin: device.key_origin,
            template: device.template.as_ref().map(ToString::to_string),
            parameters: device.parameters.clone(),
            settable_parameters: device.settable_parameters.clone(),
            certificate: device.credential.as_ref().map(CertificateView::from),
            reservation: device.reservation.as_ref().map(ReservationView::from),
            enrolled_with: enrolled_with(device).map(|group| group.to_string()),
            unsettled_since: device.unsettled.as_ref().map(|unsettled| unsettled.since.to_string()),
            last_refusal: device.last_refusal.as_ref().map(RefusalView::from),
            wrong_proofs: WrongProofsView {
                count: device.wrong_proofs.count,
                blocked_until: device.wrong_proofs.blocked_until.map(|end| end.to_string()),
            },
            generation: device.generation.to_string(),
            version: device.version,
            created_at: device.created_at.to_string(),
            updated_at: device.updated_at.to_string(),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AttestationView {
    kind: &'static str,
    expires_at: Option<String>,
    key: Option<String>,
    certificate_id: Option<String>,
    user: Option<String>,
}

impl From<&Attestation> for AttestationView {
    fn from(attestation: &Attestation) -> Self {
        let mut view = Self { kind: kind(attestation), expires_at: None, key: None, certificate_id: None, user: None };
        match attestation {
            Attestation::Token { expires_at, .. } => view.expires_at = expires_at.map(|end| end.to_string()),
            Attestation::PublicKey { key } => view.key = Some(key.to_string()),
            Attestation::Certificate { id, .. } => view.certificate_id = Some(id.to_string()),
            Attestation::Ca { id: shared } | Attestation::Claim { certificate: shared } => {
                view.certificate_id = shared.map(|id| id.to_string());
            }
            Attestation::Nothing => {}
            Attestation::TrustedUser { claim } => {
                view.expires_at = claim.as_ref().map(|claim| claim.expires_at.to_string());
                view.certificate_id = claim.as_ref().map(|claim| claim.certificate.to_string());
                view.user = claim.as_ref().map(|claim| claim.user.to_string());
            }
        }
        view
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CertificateView {
    certificate_id: String,
    certificate_arn: String,
    key: String,
    key_made_here: bool,
    thing_name: String,
    issued_at: String,
    not_after: String,
    used_at: Option<String>,
    device_configuration: BTreeMap<String, String>,
}

impl From<&Credential> for CertificateView {
    fn from(credential: &Credential) -> Self {
        Self {
            certificate_id: credential.certificate.to_string(),
            certificate_arn: credential.certificate_name.clone(),
            key: credential.key.to_string(),
            key_made_here: credential.key_made_here,
            thing_name: credential.thing.to_string(),
            issued_at: credential.issued_at.to_string(),
            not_after: credential.not_after.to_string(),
            used_at: credential.used_at.map(|at| at.to_string()),
            device_configuration: credential.configuration.clone(),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReservationView {
    key: String,
    certificate_id: Option<String>,
    expires_at: String,
    attempts: u32,
}

impl From<&Reservation> for ReservationView {
    fn from(reservation: &Reservation) -> Self {
        Self {
            key: reservation.key.to_string(),
            certificate_id: reservation.certificate.map(|id| id.to_string()),
            expires_at: reservation.expires_at.to_string(),
            attempts: reservation.attempts,
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RefusalView {
    reason: &'static str,
    advice: &'static str,
    key: String,
    at: String,
}

impl From<&LastRefusal> for RefusalView {
    fn from(refusal: &LastRefusal) -> Self {
        Self {
            reason: refusal.denial.code(),
            advice: refusal.denial.advice(),
            key: refusal.key.to_string(),
            at: refusal.at.to_string(),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WrongProofsView {
    count: u32,
    blocked_until: Option<String>,
}

/// What kind of attestation it is, in a word.
pub(super) const fn kind(attestation: &Attestation) -> &'static str {
    match attestation {
        Attestation::Token { .. } => "token",
        Attestation::PublicKey { .. } => "public-key",
        Attestation::Certificate { .. } => "certificate",
        Attestation::Ca { .. } => "ca",
        Attestation::Claim { .. } => "claim",
        Attestation::TrustedUser { .. } => "trusted-user",
        Attestation::Nothing => "nothing",
    }
}

/// What the device proves itself with, in words.
pub(super) fn attestation(attestation: &Attestation) -> String {
    match attestation {
        Attestation::Token { expires_at: None, .. } => "an enrolment token".to_owned(),
        Attestation::Token { expires_at: Some(end), .. } => format!("an enrolment token that expires at {end}"),
        Attestation::PublicKey { key } => format!("the key {key}"),
        Attestation::Certificate { id, second: None } => format!("the factory certificate {id}"),
        Attestation::Certificate { id, second: Some(second) } => {
            format!("the factory certificate {id} or {second}")
        }
        Attestation::Ca { id: Some(id) } => format!("a factory certificate of the CA {id}"),
        Attestation::Ca { id: None } => "a factory certificate of any registered CA".to_owned(),
        Attestation::Claim { certificate: Some(id) } => format!("the claim certificate {id}"),
        Attestation::Claim { certificate: None } => "any claim certificate in the registry".to_owned(),
        Attestation::Nothing => "nothing, so that it cannot be provisioned".to_owned(),
        Attestation::TrustedUser { claim: None } => "the word of a trusted user".to_owned(),
        Attestation::TrustedUser { claim: Some(claim) } => {
            format!("the word of {}, until {}", claim.user, claim.expires_at)
        }
    }
}

/// The certificate that the device can use at this moment, as far as the registry knows.
pub(super) fn live_certificate(device: &Device, now: Timestamp) -> Option<&Credential> {
    device.credential.as_ref().filter(|credential| device.state != State::Revoked && now < credential.not_after)
}

/// What the device shared with others when it was last reserved or given a certificate, where it showed it.
pub(super) fn enrolled_with(device: &Device) -> Option<GroupCredential> {
    let reserved = device.reservation.as_ref().and_then(|reservation| reservation.group);
    reserved.or_else(|| device.credential.as_ref().and_then(|credential| credential.group))
}
