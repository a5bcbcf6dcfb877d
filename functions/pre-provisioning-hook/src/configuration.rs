//! The function's environment, read and cross-checked once, at the start.

use cvm_lambda::{Environment, InvalidEnvironment};
use cvm_provisioning::{ClientIds, DeviceIdFrom, RefusedKeys, TemplateName, Templates};

/// Everything the function is told by its environment.
#[derive(Debug)]
pub(crate) struct Configuration {
    /// `CLIENT_ID`: `serial` or `any`.
    pub(crate) client_ids: ClientIds,
    /// `CSR_DEVICE_ID_FROM`.
    pub(crate) device_id_from: DeviceIdFrom,
    /// `FLEET_TEMPLATE`, the name that AWS IoT has for the default template.
    pub(crate) default_template: TemplateName,
    /// `REFUSED_KEYS`.
    pub(crate) refused_keys: RefusedKeys,
    /// `DEVICE_TABLE`, the name of the DynamoDB table.
    pub(crate) table: String,
    /// `PROVISIONING_TEMPLATE`, and every `PROVISIONING_TEMPLATE_<name>`, by the names that AWS IoT has for them.
    pub(crate) templates: Templates,
}

impl Configuration {
    pub(crate) fn read(environment: &Environment) -> Result<Self, InvalidEnvironment> {
        let client_ids = match environment.optional("CLIENT_ID") {
            None | Some("serial") => ClientIds::Serial,
            Some("any") => ClientIds::Any,
            Some(_) => {
                let name = "CLIENT_ID".to_owned();
                return Err(InvalidEnvironment::Unusable { name, source: "it is serial or any".into() });
            }
        };
        Ok(Self {
            client_ids,
            device_id_from: environment.device_id_from()?,
            default_template: environment.parsed("FLEET_TEMPLATE")?,
            refused_keys: environment.refused_keys()?,
            table: environment.required("DEVICE_TABLE")?.to_owned(),
            templates: environment.templates()?,
        })
    }
}
