//! How many connections there are, in all and from one source.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

/// Where connections come from, as far as they are counted: an IPv4 address, or the /64 that one IPv6 site has.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Source(IpAddr);

impl Source {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.into()),
            IpAddr::V6(address) => {
                Self(std::net::Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into())
            }
        }
    }
}

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
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_source: HashMap<Source, usize>,
}

impl Connections {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, open: Arc::default() }
    }

    /// A place for a connection from there; `None` where there is none left.
    pub(super) fn place(&self, address: SocketAddr) -> Option<Place> {
        let source = Source::of(address.ip());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_source = open.by_source.get(&source).copied().unwrap_or_default();
        if open.all >= self.bounds.connections || of_source >= self.bounds.of_one_source {
            return None;
        }
        open.all += 1;
        open.by_source.insert(source, of_source + 1);
        Some(Place { source, open: Arc::clone(&self.open) })
    }

    /// How many there are.
    #[cfg(test)]
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
        let connections = Connections::new(Bounds { connections: 4, of_one_source: 2 });
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
}
