//! A device as it is told, in the form of the identity registry, with what that has no word for under `cvm`: what the
//! API answers, and what `cvm device` shows.

use std::collections::BTreeMap;

use cvm_provisioning::{
    Attestation, CertificateId, Credential, Device, DeviceId, ETag, KeyFingerprint, LastRefusal, Presence, Reservation,
    Superseded, TrustedUserClaim,
};
use serde::{Deserialize, Serialize};

use crate::{Authentication, Extension, Keys, Moment};

/// A device.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "each field is that of the identity registry's device")]
pub struct DeviceDocument {
    pub device_id: DeviceId,
    pub generation_id: String,
    pub etag: String,
    pub connection_state: String,
    pub status: String,
    pub status_reason: Option<String>,
    pub connection_state_updated_time: Moment,
    pub status_updated_time: Moment,
    pub last_activity_time: Moment,
    pub cloud_to_device_message_count: u32,
    pub authentication: Authentication,
    pub capabilities: crate::Capabilities,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_scope: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parent_scopes: Vec<String>,
    pub cvm: DeviceTold,
}

/// What stands under `cvm`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceTold {
    /// How far its provisioning has come.
    pub state: String,
    /// What operators set.
    #[serde(flatten)]
    pub extension: Extension,
    /// What a trusted user has for it at this moment.
    pub claim: Option<ClaimTold>,
    /// Its certificate.
    pub certificate: Option<CertificateTold>,
    /// Those that it had before and that are still in power, the oldest first.
    #[serde(default)]
    pub superseded: Vec<SupersededTold>,
    /// The attempt that holds it.
    pub reservation: Option<ReservationTold>,
    /// What it shared with others when it was last reserved or given a certificate: `ca/…` or `claim/…`.
    pub enrolled_with: Option<String>,
    /// Since when attempts may have left something on the platform that the registry does not know.
    pub unsettled_since: Option<Moment>,
    /// The last attempt that was not let in.
    pub last_refusal: Option<RefusalTold>,
    /// Wrong proofs since it was last provisioned or an operator looked.
    pub wrong_proofs: WrongProofsTold,
    /// The number of changes.
    pub version: u64,
    /// When it was registered.
    pub created_at: Moment,
    /// When it last changed.
    pub updated_at: Moment,
}

/// A claim that a trusted user has for a device.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "each field is that of the claim")]
pub struct ClaimTold {
    pub certificate_id: String,
    pub user: String,
    pub expires_at: Moment,
}

/// The certificate of a device, and what else it was given.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "each field is that of the credential")]
pub struct CertificateTold {
    pub certificate_id: CertificateId,
    pub certificate_arn: String,
    pub key: KeyFingerprint,
    pub key_made_here: bool,
    pub thing_name: String,
    pub not_after: Moment,
    pub issued_at: Moment,
    pub used_at: Option<Moment>,
    pub device_configuration: BTreeMap<String, String>,
}

/// A certificate that a newer one has taken the place of, and that is in power until then: when that one was seen, or its
/// grace is over.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "each field is that of the superseded certificate")]
pub struct SupersededTold {
    pub certificate_id: CertificateId,
    pub certificate_arn: String,
    pub key: KeyFingerprint,
    pub thing_name: String,
    pub since: Moment,
    pub until: Option<Moment>,
}

/// The attempt that holds a device.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "each field is that of the reservation")]
pub struct ReservationTold {
    pub key: KeyFingerprint,
    pub certificate_id: Option<String>,
    pub expires_at: Moment,
    pub attempts: u32,
}

/// An attempt that was not let in.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "each field is that of the refusal")]
pub struct RefusalTold {
    pub reason: String,
    /// `None` once the cause is gone.
    pub advice: Option<String>,
    pub key: KeyFingerprint,
    pub at: Moment,
}

/// Wrong proofs.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "each field is that of the wrong proofs")]
pub struct WrongProofsTold {
    pub count: u32,
}

impl DeviceDocument {
    /// What is told of `device`, with the keys that the request has set. No digest of a token is in it.
    pub fn new(device: &Device, presence: Option<&Presence>, keys: &Keys) -> Self {
        // What the platform said of an earlier device of this id says nothing of this one.
        let presence = presence.filter(|presence| device.created_at <= presence.since);
        let used_at = device.credential.as_ref().and_then(|credential| credential.used_at);
        let seen = presence.map(|presence| presence.since);
        let connected = presence.is_some_and(|presence| presence.connected);
        Self {
            device_id: device.id.clone(),
            generation_id: device.generation.to_string(),
            etag: device.etag().to_string(),
            connection_state: if connected { "Connected" } else { "Disconnected" }.to_owned(),
            status: device.status.name().to_owned(),
            status_reason: device.status.reason.as_ref().map(ToString::to_string),
            connection_state_updated_time: seen.map_or(Moment::UNKNOWN, Moment),
            status_updated_time: device.status.since.into(),
            last_activity_time: seen.max(used_at).map_or(Moment::UNKNOWN, Moment),
            cloud_to_device_message_count: 0,
            authentication: Authentication::of(&device.attestation, keys),
            capabilities: crate::Capabilities { iot_edge: device.hierarchy.edge },
            device_scope: device.hierarchy.scope.as_ref().map(ToString::to_string),
            parent_scopes: device.hierarchy.parents.iter().map(ToString::to_string).collect(),
            cvm: DeviceTold::from(device),
        }
    }

    /// The entity tag of this state of the device.
    pub fn tag(&self) -> Option<ETag> {
        self.etag.parse().ok()
    }
}

impl From<&Device> for DeviceTold {
    fn from(device: &Device) -> Self {
        let claim = match &device.attestation {
            Attestation::TrustedUser { claim } => claim.as_ref().map(ClaimTold::from),
            _ => None,
        };
        let shared = [
            device.reservation.as_ref().and_then(|reservation| reservation.group),
            device.credential.as_ref().and_then(|credential| credential.group),
        ];
        Self {
            state: device.state.name().to_owned(),
            extension: Extension { state: None, ..Extension::of(device, false) },
            claim,
            certificate: device.credential.as_ref().map(CertificateTold::from),
            superseded: device.superseded.iter().map(|told| SupersededTold::of(told, device)).collect(),
            reservation: device.reservation.as_ref().map(ReservationTold::from),
            enrolled_with: shared.into_iter().flatten().next().map(|group| group.to_string()),
            unsettled_since: device.unsettled.as_ref().map(|unsettled| unsettled.since.into()),
            last_refusal: RefusalTold::of(device),
            wrong_proofs: WrongProofsTold { count: device.wrong_proofs },
            version: device.version,
            created_at: device.created_at.into(),
            updated_at: device.updated_at.into(),
        }
    }
}

impl From<&TrustedUserClaim> for ClaimTold {
    fn from(claim: &TrustedUserClaim) -> Self {
        Self {
            certificate_id: claim.certificate.to_string(),
            user: claim.user.to_string(),
            expires_at: claim.expires_at.into(),
        }
    }
}

impl From<&Credential> for CertificateTold {
    fn from(credential: &Credential) -> Self {
        Self {
            certificate_id: credential.certificate,
            certificate_arn: credential.certificate_name.clone(),
            key: credential.key,
            key_made_here: credential.key_made_here,
            thing_name: credential.thing.to_string(),
            not_after: credential.not_after.into(),
            issued_at: credential.issued_at.into(),
            used_at: credential.used_at.map(Moment),
            device_configuration: credential.configuration.clone(),
        }
    }
}

impl SupersededTold {
    fn of(superseded: &Superseded, device: &Device) -> Self {
        Self {
            certificate_id: superseded.certificate,
            certificate_arn: superseded.certificate_name.clone(),
            key: superseded.key,
            thing_name: superseded.thing.to_string(),
            since: superseded.since.into(),
            until: device.succession_ends().map(Moment),
        }
    }
}

impl From<&Reservation> for ReservationTold {
    fn from(reservation: &Reservation) -> Self {
        Self {
            key: reservation.key,
            certificate_id: reservation.certificate.map(|id| id.to_string()),
            expires_at: reservation.expires_at.into(),
            attempts: reservation.attempts,
        }
    }
}

impl RefusalTold {
    fn of(device: &Device) -> Option<Self> {
        let LastRefusal { denial, key, at, .. } = device.last_refusal?;
        let advice = device.unresolved_refusal().map(|refusal| refusal.denial.advice().to_owned());
        Some(Self { reason: denial.code().to_owned(), advice, key, at: at.into() })
    }
}

#[cfg(test)]
mod tests {
    use cvm_provisioning::{Denial, Refusal};
    use cvm_testkit::fixture::{NOW, attempt, csr, device, token};

    use super::*;

    #[test]
    fn a_refusal_has_advice_for_as_long_as_its_cause_is_there() {
        let mut device = device("sn-1");
        let advice = |device: &Device| DeviceTold::from(device).last_refusal.unwrap().advice;
        device.refuse(&Refusal {
            denial: Denial::WrongProof,
            key: *csr("sn-1").key().fingerprint(),
            at: NOW,
            noted: true,
        });
        assert_eq!(advice(&device).as_deref(), Some(Denial::WrongProof.advice()));
        device.enable(None, NOW);
        assert_eq!(advice(&device), None, "an operator has looked, and the proofs are forgotten");
    }

    #[test]
    fn what_is_told_is_read_again_without_loss_and_has_no_digest() {
        let mut device = device("sn-1");
        device.group = Some("berlin".parse().unwrap());
        device.reserve(&attempt("sn-1", 1, &csr("sn-1"), NOW));
        device.disable(Some("lost".parse().unwrap()), NOW);
        let json = serde_json::to_string(&DeviceDocument::new(&device, None, &Keys::default())).unwrap();
        let read: DeviceDocument = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), json);
        assert_eq!((read.cvm.state.as_str(), read.cvm.version), ("reserved", device.version));
        assert_eq!(json.matches("\"state\"").count(), 1, "{json}");
        assert!(!json.contains(&token().digest().to_string()), "{json}");
    }
}
