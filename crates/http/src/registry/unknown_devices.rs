//! `/statistics/unknown-devices`: devices that asked and are not registered.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use cvm_interchange::UnknownDevicesDocument;
use cvm_provisioning::{RegistryError, UnknownDevices};

use super::call::{Call, item_count};
use super::failure::{Code, Failure};

const ADDRESS: &str = "/statistics/unknown-devices";

/// The routes, with what reads the devices.
pub fn unknown_devices<F, D>(read: F) -> Router
where
    F: Fn() -> D + Clone + Send + Sync + 'static,
    D: Future<Output = Result<UnknownDevices, RegistryError>> + Send + 'static,
{
    Router::new().route(ADDRESS, get(list::<F, D>)).with_state(read)
}

/// The routes where requests of unknown devices are in the log alone.
pub fn unknown_devices_elsewhere() -> Router {
    let text = "devices that are not registered are in the log of each door alone, with the reason unknown-device";
    Router::new().route(ADDRESS, get(async move || Failure::new(Code::GenericNotFound, text)))
}

async fn list<F, D>(State(read): State<F>, call: Call) -> Result<Response, Failure>
where
    F: Fn() -> D,
    D: Future<Output = Result<UnknownDevices, RegistryError>>,
{
    call.takes(&["device", "top"])?;
    let device = call.parameter("device").map(str::parse).transpose();
    let device = device.map_err(|error| Failure::argument(format!("device: {error}")))?;
    let limit = item_count(call.parameter("top"))?;
    let unknown = read().await?;
    Ok(Json(UnknownDevicesDocument::new(&unknown, device.as_ref(), limit.into(), call.now)).into_response())
}
