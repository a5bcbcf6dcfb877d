//! A certificate of our own CA.

use std::error::Error;

use cvm_provisioning::{CertificateId, LedgerEntry, Standing, ThingName, Timestamp};
use serde::{Deserialize, Serialize};

/// An entry of the ledger, field by field.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerEntryRecord {
    certificate_id: CertificateId,
    issuer: String,
    serial: String,
    certificate_pem: String,
    thing_name: String,
    not_after: Timestamp,
    standing: Standing,
    since: Timestamp,
}

impl From<&LedgerEntry> for LedgerEntryRecord {
    fn from(entry: &LedgerEntry) -> Self {
        let LedgerEntry { id, issuer, serial, pem, thing, not_after, standing, since } = entry.clone();
        let thing_name = thing.to_string();
        Self { certificate_id: id, issuer, serial, certificate_pem: pem, thing_name, not_after, standing, since }
    }
}

impl TryFrom<LedgerEntryRecord> for LedgerEntry {
    type Error = Box<dyn Error + Send + Sync>;

    fn try_from(record: LedgerEntryRecord) -> Result<Self, Self::Error> {
        Ok(Self {
            id: record.certificate_id,
            issuer: record.issuer,
            serial: record.serial,
            pem: record.certificate_pem,
            thing: ThingName::try_from(record.thing_name)?,
            not_after: record.not_after,
            standing: record.standing,
            since: record.since,
        })
    }
}
