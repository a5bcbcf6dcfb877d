//! What follows from a write to the registry: the stream of its table, record by record.

mod configuration;

use std::error::Error;

use aws_lambda_events::event::dynamodb::EventRecord;
use cvm_aws::{AwsIot, Clients, DynamoDbAuditTrail, DynamoDbRegistry, EventBridge, registry_write};
use cvm_lambda::{Environment, StreamAnswer, StreamBatch, configured, start_log};
use cvm_provisioning::{Bus as _, Door, Lifecycle, LogAudit, Origin, RegistryWrite};
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::Value;

use crate::configuration::Configuration;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    start_log();
    let configuration = configured(Configuration::read(&Environment::of_process()))?;
    let clients = configured(Clients::of_function())?;
    let connections = configured(Clients::iot_data_of_function(&configuration.iot_endpoint))?;
    let trail = DynamoDbAuditTrail::new(clients.dynamodb.clone(), configuration.audit_table, configuration.audit_kept);
    let lifecycle = Lifecycle {
        registry: DynamoDbRegistry::new(clients.dynamodb, configuration.table),
        platform: AwsIot::new(clients.iot).with_connections(connections),
        audit: LogAudit,
        trail,
        bus: EventBridge::new(configured(Clients::eventbridge_of_function())?, configuration.event_bus),
    };
    let lifecycle = &lifecycle;
    let handle = async |event: LambdaEvent<StreamBatch>| Box::pin(follow_up(lifecycle, event)).await;
    Box::pin(lambda_runtime::run(service_fn(handle))).await
}

type OnAws = Lifecycle<DynamoDbRegistry, AwsIot, LogAudit, DynamoDbAuditTrail, EventBridge>;

async fn follow_up(lifecycle: &OnAws, event: LambdaEvent<StreamBatch>) -> Result<StreamAnswer, lambda_runtime::Error> {
    let origin = Origin::new(Door::Lifecycle, event.context.request_id);
    let mut writes = Vec::new();
    for record in event.payload.records {
        let number = record.pointer("/dynamodb/SequenceNumber").and_then(Value::as_str).unwrap_or_default().to_owned();
        match read(record) {
            Ok(write) => writes.extend(write),
            Err(error) => {
                tracing::error!(record = number, error = &*error, "a record of the stream cannot be read");
                lifecycle.bus.put_aside(&number, &error.to_string()).await?;
            }
        }
    }
    let Err(stuck) = lifecycle.follow_up(&writes, &origin).await else { return Ok(StreamAnswer::default()) };
    let error: &dyn Error = &stuck.source;
    tracing::error!(index = stuck.index, error, "a write was not followed up; the stream tells it again");
    match writes.get(stuck.index) {
        Some(write) if stuck.index > 0 => Ok(StreamAnswer::again_from(write.id.clone())),
        // Nothing was done: the whole batch comes again.
        _ => Err(Box::new(stuck)),
    }
}

fn read(record: Value) -> Result<Option<RegistryWrite>, Box<dyn Error + Send + Sync>> {
    Ok(registry_write(serde_json::from_value::<EventRecord>(record)?)?)
}
