//! The certificate of a device, and what was handed out with it.

use std::collections::BTreeMap;
use std::error::Error;

use cvm_provisioning::{
    CertificateId, Credential, GroupCredential, InvalidGroupCredential, KeyFingerprint, LedgerEntry, Superseded,
    ThingName, Timestamp,
};
use serde::{Deserialize, Serialize};

/// The credential, as a map in the record of its device. When it was first used stands in that one.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialRecord {
    certificate_id: CertificateId,
    certificate_arn: String,
    certificate_pem: String,
    key: KeyFingerprint,
    key_made_here: bool,
    not_after: Timestamp,
    issued_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    enrolled_with: Option<String>,
    thing_name: String,
    configuration: BTreeMap<String, String>,
}

/// What is left of a credential beside the entry of its certificate in a ledger.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GivenRecord {
    /// Where it is not the certificate's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_arn: Option<String>,
    key: KeyFingerprint,
    key_made_here: bool,
    issued_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    enrolled_with: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    configuration: BTreeMap<String, String>,
}

/// A certificate that another one has taken the place of, as a map under its id.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SupersededRecord {
    certificate_arn: String,
    key: KeyFingerprint,
    thing_name: String,
    since: Timestamp,
}

/// Certificates that another one has taken the place of, by their ids.
pub fn superseded(all: &[Superseded]) -> BTreeMap<String, SupersededRecord> {
    let record = |superseded: &Superseded| SupersededRecord {
        certificate_arn: superseded.certificate_name.clone(),
        key: superseded.key,
        thing_name: superseded.thing.to_string(),
        since: superseded.since,
    };
    all.iter().map(|superseded| (superseded.certificate.to_string(), record(superseded))).collect()
}

pub(crate) fn from_superseded(
    records: BTreeMap<String, SupersededRecord>,
) -> Result<Vec<Superseded>, Box<dyn Error + Send + Sync>> {
    let superseded = |(id, record): (String, SupersededRecord)| {
        Ok(Superseded {
            certificate: id.parse()?,
            certificate_name: record.certificate_arn,
            key: record.key,
            thing: ThingName::try_from(record.thing_name)?,
            since: record.since,
        })
    };
    let mut all = records.into_iter().map(superseded).collect::<Result<Vec<_>, Box<dyn Error + Send + Sync>>>()?;
    all.sort_by_key(|superseded| superseded.since);
    Ok(all)
}

pub(crate) fn group(text: Option<&str>) -> Result<Option<GroupCredential>, InvalidGroupCredential> {
    text.map(str::parse).transpose()
}

impl From<&Credential> for CredentialRecord {
    fn from(credential: &Credential) -> Self {
        let credential = credential.clone();
        Self {
            certificate_id: credential.certificate,
            certificate_arn: credential.certificate_name,
            certificate_pem: credential.pem,
            key: credential.key,
            key_made_here: credential.key_made_here,
            not_after: credential.not_after,
            issued_at: credential.issued_at,
            enrolled_with: credential.group.map(|group| group.to_string()),
            thing_name: credential.thing.to_string(),
            configuration: credential.configuration,
        }
    }
}

impl TryFrom<CredentialRecord> for Credential {
    type Error = Box<dyn Error + Send + Sync>;

    fn try_from(record: CredentialRecord) -> Result<Self, Self::Error> {
        Ok(Self {
            certificate: record.certificate_id,
            certificate_name: record.certificate_arn,
            pem: record.certificate_pem,
            key: record.key,
            key_made_here: record.key_made_here,
            not_after: record.not_after,
            issued_at: record.issued_at,
            used_at: None,
            group: group(record.enrolled_with.as_deref())?,
            thing: ThingName::try_from(record.thing_name)?,
            configuration: record.configuration,
        })
    }
}

impl From<&Credential> for GivenRecord {
    fn from(credential: &Credential) -> Self {
        let id = credential.certificate.to_string();
        Self {
            certificate_arn: Some(&credential.certificate_name).filter(|name| **name != id).cloned(),
            key: credential.key,
            key_made_here: credential.key_made_here,
            issued_at: credential.issued_at,
            enrolled_with: credential.group.map(|group| group.to_string()),
            configuration: credential.configuration.clone(),
        }
    }
}

impl GivenRecord {
    /// The credential with this certificate.
    ///
    /// # Errors
    ///
    /// What cannot have been written.
    pub fn with(self, entry: LedgerEntry) -> Result<Credential, InvalidGroupCredential> {
        Ok(Credential {
            certificate: entry.id,
            certificate_name: self.certificate_arn.unwrap_or_else(|| entry.id.to_string()),
            pem: entry.pem,
            key: self.key,
            key_made_here: self.key_made_here,
            not_after: entry.not_after,
            issued_at: self.issued_at,
            used_at: None,
            group: group(self.enrolled_with.as_deref())?,
            thing: entry.thing,
            configuration: self.configuration,
        })
    }
}
