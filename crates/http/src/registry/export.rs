//! `POST /devices/export` and `POST /devices/query`: devices that are asked for with more than a GET can say.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::ALLOW;
use axum::response::{IntoResponse as _, Response};
use cvm_interchange::IdentityLine;
use cvm_provisioning::{Actor, DeviceStore, Origin, Presences};
use serde::Deserialize;

use super::Registry;
use super::call::{Call, item_count};
use super::failure::{Code, Failure};
use super::list::{LISTED, List, filter, place};

/// The body of an export.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Export {
    /// Whether the digests of tokens are left out.
    #[serde(default)]
    exclude_digests: bool,
}

impl<R: DeviceStore + Presences, T> Registry<R, T> {
    /// What is posted to an address that is a device's for every other method: devices may have these names, too.
    pub(super) async fn ask_for_devices(State(registry): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        match call.device()?.as_str() {
            "export" => registry.export_devices(&call).await,
            "query" => registry.query_devices(&call).await,
            _ => {
                let failure = Failure::new(Code::GenericMethodNotAllowed, "GET, PUT or DELETE a device");
                Ok(([(ALLOW, HeaderValue::from_static("DELETE, GET, HEAD, PUT"))], failure).into_response())
            }
        }
    }

    /// A page of devices as an export writes them. It is no GET because digests are not for whoever may only look.
    async fn export_devices(&self, call: &Call) -> Result<Response, Failure> {
        call.takes(&LISTED)?;
        let Export { exclude_digests } = call.json()?;
        let count = item_count(call.parameter("top"))?;
        let page = self.operations.registry.list(&filter(call)?, place(call)?.as_ref(), count).await?;
        let (mut list, mut next) = (List::default(), page.next.as_ref());
        for device in &page.devices {
            list.add(&IdentityLine::of(device, !exclude_digests))?;
            if list.is_long_enough() {
                next = Some(&device.id);
                break;
            }
        }
        let Origin { door, request_id, source, actor } = &call.origin;
        let (actor, devices, digests) = (actor.as_ref().map(Actor::as_str), list.len(), !exclude_digests);
        tracing::info!(
            target: "audit", outcome = "exported", door = door.name(), devices, digests, actor, request_id, source
        );
        Ok(list.answer(next))
    }
}
