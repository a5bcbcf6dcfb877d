//! `/audit`: what happened, the latest first.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::response::{IntoResponse as _, Response};
use cvm_provisioning::{AuditEntry, AuditQuery, AuditTrail};
use serde::Serialize;

use super::Registry;
use super::call::{CONTINUATION, Call, item_count};
use super::failure::Failure;

/// How far an answer goes back where nothing is said.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest place to go on that is taken.
const MAX_CONTINUATION: usize = 256;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EntryDocument<'a> {
    id: &'a str,
    at: String,
    device_id: &'a str,
    generation_id: Option<String>,
    module_id: Option<&'a str>,
    action: &'a str,
    reason: Option<&'a str>,
    key: Option<String>,
    certificate_id: Option<String>,
    thing_name: Option<&'a str>,
    changed: &'a [String],
    door: Option<&'a str>,
    request_id: Option<&'a str>,
    source: Option<&'a str>,
    actor: Option<&'a str>,
}

impl<'a> From<&'a AuditEntry> for EntryDocument<'a> {
    fn from(entry: &'a AuditEntry) -> Self {
        Self {
            id: &entry.id,
            at: entry.at.to_string(),
            device_id: entry.device.as_str(),
            generation_id: entry.generation.map(|generation| generation.to_string()),
            module_id: entry.module.as_ref().map(|id| id.as_str()),
            action: &entry.action,
            reason: entry.reason.as_deref(),
            key: entry.key.map(|key| key.to_string()),
            certificate_id: entry.certificate.map(|id| id.to_string()),
            thing_name: entry.thing.as_ref().map(|thing| thing.as_str()),
            changed: &entry.changed,
            door: entry.door.as_deref(),
            request_id: entry.request_id.as_deref(),
            source: entry.source.as_deref(),
            actor: entry.actor.as_deref(),
        }
    }
}

impl<R: Send + Sync, T: AuditTrail> Registry<R, T> {
    pub(super) async fn audit(State(registry): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        call.takes(&["device", "since", "until", "top", "continuation", "x-ms-continuation"])?;
        let device = call.parameter("device").map(str::parse).transpose();
        // The end is not in it: what happens in this second is.
        let until = call.moment("until")?.unwrap_or_else(|| call.now.after(Duration::from_secs(1)));
        let query = AuditQuery {
            device: device.map_err(|error| Failure::argument(format!("device: {error}")))?,
            since: call.moment("since")?.unwrap_or_else(|| until.before(DAY)),
            until,
        };
        if query.until <= query.since {
            return Err(Failure::argument("since has to be before until"));
        }
        let after = call.continuation()?;
        let allowed =
            |place: &str| place.len() <= MAX_CONTINUATION && place.bytes().all(|byte| byte.is_ascii_graphic());
        if after.is_some_and(|place| !allowed(place)) {
            return Err(Failure::argument("the continuation is not one of ours"));
        }
        let page = registry.trail.entries(&query, after, item_count(call.parameter("top"))?).await?;
        let mut answer = Json(page.entries.iter().map(EntryDocument::from).collect::<Vec<_>>()).into_response();
        let next = page.next.and_then(|place| HeaderValue::try_from(place).ok());
        answer.headers_mut().extend(next.map(|place| (CONTINUATION, place)));
        Ok(answer)
    }
}
