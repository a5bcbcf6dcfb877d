//! TLS, and the end of the server.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use cvm_authority::{Curve, LocalSigner, ServerName, Signer as _};
use cvm_provisioning::Timestamp;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::ServeError;
use crate::own_ca::OwnAuthority;

/// How long the server's own certificate is valid; every start makes a new one.
const VALIDITY: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// How long requests that are under way have until the server ends.
const GRACE: Duration = Duration::from_secs(10);
/// How long a client may take for the headers of a request.
const HEADERS: Duration = Duration::from_secs(10);

/// A listener that speaks TLS with a certificate of the server's own CA.
pub(super) struct Listener {
    bound: TcpListener,
    tls: RustlsConfig,
}

impl Listener {
    pub(super) async fn new(
        bound: TcpListener,
        authority: &OwnAuthority,
        names: &[String],
        now: Timestamp,
    ) -> Result<Self, ServeError> {
        let parse = |name: &String| name.parse::<ServerName>().map_err(|_| ServeError::Name { name: name.clone() });
        let names = names.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let key = LocalSigner::generate(Curve::P256).map_err(|_| ServeError::Randomness)?;
        let authorities = authority.authorities.load();
        let issued = authorities.current().issue_server(&names, key.public_key(), VALIDITY, now).await?;
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| ServeError::Tls { source };
        let chain = CertificateDer::pem_slice_iter(issued.chain().as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| failed(error.into()))?;
        let pem = key.to_pem(None).map_err(|error| failed(error.into()))?;
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| failed(error.into()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
        let mut config = config.map_err(|error| failed(error.into()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { bound, tls: RustlsConfig::from_config(Arc::new(config)) })
    }

    /// Serves until the process is asked to end, and then ends what is under way.
    pub(super) async fn serve(self, router: Router) -> std::io::Result<()> {
        let Self { bound, tls } = self;
        bound.set_nonblocking(true)?;
        let handle = Handle::new();
        tokio::spawn(end(handle.clone()));
        let mut server = axum_server::from_tcp_rustls(bound, tls)?.handle(handle);
        server.http_builder().http1().timer(hyper_util::rt::TokioTimer::new()).header_read_timeout(HEADERS);
        server.http_builder().http2().timer(hyper_util::rt::TokioTimer::new()).keep_alive_interval(Some(HEADERS));
        server.serve(router.into_make_service_with_connect_info::<SocketAddr>()).await
    }
}

/// Ends the server when it is interrupted or told to.
async fn end(handle: Handle<SocketAddr>) {
    let interrupted = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminated) => tokio::select! {
                _ = interrupted => {}
                _ = terminated.recv() => {}
            },
            Err(_) => drop(interrupted.await),
        }
    }
    #[cfg(not(unix))]
    drop(interrupted.await);
    handle.graceful_shutdown(Some(GRACE));
}
