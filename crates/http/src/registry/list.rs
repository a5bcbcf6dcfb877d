//! `/devices` and `/devices/query`: many devices, a page at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use cvm_interchange::{DeviceDocument, Keys};
use cvm_provisioning::{Device, DeviceFilter, DeviceId, DeviceStore, Presences, State as DeviceState};
use serde::{Deserialize, Serialize};

use super::Registry;
use super::call::{CONTINUATION, Call, item_count};
use super::failure::{Code, Failure};

const MAX_ITEM_COUNT: HeaderName = HeaderName::from_static("x-ms-max-item-count");
const ITEM_TYPE: HeaderName = HeaderName::from_static("x-ms-item-type");

/// Presences are read so many at once.
const PRESENCES: usize = 100;

/// The most pages of the store that make one answer: a filter that lets hardly any device through must not hold the
/// caller up.
const MAX_READS: usize = 8;

/// When an answer is long enough, in bytes: a function's answer has 6 MB at most (AWS Lambda Developer Guide, "Lambda
/// quotas").
const LONG_ENOUGH: usize = 4 * 1024 * 1024;

/// What the query of a list may have.
pub(super) const LISTED: [&str; 11] = [
    "top",
    "state",
    "status",
    "group",
    "template",
    "changedSince",
    "prefix",
    "refusedSince",
    "expiresBefore",
    "continuation",
    "x-ms-continuation",
];

/// The body of a query.
#[derive(Deserialize)]
struct Query {
    query: String,
}

impl<R: DeviceStore + Presences, T> Registry<R, T> {
    pub(super) async fn list_devices(State(registry): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        call.takes(&LISTED)?;
        registry.list(&filter(&call)?, &call, item_count(call.parameter("top"))?).await
    }

    pub(super) async fn query_devices(&self, call: &Call) -> Result<Response, Failure> {
        call.takes(&["continuation", "x-ms-continuation"])?;
        let Query { query } = call.json()?;
        let words: Vec<_> = query.split_whitespace().map(str::to_ascii_lowercase).collect();
        if words != ["select", "*", "from", "devices"] {
            return Err(Failure::argument(
                "the one query there is here is SELECT * FROM devices; GET /devices filters",
            ));
        }
        let count = item_count(call.header(&MAX_ITEM_COUNT)?)?;
        let mut answer = self.list(&DeviceFilter::default(), call, count).await?;
        // They are devices and no twins, which are not kept here.
        answer.headers_mut().insert(ITEM_TYPE, HeaderValue::from_static("raw"));
        Ok(answer)
    }

    async fn list(&self, filter: &DeviceFilter, call: &Call, count: u16) -> Result<Response, Failure> {
        let mut after = place(call)?;
        let mut list = List::default();
        for _ in 0..MAX_READS {
            let page = self.operations.registry.list(filter, after.as_ref(), count - list.count).await?;
            for devices in page.devices.chunks(PRESENCES) {
                if let Some(next) = self.tell(devices, &mut list).await? {
                    return Ok(list.answer(Some(&next)));
                }
            }
            after = page.next;
            if after.is_none() || list.count == count {
                break;
            }
        }
        Ok(list.answer(after.as_ref()))
    }

    /// Adds these devices to the list, and says where to go on if it is long enough before all are on it.
    async fn tell(&self, devices: &[Device], list: &mut List) -> Result<Option<DeviceId>, Failure> {
        let presences = match self.hears_of_connections {
            true => {
                let ids: Vec<_> = devices.iter().map(|device| device.id.clone()).collect();
                self.operations.registry.presences(&ids).await?
            }
            false => BTreeMap::new(),
        };
        for device in devices {
            let document = DeviceDocument::new(device, presences.get(&device.id), &Keys::default());
            list.add(&document)?;
            if list.is_long_enough() {
                return Ok(Some(device.id.clone()));
            }
        }
        Ok(None)
    }
}

/// An array of JSON as it grows.
#[derive(Debug, Default)]
pub(super) struct List {
    json: String,
    count: u16,
}

impl List {
    pub(super) fn add(&mut self, document: &impl Serialize) -> Result<(), Failure> {
        let json = serde_json::to_string(document);
        let json = json.map_err(|_| Failure::new(Code::ServerError, "a device cannot be written"))?;
        if self.count > 0 {
            self.json.push(',');
        }
        self.json.push_str(&json);
        self.count += 1;
        Ok(())
    }

    pub(super) const fn len(&self) -> u16 {
        self.count
    }

    pub(super) const fn is_long_enough(&self) -> bool {
        self.json.len() >= LONG_ENOUGH
    }

    pub(super) fn answer(self, next: Option<&DeviceId>) -> Response {
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        headers.extend(next.and_then(|id| HeaderValue::from_str(id.as_str()).ok()).map(|id| (CONTINUATION, id)));
        (headers, format!("[{}]", self.json)).into_response()
    }
}

/// Where a list goes on.
pub(super) fn place(call: &Call) -> Result<Option<DeviceId>, Failure> {
    let place = call.continuation()?.map(str::parse).transpose();
    place.map_err(|_| Failure::argument("the continuation is not one of ours"))
}

pub(super) fn filter(call: &Call) -> Result<DeviceFilter, Failure> {
    let state = call.parameter("state").map(|name| {
        let known = DeviceState::ALL.map(|state| state.name()).join(", ");
        DeviceState::from_name(name).ok_or_else(|| Failure::argument(format!("state is one of {known}")))
    });
    let enabled = call.parameter("status").map(|status| match status {
        "enabled" => Ok(true),
        "disabled" => Ok(false),
        _ => Err(Failure::argument("status is enabled or disabled")),
    });
    let group = call.parameter("group").map(str::parse).transpose();
    let template = call.parameter("template").map(str::parse).transpose();
    let prefix = call.parameter("prefix").map(str::parse).transpose();
    Ok(DeviceFilter {
        state: state.transpose()?,
        enabled: enabled.transpose()?,
        group: group.map_err(|error| Failure::argument(format!("{error}")))?,
        template: template.map_err(|error| Failure::argument(format!("{error}")))?,
        changed_since: call.moment("changedSince")?,
        prefix: prefix.map_err(|error| Failure::argument(format!("prefix: {error}")))?,
        refused_since: call.moment("refusedSince")?,
        expires_before: call.moment("expiresBefore")?,
    })
}
