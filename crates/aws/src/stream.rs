//! The changes of the table, as its stream tells them.

use std::error::Error;

use aws_lambda_events::event::dynamodb::EventRecord;
use cvm_provisioning::{RegistryError, RegistryWrite, Timestamp};

use crate::changed_by::origin;
use crate::device_store::{BURIED, buried_device};
use crate::item;

/// What a record of the table's stream says. `None` is a write that no device was changed by: to a claim, a counter, a
/// place or a presence, or the removal of a device's item, of which its tombstone tells.
///
/// # Errors
///
/// [`RegistryError::Corrupt`] for an item that no version up to this one has written.
pub fn registry_write(record: EventRecord) -> Result<Option<RegistryWrite>, RegistryError> {
    let change = record.change;
    let key = match change.keys.inner().get(crate::TABLE_KEY) {
        Some(serde_dynamo::AttributeValue::S(key)) => key.clone(),
        _ => return Err(corrupt(String::new(), "the record names no item")),
    };
    let image = |item: serde_dynamo::Item| (!item.inner().is_empty()).then_some(item);
    let (before, after) = (image(change.old_image), image(change.new_image));
    // Its own number in the stream is what AWS promises to be the same at each delivery.
    let id = change.sequence_number.unwrap_or(record.event_id);
    let at = Timestamp::from_seconds(change.approximate_creation_date_time.timestamp());
    let by = after.as_ref().and_then(origin);
    if buried_device(&key).is_some() {
        let Some(tombstone) = after.filter(|_| before.is_none()) else { return Ok(None) };
        let Some(serde_dynamo::AttributeValue::M(buried)) = tombstone.into_inner().remove(BURIED) else {
            return Err(corrupt(key, "the tombstone is empty"));
        };
        let before = item::from_item(serde_dynamo::Item::from(buried))?;
        return Ok(Some(RegistryWrite { id, at, by, before: Some(before), after: None }));
    }
    if key.contains('/') {
        return Ok(None);
    }
    let Some(after) = after else { return Ok(None) };
    let before = before.map(item::from_item).transpose()?;
    Ok(Some(RegistryWrite { id, at, by, before, after: Some(item::from_item(after)?) }))
}

fn corrupt(device: String, reason: &str) -> RegistryError {
    let source: Box<dyn Error + Send + Sync> = reason.into();
    RegistryError::Corrupt { device, source }
}
