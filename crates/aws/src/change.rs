//! A change of a device as writes of items: one conditional write where one item changes, else a transaction.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{AttributeValue, Delete, Put as PutItem, TransactWriteItem};
use cvm_provisioning::{
    Change, ClaimChange, Denial, Device, DeviceChange, DeviceId, KeyFingerprint, Origin, Put, Refusal, RegistryError,
    State, Tombstone,
};

use crate::changed_by::{CHANGED_BY, changed_by};
use crate::device_store::{BURIED, tombstone_key};
use crate::item;
use crate::keys::Transaction;
use crate::registry::{DynamoDbRegistry, TABLE_KEY, number, seconds, text, written};

/// The second half is for a write that took effect and whose answer was lost.
const IS_NEW: &str = "attribute_not_exists(deviceId) OR (generation = :generation AND version = :version)";
const IS_AT_VERSION: &str = "version = :version AND generation = :generation";

impl DynamoDbRegistry {
    pub(crate) async fn make(&self, change: &Change) -> Result<Put, RegistryError> {
        if !change.ledger.is_empty() {
            return Err(RegistryError::Unavailable { source: "a table keeps no ledger of certificates".into() });
        }
        let writes = self.writes(change)?;
        let all: BTreeSet<_> = change.exclusive.union(&change.if_free).copied().collect();
        let written = match self.transact(&writes, change.id(), &all).await? {
            // Whoever has that key keeps it, and this device can still be changed and deleted.
            Transaction::KeyInUse { key, .. } if !change.exclusive.contains(&key) => {
                self.transact(&writes, change.id(), &change.exclusive).await?
            }
            written => written,
        };
        Ok(match written {
            Transaction::Written => Put::Done,
            Transaction::Refused => Put::Changed,
            Transaction::KeyInUse { key, owner } => Put::KeyInUse { key, owner },
        })
    }

    /// Makes the writes, and the device the owner of the keys: all of it or nothing.
    async fn transact(
        &self,
        writes: &[TransactWriteItem],
        device: &DeviceId,
        keys: &BTreeSet<KeyFingerprint>,
    ) -> Result<Transaction, RegistryError> {
        let [TransactWriteItem { put: Some(put), .. }] = writes else {
            return self.write_with_keys(writes, device, keys).await;
        };
        if !keys.is_empty() {
            return self.write_with_keys(writes, device, keys).await;
        }
        // A transaction of one write costs twice as much as the write.
        let request = self.client.put_item().table_name(&put.table_name).set_item(Some(put.item.clone()));
        let request = request.set_condition_expression(put.condition_expression.clone());
        let request = request.set_expression_attribute_values(put.expression_attribute_values.clone());
        Ok(if written(request.send().await)? { Transaction::Written } else { Transaction::Refused })
    }

    fn writes(&self, change: &Change) -> Result<Vec<TransactWriteItem>, RegistryError> {
        let by = &change.by;
        let put = |put| TransactWriteItem::builder().put(put).build();
        let mut writes = match &change.device {
            DeviceChange::Add(device) | DeviceChange::Restore { device, .. } => {
                vec![put(self.put_of(device, IS_NEW, device.version, by)?)]
            }
            DeviceChange::Replace { device, version } => vec![put(self.put_of(device, IS_AT_VERSION, *version, by)?)],
            DeviceChange::Remove { tombstone: Tombstone { device }, version } => {
                let delete = Delete::builder()
                    .table_name(&self.table)
                    .key(TABLE_KEY, text(&device.id))
                    .condition_expression(IS_AT_VERSION)
                    .expression_attribute_values(":version", AttributeValue::N(version.to_string()))
                    .expression_attribute_values(":generation", text(device.generation));
                let tombstone = PutItem::builder()
                    .table_name(&self.table)
                    .item(TABLE_KEY, text(tombstone_key(&device.id, device.generation)))
                    .item(BURIED, AttributeValue::M(item::to_item(device)))
                    .item(CHANGED_BY, changed_by(by))
                    // The reconciler finds it by this, should nobody else have got to it.
                    .item("unsettledSince", seconds(device.updated_at));
                let delete = TransactWriteItem::builder().delete(delete.build().map_err(unbuilt)?).build();
                vec![delete, put(tombstone.build().map_err(unbuilt)?)]
            }
        };
        match &change.claim {
            None => {}
            Some(ClaimChange::Count { claim, at }) => {
                let count = self.count_on_claim(claim, *at)?;
                writes.push(TransactWriteItem::builder().update(count).build());
            }
            Some(ClaimChange::MakeOut(claim)) => writes.push(put(self.put_of_claim(claim)?)),
        }
        Ok(writes)
    }

    fn put_of(&self, device: &Device, condition: &str, version: u64, by: &Origin) -> Result<PutItem, RegistryError> {
        let put = PutItem::builder()
            .table_name(&self.table)
            .set_item(Some(item::to_item(device)))
            .item(CHANGED_BY, changed_by(by))
            .condition_expression(condition)
            .expression_attribute_values(":version", AttributeValue::N(version.to_string()))
            .expression_attribute_values(":generation", text(device.generation));
        put.build().map_err(unbuilt)
    }

    /// Counts a refusal as [`Device::refuse`] does it, whatever the version.
    pub(crate) async fn count_one(
        &self,
        device: &DeviceId,
        refusal: &Refusal,
        by: &Origin,
    ) -> Result<(), RegistryError> {
        let mut set = "SET refusedFor = :reason, refusedKey = :key, refusedAt = :at, changedBy = :by".to_owned();
        let mut update = self.client.update_item().table_name(&self.table).key(TABLE_KEY, text(device));
        if refusal.denial == Denial::WrongProof {
            set.push_str(", wrongProofs = wrongProofs + :one");
        }
        if refusal.noted {
            set.push_str(", refusedNotedAt = :at REMOVE refusedSinceNoted");
        } else {
            set.push_str(
                ", refusedNotedAt = if_not_exists(refusedNotedAt, :at), \
                 refusedSinceNoted = if_not_exists(refusedSinceNoted, :zero) + :one",
            );
            update = update.expression_attribute_values(":zero", number(0));
        }
        if !refusal.noted || refusal.denial == Denial::WrongProof {
            update = update.expression_attribute_values(":one", number(1));
        }
        let counted = update
            .update_expression(set)
            .condition_expression("attribute_exists(deviceId) AND #state <> :quarantined")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":quarantined", text(State::Quarantined.name()))
            .expression_attribute_values(":at", seconds(refusal.at))
            .expression_attribute_values(":by", changed_by(by))
            .expression_attribute_values(":key", text(refusal.key))
            .expression_attribute_values(":reason", text(refusal.denial.code()))
            .send()
            .await;
        written(counted).map(|_| ())
    }
}

pub(crate) fn unbuilt(error: BuildError) -> RegistryError {
    RegistryError::Unavailable { source: error.into() }
}
