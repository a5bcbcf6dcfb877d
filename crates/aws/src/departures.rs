//! What AWS IoT does when a device goes.

use aws_sdk_iot::error::{DisplayErrorContext, ProvideErrorMetadata as _};
use cvm_provisioning::{Departures, PlatformError, ThingName};

use crate::error::platform_error;
use crate::platform::{AwsIot, is_gone};

impl Departures for AwsIot {
    async fn disconnect(&self, client_id: &str) -> Result<(), PlatformError> {
        // Without it the service ends the connections of a certificate that is no longer active by itself, "within a few
        // minutes" (AWS IoT API reference, UpdateCertificate).
        let Some(connections) = &self.connections else { return Ok(()) };
        let Err(error) = connections.delete_connection().client_id(client_id).send().await else { return Ok(()) };
        if is_gone(&error) {
            return Ok(());
        }
        let code = error.code().unwrap_or_default().to_owned();
        match platform_error("end a connection")(error) {
            PlatformError::Refused { source, .. } => {
                let error = DisplayErrorContext(&*source).to_string();
                tracing::warn!(code, error, "a connection was not ended at once; AWS IoT ends it within minutes");
                Ok(())
            }
            error => Err(error),
        }
    }

    async fn remove_thing(&self, thing: &ThingName) -> Result<bool, PlatformError> {
        if !self.principals_of(thing).await?.is_empty() {
            return Ok(false);
        }
        match self.client.delete_thing().thing_name(thing.as_str()).send().await {
            Ok(_) => Ok(true),
            Err(error) if is_gone(&error) => Ok(true),
            // Something was attached to it since (AWS IoT API reference, DeleteThing).
            Err(error) if error.code() == Some("InvalidRequestException") => Ok(false),
            Err(error) => Err(platform_error("delete the thing")(error)),
        }
    }
}
