//! Connections, the first above all: AWS IoT's presence events, through a queue.

use std::error::Error;

use aws_lambda_events::event::sqs::SqsEvent;
use cvm_aws::{AwsIot, Clients, DynamoDbRegistry, PresenceChanged};
use cvm_lambda::{Environment, Message, Redeliver, configured, start_log, work_off};
use cvm_provisioning::{Confirm, ConfirmError, Door, LogAudit, PlatformError, RegistryError};
use lambda_runtime::{LambdaEvent, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    start_log();
    let environment = Environment::of_process();
    let table = configured(environment.required("DEVICE_TABLE"))?;
    let clients = configured(Clients::of_function())?;
    let endpoint = configured(environment.required("IOT_ENDPOINT"))?;
    let connections = configured(Clients::iot_data_of_function(endpoint))?;
    let door = Confirm {
        registry: DynamoDbRegistry::new(clients.dynamodb, table),
        platform: AwsIot::new(clients.iot).with_connections(connections),
        audit: LogAudit,
    };
    let door = &door;
    let handle = async |batch: LambdaEvent<SqsEvent>| {
        Ok::<_, lambda_runtime::Error>(work_off(Door::Confirm, batch, |message| Box::pin(confirm(door, message))).await)
    };
    Box::pin(lambda_runtime::run(service_fn(handle))).await
}

async fn confirm(
    door: &Confirm<DynamoDbRegistry, AwsIot, LogAudit>,
    message: Message<PresenceChanged>,
) -> Result<(), Redeliver> {
    let Message { event, origin, .. } = message;
    let is_connected = event.is_connected();
    // Whoever connected without a certificate is none of ours.
    let Some(connection) = event.connection(origin) else { return Ok(()) };
    let certificate = connection.certificate;
    let noted = match is_connected {
        Some(true) => door.connected(&connection).await.map(|_| ()),
        Some(false) => door.disconnected(&connection).await,
        None => Ok(()),
    };
    match noted {
        Ok(()) => Ok(()),
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
