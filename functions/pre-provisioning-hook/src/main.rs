//! The pre-provisioning hook: AWS IoT's question, and an answer in time.

mod configuration;
mod hook;

use cvm_aws::{Clients, DynamoDbRegistry};
use cvm_lambda::{Environment, configured, start_log};
use cvm_provisioning::{LogAudit, PreProvisioning};
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::Value;

use crate::configuration::Configuration;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    start_log();
    let configuration = configured(Configuration::read(&Environment::of_process()))?;
    let door = PreProvisioning {
        registry: DynamoDbRegistry::new(configured(Clients::dynamodb_of_function())?, configuration.table),
        audit: LogAudit,
        templates: configuration.templates,
        default_template: configuration.default_template,
        refused_keys: configuration.refused_keys,
        client_ids: configuration.client_ids,
        device_id_from: configuration.device_id_from,
    };
    let door = &door;
    let handle = async |event: LambdaEvent<Value>| {
        Ok::<_, lambda_runtime::Error>(hook::answer(door, event.payload, event.context.request_id).await)
    };
    Box::pin(lambda_runtime::run(service_fn(handle))).await
}
