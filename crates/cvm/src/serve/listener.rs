//! Connections: taken up to a bound, served, and ended in time.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse as _, Response};
use cvm_http::ClientCertificate;
use cvm_provisioning::{Certificate, ShownCertificate, Timestamp};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use super::activity::{Busy, Phase};
use super::connections::{Connections, Place};
use super::header_case::HeaderCase;
use super::metrics::Metrics;
use super::request_body::{ReceivedBody, read_whole};
use super::tls::ServerTls;
use super::{host, now};

/// How often a connection over HTTP/2 is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long a connection lasts. The next one is judged by the CAs of its own time.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// How long requests that are under way have until their connection or the server ends.
const GRACE: Duration = Duration::from_secs(10);
/// How long a connection that makes room for another has to say so.
const EVICTION: Duration = Duration::from_secs(1);
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
    patience: Patience,
    metrics: Metrics,
}

/// How long clients may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience(Duration);

impl Patience {
    /// `handshake` is the time for the TLS handshake, and for the headers of a request.
    pub(super) const fn new(handshake: Duration) -> Self {
        Self(handshake)
    }

    /// For the first byte. It comes with the end of TCP's handshake, also on a slow link.
    fn first_byte(self) -> Duration {
        self.0 / 2
    }

    const fn handshake(self) -> Duration {
        self.0
    }

    const fn headers(self) -> Duration {
        self.0
    }
}

impl Listener {
    pub(super) fn new(
        bound: TcpListener,
        tls: Arc<ServerTls>,
        connections: Connections,
        patience: Patience,
        metrics: Metrics,
    ) -> Self {
        Self { bound, tls: Some(tls), connections, patience, metrics }
    }

    /// One that does not speak TLS.
    pub(super) fn plain(bound: TcpListener, connections: Connections, patience: Patience, metrics: Metrics) -> Self {
        Self { bound, tls: None, connections, patience, metrics }
    }

    /// Serves until `end`, and then lets what is under way come to its end.
    pub(super) async fn serve(self, router: Router, end: impl Future<Output = ()>) {
        let Self { bound, tls, connections, patience, metrics } = self;
        let header_case = HeaderCase::usual().await;
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
            if place.has_evicted {
                metrics.connection_evicted();
                tracing::debug!(%address, "an idle connection was closed for a new one");
            }
            let connection = Connection {
                address,
                router: router.clone(),
                tls: tls.clone(),
                header_case: header_case.clone(),
                patience,
                metrics: metrics.clone(),
                ended: ended.clone(),
                place,
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
    header_case: HeaderCase,
    patience: Patience,
    metrics: Metrics,
    /// Says when the server ends.
    ended: watch::Receiver<bool>,
    /// Free for another when this is dropped.
    place: Place,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        // An answer is one write or two; the second does not wait for the first to be acknowledged.
        let _ = stream.set_nodelay(true);
        let Self { address, metrics, patience, place, .. } = &self;
        let activity = Arc::clone(&place.activity);
        let begun = async {
            match timeout(patience.first_byte(), stream.peek(&mut [0])).await {
                Ok(Ok(1..)) => true,
                Ok(Ok(0) | Err(_)) => false,
                Err(_) => {
                    tracing::debug!(%address, "a connection was closed on which nothing came");
                    false
                }
            }
        };
        let has_begun = tokio::select! {
            begun = begun => begun,
            () = activity.evicted() => false,
        };
        if !has_begun {
            return;
        }
        let Some(tls) = self.tls.clone() else {
            activity.enter(Phase::Open);
            return self.converse(stream, None).await;
        };
        activity.enter(Phase::Handshake);
        let handshake = TlsAcceptor::from(tls.configuration()).accept(stream);
        let handshake = timeout(patience.handshake(), Box::pin(handshake));
        let shaken = tokio::select! {
            shaken = handshake => shaken,
            () = activity.evicted() => return,
        };
        let stream = match shaken {
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
        activity.enter(Phase::Open);
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let client = tls.clients.verified(shown, now()).map(Arc::new);
        self.converse(stream, client).await;
    }

    /// Answers what is asked on the connection, by a client that has shown this certificate.
    async fn converse<S>(self, stream: S, client: Option<Arc<Certificate>>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Self { address, router, header_case, patience, mut ended, place, .. } = self;
        let activity = &place.activity;
        let service = service_fn(|mut request: hyper::Request<Incoming>| {
            let extensions = request.extensions_mut();
            extensions.insert(ConnectInfo(address));
            if let Some(client) = client_at(client.as_ref(), now()) {
                extensions.insert(client);
            }
            let busy = Busy::new(activity);
            let request = request.map(|body| Body::new(ReceivedBody::new(Body::new(body), activity)));
            let (router, header_case) = (router.clone(), header_case.clone());
            async move {
                let _busy = busy;
                let response = read_whole(request, |request| answer(router, request)).await;
                Ok::<_, Infallible>(header_case.applied(response))
            }
        });
        let builder = builder(patience);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = Box::pin(connection);
        let grace = tokio::select! {
            served = connection.as_mut() => {
                if let Err(error) = served {
                    tracing::debug!(%address, error, "a connection broke off");
                }
                return;
            }
            () = activity.idle() => GRACE,
            () = sleep(LONGEST) => GRACE,
            _ = ended.wait_for(|ended| *ended) => GRACE,
            () = activity.evicted() => EVICTION,
        };
        connection.as_mut().graceful_shutdown();
        let _ = timeout(grace, connection).await;
    }
}

async fn answer(router: Router, request: axum::http::Request<Body>) -> Response {
    match host::check(&request) {
        Ok(()) => router.oneshot(request).await.into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// Who the client is by its certificate, for as long as that proves something: a connection may outlive it.
fn client_at(client: Option<&Arc<Certificate>>, now: Timestamp) -> Option<ClientCertificate> {
    let client = client.filter(|certificate| ShownCertificate::of(certificate, now).is_some())?;
    Some(ClientCertificate(Arc::clone(client)))
}

fn builder(patience: Patience) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.headers())
        .max_buf_size(MAX_HEADERS as usize)
        .title_case_headers(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS);
    builder
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
