//! The device registry on one DynamoDB table. Every change is one conditional `UpdateItem`, `PutItem` or `DeleteItem`;
//! a refused one brings back the item as it was found, so that telling why costs no second read.

use std::error::Error;
use std::fmt;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure};
use cvm_provisioning::{
    Attempt, Beside, Credential, Decision, Denial, Device, DeviceId, GroupCredential, Leftover, Origin, Refusal,
    RegistryError, Remains, ReservationLost, Reservations, Reserve, State, Superseded, Timestamp,
};
use cvm_records::{CA, CERTIFICATE, ENABLED, PUBLIC_KEY, TOKEN};

use crate::changed_by::changed_by;
use crate::error::registry_error;
use crate::item;

/// The name of the table's partition key; there is no sort key.
pub const TABLE_KEY: &str = "deviceId";

/// The attributes of a reservation.
const RESERVATION: &str =
    "reservedBy, reservedKey, reservedCertificate, reservedWith, reservedUntil, reservedFrom, attempts, leftover";

/// The device registry on DynamoDB.
#[derive(Clone, Debug)]
pub struct DynamoDbRegistry {
    pub(crate) client: Client,
    pub(crate) table: String,
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
    }
}

impl DynamoDbRegistry {
    /// Reserves the device where the decision allows it, whoever has the key.
    async fn hold(&self, attempt: &Attempt) -> Result<Reserve, RegistryError> {
        let Attempt { id, device, proof, origin, now, prepared } = attempt;
        let mut change = Change::of(self.update(device))
            .set("#state = :reserved, reservedBy = :owner, reservedKey = :key, reservedUntil = :until")
            .set(match proof.key_made_here && proof.shown.is_none() {
                // A key that was made here is replaced because nobody has it.
                true => "reservedFrom = if_not_exists(reservedFrom, :registered)",
                false => "reservedFrom = if_not_exists(reservedFrom, #state)",
            })
            .set("attempts = if_not_exists(attempts, :zero) + :one")
            .set("unsettledSince = if_not_exists(unsettledSince, :now)")
            .set("updatedAt = :now, changedBy = :by")
            .value(":by", changed_by(origin))
            .value(":enabled", text(ENABLED))
            .value(":key", text(proof.key))
            .value(":keys", AttributeValue::Ss(vec![proof.key.to_string()]))
            .value(":now", seconds(*now))
            .value(":owner", text(id))
            .value(":provisioned", text(State::Provisioned.name()))
            .value(":registered", text(State::Registered.name()))
            .value(":reserved", text(State::Reserved.name()))
            .value(":until", seconds(attempt.lease_ends()))
            .value(":zero", number(0));

        if let Some(prepared) = prepared {
            // What an earlier attempt left is not forgotten for what nobody has seen yet.
            change = change
                .set("leftover = if_not_exists(leftover, :prepared)")
                .value(":prepared", item::credential_value(prepared));
        }
        let mut proofs = Vec::new();
        if let Some(digest) = &proof.token {
            proofs.push(
                "(attestation = :token AND (tokenDigest = :digest OR secondTokenDigest = :digest) AND \
                 (attribute_not_exists(tokenExpiresAt) OR tokenExpiresAt > :now))",
            );
            change = change.value(":token", text(TOKEN)).value(":digest", text(digest));
        }
        if !proof.key_made_here {
            proofs.push("(attestation = :publicKey AND publicKey = :key)");
            change = change.value(":publicKey", text(PUBLIC_KEY));
        }
        // An attempt that died has changed nothing about who may be let in.
        let mut states = vec![
            "#state = :registered".to_owned(),
            "(#state = :reserved AND reservedUntil <= :now AND (reservedBy = :owner OR NOT reservedFrom = :provisioned))"
                .to_owned(),
        ];
        let if_provisioned = |condition: &str| {
            format!("((#state = :provisioned OR (#state = :reserved AND reservedUntil <= :now)) AND {condition})")
        };
        match (proof.certificate, proof.group) {
            (Some(certificate), Some(group @ GroupCredential::Ca(ca))) => {
                proofs.push(
                    "(attestation = :attestedByCertificate AND (attestedBy = :certificate OR alsoAttestedBy = :certificate))",
                );
                proofs.push("(attestation = :attestedByCa AND (attribute_not_exists(attestedBy) OR attestedBy = :ca))");
                states.push(if_provisioned("credential.#key = :key AND credential.certificateId <> :certificate"));
                change = change
                    .set("reservedCertificate = :certificate, certificateId = :certificate, reservedWith = :group")
                    .name("#key", "key")
                    .value(":attestedByCa", text(CA))
                    .value(":attestedByCertificate", text(CERTIFICATE))
                    .value(":ca", text(ca))
                    .value(":certificate", text(certificate))
                    .value(":group", text(group));
            }
            _ => change = change.remove("reservedCertificate, reservedWith"),
        }
        if proof.certificate.is_none() {
            states.push(if_provisioned("credential.#key = :key AND credential.notAfter < :now"));
            change = change.name("#key", "key");
        }
        if let Some(shown) = &proof.shown {
            proofs.push("credential.certificateId = :shown OR attribute_exists(superseded.#shown)");
            let another = "credential.#key <> :key AND (credential.certificateId = :shown OR \
                           attribute_exists(superseded.#shown))";
            states.push(if_provisioned(another));
            if shown.renewable {
                states.push(if_provisioned("credential.certificateId = :shown"));
            }
            change = change.name("#key", "key").name("#shown", &shown.id.to_string()).value(":shown", text(shown.id));
        }
        // An attempt without any proof is refused like one with a wrong proof.
        proofs.push("attribute_not_exists(deviceId)");

        let mut origin = "";
        if proof.key_made_here {
            origin = " AND keyOrigin = :service";
            change = change.value(":service", text("service"));
        }
        if proof.key_made_here && proof.shown.is_none() {
            states.push(if_provisioned(
                "credential.keyMadeHere = :true AND credential.issuedAt > :reissuable AND attribute_not_exists(usedAt)",
            ));
            let window = Device::REISSUE_WINDOW.as_secs().cast_signed();
            change =
                change.value(":true", AttributeValue::Bool(true)).value(":reissuable", number(now.seconds() - window));
        }
        let condition =
            format!("#status = :enabled AND ({}) AND ({}){origin}", proofs.join(" OR "), states.join(" OR "));
        let update = change.name("#status", "status").and(" ADD attemptedKeys :keys");
        match update.return_values(ReturnValue::AllNew).condition_expression(condition).send().await {
            Ok(output) => Ok(Reserve::Held(item::from_item(output.attributes.unwrap_or_default())?)),
            Err(error) => {
                let found = found(error)?;
                Ok(match found {
                    // The write took effect before, and its answer was lost.
                    Some(device) if device.is_held_by(attempt) && device.decide(attempt) == Decision::Provision => {
                        Reserve::Held(device)
                    }
                    found => Reserve::Refused(found),
                })
            }
        }
    }
}

impl Reservations for DynamoDbRegistry {
    async fn reserve(&self, attempt: &Attempt) -> Result<Reserve, RegistryError> {
        let device = match self.hold(attempt).await? {
            Reserve::Held(device) => device,
            other => return Ok(other),
        };
        let Some(owner) = self.claim_key(&attempt.proof.key, &attempt.device).await? else {
            return Ok(Reserve::Held(device));
        };
        // What earlier attempts have left is kept; this one has made nothing.
        let remains = device.remains_beside(attempt);
        let left = if remains == Remains::Nothing { Leftover::Known(None) } else { Leftover::Unknown };
        self.release(attempt, &left, remains).await?;
        Ok(Reserve::KeyInUse { owner, device })
    }

    async fn commit(
        &self,
        attempt: &Attempt,
        credential: &Credential,
        beside: &Beside,
    ) -> Result<Result<(), ReservationLost>, RegistryError> {
        let result = Change::of(self.update(&attempt.device))
            .set("#state = :provisioned, wrongProofs = :zero")
            .set("updatedAt = :now, changedBy = :by")
            .value(":by", changed_by(&attempt.origin))
            .remove(RESERVATION)
            .credential(credential)
            .superseded(&beside.superseded)
            .settled(beside.remains)
            .name("#status", "status")
            .value(":enabled", text(ENABLED))
            .value(":now", seconds(attempt.now))
            .value(":owner", text(attempt.id))
            .value(":provisioned", text(State::Provisioned.name()))
            .value(":reserved", text(State::Reserved.name()))
            .value(":zero", number(0))
            .and("")
            .condition_expression("#status = :enabled AND #state = :reserved AND reservedBy = :owner")
            .send()
            .await;
        match result {
            Ok(_) => Ok(Ok(())),
            // The domain's own rule tells a lost reservation from a write that took effect before.
            Err(error) => Ok(match found(error)? {
                Some(mut device) => device.commit(attempt.id, credential.clone(), beside.clone(), attempt.now),
                None => Err(ReservationLost { to_same_key: false }),
            }),
        }
    }

    async fn release(&self, attempt: &Attempt, left: &Leftover, remains: Remains) -> Result<(), RegistryError> {
        let mut change = Change::of(self.update(&attempt.device))
            .set("updatedAt = :now, changedBy = :by")
            .value(":by", changed_by(&attempt.origin))
            .value(":now", seconds(attempt.now))
            .value(":owner", text(attempt.id))
            .value(":reserved", text(State::Reserved.name()));
        change = match (left, remains) {
            (Leftover::Known(None), Remains::Nothing) => {
                change.set("#state = reservedFrom").remove(RESERVATION).settled(Remains::Nothing)
            }
            (Leftover::Known(None), Remains::Unsettled) => {
                change.set("reservedUntil = :now, attempts = :zero").value(":zero", number(0)).remove("leftover")
            }
            (Leftover::Known(Some(credential)), _) => change
                .set("reservedUntil = :now, attempts = :zero, leftover = :leftover")
                .value(":zero", number(0))
                .value(":leftover", item::credential_value(credential)),
            (Leftover::Unknown, _) => change.set("reservedUntil = :now"),
        };
        let update = change.and("").condition_expression("#state = :reserved AND reservedBy = :owner");
        match update.send().await {
            Ok(_) => Ok(()),
            // Whoever lost the reservation has nothing to end.
            Err(error) => found(error).map(|_| ()),
        }
    }

    async fn refuse(&self, device: &DeviceId, refusal: &Refusal, by: &Origin) -> Result<(), RegistryError> {
        let mut set = "SET refusedFor = :reason, refusedKey = :key, refusedAt = :at, changedBy = :by".to_owned();
        let mut condition = "attribute_exists(deviceId) AND #state <> :quarantined";
        let mut update =
            self.update(device).expression_attribute_values(":quarantined", text(State::Quarantined.name()));
        if !refusal.noted || matches!(refusal.denial, Denial::Cloned | Denial::WrongProof) {
            update = update.expression_attribute_values(":one", number(1));
        }
        match refusal.denial {
            Denial::WrongProof => {
                set.push_str(", wrongProofs = wrongProofs + :one");
            }
            Denial::Cloned => {
                set.push_str(", #state = :quarantined, version = version + :one, updatedAt = :at");
                condition = "#state = :provisioned AND credential.#key <> :key";
                update = update
                    .expression_attribute_names("#key", "key")
                    .expression_attribute_values(":provisioned", text(State::Provisioned.name()));
            }
            _ => {}
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
        let result = update
            .update_expression(set)
            .condition_expression(condition)
            .expression_attribute_values(":at", seconds(refusal.at))
            .expression_attribute_values(":by", changed_by(by))
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

/// A change of an item as it is put together.
struct Change {
    set: Vec<&'static str>,
    remove: Vec<&'static str>,
    update: UpdateItemFluentBuilder,
}

impl Change {
    /// A change that moves the version.
    fn of(update: UpdateItemFluentBuilder) -> Self {
        Self { set: vec!["version = version + :one"], remove: Vec::new(), update }.value(":one", number(1))
    }

    fn set(mut self, assignments: &'static str) -> Self {
        self.set.push(assignments);
        self
    }

    fn remove(mut self, attributes: &'static str) -> Self {
        self.remove.push(attributes);
        self
    }

    fn name(mut self, placeholder: &str, name: &str) -> Self {
        self.update = self.update.expression_attribute_names(placeholder, name);
        self
    }

    fn value(mut self, placeholder: &str, value: AttributeValue) -> Self {
        self.update = self.update.expression_attribute_values(placeholder, value);
        self
    }

    /// Writes a credential with all that stands beside it in the item.
    fn credential(self, credential: &Credential) -> Self {
        let change = self
            .set("credential = :credential, certificateId = :credentialId")
            .value(":credential", item::credential_value(credential))
            .value(":credentialId", text(credential.certificate));
        match credential.used_at {
            Some(at) => change.set("usedAt = :usedAt").value(":usedAt", seconds(at)),
            None => change.remove("usedAt"),
        }
    }

    fn superseded(self, superseded: &[Superseded]) -> Self {
        match superseded {
            [] => self.remove("superseded"),
            all => self.set("superseded = :superseded").value(":superseded", item::superseded_value(all)),
        }
    }

    fn settled(self, remains: Remains) -> Self {
        match remains {
            Remains::Nothing => self.remove("attemptedKeys, unsettledSince"),
            Remains::Unsettled => self,
        }
    }

    /// The whole change, with what is neither set nor removed.
    fn and(self, rest: &str) -> UpdateItemFluentBuilder {
        let remove = if self.remove.is_empty() { String::new() } else { format!(" REMOVE {}", self.remove.join(", ")) };
        self.update.update_expression(format!("SET {}{remove}{rest}", self.set.join(", ")))
    }
}

/// The item as a refused change found it, or the error that is not a refusal.
pub(crate) fn found<R>(error: SdkError<UpdateItemError, R>) -> Result<Option<Device>, RegistryError>
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
pub(crate) fn written<T, E, R>(result: Result<T, SdkError<E, R>>) -> Result<bool, RegistryError>
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

pub(crate) fn text(value: impl fmt::Display) -> AttributeValue {
    AttributeValue::S(value.to_string())
}

pub(crate) fn number(value: i64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

pub(crate) fn seconds(moment: Timestamp) -> AttributeValue {
    number(moment.seconds())
}
