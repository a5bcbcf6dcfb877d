//! Connections: taken up to a bound, served, and ended in time.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use cvm_http::ClientCertificate;
use cvm_provisioning::{Certificate, ShownCertificate, Timestamp};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use super::connections::{Connections, Place};
use super::metrics::Metrics;
use super::now;
use super::tls::ServerTls;

/// How long a client may take for the handshake, and for the headers of a request.
const HEADERS: Duration = Duration::from_secs(10);
/// How long a connection is kept on which nothing is asked, and how long a client may take to read an answer.
const IDLE: Duration = Duration::from_secs(60);
/// How long a connection lasts. The next one is judged by the CAs of its own time.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// How long requests that are under way have until their connection or the server ends.
const GRACE: Duration = Duration::from_secs(10);
/// The longest headers of a request, in bytes.
const MAX_HEADERS: u32 = 16 * 1024;
/// Requests at once on one connection.
const MAX_STREAMS: u32 = 32;
/// How long nothing is accepted when the system has no more files to give.
const EXHAUSTED: Duration = Duration::from_millis(200);

/// A listener that speaks TLS, or none for what everybody may read.
pub(super) struct Listener {
    bound: TcpListener,
    tls: Option<Arc<ServerTls>>,
    connections: Connections,
    metrics: Metrics,
}

impl Listener {
    pub(super) fn new(bound: TcpListener, tls: Arc<ServerTls>, connections: Connections, metrics: Metrics) -> Self {
        Self { bound, tls: Some(tls), connections, metrics }
    }

    /// One that does not speak TLS.
    pub(super) fn plain(bound: TcpListener, connections: Connections, metrics: Metrics) -> Self {
        Self { bound, tls: None, connections, metrics }
    }

    /// Serves until `end`, and then lets what is under way come to its end.
    pub(super) async fn serve(self, router: Router, end: impl Future<Output = ()>) {
        let Self { bound, tls, connections, metrics } = self;
        let (ending, ended) = watch::channel(false);
        let mut end = pin!(end);
        loop {
            let accepted = tokio::select! {
                accepted = bound.accept() => accepted,
                () = &mut end => break,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    if !is_of_one_connection(&error) {
                        tracing::error!(%error, "no connection can be taken; allow more open files");
                        sleep(EXHAUSTED).await;
                    }
                    continue;
                }
            };
            // One too many is closed at once: its device knows, and comes again, while one that had to wait would not.
            let Some(place) = connections.place(address) else {
                metrics.connection_refused();
                tracing::debug!(%address, "one connection too many was closed");
                continue;
            };
            let connection = Connection {
                address,
                router: router.clone(),
                tls: tls.clone(),
                metrics: metrics.clone(),
                ended: ended.clone(),
                _place: place,
            };
            tokio::spawn(connection.serve(stream));
        }
        drop((bound, ended));
        ending.send_replace(true);
        // Each connection has a receiver.
        let _ = timeout(GRACE, ending.closed()).await;
    }
}

/// Whether accepting failed for the one that came alone, as far as that can be told.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

struct Connection {
    address: SocketAddr,
    router: Router,
    tls: Option<Arc<ServerTls>>,
    metrics: Metrics,
    /// Says when the server ends.
    ended: watch::Receiver<bool>,
    /// Free for another when this is dropped.
    _place: Place,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        // An answer is one write or two; the second does not wait for the first to be acknowledged.
        let _ = stream.set_nodelay(true);
        let Self { address, metrics, .. } = &self;
        let Some(tls) = self.tls.clone() else { return self.converse(stream, None).await };
        let handshake = TlsAcceptor::from(tls.configuration()).accept(stream);
        let stream = match timeout(HEADERS, Box::pin(handshake)).await {
            Ok(Ok(stream)) => stream,
            failed => {
                metrics.handshake_failed();
                let error = match failed {
                    Ok(error) => error.err().map(|error| error.to_string()),
                    Err(_) => Some("it took too long".to_owned()),
                };
                return tracing::debug!(%address, error, "a handshake failed");
            }
        };
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let client = tls.clients.verified(shown, now()).map(Arc::new);
        self.converse(stream, client).await;
    }

    /// Answers what is asked on the connection, by a client that has shown this certificate.
    async fn converse<S>(self, stream: S, client: Option<Arc<Certificate>>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Self { address, router, mut ended, _place, .. } = self;
        let activity = Arc::new(Activity::new());
        let service = service_fn(|mut request: hyper::Request<Incoming>| {
            let extensions = request.extensions_mut();
            extensions.insert(ConnectInfo(address));
            if let Some(client) = client_at(client.as_ref(), now()) {
                extensions.insert(client);
            }
            let busy = Busy::new(&activity);
            let router = router.clone();
            async move {
                let _busy = busy;
                router.oneshot(request.map(Body::new)).await
            }
        });
        let builder = builder();
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = Box::pin(connection);
        tokio::select! {
            served = connection.as_mut() => {
                if let Err(error) = served {
                    tracing::debug!(%address, error, "a connection broke off");
                }
                return;
            }
            () = activity.idle() => {}
            () = sleep(LONGEST) => {}
            _ = ended.wait_for(|ended| *ended) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = timeout(GRACE, connection).await;
    }
}

/// Who the client is by its certificate, for as long as that proves something: a connection may outlive it.
fn client_at(client: Option<&Arc<Certificate>>, now: Timestamp) -> Option<ClientCertificate> {
    let client = client.filter(|certificate| ShownCertificate::of(certificate, now).is_some())?;
    Some(ClientCertificate(Arc::clone(client)))
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(MAX_HEADERS as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(HEADERS))
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS);
    builder
}

/// What goes on on a connection.
struct Activity(Mutex<State>);

struct State {
    requests: usize,
    since: Instant,
}

impl Activity {
    fn new() -> Self {
        Self(Mutex::new(State { requests: 0, since: Instant::now() }))
    }

    /// Returns when nothing has been asked for too long.
    async fn idle(&self) {
        loop {
            let end = {
                let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let since = if state.requests > 0 { Instant::now() } else { state.since };
                since + IDLE
            };
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// A request under way.
struct Busy(Arc<Activity>);

impl Busy {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.0.lock().unwrap_or_else(PoisonError::into_inner).requests += 1;
        Self(Arc::clone(activity))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State { requests: state.requests - 1, since: Instant::now() };
    }
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
