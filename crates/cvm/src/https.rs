//! Requests on HTTP: whom to trust, how long to wait, and how much to read.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cvm_provisioning::Certificate;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, ClientBuilder, Identity, Response, redirect};

use crate::address::Address;
use crate::file::{self, FileError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection is kept for the next request: less than `cvm serve` and other servers keep theirs, so that no
/// request goes out on one that is being closed.
const IDLE: Duration = Duration::from_secs(5);

/// Returns a client for this address. It trusts the CAs in `root_ca`, or those of the system without it, and presents
/// `identity` in the TLS handshake. It follows no redirect, because secrets are for the given address only.
pub(crate) fn client(
    address: &Address,
    root_ca: Option<&Path>,
    identity: Option<Identity>,
    timeout: Duration,
) -> Result<Client, ClientError> {
    let mut builder = Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(timeout)
        .pool_idle_timeout(IDLE)
        .redirect(redirect::Policy::none())
        .user_agent(concat!("cvm/", env!("CARGO_PKG_VERSION")));
    if address.is_local() {
        builder = builder.no_proxy();
    }
    if let Some(identity) = identity {
        builder = builder.identity(identity);
    }
    if let Some(path) = root_ca {
        builder = trusting(builder, path)?;
    } else if address.is_plain() {
        // Without TLS there is nothing to trust, so a system without CAs is none to refuse.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(ClientError::Client)
}

fn trusting(builder: ClientBuilder, path: &Path) -> Result<ClientBuilder, ClientError> {
    let unusable = |source| ClientError::RootCa { path: path.to_owned(), source };
    let pem = file::read(path, 4 * Certificate::MAX_TEXT)?;
    let authorities = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unusable(Some(error)))?;
    if authorities.is_empty() {
        return Err(unusable(None));
    }
    Ok(builder.tls_certs_only(authorities))
}

/// The body of an answer; `None` where it has more bytes than that.
pub(crate) async fn body(mut response: Response, limit: usize) -> reqwest::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// How long the answer says to wait, where it says so in seconds (RFC 9110 section 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Whether the peer answered a plain request with something else than HTTP, as a TLS port does.
pub(crate) fn is_not_http(address: &Address, error: &reqwest::Error) -> bool {
    let first: Option<&(dyn Error + 'static)> = error.source();
    let mut causes = std::iter::successors(first, |cause| (**cause).source());
    address.is_plain() && causes.any(|cause| cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse))
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("no connection can be set up")]
    Client(#[source] reqwest::Error),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path} holds no CA certificates in PEM", path = path.display())]
    RootCa { path: PathBuf, source: Option<reqwest::Error> },
}
