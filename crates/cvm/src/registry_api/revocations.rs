//! `cvm ca revoke` on a server.

use cvm_provisioning::{Certificate, ReasonText};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ask::Repeat;
use super::{ApiError, RegistryApi};

/// What the server says of a certificate that it has revoked.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Revoked {
    pub(crate) certificate_id: String,
    pub(crate) serial_number: String,
    standing: String,
}

impl RegistryApi<'_> {
    /// Revokes a certificate of the server's CA that no device has.
    pub(crate) async fn revoke(&self, certificate: &Certificate, reason: &ReasonText) -> Result<Revoked, ApiError> {
        let wanted = json!({ "certificatePem": certificate.pem(), "reason": reason });
        let ask = self.request(Method::POST, &["revocations"]).json(wanted.to_string());
        // Again is the same as once.
        self.ask(&ask, Repeat::Safe).await?.done()?.json()
    }
}
