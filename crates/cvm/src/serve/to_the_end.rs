//! A vend that goes on when nobody waits for it any more.

use std::sync::Arc;

use cvm_provisioning::{AuditRecord, VendError, VendRequest, Vended, Vending};

/// Brings each vend to its end, although the connection that it came by is gone: cut off between two calls, it would hold
/// the device until its lease is over, and the device would come back to be told to wait.
pub(super) struct ToTheEnd<V>(Arc<V>);

impl<V> ToTheEnd<V> {
    pub(super) fn new(vend: V) -> Self {
        Self(Arc::new(vend))
    }
}

impl<V: Vending + 'static> Vending for ToTheEnd<V> {
    async fn vend(&self, request: VendRequest) -> Result<Vended, VendError> {
        let vend = Arc::clone(&self.0);
        match tokio::spawn(async move { Box::pin(vend.vend(request)).await }).await {
            Ok(vended) => vended,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The server ends, and this with it.
                Err(_) => std::future::pending().await,
            },
        }
    }

    fn record(&self, record: &AuditRecord<'_>) {
        self.0.record(record);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cvm_provisioning::{AttemptId, Door, Origin, Timestamp};
    use tokio::sync::Notify;

    use super::*;

    /// A vend that waits until it is let go on, and says when it began and when it is done.
    #[derive(Clone, Default)]
    struct Slow(Arc<Steps>);

    #[derive(Default)]
    struct Steps {
        begun: Notify,
        go_on: Notify,
        done: Notify,
    }

    impl Vending for Slow {
        async fn vend(&self, _: VendRequest) -> Result<Vended, VendError> {
            let Self(steps) = self;
            steps.begun.notify_one();
            steps.go_on.notified().await;
            steps.done.notify_one();
            Err(VendError::Refused)
        }

        fn record(&self, _: &AuditRecord<'_>) {}
    }

    #[tokio::test]
    async fn a_vend_is_done_although_whoever_asked_is_gone() {
        let slow = Slow::default();
        let vend = ToTheEnd::new(slow.clone());
        let request = VendRequest {
            attempt: AttemptId::random().unwrap(),
            device: "sn-1".parse().unwrap(),
            csr: None,
            token: None,
            shown: None,
            parameters: Default::default(),
            origin: Origin::new(Door::Vend, "1".to_owned()),
            now: Timestamp::from_seconds(0),
        };
        let caller = tokio::spawn(async move { vend.vend(request).await.is_err() });
        slow.0.begun.notified().await;
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        slow.0.go_on.notify_one();
        tokio::time::timeout(Duration::from_secs(10), slow.0.done.notified()).await.unwrap();
    }
}
