//! The fleet at a glance: the devices counted by what an operator looks for first, and what happened of late.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{AuditEntry, Device, DeviceCounts, NoticeKind, State, Timestamp};

/// The devices of a registry, counted at one moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FleetSummary {
    /// All devices, by status and state.
    pub counts: DeviceCounts,
    /// Certificates that are not revoked.
    pub certificates: u64,
    /// Those that end soon.
    pub expiring: u64,
    /// Those that have ended.
    pub expired: u64,
    /// Those that no device is known to have connected with.
    pub never_used: u64,
    /// Reservations whose time is over.
    pub stale_reservations: u64,
    /// Devices that attempts may have left something for.
    pub unsettled: u64,
}

/// When the devices are counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FleetMoment {
    /// Now.
    pub now: Timestamp,
    /// A certificate that ends by then ends soon.
    pub expiring_until: Timestamp,
}

impl FleetSummary {
    /// Counts one more device.
    pub fn add(&mut self, device: &Device, moment: FleetMoment) {
        let FleetMoment { now, expiring_until } = moment;
        self.counts.add(device.state, device.status.enabled);
        self.stale_reservations += u64::from(device.reservation.as_ref().is_some_and(|held| held.expires_at <= now));
        self.unsettled += u64::from(device.unsettled.is_some());
        if let Some(credential) = device.credential.as_ref().filter(|_| device.state != State::Revoked) {
            let end = credential.not_after;
            self.certificates += 1;
            self.expired += u64::from(end <= now);
            self.expiring += u64::from(now < end && end <= expiring_until);
            self.never_used += u64::from(credential.used_at.is_none());
        }
    }
}

/// What the audit trail has of the last day.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RecentActivity {
    /// Certificates that devices got in the last hour.
    pub provisioned_last_hour: u64,
    /// Certificates that devices got in the last day.
    pub provisioned_last_day: u64,
    /// Refusals of registered devices in the last day, by reason.
    pub refused_last_day: BTreeMap<String, u64>,
}

impl RecentActivity {
    /// How far back it looks.
    pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    /// What counts as just now.
    pub const HOUR: Duration = Duration::from_secs(60 * 60);

    /// Counts one more entry of the last day.
    pub fn add(&mut self, entry: &AuditEntry, now: Timestamp) {
        let count = u64::from(entry.count);
        let last_hour = if now.before(Self::HOUR) <= entry.at { count } else { 0 };
        self.add_many(&entry.action, entry.reason.as_deref(), count, last_hour);
    }

    /// Counts what happened in one way: how many times in the last day, and how many of those in the last hour.
    pub fn add_many(&mut self, action: &str, reason: Option<&str>, last_day: u64, last_hour: u64) {
        let is = |kind: NoticeKind| action == kind.name();
        if is(NoticeKind::Provisioned) {
            self.provisioned_last_day += last_day;
            self.provisioned_last_hour += last_hour;
        } else if is(NoticeKind::Refused) || is(NoticeKind::Quarantined) {
            *self.refused_last_day.entry(reason.unwrap_or_default().to_owned()).or_default() += last_day;
        }
    }
}
