//! The device registry as operators use it.

use std::collections::HashMap;

use aws_sdk_dynamodb::operation::scan::builders::ScanFluentBuilder;
use cvm_provisioning::{
    Change, Device, DeviceCounts, DeviceFilter, DeviceId, DeviceStore, GenerationId, KeyFingerprint, Origin, Page, Put,
    Refusal, RegistryError, State, Tombstone, Tombstones,
};
use cvm_records::ENABLED;
use futures_util::future::try_join_all;

use crate::error::registry_error;
use crate::item;
use crate::registry::{DynamoDbRegistry, TABLE_KEY, number, text};

/// The most reads of a list before it says where to go on, whatever it has found: a filter that lets little through
/// must not keep a caller waiting.
const MAX_READS: usize = 8;
/// Items that are read at once where a filter looks at each.
const FILTERED_READ: i32 = 1_000;
/// Parts of the table that are counted side by side.
const SEGMENTS: i32 = 4;

impl DeviceStore for DynamoDbRegistry {
    async fn put(&self, change: &Change) -> Result<Put, RegistryError> {
        self.make(change).await
    }

    async fn count_refusal(&self, device: &DeviceId, refusal: &Refusal, by: &Origin) -> Result<(), RegistryError> {
        self.count_one(device, refusal, by).await
    }

    async fn find(&self, id: &DeviceId) -> Result<Option<Device>, RegistryError> {
        let output = self
            .client
            .get_item()
            .table_name(&self.table)
            .key(TABLE_KEY, text(id))
            .consistent_read(true)
            .send()
            .await
            .map_err(registry_error)?;
        output.item.map(item::from_item).transpose()
    }

    async fn owner_of(&self, key: &KeyFingerprint) -> Result<Option<DeviceId>, RegistryError> {
        self.key_owner(key).await
    }

    async fn list(&self, filter: &DeviceFilter, after: Option<&DeviceId>, limit: u16) -> Result<Page, RegistryError> {
        let limit = usize::from(limit);
        if limit == 0 {
            return Ok(Page { devices: Vec::new(), next: after.cloned() });
        }
        let filtered = *filter != DeviceFilter::default();
        let mut start = after.map(|id| HashMap::from([(TABLE_KEY.to_owned(), text(id))]));
        let mut devices: Vec<Device> = Vec::new();
        for read in 1.. {
            let scan = self.client.scan().table_name(&self.table).consistent_read(true).set_exclusive_start_key(start);
            // Without a filter there is no need to read more than can be given back.
            let wanted = i32::try_from(limit - devices.len()).unwrap_or(FILTERED_READ).max(1);
            let scan = scan.limit(if filtered { FILTERED_READ } else { wanted });
            let output = with_filter(scan, filter).send().await.map_err(registry_error)?;
            for item in output.items.unwrap_or_default() {
                // Of some filters the scan knows nothing.
                devices.extend(Some(item::from_item(item)?).filter(|device| filter.admits(device)));
            }
            if devices.len() > limit {
                devices.truncate(limit);
                let next = devices.last().map(|device| device.id.clone());
                return Ok(Page { devices, next });
            }
            let last = output.last_evaluated_key.as_ref().and_then(|key| key.get(TABLE_KEY)?.as_s().ok());
            match last.map(|key| key.parse()) {
                None => return Ok(Page { devices, next: None }),
                Some(Ok(id)) if devices.len() == limit || read >= MAX_READS => {
                    return Ok(Page { devices, next: Some(id) });
                }
                // The page ended at an item that is no device; a page can only begin after one.
                Some(_) => start = output.last_evaluated_key,
            }
        }
        Ok(Page { devices, next: None })
    }

    async fn count(&self) -> Result<DeviceCounts, RegistryError> {
        let parts = try_join_all((0..SEGMENTS).map(|segment| self.count_segment(segment))).await?;
        let mut sum = DeviceCounts::default();
        for part in parts {
            sum.total += part.total;
            sum.enabled += part.enabled;
            sum.by_state.iter_mut().zip(part.by_state).for_each(|(sum, part)| *sum += part);
        }
        Ok(sum)
    }
}

impl DynamoDbRegistry {
    async fn count_segment(&self, segment: i32) -> Result<DeviceCounts, RegistryError> {
        let mut counts = DeviceCounts::default();
        let mut items = self
            .client
            .scan()
            .table_name(&self.table)
            .segment(segment)
            .total_segments(SEGMENTS)
            .filter_expression(IS_A_DEVICE)
            .projection_expression("#state, #status")
            .expression_attribute_names("#state", "state")
            .expression_attribute_names("#status", "status")
            .into_paginator()
            .items()
            .send();
        while let Some(item) = items.next().await {
            let item = item.map_err(registry_error)?;
            let word = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).map(String::as_str);
            if let Some(state) = word("state").and_then(State::from_name) {
                counts.add(state, word("status") == Some(ENABLED));
            }
        }
        Ok(counts)
    }
}

impl Tombstones for DynamoDbRegistry {
    async fn tombstone(&self, id: &DeviceId, generation: GenerationId) -> Result<Option<Tombstone>, RegistryError> {
        let output = self
            .client
            .get_item()
            .table_name(&self.table)
            .key(TABLE_KEY, text(tombstone_key(id, generation)))
            .consistent_read(true)
            .send()
            .await
            .map_err(registry_error)?;
        let buried = output.item.and_then(|mut item| item.remove(BURIED)?.as_m().ok().cloned());
        Ok(buried.map(item::from_item).transpose()?.map(|device| Tombstone { device }))
    }

    async fn forget(&self, id: &DeviceId, generation: GenerationId) -> Result<(), RegistryError> {
        let key = text(tombstone_key(id, generation));
        let delete = self.client.delete_item().table_name(&self.table).key(TABLE_KEY, key);
        delete.send().await.map_err(registry_error)?;
        Ok(())
    }
}

/// What only the item of a device has at its top: claims, counters, places, presences and tombstones have a slash in
/// their key, which no device id has.
const IS_A_DEVICE: &str = "attribute_exists(attestation)";

/// The attribute of a tombstone that has the device's item.
pub(crate) const BURIED: &str = "buried";

const TOMBSTONE: &str = "tombstone/";

pub(crate) fn tombstone_key(id: &DeviceId, generation: GenerationId) -> String {
    format!("{TOMBSTONE}{id}/{generation}")
}

/// The device of a tombstone's key.
pub(crate) fn buried_device(key: &str) -> Option<(DeviceId, GenerationId)> {
    let (id, generation) = key.strip_prefix(TOMBSTONE)?.split_once('/')?;
    Some((id.parse().ok()?, generation.parse().ok()?))
}

/// The scan of the devices that `filter` lets through, and of some more: [`DeviceFilter::admits`] decides.
fn with_filter(mut scan: ScanFluentBuilder, filter: &DeviceFilter) -> ScanFluentBuilder {
    let mut conditions = vec![IS_A_DEVICE.to_owned()];
    let DeviceFilter { state, enabled, group, template, changed_since, prefix, refused_since: _, expires_before: _ } =
        filter;
    let required = [
        state.map(|state| ("state", "=", text(state.name()))),
        enabled.map(|enabled| ("status", if enabled { "=" } else { "<>" }, text(ENABLED))),
        group.as_ref().map(|group| ("enrolmentGroup", "=", text(group))),
        template.as_ref().map(|template| ("template", "=", text(template))),
        changed_since.map(|since| ("updatedAt", ">=", number(since.seconds()))),
    ];
    for (name, relation, value) in required.into_iter().flatten() {
        conditions.push(format!("#{name} {relation} :{name}"));
        scan = scan
            .expression_attribute_names(format!("#{name}"), name)
            .expression_attribute_values(format!(":{name}"), value);
    }
    if let Some(prefix) = prefix {
        conditions.push(format!("begins_with({TABLE_KEY}, :prefix)"));
        scan = scan.expression_attribute_values(":prefix", text(prefix));
    }
    scan.filter_expression(conditions.join(" AND "))
}
