//! The removal of old entries from the audit trail, every hour.

use std::time::{Duration, SystemTime};

use cvm_provisioning::{RegistryError, Timestamp};
use cvm_sql::SqlRegistry;

const INTERVAL: Duration = Duration::from_secs(60 * 60);
/// The pause after each transaction, in which devices are served.
const PAUSE: Duration = Duration::from_millis(50);

/// Removes what is older than `retention`, at the start and every hour. Never ends.
pub(super) async fn trim_trail(registry: SqlRegistry, retention: Duration) {
    loop {
        let now = Timestamp::from(SystemTime::now());
        let before = Timestamp::from_seconds(now.seconds().saturating_sub_unsigned(retention.as_secs()));
        match trim(&registry, before).await {
            Ok(0) => {}
            Ok(entries) => tracing::info!(target: "audit", entries, "old entries of the audit trail were removed"),
            Err(error) => {
                let cause: &dyn std::error::Error = &error;
                tracing::error!(error = cause, "could not remove old entries of the audit trail; retrying in an hour");
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn trim(registry: &SqlRegistry, before: Timestamp) -> Result<u64, RegistryError> {
    let mut all = 0;
    loop {
        let removed = registry.trim_trail(before).await?;
        if removed == 0 {
            return Ok(all);
        }
        all += removed;
        tokio::time::sleep(PAUSE).await;
    }
}
