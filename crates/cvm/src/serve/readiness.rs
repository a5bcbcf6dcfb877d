//! `/readyz`: whether the server can do its work now. A load balancer sends no requests to a server that cannot.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use cvm_authority::SharedAuthorities;
use cvm_aws::DynamoDbRegistry;
use cvm_provisioning::{DeviceStore as _, RegistryError, Timestamp};
use cvm_sql::SqlRegistry;
use tokio::sync::Mutex;

use super::now;
use crate::ca_key::CaKey;
use crate::clock::{self, ImplausibleClock};

/// How long a result is used again, so that requests cost the registry nothing.
const CACHED: Duration = Duration::from_secs(1);

/// A registry that can be asked whether it works.
pub(super) trait Probe: Clone + Send + Sync + 'static {
    /// Does what a vend needs of it.
    fn probe(&self) -> impl Future<Output = Result<(), RegistryError>> + Send;
}

impl Probe for SqlRegistry {
    async fn probe(&self) -> Result<(), RegistryError> {
        self.probe_write().await
    }
}

/// The table of a stack: a write would cost money with each probe, and start the stack's functions.
impl Probe for DynamoDbRegistry {
    async fn probe(&self) -> Result<(), RegistryError> {
        self.list(&Default::default(), None, 1).await.map(drop)
    }
}

/// Why the server is not ready.
#[derive(Debug, thiserror::Error)]
enum NotReady {
    #[error(transparent)]
    Clock(#[from] ImplausibleClock),
    #[error("the clock of this machine is wrong, or the CA was made under a wrong one: the CA is valid from {from}")]
    EarlyCa { from: Timestamp },
    #[error("the registry cannot be written")]
    Registry(#[source] RegistryError),
}

impl NotReady {
    /// What a stranger may read.
    const fn text(&self) -> &'static str {
        match self {
            Self::Clock(_) | Self::EarlyCa { .. } => "the clock of the server is wrong\n",
            Self::Registry(_) => "the registry does not answer\n",
        }
    }
}

struct Readiness<P> {
    registry: P,
    /// The server's CAs, if it has any.
    authorities: Option<SharedAuthorities<CaKey>>,
    /// The last result: the text of the refusal, if there was one. Requests that come while it is made wait for it.
    last: Mutex<Option<(Instant, Result<(), &'static str>)>>,
}

impl<P: Probe> Readiness<P> {
    async fn result(&self) -> Result<(), &'static str> {
        let mut last = self.last.lock().await;
        if let Some((at, result)) = *last
            && at.elapsed() < CACHED
        {
            return result;
        }
        let was_ready = last.is_none_or(|(_, result)| result.is_ok());
        let result = self.check(now()).await;
        match &result {
            Ok(()) if !was_ready => tracing::info!("the server is ready again"),
            Err(error) if was_ready => {
                let cause: &dyn std::error::Error = error;
                tracing::error!(error = cause, "the server is not ready");
            }
            _ => {}
        }
        let result = result.map_err(|error| error.text());
        *last = Some((Instant::now(), result));
        result
    }

    async fn check(&self, now: Timestamp) -> Result<(), NotReady> {
        clock::check(now)?;
        if let Some(authorities) = &self.authorities {
            let from = authorities.load().current().certificate().not_before().into();
            if now < from {
                return Err(NotReady::EarlyCa { from });
            }
        }
        self.registry.probe().await.map_err(NotReady::Registry)
    }
}

/// The route, for a server with these CAs of its own.
pub(super) fn router<P: Probe>(registry: P, authorities: Option<SharedAuthorities<CaKey>>) -> Router {
    let readiness = Arc::new(Readiness { registry, authorities, last: Mutex::default() });
    Router::new().route("/readyz", get(ready::<P>)).with_state(readiness)
}

async fn ready<P: Probe>(State(readiness): State<Arc<Readiness<P>>>) -> Response {
    match readiness.result().await {
        Ok(()) => "ok\n".into_response(),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Clone, Default)]
    struct Counted(Arc<AtomicUsize>);

    impl Probe for Counted {
        async fn probe(&self) -> Result<(), RegistryError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Err(RegistryError::Unavailable { source: "the disk is full".into() })
        }
    }

    #[tokio::test]
    async fn many_requests_are_one_probe() {
        let registry = Counted::default();
        let probes = Arc::clone(&registry.0);
        let readiness = Readiness { registry, authorities: None, last: Mutex::default() };
        for _ in 0..100 {
            assert_eq!(readiness.result().await, Err("the registry does not answer\n"));
        }
        assert!(probes.load(Ordering::Relaxed) <= 2, "{probes:?} probes");
        // A result is not used for longer than a second.
        let earlier = Instant::now().checked_sub(CACHED).unwrap();
        *readiness.last.lock().await = Some((earlier, Ok(())));
        assert!(readiness.result().await.is_err());
    }

    #[tokio::test]
    async fn threat_38_a_server_with_a_wrong_clock_is_not_ready() {
        let readiness = Readiness { registry: Counted::default(), authorities: None, last: Mutex::default() };
        let wrong = readiness.check(Timestamp::from_seconds(0)).await.unwrap_err();
        assert_eq!(wrong.text(), "the clock of the server is wrong\n");
    }
}
