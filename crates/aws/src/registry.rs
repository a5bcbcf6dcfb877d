//! The device registry on one DynamoDB table. Every change is one conditional `UpdateItem`, `PutItem` or `DeleteItem`;
//! a refused one brings back the item as it was found, so that telling why costs no second read.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure};
use cvm_provisioning::{
    Attempt, Credential, Denial, Device, DeviceId, DeviceStore, Leftover, Page, Refusal, RegistryError,
    ReservationLost, Reservations, Reserve, State, Timestamp,
};

use crate::error::registry_error;
use crate::item::{self, ENABLED, PUBLIC_KEY, TOKEN};

/// The name of the table's partition key; there is no sort key.
pub const TABLE_KEY: &str = "deviceId";

/// The device registry on DynamoDB.
#[derive(Clone, Debug)]
pub struct DynamoDbRegistry {
    client: Client,
    table: String,
}

impl DynamoDbRegistry {
    /// The registry in the table of this name.
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into() }
    }

    /// A change of one item: everything but the change itself.
    fn update(&self, id: &DeviceId) -> UpdateItemFluentBuilder {
        self.client
            .update_item()
            .table_name(&self.table)
            .key(TABLE_KEY, text(id))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":one", number(1))
    }
}

impl Reservations for DynamoDbRegistry {
    async fn reserve(&self, attempt: &Attempt) -> Result<Reserve, RegistryError> {
        let Attempt { id, device, proof, now } = attempt;
        let mut condition = vec![
            "#status = :enabled".to_owned(),
            "(attribute_not_exists(blockedUntil) OR blockedUntil <= :now)".to_owned(),
        ];
        let mut update = self
            .update(device)
            .return_values(ReturnValue::AllNew)
            .update_expression(
                "SET #state = :reserved, reservedBy = :owner, reservedKey = :key, reservedUntil = :until, \
                 attempts = if_not_exists(attempts, :zero) + :one, version = version + :one, updatedAt = :now \
                 ADD attemptedKeys :keys",
            )
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":enabled", text(ENABLED))
            .expression_attribute_values(":key", text(proof.key))
            .expression_attribute_values(":keys", AttributeValue::Ss(vec![proof.key.to_string()]))
            .expression_attribute_values(":now", seconds(*now))
            .expression_attribute_values(":owner", text(id))
            .expression_attribute_values(":registered", text(State::Registered.name()))
            .expression_attribute_values(":reserved", text(State::Reserved.name()))
            .expression_attribute_values(":until", seconds(attempt.lease_ends()))
            .expression_attribute_values(":zero", number(0));

        let mut proofs = Vec::new();
        if let Some(digest) = &proof.token {
            proofs.push(
                "(attestation = :token AND tokenDigest = :digest AND \
                 (attribute_not_exists(tokenExpiresAt) OR tokenExpiresAt > :now))",
            );
            update = update
                .expression_attribute_values(":token", text(TOKEN))
                .expression_attribute_values(":digest", text(digest));
        }
        if !proof.key_made_here {
            proofs.push("(attestation = :publicKey AND publicKey = :key)");
            update = update.expression_attribute_values(":publicKey", text(PUBLIC_KEY));
        }
        // An attempt without any proof is refused like one with a wrong proof.
        proofs.push("attribute_not_exists(deviceId)");
        condition.push(format!("({})", proofs.join(" OR ")));

        let mut states = vec!["#state = :registered", "(#state = :reserved AND reservedUntil <= :now)"];
        if proof.key_made_here {
            condition.push("keyOrigin = :service".to_owned());
            states.push(
                "(#state = :provisioned AND credential.keyMadeHere = :true AND credential.issuedAt > :reissuable)",
            );
            let window = Device::REISSUE_WINDOW.as_secs().cast_signed();
            update = update
                .expression_attribute_values(":service", text("service"))
                .expression_attribute_values(":provisioned", text(State::Provisioned.name()))
                .expression_attribute_values(":true", AttributeValue::Bool(true))
                .expression_attribute_values(":reissuable", number(now.seconds() - window));
        }
        condition.push(format!("({})", states.join(" OR ")));

        match update.condition_expression(condition.join(" AND ")).send().await {
            Ok(output) => Ok(Reserve::Held(item::from_item(output.attributes.unwrap_or_default())?)),
            Err(error) => {
                let found = found(error)?;
                Ok(match found {
                    // The write took effect before, and its answer was lost.
                    Some(device) if device.is_reserved_by(*id) => Reserve::Held(device),
                    found => Reserve::Refused(found),
                })
            }
        }
    }

    async fn commit(
        &self,
        attempt: &Attempt,
        credential: &Credential,
    ) -> Result<Result<(), ReservationLost>, RegistryError> {
        let result = self
            .update(&attempt.device)
            .update_expression(
                "SET #state = :provisioned, credential = :credential, wrongProofs = :zero, \
                 version = version + :one, updatedAt = :now \
                 REMOVE reservedBy, reservedKey, reservedUntil, attempts, attemptedKeys, blockedUntil",
            )
            .condition_expression("#status = :enabled AND #state = :reserved AND reservedBy = :owner")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":credential", item::credential_value(credential))
            .expression_attribute_values(":enabled", text(ENABLED))
            .expression_attribute_values(":now", seconds(attempt.now))
            .expression_attribute_values(":owner", text(attempt.id))
            .expression_attribute_values(":provisioned", text(State::Provisioned.name()))
            .expression_attribute_values(":reserved", text(State::Reserved.name()))
            .expression_attribute_values(":zero", number(0))
            .send()
            .await;
        match result {
            Ok(_) => Ok(Ok(())),
            // The domain's own rule tells a lost reservation from a write that took effect before.
            Err(error) => Ok(match found(error)? {
                Some(mut device) => device.commit(attempt.id, credential.clone(), attempt.now),
                None => Err(ReservationLost { to_same_key: false }),
            }),
        }
    }

    async fn release(&self, attempt: &Attempt, left: &Leftover) -> Result<(), RegistryError> {
        let mut set = "SET reservedUntil = :now, version = version + :one, updatedAt = :now".to_owned();
        let mut remove = "";
        let mut update = self.update(&attempt.device);
        if let Leftover::Known(credential) = left {
            set.push_str(", attempts = :zero");
            remove = " REMOVE attemptedKeys";
            update = update.expression_attribute_values(":zero", number(0));
            match credential {
                Some(credential) => {
                    set.push_str(", credential = :credential");
                    update = update.expression_attribute_values(":credential", item::credential_value(credential));
                }
                None => remove = " REMOVE attemptedKeys, credential",
            }
        }
        let result = update
            .update_expression(set + remove)
            .condition_expression("#state = :reserved AND reservedBy = :owner")
            .expression_attribute_values(":now", seconds(attempt.now))
            .expression_attribute_values(":owner", text(attempt.id))
            .expression_attribute_values(":reserved", text(State::Reserved.name()))
            .send()
            .await;
        match result {
            Ok(_) => Ok(()),
            // Whoever lost the reservation has nothing to end.
            Err(error) => found(error).map(|_| ()),
        }
    }

    async fn refuse(&self, device: &DeviceId, refusal: &Refusal) -> Result<(), RegistryError> {
        let mut set = "SET refusedFor = :reason, refusedKey = :key, refusedAt = :at, version = version + :one, \
                       updatedAt = :at"
            .to_owned();
        let mut condition = "attribute_exists(deviceId) AND #state <> :quarantined";
        let mut update =
            self.update(device).expression_attribute_values(":quarantined", text(State::Quarantined.name()));
        match refusal.denial {
            Denial::WrongProof => {
                set.push_str(", wrongProofs = wrongProofs + :one");
                if let Some(end) = refusal.blocked_until {
                    set.push_str(", blockedUntil = :end");
                    update = update.expression_attribute_values(":end", seconds(end));
                }
            }
            Denial::Cloned => {
                set.push_str(", #state = :quarantined");
                condition = "#state = :provisioned AND credential.#key <> :key";
                update = update
                    .expression_attribute_names("#key", "key")
                    .expression_attribute_values(":provisioned", text(State::Provisioned.name()));
            }
            _ => {}
        }
        let result = update
            .update_expression(set)
            .condition_expression(condition)
            .expression_attribute_values(":at", seconds(refusal.at))
            .expression_attribute_values(":key", text(refusal.key))
            .expression_attribute_values(":reason", text(refusal.denial.code()))
            .send()
            .await;
        match result {
            Ok(_) => Ok(()),
            Err(error) => found(error).map(|_| ()),
        }
    }
}

impl DeviceStore for DynamoDbRegistry {
    async fn add(&self, device: &Device) -> Result<bool, RegistryError> {
        let result = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item::to_item(device)))
            // The second half is for a write that took effect and whose answer was lost.
            .condition_expression("attribute_not_exists(deviceId) OR (generation = :generation AND version = :version)")
            .expression_attribute_values(":generation", text(device.generation))
            .expression_attribute_values(":version", AttributeValue::N(device.version.to_string()))
            .send()
            .await;
        written(result)
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

    async fn list(&self, after: Option<&DeviceId>, limit: u16) -> Result<Page, RegistryError> {
        let output = self
            .client
            .scan()
            .table_name(&self.table)
            .consistent_read(true)
            .limit(i32::from(limit))
            .set_exclusive_start_key(after.map(|id| HashMap::from([(TABLE_KEY.to_owned(), text(id))])))
            .send()
            .await
            .map_err(registry_error)?;
        let next = output.last_evaluated_key.and_then(|mut key| key.remove(TABLE_KEY));
        Ok(Page {
            devices: output.items.unwrap_or_default().into_iter().map(item::from_item).collect::<Result<_, _>>()?,
            next: next.and_then(|id| id.as_s().ok()?.parse().ok()),
        })
    }

    async fn replace(&self, device: &Device, version: u64) -> Result<bool, RegistryError> {
        let result = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item::to_item(device)))
            .condition_expression("version = :version AND generation = :generation")
            .expression_attribute_values(":version", AttributeValue::N(version.to_string()))
            .expression_attribute_values(":generation", text(device.generation))
            .send()
            .await;
        written(result)
    }

    async fn delete(&self, id: &DeviceId, version: u64) -> Result<bool, RegistryError> {
        let result = self
            .client
            .delete_item()
            .table_name(&self.table)
            .key(TABLE_KEY, text(id))
            .condition_expression("version = :version")
            .expression_attribute_values(":version", AttributeValue::N(version.to_string()))
            .send()
            .await;
        written(result)
    }
}

/// The item as a refused change found it, or the error that is not a refusal.
fn found<R>(error: SdkError<UpdateItemError, R>) -> Result<Option<Device>, RegistryError>
where
    R: fmt::Debug + Send + Sync + 'static,
{
    match error.as_service_error() {
        Some(UpdateItemError::ConditionalCheckFailedException(refused)) => {
            refused.item.clone().map(item::from_item).transpose()
        }
        _ => Err(registry_error(error)),
    }
}

/// Whether a conditional write was made.
fn written<T, E, R>(result: Result<T, SdkError<E, R>>) -> Result<bool, RegistryError>
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    R: fmt::Debug + Send + Sync + 'static,
{
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some("ConditionalCheckFailedException") => Ok(false),
        Err(error) => Err(registry_error(error)),
    }
}

fn text(value: impl fmt::Display) -> AttributeValue {
    AttributeValue::S(value.to_string())
}

fn number(value: i64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn seconds(moment: Timestamp) -> AttributeValue {
    number(moment.seconds())
}
