//! The ends of the audit trail in the log, every hour: who can change the database cannot change a log that was shipped to
//! another machine.

use std::collections::BTreeMap;
use std::time::Duration;

use cvm_sql::{SqlRegistry, TrailEnd};

const INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Logs each chain's end at the start and whenever it has changed after an hour. Never ends.
pub(super) async fn log_trail_ends(registry: SqlRegistry) {
    let mut logged = BTreeMap::new();
    loop {
        match registry.trail_ends().await {
            Ok(ends) => log_changed(&mut logged, ends),
            Err(error) => {
                let cause: &dyn std::error::Error = &error;
                tracing::error!(error = cause, "could not read the end of the audit trail; retrying in an hour");
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn log_changed(logged: &mut BTreeMap<i64, TrailEnd>, ends: BTreeMap<i64, TrailEnd>) {
    for (chain, end) in &ends {
        if logged.get(chain) != Some(end) {
            tracing::info!(target: "audit", chain, %end, "end of the audit trail");
        }
    }
    *logged = ends;
}
