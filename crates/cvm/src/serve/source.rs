//! Where a request comes from: the address of its connection, or, behind proxies of one's own, what these say.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::HeaderMap;
use ipnet::IpNet;

/// What proxies add to (there is no standard of it; MDN, *X-Forwarded-For*).
const FORWARDED_FOR: &str = "x-forwarded-for";
/// The longest way that is followed, in proxies.
const MAX_HOPS: usize = 16;

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
pub(super) struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    pub(super) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    pub(super) fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
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
            let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
            client = address.to_canonical();
        }
        client
    }
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
        for broken in ["unknown", "", "198.51.100.1:80", "203.0.113.9, x"] {
            assert_eq!(client("10.0.0.1", &[broken]), "10.0.0.1", "{broken}");
        }
        let long = ["10.0.0.1"; 100].join(",");
        assert_eq!(client("10.0.0.1", &["203.0.113.9", &long]), "10.0.0.1");
    }
}
