//! What the server does, in numbers, as Prometheus and others read them (OpenMetrics text format 1.0).
//!
//! Every label has few values that are known beforehand: doors, methods, statuses and the codes of problems. Nothing that
//! a caller sends becomes one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use cvm_http::Problem;
use cvm_provisioning::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// The bounds of the durations, in seconds: a replay is a few milliseconds, and the longest request ends at 30 s.
const SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0];

/// The numbers. Clones are of the same.
#[derive(Clone, Debug)]
pub(super) struct Metrics(Arc<Numbers>);

#[derive(Debug)]
struct Numbers {
    connections: Gauge,
    connections_evicted: Counter,
    connections_refused: Counter,
    handshakes_failed: Counter,
    rate_limited: Family<OfBucket, Counter>,
    refusals: Family<OfRefusal, Counter>,
    operator_refusals: Family<OfReason, Counter>,
    requests: Family<OfAnswer, Counter>,
    durations: Family<OfDoor, Histogram, fn() -> Histogram>,
    certificate_end: Gauge,
    authority_end: Gauge,
    list_made: Gauge,
    database_size: Gauge,
    registry: Registry,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OfAnswer {
    door: &'static str,
    method: &'static str,
    status: u16,
    code: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OfBucket {
    bucket: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OfRefusal {
    door: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OfReason {
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OfDoor {
    door: &'static str,
}

/// What is looked up when somebody asks for the numbers.
pub(super) struct Observed {
    pub(super) certificate_end: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// `None` where there is no CA of the server's.
    pub(super) authority_end: Box<dyn Fn() -> Option<Timestamp> + Send + Sync>,
    pub(super) connections: Box<dyn Fn() -> usize + Send + Sync>,
    /// The file of the revocation lists.
    pub(super) lists: PathBuf,
    /// The folder of the registry, where it has one.
    pub(super) database: PathBuf,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("cvm");
        let made = Numbers {
            connections: Gauge::default(),
            connections_evicted: Counter::default(),
            connections_refused: Counter::default(),
            handshakes_failed: Counter::default(),
            rate_limited: Family::default(),
            refusals: Family::default(),
            operator_refusals: Family::default(),
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            certificate_end: Gauge::default(),
            authority_end: Gauge::default(),
            list_made: Gauge::default(),
            database_size: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("connections", "Connections that are open", made.connections.clone());
        let evicted = "Idle connections that were closed to make room for new ones";
        registry.register("connections_evicted", evicted, made.connections_evicted.clone());
        let refused = "Connections that were closed because there were too many";
        registry.register("connections_refused", refused, made.connections_refused.clone());
        let failed = "TLS handshakes that came to no end";
        registry.register("handshakes_failed", failed, made.handshakes_failed.clone());
        let limited = "Requests that were told to come later, by what they were counted by";
        registry.register("rate_limited", limited, made.rate_limited.clone());
        let refusals = "Devices that were refused, by door and reason; unknown-device is one that is not registered";
        registry.register("refusals", refusals, made.refusals.clone());
        let refusals = "Requests of operators that were refused, by reason";
        registry.register("operator_refusals", refusals, made.operator_refusals.clone());
        let requests = "Requests, by door, kind of method, status and the code of the problem";
        registry.register("http_requests", requests, made.requests.clone());
        let durations = "How long requests took, by door";
        registry.register_with_unit("http_request_duration", durations, Unit::Seconds, made.durations.clone());
        let end = "When the server's certificate ends (Unix time)";
        registry.register_with_unit("tls_certificate_end", end, Unit::Seconds, made.certificate_end.clone());
        let end = "When the CA that issues ends (Unix time)";
        registry.register_with_unit("ca_end", end, Unit::Seconds, made.authority_end.clone());
        let list = "When the revocation lists were made (Unix time)";
        registry.register_with_unit("revocation_list_made", list, Unit::Seconds, made.list_made.clone());
        let size = "The size of the registry's files, where it is on SQLite";
        registry.register_with_unit("database_size", size, Unit::Bytes, made.database_size.clone());
        Self(Arc::new(Numbers { registry, ..made }))
    }

    /// An idle connection was closed to make room for a new one.
    pub(super) fn connection_evicted(&self) {
        self.0.connections_evicted.inc();
    }

    /// A connection was closed because there were too many.
    pub(super) fn connection_refused(&self) {
        self.0.connections_refused.inc();
    }

    /// A handshake came to no end.
    pub(super) fn handshake_failed(&self) {
        self.0.handshakes_failed.inc();
    }

    /// A request was told to come later.
    pub(super) fn limited(&self, bucket: &'static str) {
        self.0.rate_limited.get_or_create(&OfBucket { bucket }).inc();
    }

    /// A device was refused.
    pub(super) fn refused(&self, door: &'static str, reason: &'static str) {
        self.0.refusals.get_or_create(&OfRefusal { door, reason }).inc();
    }

    /// A request of an operator was refused.
    pub(super) fn operator_refused(&self, reason: &'static str) {
        self.0.operator_refusals.get_or_create(&OfReason { reason }).inc();
    }

    /// The address at which the numbers are read.
    pub(super) fn routes(&self, observed: Observed) -> Router {
        let state = Arc::new((self.clone(), observed));
        Router::new().route("/metrics", get(read)).with_state(state)
    }

    fn answered(&self, door: &'static str, method: &'static str, response: &Response, took: Duration) {
        let code = response.extensions().get::<Problem>().map_or("", Problem::code);
        let status = response.status().as_u16();
        self.0.requests.get_or_create(&OfAnswer { door, method, status, code }).inc();
        self.0.durations.get_or_create(&OfDoor { door }).observe(took.as_secs_f64());
    }

    fn observe(&self, observed: &Observed) {
        let Numbers { connections, certificate_end, authority_end, list_made, database_size, .. } = &*self.0;
        certificate_end.set((observed.certificate_end)().seconds());
        authority_end.set((observed.authority_end)().map_or(0, Timestamp::seconds));
        list_made.set(written_at(&observed.lists));
        database_size.set(size(&observed.database));
        connections.set(i64::try_from((observed.connections)()).unwrap_or(i64::MAX));
    }
}

async fn read(State(state): State<Arc<(Metrics, Observed)>>) -> Response {
    let (metrics, observed) = &*state;
    metrics.observe(observed);
    let mut text = String::new();
    match encode(&mut text, &metrics.0.registry) {
        Ok(()) => {
            ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Counts a request and its answer.
pub(super) async fn count(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let door = door(request.uri().path());
    let method = match *request.method() {
        Method::GET | Method::HEAD | Method::OPTIONS => "read",
        _ => "write",
    };
    let begun = Instant::now();
    let response = next.run(request).await;
    metrics.answered(door, method, &response, begun.elapsed());
    response
}

/// The door that an address is of. What is behind it is the caller's to write.
fn door(path: &str) -> &'static str {
    if path.trim_end_matches('/') == "/v1/claims" {
        return "claim";
    }
    match path.split('/').nth(1).unwrap_or_default() {
        "v1" => "vend",
        ".well-known" => "est",
        "devices" | "statistics" | "audit" | "jobs" | "revocations" | "tokens" => "registry",
        "ca" | "ca.pem" | "crl" | "crl.pem" | "ocsp" => "ca",
        "livez" | "readyz" => "health",
        _ => "other",
    }
}

/// When a file was written, in Unix time; 0 where it is not there.
fn written_at(path: &Path) -> i64 {
    let written = path.metadata().and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    Timestamp::from(written).seconds()
}

/// What the files of a folder take, in bytes.
fn size(folder: &Path) -> i64 {
    let files = folder.read_dir().into_iter().flatten().filter_map(|entry| entry.ok()?.metadata().ok());
    i64::try_from(files.map(|metadata| metadata.len()).sum::<u64>()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_62_nothing_that_a_caller_writes_becomes_a_label() {
        for path in ["/sn-0001", "/", "", "//", "/%2e%2e", "/v2/certificates", "/devicesx"] {
            assert_eq!(door(path), "other", "{path}");
        }
        assert_eq!((door("/devices/sn-0001"), door("/v1/certificates")), ("registry", "vend"));
        assert_eq!((door("/v1/claims"), door("/v1/claims/sn-0001")), ("claim", "vend"));
        assert_eq!((door("/v1/claims/"), door("/v1/certificates/")), ("claim", "vend"));
    }
}
