//! A registry that asks for a slower pace is waited for.

use std::time::{Duration, Instant};

use cvm_provisioning::{AttemptId, RegistryError};

/// How long a throttled registry is waited for.
const PATIENCE: Duration = Duration::from_secs(600);

/// Does this again for as long as the registry is throttled.
pub(crate) async fn patiently<T>(mut call: impl AsyncFnMut() -> Result<T, RegistryError>) -> Result<T, RegistryError> {
    let mut waited = Backoff::new();
    loop {
        match call().await {
            Err(RegistryError::Throttled { .. }) if waited.pause().await => {}
            result => return result,
        }
    }
}

/// Waits that grow to 20 seconds, each of a random part of that, so that what was refused at once does not come back at
/// once.
pub(crate) struct Backoff {
    began: Instant,
    longest: u64,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), longest: 100 }
    }

    /// Waits; `false` where that has been done for long enough.
    pub(crate) async fn pause(&mut self) -> bool {
        if self.began.elapsed() > PATIENCE {
            return false;
        }
        let part = AttemptId::random().map_or(100, |id| id.spread(200));
        tokio::time::sleep(Duration::from_millis(self.longest * (part + 1) / 200)).await;
        self.longest = (2 * self.longest).min(20_000);
        true
    }
}
