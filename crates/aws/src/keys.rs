//! Whose a key is: each key has an item of its own, under a name that no device has.
//!
//! The item says which device had the key last. Whether that device still has it, its own item says, so that nothing has
//! to be cleaned up when a device is deleted or has another key.

use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure;
use cvm_provisioning::{DeviceId, DeviceStore as _, KeyFingerprint, RegistryError};

use crate::error::registry_error;
use crate::registry::{DynamoDbRegistry, TABLE_KEY, text};

/// The attribute with the device.
const OWNER: &str = "keyOwner";
/// Tries where others claim the same key at the same time.
const TRIES: usize = 3;

impl DynamoDbRegistry {
    /// Makes the key the device's, and returns the other device that has it, if there is one. The device has to be
    /// reserved for the key already: of two devices that do this at once, the second sees that the first has the key.
    pub(crate) async fn claim_key(
        &self,
        key: &KeyFingerprint,
        device: &DeviceId,
    ) -> Result<Option<DeviceId>, RegistryError> {
        // Most keys are new, or the device's own.
        let mut stale = device.clone();
        for _ in 0..TRIES {
            let Some(owner) = self.write_owner(key, device, &stale).await? else { return Ok(None) };
            if self.find(&owner).await?.is_some_and(|there| there.keys().contains(key)) {
                return Ok(Some(owner));
            }
            stale = owner;
        }
        Err(RegistryError::Throttled { source: "several devices ask with one key".into() })
    }

    /// The device that has the key.
    pub(crate) async fn key_owner(&self, key: &KeyFingerprint) -> Result<Option<DeviceId>, RegistryError> {
        let name = format!("key/{key}");
        let item = self.client.get_item().table_name(&self.table).key(TABLE_KEY, text(name)).consistent_read(true);
        let item = item.send().await.map_err(registry_error)?.item;
        let owner = item.as_ref().and_then(|item| item.get(OWNER)?.as_s().ok()?.parse::<DeviceId>().ok());
        let Some(owner) = owner else { return Ok(None) };
        let has_it = self.find(&owner).await?.is_some_and(|there| there.keys().contains(key));
        Ok(Some(owner).filter(|_| has_it))
    }

    /// Writes the device as the owner in the place of none, itself or `stale`; else the owner as it was found.
    async fn write_owner(
        &self,
        key: &KeyFingerprint,
        device: &DeviceId,
        stale: &DeviceId,
    ) -> Result<Option<DeviceId>, RegistryError> {
        let name = format!("key/{key}");
        let claimed = self
            .client
            .update_item()
            .table_name(&self.table)
            .key(TABLE_KEY, text(&name))
            .update_expression("SET #owner = :device")
            .condition_expression("attribute_not_exists(#owner) OR #owner IN (:device, :stale)")
            .expression_attribute_names("#owner", OWNER)
            .expression_attribute_values(":device", text(device))
            .expression_attribute_values(":stale", text(stale))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let Err(error) = claimed else { return Ok(None) };
        let Some(UpdateItemError::ConditionalCheckFailedException(refused)) = error.as_service_error() else {
            return Err(registry_error(error));
        };
        let owner = refused.item.as_ref().and_then(|item| item.get(OWNER)?.as_s().ok());
        let owner = owner.and_then(|owner| owner.parse().ok());
        let unknown = || RegistryError::Corrupt { device: name, source: "the owner of a key is no device".into() };
        owner.map(Some).ok_or_else(unknown)
    }
}
