//! The table's indexes, and the places of jobs that are done a piece at a time.

use aws_sdk_dynamodb::types::{AttributeValue, KeySchemaElement, StreamSpecification};
use cvm_provisioning::{CertificateId, CertificateIndex, CertificateOwner, Cursors, RegistryError, UnsettledDevice};

use crate::device_store::buried_device;
use crate::error::registry_error;
use crate::registry::{DynamoDbRegistry, TABLE_KEY, text};

/// The index by `certificateId`, with `reservedCertificate` and `usedAt`.
pub const CERTIFICATE_INDEX: &str = "certificates";
/// The index by `unsettledSince`, which has the devices alone for which there is something to settle.
pub const UNSETTLED_INDEX: &str = "unsettled";

impl DynamoDbRegistry {
    /// What keeps the table from being the registry of a stack, if anything does: an index that is not there, or the
    /// stream by which writes are followed up.
    ///
    /// # Errors
    ///
    /// [`RegistryError`], where there is no such table, too.
    pub async fn lack(&self) -> Result<Option<&'static str>, RegistryError> {
        let answer = self.client.describe_table().table_name(&self.table).send().await.map_err(registry_error)?;
        let Some(table) = answer.table else { return Ok(Some("description")) };
        let is_key = |key: &KeySchemaElement| key.attribute_name() == TABLE_KEY;
        let has_index = |name| table.global_secondary_indexes().iter().any(|index| index.index_name() == Some(name));
        let streams = table.stream_specification().is_some_and(StreamSpecification::stream_enabled);
        Ok(match () {
            () if !table.key_schema().iter().all(is_key) => Some("key `deviceId` alone"),
            () if !has_index(CERTIFICATE_INDEX) => Some("index `certificates`"),
            () if !has_index(UNSETTLED_INDEX) => Some("index `unsettled`"),
            () if !streams => Some("stream"),
            () => None,
        })
    }
}

impl CertificateIndex for DynamoDbRegistry {
    async fn device_of(&self, certificate: &CertificateId) -> Result<Option<CertificateOwner>, RegistryError> {
        let output = self
            .client
            .query()
            .table_name(&self.table)
            .index_name(CERTIFICATE_INDEX)
            .key_condition_expression("certificateId = :certificate")
            .expression_attribute_values(":certificate", text(certificate))
            .limit(1)
            .send()
            .await
            .map_err(registry_error)?;
        let Some(item) = output.items.unwrap_or_default().into_iter().next() else { return Ok(None) };
        // The use is that of the certificate that the device has, not of the one that it is reserved for.
        let used = item.contains_key("usedAt") && item.get("reservedCertificate") != Some(&text(certificate));
        let device = item.get(TABLE_KEY).and_then(|id| id.as_s().ok()).and_then(|id| id.parse().ok());
        Ok(device.map(|device| CertificateOwner { device, used }))
    }

    async fn unsettled(&self, limit: u16) -> Result<Vec<UnsettledDevice>, RegistryError> {
        let output = self
            .client
            .scan()
            .table_name(&self.table)
            .index_name(UNSETTLED_INDEX)
            .limit(i32::from(limit))
            .send()
            .await
            .map_err(registry_error)?;
        let keys = output.items.unwrap_or_default().into_iter().filter_map(|mut item| item.remove(TABLE_KEY));
        let unsettled = keys.filter_map(|key| {
            let key = key.as_s().ok()?;
            Some(match buried_device(key) {
                Some((id, generation)) => UnsettledDevice { id, deleted: Some(generation) },
                None => UnsettledDevice { id: key.parse().ok()?, deleted: None },
            })
        });
        Ok(unsettled.collect())
    }
}

impl Cursors for DynamoDbRegistry {
    async fn place(&self, name: &str) -> Result<Option<String>, RegistryError> {
        let output = self
            .client
            .get_item()
            .table_name(&self.table)
            .key(TABLE_KEY, text(format!("cursor/{name}")))
            .consistent_read(true)
            .send()
            .await
            .map_err(registry_error)?;
        let place = output.item.and_then(|mut item| item.remove("place"));
        Ok(place.and_then(|place| place.as_s().ok().cloned()))
    }

    async fn move_to(&self, name: &str, place: Option<&str>) -> Result<(), RegistryError> {
        let key = text(format!("cursor/{name}"));
        let put = self.client.put_item().table_name(&self.table).item(TABLE_KEY, key);
        let put = match place {
            Some(place) => put.item("place", AttributeValue::S(place.to_owned())),
            None => put,
        };
        put.send().await.map_err(registry_error)?;
        Ok(())
    }
}
