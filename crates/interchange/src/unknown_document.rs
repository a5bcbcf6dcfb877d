//! Devices that asked and are not registered, as the API answers them and the command shows them.

use std::time::Duration;

use cvm_provisioning::{DeviceId, Timestamp, UnknownDevice, UnknownDevices, UnknownSource};
use serde::{Deserialize, Serialize};

use crate::Moment;

/// The most sources that are listed.
const MAX_SOURCES: usize = 10;
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Devices that asked and are not registered, with counts of their requests. Counts are by whole hours.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnknownDevicesDocument {
    /// Requests since the beginning of the hour before this one.
    pub attempts_last_hour: u64,
    /// Requests of the last 24 hours.
    pub attempts_last_day: u64,
    /// Devices that were dropped from the list in the last 24 hours because it was full: a sign of a sweep.
    pub evicted_last_day: u64,
    /// Devices that are in the list.
    pub count: u64,
    /// The networks with the most devices in the list.
    pub sources: Vec<SourceTold>,
    /// The devices, the one that asked last first.
    pub devices: Vec<UnknownDeviceTold>,
}

/// A network, and what it has asked for.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "each field is that of the source")]
pub struct SourceTold {
    pub source: String,
    pub devices: u64,
    pub attempts: u64,
}

/// A device that asked and is not registered.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "each field is that of the unknown device")]
pub struct UnknownDeviceTold {
    pub device_id: DeviceId,
    pub attempts: u64,
    pub first_at: Moment,
    pub last_at: Moment,
    pub door: String,
    pub source: Option<String>,
}

impl UnknownDevicesDocument {
    /// At most `limit` devices of these, or the one of this id.
    pub fn new(unknown: &UnknownDevices, device: Option<&DeviceId>, limit: usize, now: Timestamp) -> Self {
        let day = unknown.since(now.before(24 * HOUR));
        let told = |(id, device): (&DeviceId, &UnknownDevice)| UnknownDeviceTold {
            device_id: id.clone(),
            attempts: device.attempts,
            first_at: device.first_at.into(),
            last_at: device.last_at.into(),
            door: device.door.clone(),
            source: device.source.clone(),
        };
        let devices = match device {
            Some(id) => unknown.devices.get_key_value(id).map(told).into_iter().collect(),
            None => unknown.latest().into_iter().take(limit).map(told).collect(),
        };
        let source = |UnknownSource { source, devices, attempts }| SourceTold { source, devices, attempts };
        Self {
            attempts_last_hour: unknown.since(now.before(HOUR)).attempts,
            attempts_last_day: day.attempts,
            evicted_last_day: day.evicted,
            count: unknown.devices.len() as u64,
            sources: unknown.sources().into_iter().take(MAX_SOURCES).map(source).collect(),
            devices,
        }
    }
}
