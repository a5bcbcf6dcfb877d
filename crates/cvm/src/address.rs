//! The address of a service on HTTP.

use std::str::FromStr;

use reqwest::Url;

/// Where a service is. What is asked for stands below it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Address(Url);

impl Address {
    /// What is asked for at this path, which may be in the address already.
    pub(crate) fn at(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        let base = url.path().trim_end_matches('/');
        if !base.ends_with(path) {
            let path = format!("{base}{path}");
            url.set_path(&path);
        }
        url
    }

    /// What is asked for below these segments.
    pub(crate) fn below(&self, segments: &[&str]) -> Url {
        let mut url = self.0.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            // It is an address of HTTP, which has a path.
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// Whether it is not protected by TLS.
    pub(crate) fn is_plain(&self) -> bool {
        self.0.scheme() == "http"
    }

    /// Whether it is this machine, by address or by a name that resolves to it (RFC 6761 section 6.3).
    pub(crate) fn is_local(&self) -> bool {
        let host = self.0.host_str().unwrap_or_default();
        match host.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => host == "localhost" || host.ends_with(".localhost"),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let mut url = Url::parse(text).map_err(|_| InvalidAddress::Url)?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(InvalidAddress::Url);
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidAddress::Parts);
        }
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&base);
        Ok(Self(url))
    }
}

/// Why a text is no [`Address`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum InvalidAddress {
    #[error("expected a URL without user, query and fragment")]
    Parts,
    #[error("expected a URL such as https://cvm.example.com")]
    Url,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn the_base_and_the_full_path_are_the_same_address() {
        for (text, url) in [
            ("https://api.example.com", "https://api.example.com/v1/certificates"),
            ("https://api.example.com/v1/certificates/", "https://api.example.com/v1/certificates"),
            ("http://localhost:4566/stage/", "http://localhost:4566/stage/v1/certificates"),
        ] {
            assert_eq!(address(text).at("/v1/certificates").as_str(), url);
        }
        for bad in ["", "api.example.com", "ftp://x", "https://", "file:///etc/passwd"] {
            assert_eq!(bad.parse::<Address>(), Err(InvalidAddress::Url), "{bad:?}");
        }
        for bad in ["https://u:p@x", "https://x/?a=b", "https://x/#a"] {
            assert_eq!(bad.parse::<Address>(), Err(InvalidAddress::Parts), "{bad:?}");
        }
    }

    #[test]
    fn what_is_below_an_address_cannot_leave_it() {
        let below = |text: &str| address(text).below(&["devices", "a/../b?c"]).to_string();
        assert_eq!(below("https://cvm.example.com"), "https://cvm.example.com/devices/a%2F..%2Fb%3Fc");
        assert_eq!(below("https://example.com/cvm/"), "https://example.com/cvm/devices/a%2F..%2Fb%3Fc");
        assert_eq!(address("https://cvm.example.com/").to_string(), "https://cvm.example.com");
    }

    #[test]
    fn only_this_machine_is_local() {
        for local in ["http://localhost:1", "http://127.0.0.2", "http://[::1]:1", "http://x.execute-api.localhost"] {
            assert!(address(local).is_local(), "{local}");
        }
        for remote in ["http://10.0.0.1", "http://localhost.example.com", "http://notlocalhost"] {
            assert!(!address(remote).is_local(), "{remote}");
        }
    }
}
