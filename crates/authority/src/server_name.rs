use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// By what clients of TLS know a server: a DNS name, or an address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ServerName {
    /// An address.
    Address(IpAddr),
    /// A DNS name: labels of letters, digits and hyphens with dots between them (RFC 1123 section 2.1), in small letters.
    Dns(String),
}

impl ServerName {
    /// The longest DNS name, in characters (RFC 1035 section 2.3.4).
    const MAX_LENGTH: usize = 253;
    const MAX_LABEL: usize = 63;

    /// The octets of an address, as a certificate has them.
    pub(crate) fn octets(address: &IpAddr) -> Vec<u8> {
        match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Dns(name) => f.write_str(name),
        }
    }
}

impl FromStr for ServerName {
    type Err = InvalidServerName;

    fn from_str(text: &str) -> Result<Self, InvalidServerName> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let is_label = |label: &str| {
            (1..=Self::MAX_LABEL).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // A name of digits alone would be an address that is none.
        let last = text.rsplit('.').next().unwrap_or_default();
        let good = text.len() <= Self::MAX_LENGTH && text.split('.').all(is_label);
        match good && !last.bytes().all(|byte| byte.is_ascii_digit()) {
            true => Ok(Self::Dns(text.to_ascii_lowercase())),
            false => Err(InvalidServerName),
        }
    }
}

/// A text is no [`ServerName`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a server's name is a DNS name such as cvm.example.com, or an address such as 192.0.2.1")]
pub struct InvalidServerName;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_name_or_an_address() {
        for name in ["localhost", "cvm.example.com", "a-1.b", "1.example"] {
            assert_eq!(name.parse(), Ok(ServerName::Dns(name.to_owned())));
        }
        assert_eq!("CVM.example".parse(), Ok(ServerName::Dns("cvm.example".to_owned())));
        for address in ["127.0.0.1", "::1", "2001:db8::7"] {
            assert_eq!(address.parse(), Ok(ServerName::Address(address.parse().unwrap())));
        }
        let long = ["a"; 128].join(".");
        for text in ["", ".", "a..b", "-a", "a-", "a b", "*.example.com", "1.2.3", "256.0.0.1", "a_b", "ä", &long] {
            assert_eq!(text.parse::<ServerName>(), Err(InvalidServerName), "{text}");
        }
    }
}
