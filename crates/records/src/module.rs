//! A module, as a map in the record of its device.

use std::error::Error;

use cvm_provisioning::{Module, ModuleManager, Timestamp};
use serde::{Deserialize, Serialize};

use crate::attestation::AttestationRecord;

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ModuleRecord {
    generation: String,
    version: u64,
    #[serde(flatten)]
    attestation: AttestationRecord,
    #[serde(skip_serializing_if = "Option::is_none")]
    managed_by: Option<ModuleManager>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<&Module> for ModuleRecord {
    fn from(module: &Module) -> Self {
        Self {
            generation: module.generation.to_string(),
            version: module.version,
            attestation: AttestationRecord::from(&module.attestation),
            managed_by: module.managed_by.clone(),
            created_at: module.created_at,
            updated_at: module.updated_at,
        }
    }
}

impl TryFrom<ModuleRecord> for Module {
    type Error = Box<dyn Error + Send + Sync>;

    fn try_from(item: ModuleRecord) -> Result<Self, Self::Error> {
        Ok(Self {
            generation: item.generation.parse()?,
            version: item.version,
            attestation: item.attestation.try_into()?,
            managed_by: item.managed_by,
            created_at: item.created_at,
            updated_at: item.updated_at,
        })
    }
}
