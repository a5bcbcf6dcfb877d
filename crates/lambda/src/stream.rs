//! The stream of a table, as it is delivered to a function.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A batch of a stream, each record read by itself, so that one that cannot be read holds up no other.
#[derive(Debug, Deserialize)]
pub struct StreamBatch {
    /// The records, the oldest first.
    #[serde(rename = "Records")]
    pub records: Vec<Value>,
}

/// What the stream is to deliver again (AWS Lambda Developer Guide, "Reporting batch item failures").
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamAnswer {
    batch_item_failures: Vec<Failure>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    item_identifier: String,
}

impl StreamAnswer {
    /// The record of this sequence number is to come again, and all after it.
    pub fn again_from(item_identifier: String) -> Self {
        Self { batch_item_failures: vec![Failure { item_identifier }] }
    }
}
