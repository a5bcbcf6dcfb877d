//! The fleet at a glance, as the API answers it and `cvm status` shows it.

use std::collections::BTreeMap;

use cvm_provisioning::{FleetSummary, RecentActivity, State};
use serde::{Deserialize, Serialize};

/// The devices, counted.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetDocument {
    /// All devices.
    pub devices: u64,
    /// Those that may ask for certificates.
    pub enabled: u64,
    /// Those that may not.
    pub disabled: u64,
    /// Those that are connected; `null` where the registry does not hear of connections.
    pub connected: Option<u64>,
    /// Devices by the name of their state.
    pub states: BTreeMap<String, u64>,
    /// Certificates that are not revoked.
    pub certificates: u64,
    /// Those that end soon.
    pub certificates_expiring: u64,
    /// Those that have ended.
    pub certificates_expired: u64,
    /// Those that no device has connected with; `null` where the registry does not hear of connections.
    pub certificates_never_used: Option<u64>,
    /// Reservations whose time is over.
    pub stale_reservations: u64,
    /// Devices that attempts may have left something for.
    pub unsettled: u64,
    /// What the audit trail has of the last day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recently: Option<RecentDocument>,
}

/// What the audit trail has of the last day.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "each field is that of the recent activity")]
pub struct RecentDocument {
    pub provisioned_last_hour: u64,
    pub provisioned_last_day: u64,
    pub refused_last_day: BTreeMap<String, u64>,
}

impl FleetDocument {
    /// What was counted. `connected` is `None` where the registry does not hear of connections.
    pub fn new(summary: &FleetSummary, connected: Option<u64>, recently: Option<RecentActivity>) -> Self {
        let FleetSummary { counts, certificates, expiring, expired, never_used, stale_reservations, unsettled } =
            *summary;
        let states = State::ALL.iter().map(|state| state.name().to_owned()).zip(counts.by_state);
        Self {
            devices: counts.total,
            enabled: counts.enabled,
            disabled: counts.total.saturating_sub(counts.enabled),
            connected,
            states: states.collect(),
            certificates,
            certificates_expiring: expiring,
            certificates_expired: expired,
            certificates_never_used: connected.map(|_| never_used),
            stale_reservations,
            unsettled,
            recently: recently.map(RecentDocument::from),
        }
    }
}

impl From<RecentActivity> for RecentDocument {
    fn from(recently: RecentActivity) -> Self {
        let RecentActivity { provisioned_last_hour, provisioned_last_day, refused_last_day } = recently;
        Self { provisioned_last_hour, provisioned_last_day, refused_last_day }
    }
}
