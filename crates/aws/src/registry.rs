//! The device registry on one DynamoDB table.

use std::error::Error;
use std::fmt;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::AttributeValue;
use cvm_provisioning::{RegistryError, Timestamp};

use crate::error::registry_error;

/// The name of the table's partition key; there is no sort key.
pub const TABLE_KEY: &str = "deviceId";

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
