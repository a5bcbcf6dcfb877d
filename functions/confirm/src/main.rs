//! The first connection: AWS IoT's presence events, through a queue.

use std::error::Error;

use aws_lambda_events::event::sqs::SqsEvent;
use cvm_aws::{AwsIot, Clients, Connected, DynamoDbRegistry};
use cvm_lambda::{Environment, Message, Redeliver, configured, start_log, work_off};
use cvm_provisioning::{Confirm, ConfirmError, Connection, LogAudit, Origin, PlatformError, RegistryError};
use lambda_runtime::{LambdaEvent, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    start_log();
    let environment = Environment::of_process();
    let table = configured(environment.required("DEVICE_TABLE"))?;
    let clients = configured(Clients::of_function())?;
    let door = Confirm {
        registry: DynamoDbRegistry::new(clients.dynamodb, table),
        platform: AwsIot::new(clients.iot),
        audit: LogAudit,
    };
    let door = &door;
    let handle = async |batch: LambdaEvent<SqsEvent>| {
        Ok::<_, lambda_runtime::Error>(work_off("confirm", batch, |message| confirm(door, message)).await)
    };
    Box::pin(lambda_runtime::run(service_fn(handle))).await
}

async fn confirm(
    door: &Confirm<DynamoDbRegistry, AwsIot, LogAudit>,
    message: Message<Connected>,
) -> Result<(), Redeliver> {
    let Message { event, origin, .. } = message;
    // Whoever connected without a certificate is none of ours, and whoever left changes nothing.
    let Some(certificate) = event.certificate() else { return Ok(()) };
    let at = event.at();
    let origin = Origin { source: event.ip_address, ..origin };
    let connection = Connection { certificate, client_id: event.client_id, origin, at };
    match door.connected(&connection).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let cause: &dyn Error = &error;
            tracing::error!(%certificate, error = cause, "a connection could not be taken note of");
            Err(match error {
                ConfirmError::Platform(PlatformError::Throttled { .. })
                | ConfirmError::Registry(RegistryError::Throttled { .. }) => Redeliver::Rest,
                _ => Redeliver::This,
            })
        }
    }
}
