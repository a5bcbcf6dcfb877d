//! `/audit`: what happened, the latest first.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::response::{IntoResponse as _, Response};
use cvm_interchange::AuditDocument;
use cvm_provisioning::{AuditQuery, AuditTrail};

use super::Registry;
use super::call::{CONTINUATION, Call, item_count};
use super::failure::Failure;

/// How far an answer goes back where nothing is said.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest place to go on that is taken.
const MAX_CONTINUATION: usize = 256;

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
        if after.is_some_and(|place| !is_continuation(place) || !registry.trail.is_place(place)) {
            return Err(Failure::argument("the continuation is not one of ours"));
        }
        let page = registry.trail.entries(&query, after, item_count(call.parameter("top"))?).await?;
        let mut answer = Json(page.entries.iter().map(AuditDocument::from).collect::<Vec<_>>()).into_response();
        let next = page.next.and_then(|place| HeaderValue::try_from(place).ok());
        answer.headers_mut().extend(next.map(|place| (CONTINUATION, place)));
        Ok(answer)
    }
}

/// Whether a text may be a continuation of any trail.
fn is_continuation(text: &str) -> bool {
    text.len() <= MAX_CONTINUATION && text.bytes().all(|byte| byte.is_ascii_graphic())
}
