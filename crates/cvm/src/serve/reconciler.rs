//! What nobody comes back for, settled every few minutes: the same that the function of a stack does on a schedule.

use std::error::Error;
use std::time::Duration;

use cvm_aws::AwsIot;
use cvm_provisioning::{CertificateLedger as _, Door, LogAudit, Reconcile, ReconcileError};
use cvm_sql::SqlRegistry;

use super::decisions::{AT_ONCE, origin};
use super::now;

/// The pause between two runs. AWS IoT's quotas are for devices first.
const PAUSE: Duration = Duration::from_secs(5 * 60);
/// The longest run; the next one goes on where it was cut off.
const LONGEST: Duration = Duration::from_secs(4 * 60);

/// Never ends. The first run is at once: whatever the server did when it ended last is looked after first.
pub(super) async fn work(reconcile: Reconcile<SqlRegistry, AwsIot, LogAudit>) {
    loop {
        match tokio::time::timeout(LONGEST, run(&reconcile)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let error: &dyn Error = &error;
                tracing::error!(error, "a run of the reconciler came to an early end; the next one goes on");
            }
            Err(_) => tracing::warn!("a run of the reconciler took too long; the next one goes on"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn run(reconcile: &Reconcile<SqlRegistry, AwsIot, LogAudit>) -> Result<(), ReconcileError> {
    for device in reconcile.registry.successions_due(now(), AT_ONCE).await? {
        Box::pin(reconcile.end_succession(&device, &origin(Door::Reconcile), now())).await?;
    }
    let done = Box::pin(reconcile.run(&origin(Door::Reconcile), now())).await?;
    tracing::info!(
        confirmed = done.confirmed,
        released = done.released,
        removed = done.removed,
        settled = done.settled,
        drift = done.drift,
        "reconciled"
    );
    Ok(())
}
