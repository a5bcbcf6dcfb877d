//! Whose a key is: each key has an item of its own, under a name that no device has.
//!
//! The item says which device had the key last. Whether that device still has it, its own item says, so that nothing has
//! to be cleaned up when a device is deleted or has another key.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem, Update};
use cvm_provisioning::{DeviceId, DeviceStore as _, KeyFingerprint, RegistryError};

use crate::error::registry_error;
use crate::registry::{DynamoDbRegistry, TABLE_KEY, number, text};

/// Makes a device the owner of a key that nobody has, or the device itself, or `:stale`, which has not taken it again since.
const TAKE: &str = "SET #owner = :device ADD taken :one";
const IS_FREE: &str = "attribute_not_exists(#owner) OR #owner = :device OR \
                       (#owner = :stale AND (taken = :taken OR attribute_not_exists(taken)))";

/// What became of writes together with the keys of a device.
#[derive(Debug)]
pub(crate) enum Transaction {
    /// All was written.
    Written,
    /// Nothing was written: a write's condition did not hold, or another transaction was under way.
    Refused,
    /// Nothing was written: another device has one of the keys.
    KeyInUse { key: KeyFingerprint, owner: DeviceId },
}

/// The device that had a key last, and how often the key was taken then.
struct Owner {
    device: DeviceId,
    taken: i64,
}

/// The attribute with the device.
const OWNER: &str = "keyOwner";
/// Tries where others claim the same key at the same time.
const TRIES: usize = 3;

impl DynamoDbRegistry {
    /// Makes these writes, and the device the owner of the keys: all of it or nothing.
    pub(crate) async fn write_with_keys(
        &self,
        writes: &[TransactWriteItem],
        device: &DeviceId,
        keys: &BTreeSet<KeyFingerprint>,
    ) -> Result<Transaction, RegistryError> {
        // Who had a key and has it no more.
        let mut stale = BTreeMap::new();
        let nobody = Owner { device: device.clone(), taken: 0 };
        for _ in 0..TRIES {
            let mut items = writes.to_vec();
            for key in keys {
                let take = self.take(key, device, stale.get(key).unwrap_or(&nobody))?;
                items.push(TransactWriteItem::builder().update(take).build());
            }
            let Err(error) = self.client.transact_write_items().set_transact_items(Some(items)).send().await else {
                return Ok(Transaction::Written);
            };
            let Some(codes) = refusals(&error) else { return Err(registry_error(error)) };
            let (of_writes, of_keys) = codes.split_at(writes.len().min(codes.len()));
            if of_writes.iter().any(|code| *code != NONE) || of_keys.iter().all(|code| *code != FAILED) {
                return Ok(Transaction::Refused);
            }
            for (key, _) in keys.iter().zip(of_keys).filter(|(_, code)| **code == FAILED) {
                let Some(owner) = self.last_owner(key).await? else { continue };
                if owner.device != *device && self.has_key(&owner.device, key).await? {
                    return Ok(Transaction::KeyInUse { key: *key, owner: owner.device });
                }
                stale.insert(*key, owner);
            }
        }
        Err(several())
    }

    fn take(&self, key: &KeyFingerprint, device: &DeviceId, stale: &Owner) -> Result<Update, RegistryError> {
        let take = Update::builder()
            .table_name(&self.table)
            .key(TABLE_KEY, text(name(key)))
            .update_expression(TAKE)
            .condition_expression(IS_FREE)
            .expression_attribute_names("#owner", OWNER)
            .expression_attribute_values(":device", text(device))
            .expression_attribute_values(":one", number(1))
            .expression_attribute_values(":stale", text(&stale.device))
            .expression_attribute_values(":taken", number(stale.taken));
        take.build().map_err(|error| RegistryError::Unavailable { source: error.into() })
    }

    /// The device that had the key last.
    async fn last_owner(&self, key: &KeyFingerprint) -> Result<Option<Owner>, RegistryError> {
        let read = self.client.get_item().table_name(&self.table).key(TABLE_KEY, text(name(key))).consistent_read(true);
        let item = read.send().await.map_err(registry_error)?.item;
        item.map(|item| parse_owner(key, &item)).transpose()
    }

    async fn has_key(&self, device: &DeviceId, key: &KeyFingerprint) -> Result<bool, RegistryError> {
        Ok(self.find(device).await?.is_some_and(|device| device.keys().contains(key)))
    }

    /// The device that has the key.
    pub(crate) async fn key_owner(&self, key: &KeyFingerprint) -> Result<Option<DeviceId>, RegistryError> {
        let Some(owner) = self.last_owner(key).await? else { return Ok(None) };
        Ok(self.has_key(&owner.device, key).await?.then_some(owner.device))
    }
}

/// The name of a key's item.
fn name(key: &KeyFingerprint) -> String {
    format!("key/{key}")
}

fn parse_owner(key: &KeyFingerprint, item: &HashMap<String, AttributeValue>) -> Result<Owner, RegistryError> {
    let device = item.get(OWNER).and_then(|owner| owner.as_s().ok()?.parse().ok());
    let taken = item.get("taken").and_then(|taken| taken.as_n().ok()?.parse().ok()).unwrap_or(0);
    let owner = device.map(|device| Owner { device, taken });
    owner.ok_or_else(|| RegistryError::Corrupt { device: name(key), source: "the owner of a key is no device".into() })
}

fn several() -> RegistryError {
    RegistryError::Throttled { source: "several devices ask with one key".into() }
}

/// The code of a write that was not refused.
const NONE: &str = "None";
/// The code of a write whose condition did not hold.
const FAILED: &str = "ConditionalCheckFailed";

/// Why each write of a transaction was not made; `None` where that is not because of what it found, or because another
/// transaction was under way.
fn refusals<R>(error: &SdkError<TransactWriteItemsError, R>) -> Option<Vec<&str>> {
    let TransactWriteItemsError::TransactionCanceledException(cancelled) = error.as_service_error()? else {
        return None;
    };
    let codes: Vec<_> = cancelled.cancellation_reasons().iter().map(|reason| reason.code().unwrap_or(NONE)).collect();
    codes.iter().all(|code| matches!(*code, NONE | FAILED | "TransactionConflict")).then_some(codes)
}
