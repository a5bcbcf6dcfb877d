//! A device as an item of the DynamoDB table.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use cvm_provisioning::{Device, RegistryError};
use cvm_records::DeviceRecord;
use serde::Serialize;

/// The attribute that is a set and no list, so that a condition can add to it.
const ATTEMPTED_KEYS: &str = "attemptedKeys";

/// An item from a device.
pub(crate) fn to_item(device: &Device) -> HashMap<String, AttributeValue> {
    let mut item = serialize(DeviceRecord::from(device));
    if let Some(AttributeValue::L(keys)) = item.get(ATTEMPTED_KEYS) {
        let keys = keys.iter().filter_map(|key| key.as_s().ok().cloned()).collect();
        item.insert(ATTEMPTED_KEYS.to_owned(), AttributeValue::Ss(keys));
    }
    item
}

/// A device from an item.
pub(crate) fn from_item(item: impl Into<serde_dynamo::Item>) -> Result<Device, RegistryError> {
    let item: serde_dynamo::Item = item.into();
    let id = match item.inner().get("deviceId") {
        Some(serde_dynamo::AttributeValue::S(id)) => id.clone(),
        _ => String::new(),
    };
    serde_dynamo::from_item::<_, DeviceRecord>(item)
        .map_err(Into::into)
        .and_then(Device::try_from)
        .map_err(|source| RegistryError::Corrupt { device: id, source })
}

#[expect(clippy::expect_used, reason = "strings, numbers, booleans, lists of strings and string maps: all have a form")]
fn serialize(item: impl Serialize) -> HashMap<String, AttributeValue> {
    serde_dynamo::to_item(item).expect("every field has a DynamoDB form")
}
