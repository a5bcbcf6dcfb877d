//! One request of an operator: parsed once, here, into what the operations take.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts as _, RawPathParams, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use cvm_bulk::JobId;
use cvm_interchange::Object;
use cvm_provisioning::{Actor, DeviceId, ModuleId, Origin, Timestamp};
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::door::Admitted;
use super::failure::{Code, Failure};
use crate::json::json_object;
use crate::media::BodyType;

/// The largest body taken, in bytes: a hundred devices with all that may be said of them.
pub(super) const MAX_BODY: usize = 512 * 1024;

/// The most items in one answer that is a list.
pub(super) const MAX_ITEMS: u16 = 1000;

/// Where a list goes on: as a header of the request and of the answer.
pub(super) const CONTINUATION: HeaderName = HeaderName::from_static("x-ms-continuation");

/// A request of an operator.
#[derive(Debug)]
pub(super) struct Call {
    /// Who made it, and where it came in.
    pub(super) origin: Origin,
    /// When it came in.
    pub(super) now: Timestamp,
    may_restore: bool,
    /// Its headers.
    pub(super) headers: HeaderMap,
    path: BTreeMap<String, String>,
    query: BTreeMap<String, String>,
    body: Bytes,
}

impl<S: Send + Sync> FromRequest<S> for Call {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let (mut parts, body) = request.into_parts();
        let Some(Admitted { origin, now, may_restore }) = parts.extensions.remove::<Admitted>() else {
            return Err(Failure::new(Code::ServerError, "the request did not come through the door"));
        };
        let path = RawPathParams::from_request_parts(&mut parts, state).await;
        let path = path.map_err(|_| Failure::argument("the address is not UTF-8"))?;
        let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let query = query(&parts.uri)?;
        let headers = parts.headers.clone();
        let body =
            Bytes::from_request(Request::from_parts(parts, body), state).await.map_err(|rejection| match rejection
                .status()
            {
                StatusCode::PAYLOAD_TOO_LARGE => {
                    Failure::new(Code::MessageTooLarge, format!("send at most {MAX_BODY} bytes"))
                }
                _ => Failure::argument("the body did not arrive whole"),
            })?;
        Ok(Self { origin, now, may_restore, headers, path, query, body })
    }
}

impl Call {
    /// Checks that the operator may restore devices, if that is asked for.
    pub(super) fn check_restore(&self, restores: bool) -> Result<(), Failure> {
        match self.may_restore || !restores {
            true => Ok(()),
            false => Err(Failure::new(Code::GenericForbidden, "only an admin may restore devices")),
        }
    }

    /// Logs what the operator decided about a device. The audit trail has it, too, as far as it changed anything.
    pub(super) fn log_decision(&self, action: &str, device: &DeviceId, module: Option<&ModuleId>) {
        let Origin { door, request_id, source, actor } = &self.origin;
        let actor = actor.as_ref().map(Actor::as_str);
        let module = module.map(tracing::field::display);
        tracing::info!(
            target: "audit", outcome = "decided", door = door.name(), action, %device, module, actor, request_id, source
        );
    }

    /// Logs what the operator decided about a job.
    pub(super) fn log_job(&self, action: &str, job: JobId) {
        let Origin { door, request_id, source, actor } = &self.origin;
        let actor = actor.as_ref().map(Actor::as_str);
        tracing::info!(target: "audit", outcome = "job", door = door.name(), action, %job, actor, request_id, source);
    }

    /// The device that the address names.
    pub(super) fn device(&self) -> Result<DeviceId, Failure> {
        let id = self.path.get("device").map(String::as_str).unwrap_or_default();
        id.parse().map_err(|error| Failure::argument(format!("{error}")))
    }

    /// The module that the address names.
    pub(super) fn module(&self) -> Result<ModuleId, Failure> {
        let id = self.path.get("module").map(String::as_str).unwrap_or_default();
        id.parse().map_err(|error| Failure::argument(format!("{error}")))
    }

    /// The job that the address names.
    pub(super) fn job(&self) -> Result<JobId, Failure> {
        let id = self.path.get("job").map(String::as_str).unwrap_or_default();
        id.parse().map_err(|error| Failure::argument(format!("{error}")))
    }

    /// The body, which has to be a JSON object.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        self.expect_json()?;
        json_object(&self.body).map_err(|error| Failure::argument(error.to_string()))
    }

    /// The body, which has to be a JSON array of objects.
    pub(super) fn json_list<T: DeserializeOwned>(&self) -> Result<Vec<T>, Failure> {
        self.expect_json()?;
        let objects = serde_json::from_slice::<Vec<Object<T>>>(&self.body)
            .map_err(|error| Failure::argument(format!("the body is not the JSON array asked for: {error}")))?;
        Ok(objects.into_iter().map(|Object(object)| object).collect())
    }

    fn expect_json(&self) -> Result<(), Failure> {
        if self.headers.contains_key(CONTENT_TYPE) && !matches!(BodyType::of(&self.headers), Ok(BodyType::Json)) {
            return Err(Failure::new(Code::GenericUnsupportedMediaType, "send application/json, not encoded"));
        }
        Ok(())
    }

    /// Makes sure that nothing was asked for that is not known: a filter with a slip of the pen would let all through.
    pub(super) fn takes(&self, names: &[&str]) -> Result<(), Failure> {
        let known = |name: &str| name == "api-version" || names.contains(&name);
        match self.query.keys().all(|name| known(name)) {
            true => Ok(()),
            false if names.is_empty() => Err(Failure::argument("this address takes no query but api-version")),
            false => Err(Failure::argument(format!("this address takes the query {} only", names.join(", ")))),
        }
    }

    /// A parameter of the query, where it came.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// Whether the query says so.
    pub(super) fn flag(&self, name: &'static str) -> Result<bool, Failure> {
        match self.parameter(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Failure::argument(format!("{name} is true or false"))),
        }
    }

    /// A moment in the query, in the form of RFC 3339.
    pub(super) fn moment(&self, name: &'static str) -> Result<Option<Timestamp>, Failure> {
        self.query.get(name).map(|text| moment(name, text)).transpose()
    }

    /// A header that is text, where it came.
    pub(super) fn header(&self, name: &HeaderName) -> Result<Option<&str>, Failure> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next();
        if values.next().is_some() {
            return Err(Failure::argument(format!("the header {name} came twice")));
        }
        let text = value.map(|value| value.to_str()).transpose();
        text.map_err(|_| Failure::argument(format!("the header {name} is not ASCII")))
    }

    /// Where the list goes on, where it does.
    pub(super) fn continuation(&self) -> Result<Option<&str>, Failure> {
        let header = self.header(&CONTINUATION)?.filter(|value| !value.is_empty());
        let mut query = ["continuation", "x-ms-continuation"].into_iter().filter_map(|name| self.parameter(name));
        Ok(header.or_else(|| query.find(|place| !place.is_empty())))
    }
}

/// A moment in the form of RFC 3339; `name` is what it is asked for as.
pub(super) fn moment(name: &'static str, text: &str) -> Result<Timestamp, Failure> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).map(Timestamp::from);
    moment.map_err(|_| Failure::argument(format!("{name} is a moment such as 2026-01-31T12:00:00Z (RFC 3339)")))
}

/// How many items are asked for: as many as there may be, where nothing is said.
pub(super) fn item_count(text: Option<&str>) -> Result<u16, Failure> {
    let Some(text) = text else { return Ok(MAX_ITEMS) };
    let count = text.parse().ok().filter(|count| (1..=MAX_ITEMS).contains(count));
    count.ok_or_else(|| Failure::argument(format!("ask for 1 to {MAX_ITEMS} items")))
}

fn query(uri: &Uri) -> Result<BTreeMap<String, String>, Failure> {
    let mut query = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        if query.insert(name.into_owned(), value.into_owned()).is_some() {
            return Err(Failure::argument("a name comes twice in the query"));
        }
    }
    Ok(query)
}
