//! `cvm status` on a server, and its devices that are not registered.

use cvm_interchange::{FleetDocument, UnknownDevicesDocument};
use cvm_provisioning::{DeviceId, Timestamp};
use reqwest::{Method, StatusCode};

use super::ask::Repeat;
use super::{ApiError, RegistryApi};

impl RegistryApi<'_> {
    /// The fleet at a glance; a certificate that ends until then is expiring.
    pub(crate) async fn fleet(&self, expiring_until: Timestamp) -> Result<FleetDocument, ApiError> {
        let ask = self.request(Method::GET, &["statistics", "fleet"]);
        let ask = ask.query("expiringUntil", Some(expiring_until.to_string()));
        self.ask(&ask, Repeat::Safe).await?.done()?.json()
    }

    /// At most `limit` devices that asked and are not registered, or the one of this id; `None` where the server has no such
    /// list.
    pub(crate) async fn unknown_devices(
        &self,
        device: Option<&DeviceId>,
        limit: u16,
    ) -> Result<Option<UnknownDevicesDocument>, ApiError> {
        let ask = self
            .request(Method::GET, &["statistics", "unknown-devices"])
            .query("device", device.map(|device| device.as_str()))
            .query("top", Some(limit.to_string()));
        let answer = self.ask(&ask, Repeat::Safe).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        answer.done()?.json().map(Some)
    }
}
