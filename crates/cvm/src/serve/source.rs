//! Where a request comes from: the address of its connection, or, behind proxies of one's own, what these say.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use ipnet::IpNet;

use crate::output::printable;

/// What proxies add to (there is no standard of it; MDN, *X-Forwarded-For*).
const FORWARDED_FOR: &str = "x-forwarded-for";
/// The longest way that is followed, in proxies.
const MAX_HOPS: usize = 16;
/// How often it is logged that a proxy sends something else.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
/// The most characters of it in the log.
const MAX_LOGGED: usize = 64;

/// Those who ask, as far as they are counted: an IPv4 address, or the /64 that one IPv6 site has.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Source(IpAddr);

impl Source {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.into()),
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()),
        }
    }
}

/// The proxies that are believed.
#[derive(Clone, Debug, Default)]
pub(super) struct TrustedProxies {
    networks: Vec<IpNet>,
    warned: Arc<Mutex<Option<Instant>>>,
}

impl TrustedProxies {
    pub(super) fn new(networks: Vec<IpNet>) -> Self {
        Self { networks, warned: Arc::default() }
    }

    pub(super) fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Who sent the request that came over a connection of `peer`. Each proxy adds the address that it was asked from at
    /// the end, so it is followed from there, for as long as those who say it are proxies of one's own: what stands
    /// further to the left, anybody can have written.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let lines = headers.get_all(FORWARDED_FOR).iter().rev();
        let hops = lines.flat_map(|line| line.to_str().unwrap_or("?").rsplit(','));
        for hop in hops.take(MAX_HOPS) {
            if !self.has(client) {
                break;
            }
            let Some(address) = address(hop) else {
                self.warn(client, hop);
                break;
            };
            client = address.to_canonical();
        }
        client
    }

    /// Everybody behind that proxy now counts as one source, which an operator has to know.
    fn warn(&self, proxy: IpAddr, hop: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_some_and(|warned| warned.elapsed() < WARNING_INTERVAL) {
            return;
        }
        *warned = Some(Instant::now());
        let value = printable(&hop.chars().take(MAX_LOGGED).collect::<String>());
        let advice = "have the proxy send the client's address; until then all of its clients share one rate limit";
        tracing::warn!(%proxy, value, advice, "a trusted proxy sends an X-Forwarded-For that is no address");
    }
}

/// An address, as proxies write it: alone, in brackets, or with a port (Azure Application Gateway).
fn address(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    bare.parse().ok().or_else(|| hop.parse().ok().map(|address: SocketAddr| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_27_only_what_proxies_of_ones_own_say_counts() {
        let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()]);
        let client = |peer: &str, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(FORWARDED_FOR, line.parse().unwrap());
            }
            trusted.client(peer.parse().unwrap(), &headers).to_string()
        };
        assert_eq!(client("192.0.2.1", &["198.51.100.1"]), "192.0.2.1", "anybody can send the header");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("::ffff:10.0.0.1", &["::ffff:198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["203.0.113.9, 198.51.100.1, 10.0.0.2"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["203.0.113.9", "198.51.100.1,2001:db8::1"]), "198.51.100.1");
        for broken in
            ["unknown", "", "203.0.113.9, x", "198.51.100.1:", "198.51.100.1:x", "[198.51.100.1", "a.example:80"]
        {
            assert_eq!(client("10.0.0.1", &[broken]), "10.0.0.1", "{broken}");
        }
        for (hop, expected) in [
            ("198.51.100.1:51234", "198.51.100.1"),
            ("203.0.113.9:1, 198.51.100.1:2 ,10.0.0.2:3", "198.51.100.1"),
            ("[2001:db9::17]:443", "2001:db9::17"),
            ("[2001:db9::17]", "2001:db9::17"),
            ("[::ffff:198.51.100.1]:443", "198.51.100.1"),
        ] {
            assert_eq!(client("10.0.0.1", &[hop]), expected, "{hop}");
        }
        let long = ["10.0.0.1"; 100].join(",");
        assert_eq!(client("10.0.0.1", &["203.0.113.9", &long]), "10.0.0.1");
    }
}
