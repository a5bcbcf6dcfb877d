//! `/statistics`: how many devices there are, how many are connected, and the fleet at a glance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use cvm_interchange::FleetDocument;
use cvm_provisioning::{AuditTrail, DeviceStore, FleetMoment, Presences, State as DeviceState};
use futures_util::future::try_join3;
use serde::Serialize;

use super::Registry;
use super::call::Call;
use super::failure::Failure;

/// How soon a certificate ends that is counted as expiring, by default.
const EXPIRING: Duration = Duration::from_secs(30 * 24 * 60 * 60);

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

impl<R: DeviceStore + Presences, T: AuditTrail> Registry<R, T> {
    /// The fleet at a glance: one request, however many devices there are.
    pub(super) async fn summarize(State(registry): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        call.takes(&["expiringUntil"])?;
        let expiring_until = call.moment("expiringUntil")?.unwrap_or_else(|| call.now.after(EXPIRING));
        let store = &registry.operations.registry;
        let connected = async {
            match registry.hears_of_connections {
                true => store.count_connected().await.map(Some),
                false => Ok(None),
            }
        };
        let moment = FleetMoment { now: call.now, expiring_until };
        let recently = registry.trail.recently(call.now);
        let (summary, connected, recently) = try_join3(store.summarize(moment), connected, recently).await?;
        Ok(Json(FleetDocument::new(&summary, connected, Some(recently))).into_response())
    }
}
