//! A device as it is shown. The JSON is a promise: names stay, and every field is always there, `null` where it has
//! nothing to say. No digest of a token is ever in it.

use std::collections::{BTreeMap, BTreeSet};

use cvm_interchange::{
    AttestationDocument, CertificateTold, DeviceDocument, Moment, RefusalTold, ReservationTold, SupersededTold,
    WrongProofsTold,
};
use cvm_provisioning::{KeyFingerprint, KeyOrigin, State, Timestamp};
use serde::Serialize;

/// A device in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceView<'a> {
    device_id: &'a str,
    status: &'a str,
    status_reason: Option<&'a str>,
    status_since: Moment,
    group: Option<&'a str>,
    state: &'a str,
    attestation: AttestationView<'a>,
    key_origin: KeyOrigin,
    template: Option<&'a str>,
    parameters: BTreeMap<&'a str, &'a str>,
    settable_parameters: BTreeSet<&'a str>,
    certificate: Option<&'a CertificateTold>,
    superseded: &'a [SupersededTold],
    reservation: Option<&'a ReservationTold>,
    enrolled_with: Option<&'a str>,
    unsettled_since: Option<Moment>,
    last_refusal: Option<&'a RefusalTold>,
    wrong_proofs: WrongProofsTold,
    generation: &'a str,
    version: u64,
    created_at: Moment,
    updated_at: Moment,
}

impl<'a> From<&'a DeviceDocument> for DeviceView<'a> {
    fn from(device: &'a DeviceDocument) -> Self {
        let told = &device.cvm;
        let extension = &told.extension;
        let parameters = extension.parameters.iter().flatten();
        Self {
            device_id: device.device_id.as_str(),
            status: &device.status,
            status_reason: device.status_reason.as_deref(),
            status_since: device.status_updated_time,
            group: extension.group.as_ref().and_then(Option::as_ref).map(|name| name.as_str()),
            state: &told.state,
            attestation: AttestationView::from(device),
            key_origin: extension.key_origin.unwrap_or_default(),
            template: extension.template.as_ref().and_then(Option::as_ref).map(|name| name.as_str()),
            parameters: parameters.map(|(name, value)| (name.as_str(), value.as_str())).collect(),
            settable_parameters: extension.settable_parameters.iter().flatten().map(String::as_str).collect(),
            certificate: told.certificate.as_ref(),
            superseded: &told.superseded,
            reservation: told.reservation.as_ref(),
            enrolled_with: told.enrolled_with.as_deref(),
            unsettled_since: told.unsettled_since,
            last_refusal: told.last_refusal.as_ref(),
            wrong_proofs: told.wrong_proofs,
            generation: &device.generation_id,
            version: told.version,
            created_at: told.created_at,
            updated_at: told.updated_at,
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AttestationView<'a> {
    kind: &'static str,
    expires_at: Option<String>,
    key: Option<KeyFingerprint>,
    certificate_id: Option<String>,
    user: Option<&'a str>,
}

impl<'a> From<&'a DeviceDocument> for AttestationView<'a> {
    fn from(device: &'a DeviceDocument) -> Self {
        let claim = device.cvm.claim.as_ref();
        let proof = device.cvm.extension.attestation.as_ref();
        let certificate = proof.and_then(|proof| proof.certificate_id).map(|id| id.to_string());
        let expires_at = proof.and_then(|proof| proof.expires_at).map(|end| end.to_string());
        Self {
            kind: kind(device),
            expires_at: expires_at.or_else(|| claim.map(|claim| claim.expires_at.to_string())),
            key: proof.and_then(|proof| proof.public_key),
            certificate_id: certificate.or_else(|| claim.map(|claim| claim.certificate_id.clone())),
            user: claim.map(|claim| claim.user.as_str()),
        }
    }
}

/// What kind of attestation it is, in a word.
pub(super) fn kind(device: &DeviceDocument) -> &'static str {
    match device.cvm.extension.attestation.as_ref().map(|proof| proof.kind.as_str()) {
        Some("token") => "token",
        Some("publicKey") => "public-key",
        Some("certificate") => "certificate",
        Some("ca") => "ca",
        Some("claim") => "claim",
        Some("trustedUser") => "trusted-user",
        _ => "nothing",
    }
}

/// What the device proves itself with, in words.
pub(super) fn attestation(device: &DeviceDocument) -> String {
    let nothing = AttestationDocument::default();
    let proof = device.cvm.extension.attestation.as_ref().unwrap_or(&nothing);
    let AttestationDocument { expires_at, public_key, certificate_id, second_certificate_id, .. } = proof;
    let id = certificate_id.map(|id| id.to_string()).unwrap_or_default();
    match (proof.kind.as_str(), expires_at, second_certificate_id) {
        ("token", None, _) => "an enrolment token".to_owned(),
        ("token", Some(end), _) => format!("an enrolment token that expires at {end}"),
        ("publicKey", ..) => format!("the key {}", public_key.map(|key| key.to_string()).unwrap_or_default()),
        ("certificate", _, None) => format!("the factory certificate {id}"),
        ("certificate", _, Some(second)) => format!("the factory certificate {id} or {second}"),
        ("ca", ..) if id.is_empty() => "a factory certificate of any registered CA".to_owned(),
        ("ca", ..) => format!("a factory certificate of the CA {id}"),
        ("claim", ..) if id.is_empty() => "any claim certificate in the registry".to_owned(),
        ("claim", ..) => format!("the claim certificate {id}"),
        ("trustedUser", ..) => match &device.cvm.claim {
            None => "the word of a trusted user".to_owned(),
            Some(claim) => format!("the word of {}, until {}", claim.user, claim.expires_at),
        },
        _ => "nothing, so that it cannot be provisioned".to_owned(),
    }
}

/// The certificate that the device can use at this moment, as far as the registry knows.
pub(super) fn live_certificate(device: &DeviceDocument, now: Timestamp) -> Option<&CertificateTold> {
    let is_revoked = device.cvm.state == State::Revoked.name();
    device.cvm.certificate.as_ref().filter(|certificate| !is_revoked && now < certificate.not_after.0)
}
