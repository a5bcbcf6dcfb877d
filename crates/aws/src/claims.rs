//! Claims in the table of the device registry, under keys that no device has.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, Put, Update};
use cvm_provisioning::{
    CertificateId, Claim, ClaimStore, Device, DeviceId, RegistryError, Status, Timestamp, TrustedUser,
};
use cvm_records::{ClaimRecord, ENABLED};

use crate::change::unbuilt;
use crate::error::registry_error;
use crate::item;
use crate::registry::{DynamoDbRegistry, TABLE_KEY, number, seconds, text};

/// How long a trusted user's claim is kept after it has ended.
const KEPT: Duration = Duration::from_secs(90 * 24 * 60 * 60);

impl ClaimStore for DynamoDbRegistry {
    async fn look_up(
        &self,
        claim: &CertificateId,
        device: &DeviceId,
    ) -> Result<(Option<Claim>, Option<Device>), RegistryError> {
        // Not a transaction: those get in each other's way where many devices share a claim, and the write that follows
        // checks all of this again.
        let keys = [claim_key(claim), device.to_string()].map(|key| HashMap::from([(TABLE_KEY.to_owned(), text(key))]));
        let keys = KeysAndAttributes::builder().set_keys(Some(keys.to_vec())).consistent_read(true).build();
        let keys = keys.map_err(|error| RegistryError::Unavailable { source: error.into() })?;
        let output = self.client.batch_get_item().request_items(&self.table, keys).send().await;
        let output = output.map_err(registry_error)?;
        if output.unprocessed_keys.is_some_and(|keys| !keys.is_empty()) {
            return Err(RegistryError::Throttled { source: "an item was not read".into() });
        }
        let items = output.responses.and_then(|mut responses| responses.remove(&self.table)).unwrap_or_default();
        let (claims, devices): (Vec<_>, Vec<_>) =
            items.into_iter().partition(|item| item.contains_key("claimCertificate"));
        let claim = claims.into_iter().next().map(from_item).transpose()?;
        let device = devices.into_iter().next().map(item::from_item).transpose()?;
        Ok((claim, device))
    }

    async fn count_claim(&self, user: &TrustedUser, day: i64, quota: u64) -> Result<bool, RegistryError> {
        // One counter a day: the day is in the key, and the table's time to live removes the item.
        let key = text(format!("user/{user}/{day}"));
        let result = self
            .client
            .update_item()
            .table_name(&self.table)
            .key(TABLE_KEY, key)
            .update_expression("ADD #used :one SET forgetAt = :end")
            .condition_expression("attribute_not_exists(#used) OR #used < :quota")
            .expression_attribute_names("#used", "used")
            .expression_attribute_values(":one", number(1))
            .expression_attribute_values(":end", number((day + 2) * Timestamp::DAY))
            .expression_attribute_values(":quota", AttributeValue::N(quota.to_string()))
            .send()
            .await;
        match result {
            Ok(_) => Ok(quota > 0),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(_)) => Ok(false),
                _ => Err(registry_error(error)),
            },
        }
    }

    async fn find_claim(&self, id: &CertificateId) -> Result<Option<Claim>, RegistryError> {
        let output = self
            .client
            .get_item()
            .table_name(&self.table)
            .key(TABLE_KEY, text(claim_key(id)))
            .consistent_read(true)
            .send()
            .await
            .map_err(registry_error)?;
        output.item.map(from_item).transpose()
    }

    async fn put_claim(&self, claim: &Claim, found: Option<&Claim>) -> Result<bool, RegistryError> {
        let mut item = to_item(claim);
        item.remove(TABLE_KEY);
        let used = item.remove("used").unwrap_or_else(|| number(0));
        let mut set = vec!["#used = if_not_exists(#used, :used)".to_owned()];
        let mut update = self
            .client
            .update_item()
            .table_name(&self.table)
            .key(TABLE_KEY, text(claim_key(&claim.certificate)))
            .expression_attribute_names("#used", "used")
            .expression_attribute_values(":used", used);
        let mut remove = Vec::new();
        for name in ["statusReason", "statusSince", "quota", "expiresAt", "madeOutTo", "madeOutFor"] {
            if !item.contains_key(name) {
                update = update.expression_attribute_names(format!("#{name}"), name);
                remove.push(format!("#{name}"));
            }
        }
        for (name, value) in item {
            set.push(format!("#{name} = :{name}"));
            update = update
                .expression_attribute_names(format!("#{name}"), &name)
                .expression_attribute_values(format!(":{name}"), value);
        }
        let mut expression = format!("SET {}", set.join(", "));
        if !remove.is_empty() {
            expression.push_str(" REMOVE ");
            expression.push_str(&remove.join(", "));
        }
        update = match found.map(|found| &found.status) {
            None => update
                .condition_expression("attribute_not_exists(#deviceId)")
                .expression_attribute_names("#deviceId", TABLE_KEY),
            Some(Status { enabled: true, .. }) => update
                .condition_expression("#status = :foundStatus")
                .expression_attribute_values(":foundStatus", text(ENABLED)),
            Some(Status { since, .. }) => update
                .condition_expression("#status <> :foundStatus AND #statusSince = :foundSince")
                .expression_attribute_values(":foundStatus", text(ENABLED))
                .expression_attribute_values(":foundSince", number(since.seconds())),
        };
        match update.update_expression(expression).send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(_)) => Ok(false),
                _ => Err(registry_error(error)),
            },
        }
    }

    async fn claims(&self) -> Result<Vec<Claim>, RegistryError> {
        let items = self
            .client
            .scan()
            .table_name(&self.table)
            .filter_expression("attribute_exists(claimCertificate)")
            .into_paginator()
            .items()
            .send();
        let items: Result<Vec<_>, _> = items.collect().await;
        items.map_err(registry_error)?.into_iter().map(from_item).collect()
    }
}

impl DynamoDbRegistry {
    /// Counts one more device on a claim that is [open](Claim::is_open).
    pub(crate) fn count_on_claim(&self, claim: &CertificateId, at: Timestamp) -> Result<Update, RegistryError> {
        let count = Update::builder()
            .table_name(&self.table)
            .key(TABLE_KEY, text(claim_key(claim)))
            .update_expression("ADD #used :one")
            .condition_expression(
                "#status = :enabled AND (attribute_not_exists(#quota) OR #used < #quota) \
                 AND (attribute_not_exists(expiresAt) OR expiresAt > :now)",
            )
            .expression_attribute_names("#quota", "quota")
            .expression_attribute_names("#status", "status")
            .expression_attribute_names("#used", "used")
            .expression_attribute_values(":enabled", text(ENABLED))
            .expression_attribute_values(":now", seconds(at))
            .expression_attribute_values(":one", number(1));
        count.build().map_err(unbuilt)
    }

    /// Registers a claim that was made out.
    pub(crate) fn put_of_claim(&self, claim: &Claim) -> Result<Put, RegistryError> {
        let mut item = to_item(claim);
        if let Some(end) = claim.expires_at {
            // Long enough for whoever wants to know who vouched for what.
            item.insert("forgetAt".to_owned(), seconds(end.after(KEPT)));
        }
        Put::builder().table_name(&self.table).set_item(Some(item)).build().map_err(unbuilt)
    }
}

fn claim_key(certificate: &CertificateId) -> String {
    format!("claim/{certificate}")
}

#[expect(clippy::expect_used, reason = "strings and numbers: all have a form")]
fn to_item(claim: &Claim) -> HashMap<String, AttributeValue> {
    let mut item: HashMap<_, _> =
        serde_dynamo::to_item(ClaimRecord::from(claim)).expect("every field has a DynamoDB form");
    item.insert(TABLE_KEY.to_owned(), text(claim_key(&claim.certificate)));
    item
}

fn from_item(item: HashMap<String, AttributeValue>) -> Result<Claim, RegistryError> {
    let key = item.get(TABLE_KEY).and_then(|id| id.as_s().ok()).cloned().unwrap_or_default();
    let read = serde_dynamo::from_item::<_, ClaimRecord>(item).map_err(Into::into).and_then(Claim::try_from);
    read.map_err(|source| RegistryError::Corrupt { device: key, source })
}
