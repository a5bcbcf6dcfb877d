//! Refusals that all take the same time.

use std::time::Duration;

use cvm_provisioning::{AuditRecord, VendError, VendRequest, Vended, Vending};
use tokio::time::{Instant, sleep_until};

/// The time after which a refusal is answered. It is longer than the registry takes to look a device up, so that the
/// response time does not reveal whether there is such a device.
const REFUSED_AFTER: Duration = Duration::from_millis(20);

/// A vend whose refusals all take the same time.
pub(super) struct EqualRefusals<V>(V);

impl<V> EqualRefusals<V> {
    pub(super) const fn new(vend: V) -> Self {
        Self(vend)
    }
}

impl<V: Vending> Vending for EqualRefusals<V> {
    async fn vend(&self, request: VendRequest) -> Result<Vended, VendError> {
        let begin = Instant::now();
        let answer = self.0.vend(request).await;
        if matches!(answer, Err(VendError::Refused)) {
            sleep_until(begin + REFUSED_AFTER).await;
        }
        answer
    }

    fn record(&self, record: &AuditRecord<'_>) {
        self.0.record(record);
    }
}

#[cfg(test)]
mod tests {
    use cvm_provisioning::{AttemptId, Door, Origin, Timestamp};

    use super::*;

    /// A vend that refuses after this time.
    struct RefusesAfter(Duration);

    impl Vending for RefusesAfter {
        async fn vend(&self, _: VendRequest) -> Result<Vended, VendError> {
            tokio::time::sleep(self.0).await;
            Err(VendError::Refused)
        }

        fn record(&self, _: &AuditRecord<'_>) {}
    }

    #[tokio::test(start_paused = true)]
    async fn threat_01_every_refusal_takes_the_same_time() {
        for work in [0, 1, 7, 19] {
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
            let begin = Instant::now();
            let refused = EqualRefusals::new(RefusesAfter(Duration::from_millis(work))).vend(request).await;
            assert!(matches!(refused, Err(VendError::Refused)));
            assert_eq!(begin.elapsed(), REFUSED_AFTER, "{work} ms of work");
        }
    }
}
