//! The host that a request is for: named once, as RFC 9112 section 3.2 and RFC 9113 section 8.3.1 require.

use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Request, Version};
use cvm_http::Problem;

/// Refuses a request that names no host, several, or something else: what stands in front of the server could have read
/// another one.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Problem> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let is_named = match (hosts.next(), hosts.next()) {
        (None, _) => request.version() == Version::HTTP_10 || request.uri().authority().is_some(),
        (Some(host), None) => is_host(host),
        (Some(_), Some(_)) => return Err(Problem::header_repeated("send the Host header once")),
    };
    match is_named {
        true => Ok(()),
        false => Err(Problem::host_invalid("send one Host header, such as `Host: cvm.example.com`")),
    }
}

/// A client that connects by an address without a name may leave the value empty.
fn is_host(value: &HeaderValue) -> bool {
    value.is_empty() || value.to_str().is_ok_and(|text| text.parse::<Authority>().is_ok() && !text.contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(version: Version, uri: &str, hosts: &[&str]) -> Option<&'static str> {
        let mut request = Request::builder().version(version).uri(uri).body(()).unwrap();
        for host in hosts {
            request.headers_mut().append(HOST, HeaderValue::try_from(*host).unwrap());
        }
        check(&request).err().map(|problem| problem.code())
    }

    #[test]
    fn a_request_names_its_host_once() {
        for host in ["localhost", "localhost:8443", "[::1]:8443", "192.0.2.1", ""] {
            assert_eq!(code(Version::HTTP_11, "/", &[host]), None, "{host:?}");
        }
        assert_eq!(code(Version::HTTP_11, "/", &[]), Some("host-invalid"));
        assert_eq!(code(Version::HTTP_11, "/", &["a", "a"]), Some("header-repeated"));
        for host in ["a b", "a/b", "user@a", "a, b"] {
            assert_eq!(code(Version::HTTP_11, "/", &[host]), Some("host-invalid"), "{host:?}");
        }
        assert_eq!(code(Version::HTTP_10, "/", &[]), None);
        assert_eq!(code(Version::HTTP_2, "https://localhost/", &[]), None);
        assert_eq!(code(Version::HTTP_2, "/", &[]), Some("host-invalid"));
        assert_eq!(code(Version::HTTP_2, "https://localhost/", &["a", "b"]), Some("header-repeated"));
    }
}
