//! Jobs in a table of their own, whose stream calls the worker.

use std::collections::HashMap;
use std::error::Error;

use aws_lambda_events::event::dynamodb::EventRecord;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::AttributeValue;
use cvm_bulk::{Job, JobId, JobStore};
use cvm_provisioning::RegistryError;

use crate::error::registry_error;
use crate::registry::{seconds, text};

/// The name of the table's partition key; there is no sort key.
pub const JOB_KEY: &str = "jobId";
/// The whole job, as JSON.
const DOCUMENT: &str = "job";

/// The jobs in a DynamoDB table.
#[derive(Clone, Debug)]
pub struct DynamoDbJobs {
    client: Client,
    table: String,
}

impl DynamoDbJobs {
    /// The jobs in the table of this name.
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into() }
    }

    /// Puts the job there if this holds, and says whether it did.
    async fn put(&self, job: &Job, condition: &str, version: Option<u64>) -> Result<bool, RegistryError> {
        let mut put = self.client.put_item().table_name(&self.table).set_item(Some(to_item(job)?));
        if let Some(version) = version {
            put = put.expression_attribute_values(":version", number(version));
        }
        match put.condition_expression(condition).send().await {
            Ok(_) => Ok(true),
            Err(error) if error.as_service_error().is_some_and(PutItemError::is_conditional_check_failed_exception) => {
                Ok(false)
            }
            Err(error) => Err(registry_error(error)),
        }
    }
}

impl JobStore for DynamoDbJobs {
    async fn create(&self, job: &Job) -> Result<(), RegistryError> {
        // One that is there is the same one: its id is random.
        self.put(job, "attribute_not_exists(jobId)", None).await?;
        Ok(())
    }

    async fn find(&self, id: JobId) -> Result<Option<Job>, RegistryError> {
        let get = self.client.get_item().table_name(&self.table).key(JOB_KEY, text(id)).consistent_read(true);
        get.send().await.map_err(registry_error)?.item.as_ref().map(from_item).transpose()
    }

    async fn replace(&self, job: &Job, version: u64) -> Result<bool, RegistryError> {
        self.put(job, "version = :version", Some(version)).await
    }

    async fn list(&self) -> Result<Vec<Job>, RegistryError> {
        let mut pages = self.client.scan().table_name(&self.table).consistent_read(true).into_paginator().send();
        let mut jobs = Vec::new();
        while let Some(page) = pages.next().await {
            for item in page.map_err(registry_error)?.items.unwrap_or_default() {
                jobs.push(from_item(&item)?);
            }
        }
        Ok(jobs)
    }
}

/// The job that a record of the table's stream is about.
pub fn job_written(record: &EventRecord) -> Option<JobId> {
    match record.change.keys.inner().get(JOB_KEY) {
        Some(serde_dynamo::AttributeValue::S(id)) => id.parse().ok(),
        _ => None,
    }
}

fn number(version: u64) -> AttributeValue {
    AttributeValue::N(version.to_string())
}

fn to_item(job: &Job) -> Result<HashMap<String, AttributeValue>, RegistryError> {
    let document = serde_json::to_string(job).map_err(|error| corrupt(job.id.to_string(), error))?;
    let mut item = HashMap::from([
        (JOB_KEY.to_owned(), text(job.id)),
        ("version".to_owned(), number(job.version)),
        (DOCUMENT.to_owned(), AttributeValue::S(document)),
    ]);
    item.extend(job.ended_at.map(|ended| ("forgetAt".to_owned(), seconds(ended.after(Job::KEPT)))));
    Ok(item)
}

fn from_item(item: &HashMap<String, AttributeValue>) -> Result<Job, RegistryError> {
    let attribute = |name| item.get(name).and_then(|value| value.as_s().ok()).map(String::as_str).unwrap_or_default();
    serde_json::from_str(attribute(DOCUMENT)).map_err(|error| corrupt(attribute(JOB_KEY).to_owned(), error))
}

fn corrupt(job: String, error: impl Error + Send + Sync + 'static) -> RegistryError {
    RegistryError::Corrupt { device: job, source: error.into() }
}
