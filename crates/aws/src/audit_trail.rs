//! The audit trail in a table of its own: by device, and by the hour.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use cvm_provisioning::{AuditEntry, AuditPage, AuditQuery, AuditTrail, RegistryError, Timestamp};
use cvm_records::AuditEntryRecord;

use crate::error::registry_error;
use crate::registry::{seconds, text};

/// The index by the hour in which something happened.
pub const HOUR_INDEX: &str = "hours";
/// The most items that BatchWriteItem takes (DynamoDB API reference).
const BATCH: usize = 25;
/// Pauses between the tries of a batch that was written in part, in milliseconds.
const PAUSES_MS: [u64; 4] = [50, 100, 200, 400];
const HOUR: i64 = 60 * 60;

/// The audit trail in a DynamoDB table.
#[derive(Clone, Debug)]
pub struct DynamoDbAuditTrail {
    client: Client,
    table: String,
    kept: Duration,
}

impl DynamoDbAuditTrail {
    /// The trail in the table of this name, whose entries are removed after having been `kept` for this long.
    pub fn new(client: Client, table: impl Into<String>, kept: Duration) -> Self {
        Self { client, table: table.into(), kept }
    }
}

impl AuditTrail for DynamoDbAuditTrail {
    async fn append(&self, entries: &[AuditEntry]) -> Result<(), RegistryError> {
        for batch in entries.chunks(BATCH) {
            // Again the same item is no other entry: its key is what happened, and when.
            let puts = batch.iter().map(|entry| {
                let put = PutRequest::builder().set_item(Some(to_item(entry, self.kept))).build();
                let put = put.map_err(|error| RegistryError::Unavailable { source: error.into() })?;
                Ok(WriteRequest::builder().put_request(put).build())
            });
            self.write(puts.collect::<Result<_, RegistryError>>()?).await?;
        }
        Ok(())
    }

    async fn entries(&self, query: &AuditQuery, after: Option<&str>, limit: u16) -> Result<AuditPage, RegistryError> {
        let AuditQuery { device, since, until } = query;
        let limit = usize::from(limit);
        let mut below = match after {
            Some(place) => place.to_owned(),
            None => moment(*until, ""),
        };
        if let Some(device) = device {
            let key = ("deviceId", None, text(device));
            let entries = self.query(key, &moment(*since, ""), &below, limit).await?;
            let next = (entries.len() == limit).then(|| entries.last().map(place)).flatten();
            return Ok(AuditPage { entries, next });
        }
        // The latest first, hour by hour; an hour in which nothing happened is one read.
        let mut entries = Vec::new();
        let first = since.seconds().div_euclid(HOUR);
        let mut hour =
            (place_seconds(&below).unwrap_or_else(|| until.seconds()) - i64::from(after.is_none())).div_euclid(HOUR);
        for _ in 0..Self::HOURS_AT_ONCE {
            if hour < first {
                return Ok(AuditPage { entries, next: None });
            }
            let key = ("hour", Some(HOUR_INDEX), text(hour_name(hour)));
            let found = self.query(key, &moment(*since, ""), &below, limit - entries.len()).await?;
            entries.extend(found);
            if entries.len() == limit {
                let next = entries.last().map(place);
                return Ok(AuditPage { entries, next });
            }
            below = moment(Timestamp::from_seconds(hour * HOUR), "");
            hour -= 1;
        }
        Ok(AuditPage { entries, next: (hour >= first).then_some(below) })
    }
}

impl DynamoDbAuditTrail {
    /// Hours that are looked through before the caller is told where to go on: a week.
    const HOURS_AT_ONCE: usize = 7 * 24;

    async fn write(&self, mut requests: Vec<WriteRequest>) -> Result<(), RegistryError> {
        let mut pauses = PAUSES_MS.into_iter().map(Duration::from_millis);
        loop {
            let output = self.client.batch_write_item().request_items(&self.table, requests).send().await;
            let rest = output.map_err(registry_error)?.unprocessed_items;
            requests = rest.and_then(|mut rest| rest.remove(&self.table)).unwrap_or_default();
            if requests.is_empty() {
                return Ok(());
            }
            let Some(pause) = pauses.next() else {
                return Err(RegistryError::Throttled { source: "an audit entry was not written".into() });
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn query(
        &self,
        (attribute, index, value): (&str, Option<&str>, AttributeValue),
        from: &str,
        below: &str,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, RegistryError> {
        let mut entries = Vec::new();
        let mut start = None;
        loop {
            let output = self
                .client
                .query()
                .table_name(&self.table)
                .set_index_name(index.map(str::to_owned))
                // BETWEEN has both its ends; the upper one is the place of an entry that was given already, or of none.
                .key_condition_expression("#key = :key AND moment BETWEEN :from AND :below")
                .expression_attribute_names("#key", attribute)
                .expression_attribute_values(":key", value.clone())
                .expression_attribute_values(":from", text(from))
                .expression_attribute_values(":below", text(below))
                .scan_index_forward(false)
                .limit(i32::try_from(limit - entries.len() + 1).unwrap_or(i32::MAX))
                .set_exclusive_start_key(start)
                .send()
                .await
                .map_err(registry_error)?;
            for item in output.items.unwrap_or_default() {
                let entry = from_item(item)?;
                if place(&entry) != below && entries.len() < limit {
                    entries.push(entry);
                }
            }
            start = output.last_evaluated_key;
            if start.is_none() || entries.len() >= limit {
                return Ok(entries);
            }
        }
    }
}

/// What sorts entries: digits of fixed number, then the id.
fn moment(at: Timestamp, id: &str) -> String {
    format!("{:012}#{id}", at.seconds().max(0))
}

fn place(entry: &AuditEntry) -> String {
    moment(entry.at, &entry.id)
}

fn place_seconds(place: &str) -> Option<i64> {
    place.split_once('#')?.0.parse().ok()
}

fn hour_name(hour: i64) -> String {
    let start = Timestamp::from_seconds(hour * HOUR).to_string();
    start.get(..13).unwrap_or(&start).to_owned()
}

/// An entry as an item. `moment` sorts it: the time as a number of fixed length, and the entry's own id.
#[expect(clippy::expect_used, reason = "strings, numbers and lists of strings: all have a form")]
fn to_item(entry: &AuditEntry, kept: Duration) -> HashMap<String, AttributeValue> {
    let item = serde_dynamo::to_item(AuditEntryRecord::from(entry));
    let mut item: HashMap<String, AttributeValue> = item.expect("every field has a DynamoDB form");
    item.insert("moment".to_owned(), text(place(entry)));
    item.insert("hour".to_owned(), text(hour_name(entry.at.seconds().div_euclid(HOUR))));
    item.insert("forgetAt".to_owned(), seconds(entry.at.after(kept)));
    item
}

fn from_item(item: HashMap<String, AttributeValue>) -> Result<AuditEntry, RegistryError> {
    let device = item.get("deviceId").and_then(|id| id.as_s().ok()).cloned().unwrap_or_default();
    let record = serde_dynamo::from_item::<_, AuditEntryRecord>(item).map_err(Into::into);
    record.and_then(AuditEntry::try_from).map_err(|source| RegistryError::Corrupt { device, source })
}
