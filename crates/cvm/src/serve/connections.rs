//! How many connections there are, in all and from one source, and which of them make room for new ones.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::activity::Activity;
use super::source::{Source, TrustedProxies};

/// Files that the server has open beside its connections: databases, listeners, folders, readers of metrics.
const OTHER_FILES: usize = 100;

/// The bounds of how many connections there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Bounds {
    pub(super) connections: usize,
    pub(super) of_one_source: usize,
}

impl Bounds {
    /// The bounds that a process can keep that may have so many files open.
    pub(super) fn within(self, open_files: Option<usize>) -> Self {
        let room = open_files.map_or(usize::MAX, |files| files.saturating_sub(OTHER_FILES).max(1));
        Self { connections: self.connections.min(room), of_one_source: self.of_one_source.min(room) }
    }
}

/// How many files this process may have open; `None` where the system does not say so in `/proc`, or sets no limit.
pub(super) fn open_files() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    limit.split_whitespace().next()?.parse().ok()
}

/// The connections that are open. Clones count the same.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    bounds: Bounds,
    trusted: TrustedProxies,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    all: HashMap<u64, Entry>,
    by_source: HashMap<Source, usize>,
}

#[derive(Debug)]
struct Entry {
    source: Source,
    is_of_proxy: bool,
    activity: Arc<Activity>,
}

impl Open {
    fn of_source(&self, source: Source) -> usize {
        self.by_source.get(&source).copied().unwrap_or_default()
    }

    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.all.remove(&number)?;
        // A source without connections is forgotten: the map is as large as there are connections, at most.
        if let Some(of_source) = self.by_source.get_mut(&entry.source) {
            *of_source -= 1;
            if *of_source == 0 {
                self.by_source.remove(&entry.source);
            }
        }
        Some(entry)
    }

    /// The connection that is missed least: one of the source that has most of them, and of these the one that is idle for
    /// longest. Those of trusted proxies come last, because a proxy comes for many.
    fn idlest(&self, of: Option<Source>) -> Option<u64> {
        let now = Instant::now();
        let idle = self.all.iter().filter(|(_, entry)| of.is_none_or(|source| entry.source == source));
        let ranked = idle.filter_map(|(number, entry)| {
            let idle_for: Duration = entry.activity.evictable_for(now)?;
            Some(((!entry.is_of_proxy, self.of_source(entry.source), idle_for), *number))
        });
        ranked.max_by_key(|(rank, _)| *rank).map(|(_, number)| number)
    }
}

impl Connections {
    pub(super) fn new(bounds: Bounds, trusted: TrustedProxies) -> Self {
        Self { bounds, trusted, open: Arc::default() }
    }

    /// A place for a connection from this address; an idle connection is evicted where there is none. `None` if all of
    /// those that could be evicted are at work.
    pub(super) fn place(&self, address: SocketAddr) -> Option<Place> {
        let source = Source::of(address.ip());
        let is_of_proxy = self.trusted.has(address.ip());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let is_source_full = open.of_source(source) >= self.bounds.of_one_source && !is_of_proxy;
        let mut has_evicted = false;
        if is_source_full || open.all.len() >= self.bounds.connections {
            let number = open.idlest(Some(source).filter(|_| is_source_full))?;
            // Its place is free at once; its task ends within moments.
            open.remove(number)?.activity.evict();
            has_evicted = true;
        }
        let (number, activity) = (open.next, Arc::new(Activity::new()));
        open.next += 1;
        open.all.insert(number, Entry { source, is_of_proxy, activity: Arc::clone(&activity) });
        *open.by_source.entry(source).or_default() += 1;
        Some(Place { number, activity, has_evicted, open: Arc::clone(&self.open) })
    }

    /// How many there are.
    pub(super) fn open(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).all.len()
    }
}

/// The place of one connection, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    /// What the connection is doing.
    pub(super) activity: Arc<Activity>,
    /// Whether another connection was evicted for it.
    pub(super) has_evicted: bool,
    open: Arc<Mutex<Open>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::super::activity::{Busy, Phase, Receiving};
    use super::*;

    fn place(connections: &Connections, address: &str) -> Option<Place> {
        connections.place(SocketAddr::new(address.parse().unwrap(), 1))
    }

    #[test]
    fn threat_25_one_source_leaves_room_for_the_others() {
        let connections = Connections::new(Bounds { connections: 4, of_one_source: 2 }, TrustedProxies::default());
        let held = [place(&connections, "192.0.2.1").unwrap(), place(&connections, "::ffff:192.0.2.1").unwrap()];
        assert!(place(&connections, "192.0.2.1").is_none());
        let others = [place(&connections, "2001:db8::1").unwrap(), place(&connections, "2001:db8::2").unwrap()];
        assert!(place(&connections, "2001:db8::ffff:3").is_none(), "a site counts as one");
        assert!(place(&connections, "198.51.100.1").is_none(), "there are four");
        drop(held);
        assert!(place(&connections, "192.0.2.1").is_some());
        drop(others);
        assert_eq!((connections.open(), connections.open.lock().unwrap().by_source.len()), (0, 0));
    }

    #[test]
    fn a_proxy_of_ones_own_is_not_one_source() {
        let trusted = TrustedProxies::new(vec!["192.0.2.0/24".parse().unwrap()]);
        let connections = Connections::new(Bounds { connections: 4, of_one_source: 1 }, trusted);
        let held: Vec<_> = (0..4).filter_map(|_| place(&connections, "192.0.2.1")).collect();
        assert_eq!(held.len(), 4);
        assert!(place(&connections, "192.0.2.1").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn threat_25_idle_connections_make_room_for_new_ones() {
        let trusted = TrustedProxies::new(vec!["10.0.0.1/32".parse().unwrap()]);
        let connections = Connections::new(Bounds { connections: 6, of_one_source: 4 }, trusted);
        let hoard: Vec<_> = (0..3).filter_map(|_| place(&connections, "192.0.2.1")).collect();
        let honest = place(&connections, "198.51.100.1").unwrap();
        let proxy = [place(&connections, "10.0.0.1").unwrap(), place(&connections, "10.0.0.1").unwrap()];
        assert!(place(&connections, "203.0.113.1").is_none(), "they have just come");
        let busy = Busy::new(&hoard[0].activity);
        hoard[2].activity.enter(Phase::Handshake);
        advance(Duration::from_secs(2)).await;
        let first = place(&connections, "203.0.113.1").unwrap();
        assert!(first.has_evicted && !honest.has_evicted);
        let has = |place: &Place| connections.open.lock().unwrap().all.contains_key(&place.number);
        assert_eq!([0, 1, 2].map(|number| has(&hoard[number])), [true, false, true], "the idle one of the most");
        hoard[1].activity.evicted().await;
        assert!([&honest, &proxy[0], &proxy[1], &first].into_iter().all(has));
        // A busy connection stays, and a handshake has a little longer.
        let second = place(&connections, "203.0.113.2").unwrap();
        assert!(!has(&honest) && has(&hoard[0]) && has(&hoard[2]), "then any that is idle");
        advance(Duration::from_secs(5)).await;
        let third = place(&connections, "203.0.113.3").unwrap();
        assert!(!has(&hoard[2]) && has(&proxy[0]) && has(&proxy[1]), "those of proxies are the last");
        drop((busy, hoard, honest));
        assert_eq!(connections.open(), 5, "what was evicted is counted once");
        drop((first, second, third, proxy));
        assert_eq!((connections.open(), connections.open.lock().unwrap().by_source.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn threat_25_a_connection_whose_requests_wait_for_their_bodies_makes_room() {
        let connections = Connections::new(Bounds { connections: 1, of_one_source: 1 }, TrustedProxies::default());
        let slow = place(&connections, "192.0.2.1").unwrap();
        slow.activity.enter(Phase::Open);
        let busy = Busy::new(&slow.activity);
        let receiving = Receiving::new(&slow.activity);
        advance(Duration::from_millis(4_999)).await;
        assert!(place(&connections, "198.51.100.1").is_none(), "a slow link has a while");
        drop(receiving);
        advance(Duration::from_secs(60)).await;
        assert!(place(&connections, "198.51.100.1").is_none(), "it is answered");
        let receiving = Receiving::new(&slow.activity);
        let new = place(&connections, "198.51.100.1").unwrap();
        slow.activity.evicted().await;
        drop((busy, receiving, slow, new));
    }

    #[tokio::test(start_paused = true)]
    async fn threat_25_a_source_with_all_its_connections_evicts_its_own() {
        let connections = Connections::new(Bounds { connections: 8, of_one_source: 1 }, TrustedProxies::default());
        let (other, old) = (place(&connections, "198.51.100.1").unwrap(), place(&connections, "192.0.2.1").unwrap());
        advance(Duration::from_secs(2)).await;
        let new = place(&connections, "192.0.2.1").unwrap();
        old.activity.evicted().await;
        drop(old);
        assert_eq!(connections.open(), 2);
        drop((new, other));
    }

    #[test]
    fn connections_are_no_more_than_files_can_be_open() {
        let bounds = Bounds { connections: 900, of_one_source: 200 };
        assert_eq!(bounds.within(None), bounds);
        assert_eq!(bounds.within(Some(1024)), bounds);
        assert_eq!(bounds.within(Some(256)), Bounds { connections: 156, of_one_source: 156 });
        assert_eq!(bounds.within(Some(8)), Bounds { connections: 1, of_one_source: 1 });
        assert!(!cfg!(target_os = "linux") || open_files().is_some());
    }
}
