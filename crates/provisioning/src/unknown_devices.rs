//! Devices that ask and are not registered: a bounded list of recent ones, and counts that lose nothing.
//!
//! A mistyped serial number and a sweep look alike at the door. The list is for the former and must survive the latter, so a
//! full list drops entries of the source that has the most of them: a sweep from one network only pushes out its own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::{DeviceId, RegistryError, Timestamp};

const HOUR: i64 = 60 * 60;
const DAY: i64 = 24 * HOUR;

/// The network that an address is counted as: the IPv4 address itself, or the /64 of an IPv6 address, which one site has.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// A request in the name of a device that is not registered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnknownAttempt {
    /// The device's id, as the request gave it.
    pub device: DeviceId,
    /// The door's name.
    pub door: String,
    /// The network address that the request came from.
    pub source: Option<String>,
    /// When the request came.
    pub at: Timestamp,
}

/// A device that asked and is not registered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnknownDevice {
    /// The door of the last request.
    pub door: String,
    /// The network address of the last request.
    pub source: Option<String>,
    /// The first request.
    pub first_at: Timestamp,
    /// The last request.
    pub last_at: Timestamp,
    /// How many requests there were.
    pub attempts: u64,
}

/// The requests of one hour.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct UnknownCount {
    /// All requests of devices that are not registered.
    pub attempts: u64,
    /// Devices that were dropped from the list because it was full.
    pub evicted: u64,
}

/// The most recent devices that asked and are not registered, and the number of requests by hour.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UnknownDevices {
    /// At most [`UnknownDevices::MAX_DEVICES`], after [`UnknownDevices::shrink`].
    pub devices: BTreeMap<DeviceId, UnknownDevice>,
    /// By hours since 1970-01-01T00:00:00Z.
    pub hours: BTreeMap<i64, UnknownCount>,
}

/// What a source has asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnknownSource {
    /// The network.
    pub source: String,
    /// Its devices in the list.
    pub devices: u64,
    /// Their requests.
    pub attempts: u64,
}

/// Where requests of devices that are not registered are kept.
pub trait UnknownDeviceStore: Send + Sync {
    /// Adds these to what is kept, which stays bounded.
    fn note_unknown(
        &self,
        newer: &UnknownDevices,
        now: Timestamp,
    ) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// What is kept; devices that were registered since are not in it.
    fn unknown_devices(&self) -> impl Future<Output = Result<UnknownDevices, RegistryError>> + Send;
}

impl UnknownDevices {
    /// The most devices that are kept.
    pub const MAX_DEVICES: usize = 1_000;
    /// How long a device is kept after its last request, and a count after its hour.
    pub const KEPT: Duration = Duration::from_secs(30 * DAY.unsigned_abs());

    /// Whether nothing was noted.
    pub fn is_empty(&self) -> bool {
        self.hours.is_empty()
    }

    /// Adds a request. The list may grow to twice its bound before it is cut, so that a sweep does not sort it each time.
    pub fn note(&mut self, attempt: UnknownAttempt) {
        let UnknownAttempt { device, door, source, at } = attempt;
        self.hour(at).attempts += 1;
        self.add(device, UnknownDevice { door, source, first_at: at, last_at: at, attempts: 1 });
        if self.devices.len() > 2 * Self::MAX_DEVICES {
            self.shrink(at);
        }
    }

    /// Counts requests whose devices are not known any more.
    pub fn note_lost(&mut self, attempts: u64, at: Timestamp) {
        if attempts > 0 {
            let hour = self.hour(at);
            hour.attempts += attempts;
            hour.evicted += attempts;
        }
    }

    /// Adds what was noted elsewhere, or later.
    pub fn merge(&mut self, newer: &Self, now: Timestamp) {
        for (hour, count) in &newer.hours {
            let sum = self.hours.entry(*hour).or_default();
            sum.attempts += count.attempts;
            sum.evicted += count.evicted;
        }
        for (id, device) in &newer.devices {
            self.add(id.clone(), device.clone());
        }
        self.shrink(now);
    }

    /// Drops what is old, and then what is too much. Of the source with the most devices goes the one with the fewest
    /// requests, and of those the one that was seen longest ago: a real device asks again, a sweep does not.
    pub fn shrink(&mut self, now: Timestamp) {
        let oldest = now.before(Self::KEPT);
        self.devices.retain(|_, device| oldest <= device.last_at);
        self.hours.retain(|hour, _| oldest.seconds() / HOUR <= *hour);
        let excess = self.devices.len().saturating_sub(Self::MAX_DEVICES);
        if excess == 0 {
            return;
        }
        let mut by_network = BTreeMap::<String, Vec<_>>::new();
        for (id, device) in &self.devices {
            by_network.entry(device.network()).or_default().push((device.attempts, device.last_at, id.clone()));
        }
        // A network is ranked by its number of devices, and then by the device that it would lose, which is the last one.
        let ranked = |devices: Vec<_>| (devices.len(), Reverse(devices.last().cloned()), devices);
        let mut networks: BinaryHeap<_> = by_network
            .into_values()
            .map(|mut devices| {
                devices.sort_by(|one, other| other.cmp(one));
                ranked(devices)
            })
            .collect();
        for _ in 0..excess {
            let Some((_, _, mut devices)) = networks.pop() else { break };
            if let Some((_, _, id)) = devices.pop() {
                self.devices.remove(&id);
            }
            networks.push(ranked(devices));
        }
        self.hour(now).evicted += excess as u64;
    }

    /// The counts since this moment, by whole hours.
    pub fn since(&self, since: Timestamp) -> UnknownCount {
        let hours = self.hours.range(since.seconds().div_euclid(HOUR)..);
        hours.fold(UnknownCount::default(), |sum, (_, count)| UnknownCount {
            attempts: sum.attempts + count.attempts,
            evicted: sum.evicted + count.evicted,
        })
    }

    /// The sources of the devices in the list, those with the most devices first.
    pub fn sources(&self) -> Vec<UnknownSource> {
        let mut sums = BTreeMap::<String, (u64, u64)>::new();
        for device in self.devices.values() {
            let sum = sums.entry(device.network()).or_default();
            *sum = (sum.0 + 1, sum.1 + device.attempts);
        }
        let sum = |(source, (devices, attempts))| UnknownSource { source, devices, attempts };
        let mut sources: Vec<_> = sums.into_iter().map(sum).collect();
        sources.sort_by_key(|source| Reverse((source.devices, source.attempts)));
        sources
    }

    /// The devices, the one that asked last first.
    pub fn latest(&self) -> Vec<(&DeviceId, &UnknownDevice)> {
        let mut devices: Vec<_> = self.devices.iter().collect();
        devices.sort_by_key(|(id, device)| (Reverse(device.last_at), *id));
        devices
    }

    fn add(&mut self, id: DeviceId, newer: UnknownDevice) {
        let Some(there) = self.devices.get_mut(&id) else {
            self.devices.insert(id, newer);
            return;
        };
        there.first_at = there.first_at.min(newer.first_at);
        there.attempts = there.attempts.saturating_add(newer.attempts);
        if there.last_at <= newer.last_at {
            there.last_at = newer.last_at;
            there.door = newer.door;
            there.source = newer.source;
        }
    }

    fn hour(&mut self, at: Timestamp) -> &mut UnknownCount {
        self.hours.entry(at.seconds().div_euclid(HOUR)).or_default()
    }
}

impl UnknownDevice {
    /// The network of the last request.
    fn network(&self) -> String {
        let source = self.source.as_deref().unwrap_or_default();
        source.parse::<IpAddr>().map_or_else(|_| source.to_owned(), |address| network_of(address).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn attempt(device: impl Into<String>, source: &str, seconds: i64) -> UnknownAttempt {
        UnknownAttempt {
            device: device.into().parse().unwrap(),
            door: "vend".to_owned(),
            source: Some(source.to_owned()),
            at: Timestamp::from_seconds(NOW.seconds() + seconds),
        }
    }

    #[test]
    fn a_device_that_asks_again_is_one_entry() {
        let mut unknown = UnknownDevices::default();
        unknown.note(attempt("sn-1", "192.0.2.1", 0));
        let mut elsewhere = UnknownDevices::default();
        elsewhere.note(attempt("sn-1", "192.0.2.2", 60));
        elsewhere.note(attempt("sn-2", "192.0.2.2", 61));
        unknown.merge(&elsewhere, NOW);
        let [(last, _), (first, device)] = unknown.latest()[..] else { panic!("{unknown:?}") };
        assert_eq!((last.as_str(), first.as_str()), ("sn-2", "sn-1"));
        assert_eq!((device.attempts, device.source.as_deref()), (2, Some("192.0.2.2")));
        assert_eq!((NOW.until(device.last_at).as_secs(), device.first_at), (60, NOW));
        assert_eq!(unknown.since(NOW).attempts, 3);
    }

    #[test]
    fn threat_02_a_sweep_is_seen_and_pushes_out_nobody_elses_devices() {
        let mut unknown = UnknownDevices::default();
        unknown.note(attempt("mistyped", "192.0.2.1", 0));
        // Beside the sweep, in its own network, a device that retries.
        unknown.note(attempt("retries", "2001:db8::5", 1));
        unknown.note(attempt("retries", "2001:db8::5", 2));
        for number in 0..50_000_u32 {
            unknown.note(attempt(format!("sweep-{number}"), &format!("2001:db8::{:x}", number % 0xffff), 10));
        }
        let mut kept = UnknownDevices::default();
        kept.merge(&unknown, NOW);
        assert_eq!(kept.devices.len(), UnknownDevices::MAX_DEVICES);
        for id in ["mistyped", "retries"] {
            assert!(kept.devices.contains_key(&id.parse().unwrap()), "{id}");
        }
        let count = kept.since(NOW);
        assert_eq!((count.attempts, count.evicted), (50_003, 50_002 - UnknownDevices::MAX_DEVICES as u64));
        let sources = kept.sources();
        assert_eq!((sources[0].source.as_str(), sources[0].devices), ("2001:db8::", 999));
    }

    #[test]
    fn many_sources_with_one_device_each_push_out_the_oldest_and_are_counted() {
        let mut unknown = UnknownDevices::default();
        for number in 0..1_500_u32 {
            let source = format!("10.0.{}.{}", number / 250, number % 250);
            unknown.note(attempt(format!("sn-{number:04}"), &source, number.into()));
        }
        unknown.shrink(NOW);
        assert_eq!(unknown.devices.len(), UnknownDevices::MAX_DEVICES);
        assert!(unknown.devices.contains_key(&"sn-1499".parse().unwrap()));
        assert_eq!(unknown.since(NOW.before(Duration::from_secs(1))).evicted, 500);
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let mut unknown = UnknownDevices::default();
        unknown.note(attempt("sn-1", "192.0.2.1", 0));
        unknown.shrink(NOW.after(UnknownDevices::KEPT));
        assert!(!unknown.devices.is_empty() && !unknown.is_empty());
        unknown.shrink(NOW.after(UnknownDevices::KEPT + Duration::from_secs(3_600)));
        assert!(unknown.devices.is_empty() && unknown.is_empty());
    }

    #[test]
    fn requests_whose_devices_are_lost_are_counted() {
        let mut unknown = UnknownDevices::default();
        unknown.note_lost(0, NOW);
        assert!(unknown.is_empty());
        unknown.note_lost(7, NOW);
        assert_eq!(unknown.since(NOW), UnknownCount { attempts: 7, evicted: 7 });
        assert_eq!(unknown.since(NOW.after(Duration::from_secs(3_600))).attempts, 0);
    }
}
