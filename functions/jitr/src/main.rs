//! Just-in-time registration: AWS IoT's events about factory certificates that were shown for the first time, through a
//! queue.

mod configuration;

use std::error::Error;

use aws_lambda_events::event::sqs::SqsEvent;
use cvm_aws::{AwsIot, CertificateRegistered, Clients, DynamoDbRegistry};
use cvm_lambda::{Environment, Message, Redeliver, configured, start_log, work_off};
use cvm_provisioning::{
    Door, FirstConnect, FirstConnectError, LogAudit, Origin, PlatformError, Registration, RegistryError,
};
use lambda_runtime::{LambdaEvent, service_fn};

use crate::configuration::Configuration;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    start_log();
    let configuration = configured(Configuration::read(&Environment::of_process()))?;
    let clients = configured(Clients::of_function())?;
    let door = FirstConnect {
        registry: DynamoDbRegistry::new(clients.dynamodb, configuration.table),
        platform: AwsIot::new(clients.iot),
        audit: LogAudit,
        templates: configuration.templates,
        refused_keys: configuration.refused_keys,
        naming: configuration.naming,
        refused_certificates: configuration.refused_certificates,
    };
    let door = &door;
    let handle = async |batch: LambdaEvent<SqsEvent>| {
        Ok::<_, lambda_runtime::Error>(work_off(Door::Jitr, batch, |message| Box::pin(admit(door, message))).await)
    };
    Box::pin(lambda_runtime::run(service_fn(handle))).await
}

async fn admit(
    door: &FirstConnect<DynamoDbRegistry, AwsIot, LogAudit>,
    message: Message<CertificateRegistered>,
) -> Result<(), Redeliver> {
    let Message { event, origin, now } = message;
    let CertificateRegistered { certificate_id: certificate, ca_certificate_id: ca, source_ip: source } = event;
    let registration = Registration { certificate, ca, origin: Origin { source, ..origin }, now };
    match Box::pin(door.admit(registration)).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let cause: &dyn Error = &error;
            tracing::error!(%certificate, error = cause, "a registration could not be finished");
            Err(match error {
                FirstConnectError::Platform(PlatformError::Throttled { .. })
                | FirstConnectError::Registry(RegistryError::Throttled { .. }) => Redeliver::Rest,
                _ => Redeliver::This,
            })
        }
    }
}
