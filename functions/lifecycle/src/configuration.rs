//! The function's environment, read and cross-checked once, at the start.

use std::time::Duration;

use cvm_lambda::{Environment, InvalidEnvironment};

/// Everything the function is told by its environment.
#[derive(Debug)]
pub(crate) struct Configuration {
    /// `AUDIT_RETENTION_DAYS`: how long what happened is kept.
    pub(crate) audit_kept: Duration,
    /// `AUDIT_TABLE`, the name of the DynamoDB table of the audit trail.
    pub(crate) audit_table: String,
    /// `EVENT_BUS`, the name or the ARN of the bus that notifications go to.
    pub(crate) event_bus: String,
    /// `IOT_ENDPOINT`, the MQTT endpoint that devices connect to.
    pub(crate) iot_endpoint: String,
    /// `DEVICE_TABLE`, the name of the DynamoDB table of the registry.
    pub(crate) table: String,
}

impl Configuration {
    const DAY: u64 = 24 * 60 * 60;

    pub(crate) fn read(environment: &Environment) -> Result<Self, InvalidEnvironment> {
        let days: u32 = environment.parsed("AUDIT_RETENTION_DAYS")?;
        Ok(Self {
            audit_kept: Duration::from_secs(u64::from(days) * Self::DAY),
            audit_table: environment.required("AUDIT_TABLE")?.to_owned(),
            event_bus: environment.required("EVENT_BUS")?.to_owned(),
            iot_endpoint: environment.required("IOT_ENDPOINT")?.to_owned(),
            table: environment.required("DEVICE_TABLE")?.to_owned(),
        })
    }
}
