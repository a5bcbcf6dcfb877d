//! Whether a device is connected.

use cvm_provisioning::{CertificateId, Presence, Timestamp};
use serde::{Deserialize, Serialize};

/// What the platform said last, field by field.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PresenceRecord {
    connected: bool,
    since: Timestamp,
    order: u64,
    client_id: String,
    certificate: CertificateId,
}

impl From<&Presence> for PresenceRecord {
    fn from(presence: &Presence) -> Self {
        let Presence { connected, since, order, client_id, certificate } = presence.clone();
        Self { connected, since, order, client_id, certificate }
    }
}

impl From<PresenceRecord> for Presence {
    fn from(record: PresenceRecord) -> Self {
        let PresenceRecord { connected, since, order, client_id, certificate } = record;
        Self { connected, since, order, client_id, certificate }
    }
}
