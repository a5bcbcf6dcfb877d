//! The registry for operators' tools, as the identity registry of Azure IoT Hub has it (service REST API, version
//! 2021-04-12), with what that has no word for beside it.

mod audit;
mod bulk;
mod call;
mod conditions;
mod devices;
mod door;
mod entry;
mod export;
mod failure;
mod jobs;
mod list;
mod modules;
mod statistics;
mod tagged;
mod unknown_devices;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use cvm_provisioning::{AuditTrail, DeviceStore, Operations, Presences};
use tower_http::catch_panic::CatchPanicLayer;

use self::call::MAX_BODY;
pub use self::door::{NoOperator, NoRestore, Operator, RoleRefused};
use self::failure::{Code, Failure};
pub use self::jobs::{Jobs, jobs_elsewhere};
pub use self::unknown_devices::{unknown_devices, unknown_devices_elsewhere};
use crate::Clock;

/// What operators' tools work on.
#[derive(Clone, Debug)]
pub struct Registry<R, T> {
    /// The device registry and what is done with it.
    pub operations: Operations<R>,
    /// Where everything that happened is kept.
    pub trail: T,
    /// Whether the platform reports when a device connects. If not, the numbers that depend on it are not known.
    pub hears_of_connections: bool,
}

/// The router of the registry, and of what differs with the platform: the jobs that work on it ([`Jobs::routes`] or
/// [`jobs_elsewhere`]) and the devices that are not in it ([`unknown_devices()`] or [`unknown_devices_elsewhere`]). Who asks is
/// an [`Operator`] among the extensions of the request; a request without one is refused.
pub fn registry_router<R, T>(registry: Registry<R, T>, more: Router, clock: Clock) -> Router
where
    R: DeviceStore + Presences + 'static,
    T: AuditTrail + 'static,
{
    let device = get(Registry::<R, T>::read_device).put(Registry::<R, T>::put_device);
    let module = get(Registry::<R, T>::read_module).put(Registry::<R, T>::put_module);
    let devices = get(Registry::<R, T>::list_devices).post(Registry::<R, T>::import);
    Router::new()
        .route("/devices", devices.clone())
        // Some tools have a slash at the end.
        .route("/devices/", devices)
        .route(
            "/devices/{device}",
            device.delete(Registry::<R, T>::delete_device).post(Registry::<R, T>::ask_for_devices),
        )
        .route("/devices/{device}/approve", post(Registry::<R, T>::approve))
        .route("/devices/{device}/disable", post(Registry::<R, T>::disable))
        .route("/devices/{device}/enable", post(Registry::<R, T>::enable))
        .route("/devices/{device}/renew", post(Registry::<R, T>::renew))
        .route("/devices/{device}/revoke", post(Registry::<R, T>::revoke))
        .route("/devices/{device}/modules", get(Registry::<R, T>::list_modules))
        .route("/devices/{device}/modules/{module}", module.delete(Registry::<R, T>::delete_module))
        .route("/statistics/devices", get(Registry::<R, T>::count_devices))
        .route("/statistics/service", get(Registry::<R, T>::count_connected))
        .route("/statistics/fleet", get(Registry::<R, T>::summarize))
        .route("/audit", get(Registry::<R, T>::audit))
        .with_state(Arc::new(registry))
        .merge(more)
        .method_not_allowed_fallback(async || {
            Failure::new(Code::GenericMethodNotAllowed, "the header Allow says what can be done here")
        })
        .fallback(async || {
            Failure::new(Code::GenericNotFound, "the registry is at /devices, /jobs, /statistics and /audit")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(CatchPanicLayer::custom(|_| {
            Failure::new(Code::ServerError, "report it with the x-request-id if it stays").into_response()
        }))
        .layer(from_fn_with_state(clock, door::admit))
}
