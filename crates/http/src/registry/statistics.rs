//! `/statistics`: how many devices there are, and how many are connected.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use cvm_provisioning::{DeviceStore, Presences, State as DeviceState};
use serde::Serialize;

use super::Registry;
use super::call::Call;
use super::failure::Failure;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Devices {
    total_device_count: u64,
    enabled_device_count: u64,
    disabled_device_count: u64,
    /// By state.
    cvm: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Service {
    connected_device_count: u64,
}

impl<R: DeviceStore + Presences, T> Registry<R, T> {
    pub(super) async fn count_devices(State(registry): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        call.takes(&[])?;
        let counts = registry.operations.registry.count().await?;
        let states = DeviceState::ALL.iter().map(DeviceState::name).zip(counts.by_state);
        let devices = Devices {
            total_device_count: counts.total,
            enabled_device_count: counts.enabled,
            disabled_device_count: counts.total.saturating_sub(counts.enabled),
            cvm: states.collect(),
        };
        Ok(Json(devices).into_response())
    }

    pub(super) async fn count_connected(State(registry): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        call.takes(&[])?;
        let connected_device_count = registry.operations.registry.count_connected().await?;
        Ok(Json(Service { connected_device_count }).into_response())
    }
}
