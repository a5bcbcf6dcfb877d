//! What operators decide about devices whose registry is ours, done at the platform.

use std::sync::Arc;
use std::time::Duration;

use cvm_provisioning::{
    AttemptId, Certificates, Departures, Door, Enforce, EnforceError, LogAudit, Origin, Platform, PlatformError,
};
use cvm_sql::SqlRegistry;
use tokio::sync::Notify;

/// How often it is looked after what was decided, where nobody says that something was.
const INTERVAL: Duration = Duration::from_secs(5);
/// Decisions that are enforced before it is looked again.
pub(super) const AT_ONCE: u16 = 100;

/// The decisions that wait in the registry, each written with the change itself: none is forgotten.
pub(super) struct Decisions<P> {
    registry: SqlRegistry,
    platform: P,
    woken: Arc<Notify>,
}

impl<P: Certificates + Departures + Platform> Decisions<P> {
    pub(super) fn new(registry: SqlRegistry, platform: P, woken: Arc<Notify>) -> Self {
        Self { registry, platform, woken }
    }

    /// Returns when there may be some.
    pub(super) async fn wait(&self) {
        let _ = tokio::time::timeout(INTERVAL, self.woken.notified()).await;
    }

    /// Enforces what waits, and says whether there was anything.
    pub(super) async fn enforce(&self) -> bool {
        let mut any = false;
        loop {
            let waiting = match self.registry.decisions(AT_ONCE).await {
                Ok(waiting) if waiting.is_empty() => return any,
                Ok(waiting) => waiting,
                Err(error) => {
                    let cause: &dyn std::error::Error = &error;
                    tracing::error!(error = cause, "what was decided cannot be read; it is tried again");
                    return any;
                }
            };
            for decision in waiting {
                let origin = origin(Door::Enforcement);
                let enforce = Enforce { registry: &self.registry, platform: &self.platform, audit: &LogAudit };
                let done = match decision.deleted {
                    true => Box::pin(enforce.deletion(&decision.device, decision.generation, &origin)).await,
                    false => Box::pin(enforce.status(&decision.device, &origin)).await,
                };
                match done {
                    Ok(()) => any = true,
                    // However often it is asked: those behind it do not wait for a person to look at it.
                    Err(EnforceError::Platform(
                        error @ (PlatformError::Refused { .. } | PlatformError::Defective { .. }),
                    )) => {
                        let cause: &dyn std::error::Error = &error;
                        tracing::error!(device = %decision.device, error = cause, "a decision was not enforced; the reconciler comes back to it");
                    }
                    Err(error) => {
                        let cause: &dyn std::error::Error = &error;
                        tracing::error!(device = %decision.device, error = cause, "a decision was not enforced; it is tried again");
                        return any;
                    }
                }
                if let Err(error) = self.registry.enforced(&decision).await {
                    let cause: &dyn std::error::Error = &error;
                    tracing::error!(error = cause, "that a decision is enforced was not noted; it is enforced again");
                    return any;
                }
            }
        }
    }
}

/// The origin of what the server does by itself.
pub(super) fn origin(door: Door) -> Origin {
    Origin::new(door, AttemptId::random().map(|id| id.to_string()).unwrap_or_default())
}
