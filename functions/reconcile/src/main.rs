//! The reconciler, on a schedule.

use std::error::Error;
use std::time::SystemTime;

use cvm_aws::{AwsIot, Clients, DynamoDbRegistry};
use cvm_lambda::{Environment, configured, start_log};
use cvm_provisioning::{Door, LogAudit, Origin, Portion, Reconcile};
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    start_log();
    let environment = Environment::of_process();
    let table = configured(environment.required("DEVICE_TABLE"))?;
    let clients = configured(Clients::of_function())?;
    let endpoint = configured(environment.required("IOT_ENDPOINT"))?;
    let connections = configured(Clients::iot_data_of_function(endpoint))?;
    let reconcile = Reconcile {
        registry: DynamoDbRegistry::new(clients.dynamodb, table),
        platform: AwsIot::new(clients.iot).with_connections(connections),
        audit: LogAudit,
        portion: Portion::default(),
    };
    let reconcile = &reconcile;
    // The event says that it is time, and nothing else.
    let handle = async |event: LambdaEvent<Value>| {
        let origin = Origin::new(Door::Reconcile, event.context.request_id);
        let done = reconcile.run(&origin, SystemTime::now().into()).await.inspect_err(|error| {
            let error: &dyn Error = error;
            tracing::error!(error, "a run came to an early end; the next one goes on");
        })?;
        let done = json!({
            "confirmed": done.confirmed, "released": done.released, "removed": done.removed,
            "settled": done.settled, "drift": done.drift,
        });
        tracing::info!(%done, "reconciled");
        Ok::<_, lambda_runtime::Error>(done)
    };
    Box::pin(lambda_runtime::run(service_fn(handle))).await
}
