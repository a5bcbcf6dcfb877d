use std::str::FromStr;

use reqwest::Url;

/// Where requests go: `{base}/v1/certificates`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Address(Url);

impl Address {
    const PATH: &str = "/v1/certificates";

    pub(super) fn url(&self) -> &Url {
        &self.0
    }

    /// Whether it is not protected by TLS.
    pub(super) fn is_plain(&self) -> bool {
        self.0.scheme() == "http"
    }

    /// Whether it is this machine, by address or by a name that resolves to it (RFC 6761 section 6.3).
    pub(super) fn is_local(&self) -> bool {
        let host = self.0.host_str().unwrap_or_default();
        match host.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => host == "localhost" || host.ends_with(".localhost"),
        }
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
        let base = url.path().trim_end_matches('/');
        let path = if base.ends_with(Self::PATH) { base.to_owned() } else { format!("{base}{}", Self::PATH) };
        url.set_path(&path);
        Ok(Self(url))
    }
}

/// Why a text is no [`Address`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub(super) enum InvalidAddress {
    #[error("expected a URL without user, query and fragment")]
    Parts,
    #[error("expected a URL such as https://api.example.com, the stack's output ApiUrl")]
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
            assert_eq!(address(text).url().as_str(), url);
        }
        for bad in ["", "api.example.com", "ftp://x", "https://", "file:///etc/passwd"] {
            assert_eq!(bad.parse::<Address>(), Err(InvalidAddress::Url), "{bad:?}");
        }
        for bad in ["https://u:p@x", "https://x/?a=b", "https://x/#a"] {
            assert_eq!(bad.parse::<Address>(), Err(InvalidAddress::Parts), "{bad:?}");
        }
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
