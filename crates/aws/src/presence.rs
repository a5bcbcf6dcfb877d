//! Who is connected, in items of their own: what the platform says of a device is no change of the device.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, Select};
use cvm_provisioning::{DeviceId, Presence, Presences, RegistryError};
use cvm_records::PresenceRecord;

use crate::error::registry_error;
use crate::registry::{DynamoDbRegistry, TABLE_KEY, text, written};

const PREFIX: &str = "presence/";

impl Presences for DynamoDbRegistry {
    async fn note_presence(&self, device: &DeviceId, presence: &Presence) -> Result<(), RegistryError> {
        let result = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(to_item(device, presence)))
            .condition_expression("attribute_not_exists(#order) OR #order <= :order")
            .expression_attribute_names("#order", "order")
            .expression_attribute_values(":order", AttributeValue::N(presence.order.to_string()))
            .send()
            .await;
        written(result).map(|_| ())
    }

    async fn presences(&self, devices: &[DeviceId]) -> Result<BTreeMap<DeviceId, Presence>, RegistryError> {
        let mut known = BTreeMap::new();
        let mut keys: Vec<_> =
            devices.iter().map(|id| HashMap::from([(TABLE_KEY.to_owned(), text(format!("{PREFIX}{id}")))])).collect();
        while !keys.is_empty() {
            let wanted = KeysAndAttributes::builder().set_keys(Some(keys)).build();
            let wanted = wanted.map_err(|error| RegistryError::Unavailable { source: error.into() })?;
            let output = self.client.batch_get_item().request_items(&self.table, wanted).send().await;
            let mut output = output.map_err(registry_error)?;
            let items = output.responses.as_mut().and_then(|responses| responses.remove(&self.table));
            known.extend(items.unwrap_or_default().into_iter().filter_map(from_item));
            let rest = output.unprocessed_keys.and_then(|mut rest| rest.remove(&self.table));
            keys = rest.map(|rest| rest.keys).unwrap_or_default();
        }
        Ok(known)
    }

    async fn forget_presence(&self, device: &DeviceId) -> Result<(), RegistryError> {
        let key = text(format!("{PREFIX}{device}"));
        let delete = self.client.delete_item().table_name(&self.table).key(TABLE_KEY, key);
        delete.send().await.map_err(registry_error)?;
        Ok(())
    }

    async fn count_connected(&self) -> Result<u64, RegistryError> {
        let mut pages = self
            .client
            .scan()
            .table_name(&self.table)
            .select(Select::Count)
            .filter_expression("connected = :true")
            .expression_attribute_values(":true", AttributeValue::Bool(true))
            .into_paginator()
            .send();
        let mut count = 0;
        while let Some(page) = pages.next().await {
            count += u64::try_from(page.map_err(registry_error)?.count).unwrap_or_default();
        }
        Ok(count)
    }
}

#[expect(clippy::expect_used, reason = "strings, numbers and a boolean: all have a form")]
fn to_item(device: &DeviceId, presence: &Presence) -> HashMap<String, AttributeValue> {
    let item = serde_dynamo::to_item(PresenceRecord::from(presence));
    let mut item: HashMap<_, _> = item.expect("every field has a DynamoDB form");
    item.insert(TABLE_KEY.to_owned(), text(format!("{PREFIX}{device}")));
    item
}

/// An item that is none of ours says nothing.
fn from_item(item: HashMap<String, AttributeValue>) -> Option<(DeviceId, Presence)> {
    let device = item.get(TABLE_KEY)?.as_s().ok()?.strip_prefix(PREFIX)?.parse().ok()?;
    Some((device, serde_dynamo::from_item::<_, PresenceRecord>(item).ok()?.into()))
}
