//! A device as it is told, in the form of the identity registry, with what that has no word for under `cvm`.

use axum::Json;
use axum::http::header::ETAG;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use cvm_interchange::{Authentication, Extension, Keys};
use cvm_provisioning::{Credential, Device, DeviceId, ETag, LastRefusal, Presence, Reservation, Timestamp};
use serde::Serialize;

use super::conditions;
use super::failure::Failure;

/// How the identity registry writes a moment that is not known.
pub(super) const UNKNOWN_MOMENT: &str = "0001-01-01T00:00:00Z";

/// A device.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceDocument {
    device_id: DeviceId,
    generation_id: String,
    etag: String,
    connection_state: &'static str,
    status: &'static str,
    status_reason: Option<String>,
    connection_state_updated_time: String,
    status_updated_time: String,
    last_activity_time: String,
    cloud_to_device_message_count: u32,
    authentication: Authentication,
    capabilities: Capabilities,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_scope: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parent_scopes: Vec<String>,
    cvm: Told,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Capabilities {
    iot_edge: bool,
}

/// What stands under `cvm`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    #[serde(flatten)]
    extension: Extension,
    certificate: Option<CertificateDocument>,
    reservation: Option<ReservationDocument>,
    last_refusal: Option<RefusalDocument>,
    created_at: String,
    updated_at: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CertificateDocument {
    certificate_id: String,
    certificate_arn: String,
    thing_name: String,
    not_after: String,
    issued_at: String,
    used_at: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReservationDocument {
    key: String,
    certificate_id: Option<String>,
    expires_at: String,
    attempts: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RefusalDocument {
    reason: &'static str,
    advice: &'static str,
    key: String,
    at: String,
}

impl DeviceDocument {
    /// What is told of `device`, with the keys that the request has set.
    pub(super) fn new(device: &Device, presence: Option<&Presence>, keys: &Keys) -> Self {
        // What the platform said of an earlier device of this id says nothing of this one.
        let presence = presence.filter(|presence| device.created_at <= presence.since);
        let used_at = device.credential.as_ref().and_then(|credential| credential.used_at);
        let moment = |moment: Option<Timestamp>| moment.map_or_else(|| UNKNOWN_MOMENT.to_owned(), |at| at.to_string());
        let seen = presence.map(|presence| presence.since);
        Self {
            device_id: device.id.clone(),
            generation_id: device.generation.to_string(),
            etag: device.etag().to_string(),
            connection_state: match presence {
                Some(Presence { connected: true, .. }) => "Connected",
                _ => "Disconnected",
            },
            status: device.status.name(),
            status_reason: device.status.reason.as_ref().map(ToString::to_string),
            connection_state_updated_time: moment(seen),
            status_updated_time: device.status.since.to_string(),
            last_activity_time: moment(seen.max(used_at)),
            cloud_to_device_message_count: 0,
            authentication: Authentication::of(&device.attestation, keys),
            capabilities: Capabilities { iot_edge: device.hierarchy.edge },
            device_scope: device.hierarchy.scope.as_ref().map(ToString::to_string),
            parent_scopes: device.hierarchy.parents.iter().map(ToString::to_string).collect(),
            cvm: Told {
                extension: Extension::of(device, false),
                certificate: device.credential.as_ref().map(CertificateDocument::from),
                reservation: device.reservation.as_ref().map(ReservationDocument::from),
                last_refusal: device.last_refusal.as_ref().map(RefusalDocument::from),
                created_at: device.created_at.to_string(),
                updated_at: device.updated_at.to_string(),
            },
        }
    }
}

impl From<&Credential> for CertificateDocument {
    fn from(credential: &Credential) -> Self {
        Self {
            certificate_id: credential.certificate.to_string(),
            certificate_arn: credential.certificate_name.clone(),
            thing_name: credential.thing.to_string(),
            not_after: credential.not_after.to_string(),
            issued_at: credential.issued_at.to_string(),
            used_at: credential.used_at.map(|at| at.to_string()),
        }
    }
}

impl From<&Reservation> for ReservationDocument {
    fn from(reservation: &Reservation) -> Self {
        Self {
            key: reservation.key.to_string(),
            certificate_id: reservation.certificate.map(|id| id.to_string()),
            expires_at: reservation.expires_at.to_string(),
            attempts: reservation.attempts,
        }
    }
}

impl From<&LastRefusal> for RefusalDocument {
    fn from(refusal: &LastRefusal) -> Self {
        Self {
            reason: refusal.denial.code(),
            advice: refusal.denial.advice(),
            key: refusal.key.to_string(),
            at: refusal.at.to_string(),
        }
    }
}

/// An answer with what has this entity tag.
pub(super) fn tagged(etag: &ETag, document: impl Serialize) -> Response {
    with_tag(Json(document).into_response(), etag)
}

/// The answer to a GET: nothing, where the caller has the very state already (RFC 9110 section 15.4.5).
pub(super) fn read(headers: &HeaderMap, etag: &ETag, document: impl Serialize) -> Result<Response, Failure> {
    match conditions::is_known(headers, etag)? {
        true => Ok(with_tag(StatusCode::NOT_MODIFIED.into_response(), etag)),
        false => Ok(tagged(etag, document)),
    }
}

fn with_tag(mut response: Response, etag: &ETag) -> Response {
    if let Ok(value) = HeaderValue::try_from(format!("\"{etag}\"")) {
        response.headers_mut().insert(ETAG, value);
    }
    response
}
