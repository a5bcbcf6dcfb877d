//! How many connections there are, in all and from one source.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::source::{Source, TrustedProxies};

/// The bounds of how many connections there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Bounds {
    pub(super) connections: usize,
    pub(super) of_one_source: usize,
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
    all: usize,
    by_source: HashMap<Source, usize>,
}

impl Connections {
    pub(super) fn new(bounds: Bounds, trusted: TrustedProxies) -> Self {
        Self { bounds, trusted, open: Arc::default() }
    }

    /// A place for a connection from there; `None` where there is none left.
    pub(super) fn place(&self, address: SocketAddr) -> Option<Place> {
        let source = Source::of(address.ip());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_source = open.by_source.get(&source).copied().unwrap_or_default();
        // A proxy of one's own comes for many.
        let is_full = of_source >= self.bounds.of_one_source && !self.trusted.has(address.ip());
        if open.all >= self.bounds.connections || is_full {
            return None;
        }
        open.all += 1;
        open.by_source.insert(source, of_source + 1);
        Some(Place { source, open: Arc::clone(&self.open) })
    }

    /// How many there are.
    pub(super) fn open(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).all
    }
}

/// The place of one connection, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    source: Source,
    open: Arc<Mutex<Open>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all -= 1;
        // A source without connections is forgotten: the map is as large as there are connections, at most.
        if let Some(of_source) = open.by_source.get_mut(&self.source) {
            *of_source -= 1;
            if *of_source == 0 {
                open.by_source.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
}
