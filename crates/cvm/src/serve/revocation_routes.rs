//! `/revocations`: certificates of the CA that no device has, for admins. The registry does not know what was handed out after
//! the backup that it is from, or by somebody else who has the CA's key.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use cvm_authority::{Recognized, SharedAuthorities};
use cvm_http::Problem;
use cvm_interchange::Object;
use cvm_provisioning::{
    Certificate, CertificateIndex as _, CertificateLedger as _, LedgerEntry, ReasonText, RegistryError, Standing,
    ThingName, Timestamp,
};
use cvm_sql::SqlRegistry;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Notify;

use super::enforcement::announce_lists;
use super::routes::object;
use super::{TokenRecord, now};
use crate::ca_key::CaKey;

/// What it takes to revoke them.
#[derive(Clone)]
pub(super) struct Strays {
    pub(super) registry: SqlRegistry,
    pub(super) authorities: SharedAuthorities<CaKey>,
    /// Told when there is something to be listed.
    pub(super) woken: Arc<Notify>,
}

/// What is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Wanted {
    certificate_pem: String,
    reason: String,
}

pub(super) fn revocation_routes(strays: Strays) -> Router {
    Router::new().route("/revocations", post(revoke)).with_state(strays)
}

async fn revoke(
    State(strays): State<Strays>,
    Extension(admin): Extension<TokenRecord>,
    wanted: Result<Json<Object<Wanted>>, JsonRejection>,
) -> Result<Response, Problem> {
    let Wanted { certificate_pem, reason } = object(wanted)?;
    let reason: ReasonText = reason.parse().map_err(|error| Problem::body_invalid(format!("reason: {error}")))?;
    let certificate = Certificate::parse(&certificate_pem);
    let certificate = certificate.map_err(|error| Problem::body_invalid(format!("certificatePem: {error}")))?;
    let Some(recognized) = strays.authorities.load().recognize(&certificate) else {
        return Err(Problem::body_invalid("certificatePem: none of this server's CAs has signed it"));
    };
    let entry = revoked(&certificate, &recognized, now())?;
    strays.revoke(&entry).await?;
    let (actor, thing) = (admin.actor(), entry.thing.as_str());
    tracing::info!(actor, certificate = %entry.id, thing, reason = %reason, "a certificate was revoked");
    let answer = json!({ "certificateId": entry.id, "serialNumber": entry.serial, "standing": entry.standing });
    Ok(Json(answer).into_response())
}

impl Strays {
    async fn revoke(&self, entry: &LedgerEntry) -> Result<(), Problem> {
        match self.registry.entry(&entry.id).await.map_err(|error| problem(&error))? {
            None => {
                // Lists and OCSP know certificates by their numbers alone.
                let twin = self.registry.entry_of_serial(&entry.issuer, &entry.serial).await;
                if let Some(twin) = twin.map_err(|error| problem(&error))? {
                    let detail = format!("{} has one of the same number: `cvm device revoke` revokes both", twin.thing);
                    return Err(Problem::belongs_to_device(detail));
                }
                self.registry.enter(entry).await.map_err(|error| problem(&error))?;
            }
            Some(there) if there.standing == Standing::Revoked => {}
            Some(_) => {
                let owner = self.registry.device_of(&entry.id).await.map_err(|error| problem(&error))?;
                if let Some(owner) = owner {
                    let device = owner.device;
                    return Err(Problem::belongs_to_device(format!("`cvm device revoke {device}` revokes it")));
                }
                let set = self.registry.set_standing(&entry.id, Standing::Revoked, entry.since).await;
                set.map_err(|error| problem(&error))?;
            }
        }
        // Again is the same as once: whoever was cut off before this says it then.
        announce_lists(&self.registry, entry.since).await.map_err(|error| problem(&error))?;
        self.woken.notify_one();
        Ok(())
    }
}

/// What the ledger is to have of it. One that names no device has its own id in the place of the thing.
fn revoked(certificate: &Certificate, recognized: &Recognized, now: Timestamp) -> Result<LedgerEntry, Problem> {
    let named = certificate.common_name().ok().flatten().map(|id| ThingName::try_from(id.to_string()));
    let thing = named.and_then(Result::ok).map_or_else(|| ThingName::try_from(certificate.id().to_string()), Ok);
    Ok(LedgerEntry {
        id: *certificate.id(),
        issuer: recognized.issuer.to_string(),
        serial: recognized.serial_number.to_string(),
        pem: certificate.pem().to_owned(),
        thing: thing.map_err(|_| Problem::internal("an id is no name of a thing"))?,
        not_after: certificate.not_after().into(),
        standing: Standing::Revoked,
        since: now,
    })
}

fn problem(error: &RegistryError) -> Problem {
    let cause: &dyn std::error::Error = error;
    tracing::error!(error = cause, "a certificate was not revoked");
    Problem::unavailable("ask again; the server's log says why")
}
