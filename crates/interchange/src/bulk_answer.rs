//! What became of many devices that were sent at once: the answer to `POST /devices`.

use cvm_provisioning::Imported;
use serde::{Deserialize, Serialize};

/// The answer.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BulkAnswer {
    /// Whether all are done.
    pub is_successful: bool,
    /// Those that are not, in the order of their entries.
    pub errors: Vec<BulkError>,
    /// What was passed over.
    pub warnings: Vec<BulkWarning>,
    /// What the identity registry has no word for.
    pub cvm: BulkTold,
}

/// An entry that was not done.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BulkError {
    /// The device; empty where what came is no id.
    pub device_id: String,
    /// The module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module_id: Option<String>,
    /// The identity registry's name for the reason.
    pub error_code: String,
    /// The number of the entry, from 1, and the reason: see [`BulkError::reason`].
    pub error_status: String,
}

impl BulkError {
    /// What stands in `errorStatus` about this entry, which is counted from 1.
    pub fn status(entry: usize, reason: &str) -> String {
        format!("entry {entry}: {reason}")
    }

    /// The reason alone.
    pub fn reason(&self) -> &str {
        self.error_status.split_once(": ").map_or(&self.error_status, |(_, reason)| reason)
    }
}

/// Something of an entry that was passed over.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BulkWarning {
    /// The device.
    pub device_id: String,
    /// The identity registry's name for it.
    pub warning_code: String,
    /// What it was.
    pub warning_status: String,
}

/// What stands under `cvm`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct BulkTold {
    /// What became of each entry, in their order; `null` is one of the errors, which are in that order, too.
    pub entries: Vec<Option<Imported>>,
}
