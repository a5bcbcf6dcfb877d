//! The function's environment, read and cross-checked once, at the start.

use cvm_http::{Handout, RootCa};
use cvm_lambda::{Environment, InvalidEnvironment};
use cvm_provisioning::TemplateName;

/// Everything the function is told by its environment.
#[derive(Debug)]
pub(crate) struct Configuration {
    /// `CLAIMS_PER_USER_PER_DAY`.
    pub(crate) claims_per_day: u64,
    /// `FLEET_TEMPLATE`, the name that AWS IoT has for the default template.
    pub(crate) default_template: TemplateName,
    /// `IOT_ENDPOINT` and `ROOT_CA_PEM`, the latter Amazon Root CA 1 where it is empty.
    pub(crate) handout: Handout,
    /// `DEVICE_TABLE`, the name of the DynamoDB table.
    pub(crate) table: String,
}

impl Configuration {
    pub(crate) fn read(environment: &Environment) -> Result<Self, InvalidEnvironment> {
        Ok(Self {
            claims_per_day: environment.parsed("CLAIMS_PER_USER_PER_DAY")?,
            default_template: environment.parsed("FLEET_TEMPLATE")?,
            handout: Handout::new(
                environment.parsed("IOT_ENDPOINT")?,
                environment.parsed_or("ROOT_CA_PEM", RootCa::amazon)?,
            ),
            table: environment.required("DEVICE_TABLE")?.to_owned(),
        })
    }
}
