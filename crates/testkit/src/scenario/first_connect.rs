//! First connections with factory certificates.

use cvm_provisioning::{
    Admission, Attempt, Certificate, CertificateId, Confirmation, Connection, Door, FirstConnectError, Origin,
    Registration, Standing, State, Timestamp,
};

use super::{Registry, World};
use crate::fixture::{NOW, later};
use crate::{Factory, Fault, Script};

const NAME: &str = "sn-1";

/// The calls of a registration.
const CALLS: usize = 7;

/// AWS IoT's event about a certificate of this factory.
pub fn registration(certificate: &Certificate, factory: &Factory, now: Timestamp) -> Registration {
    let origin = Origin::new(Door::Jitr, "test".to_owned());
    Registration { certificate: *certificate.id(), ca: factory.ca, origin, now }
}

/// AWS IoT's event about a connection with this certificate.
pub fn connection(certificate: &CertificateId, client_id: &str, at: Timestamp) -> Connection {
    let origin = Origin::new(Door::Confirm, "test".to_owned());
    Connection {
        certificate: *certificate,
        client_id: client_id.to_owned(),
        origin,
        at,
        order: at.seconds().cast_unsigned() * 1_000,
    }
}

impl<R: Registry> World<R> {
    /// A certificate is shown to the platform for the first time.
    pub fn show(&self, certificate: &Certificate, factory: &Factory) {
        self.platform.register(certificate, Some(factory.ca), Standing::Pending);
    }

    /// The event is delivered until it is taken, as a queue does it.
    async fn deliver(&self, certificate: &Certificate, factory: &Factory, from: Timestamp, context: &str) -> Admission {
        let mut now = from;
        for _ in 0..5 {
            match self.first_connect(&Script::default()).admit(registration(certificate, factory, now)).await {
                Ok(admission) => return admission,
                Err(FirstConnectError::InProgress { until }) => now = until,
                Err(error) => panic!("{context}: {error:?}"),
            }
        }
        panic!("{context}: five deliveries were not enough");
    }
}

/// A registration that fails at every call in every way, delivered again at once and after the lease; it ends with the
/// one certificate in power, and the first connection makes it final.
pub async fn fault_matrix<R: Registry>(registry: impl Fn() -> R) {
    let factory = Factory::new("factory");
    for wait in [1, 31] {
        for fault in Fault::FAILURES {
            for n in 1..=CALLS {
                let context = format!("{fault:?} at call {n}, again after {wait} s");
                let (device, certificate) = factory.device(NAME);
                let world = World::new(registry(), device).await;
                world.show(&certificate, &factory);
                let script = Script::fail(n, fault);
                let door = world.first_connect(&script);
                let first = script.run(door.admit(registration(&certificate, &factory, NOW))).await;
                assert!(script.calls() >= n && !matches!(first, Some(Ok(_))), "{context}: {first:?}");

                let again = world.deliver(&certificate, &factory, later(wait), &context).await;
                assert_ne!(again, Admission::Refused, "{context}");
                assert_eq!(world.platform.powerful(), [*certificate.id()], "{context}");
                assert_eq!(world.platform.things(), [NAME], "{context}");
                let stored = world.stored(NAME).await;
                assert_eq!(stored.indexed_certificate(), Some(*certificate.id()), "{context}");

                let connected = connection(certificate.id(), NAME, later(wait + 1));
                let confirmed = world.confirm(&Script::default()).connected(&connected).await;
                assert!(matches!(confirmed, Ok(Confirmation::Confirmed)), "{context}: {confirmed:?}");
                let stored = world.stored(NAME).await;
                assert_eq!(stored.state, State::Provisioned, "{context}");
                assert!(stored.is_used(certificate.id()), "{context}");
            }
        }
    }
}

/// A clone (same common name, another key) whose event comes after one that failed anywhere, at once or when the lease
/// has run out, and then the first device's event again: only one of them ever has power.
pub async fn a_clone_never_joins<R: Registry>(registry: impl Fn() -> R) {
    let factory = Factory::new("factory");
    for wait in [1, 31] {
        for fault in Fault::FAILURES {
            // One more than there are: the first one is in.
            for n in 1..=CALLS + 1 {
                let context = format!("{fault:?} at call {n}, the clone after {wait} s");
                let (device, certificate) = factory.device(NAME);
                let clone = factory.made(NAME);
                let world = World::new(registry(), device).await;
                world.show(&certificate, &factory);
                let script = Script::fail(n, fault);
                let door = world.first_connect(&script);
                let _ = script.run(door.admit(registration(&certificate, &factory, NOW))).await;
                let in_power = world.platform.powerful();

                world.show(&clone, &factory);
                let admitted = world.deliver(&clone, &factory, later(wait), &context).await;
                if in_power == [*certificate.id()] {
                    assert_eq!(admitted, Admission::Refused, "{context}");
                    assert_eq!(world.platform.standing(clone.id()), Some(Standing::Pending), "{context}");
                }
                world.deliver(&certificate, &factory, later(100), &context).await;
                world.deliver(&clone, &factory, later(200), &context).await;
                assert_eq!(world.platform.powerful().len(), 1, "{context}");
                if !in_power.is_empty() {
                    assert_eq!(world.platform.powerful(), in_power, "{context}: the clone won");
                }
                assert_eq!(world.stored(NAME).await.state, State::Quarantined, "{context}");
            }
        }
    }
}

/// Fifty deliveries of one event at once.
pub async fn fifty_deliveries_at_once<R: Registry + 'static>(registry: R) {
    let factory = Factory::new("factory");
    let (device, certificate) = factory.device(NAME);
    let world = World::new(registry, device).await;
    world.show(&certificate, &factory);
    let barrier = std::sync::Arc::new(tokio::sync::Barrier::new(50));
    let mut tasks = Vec::new();
    for _ in 0..50 {
        let (door, barrier) = (world.first_connect(&Script::default()), barrier.clone());
        let event = registration(&certificate, &factory, NOW);
        tasks.push(tokio::spawn(async move {
            barrier.wait().await;
            door.admit(event).await
        }));
    }
    for task in tasks {
        let admitted = task.await.expect("no panic");
        assert!(matches!(admitted, Ok(Admission::Admitted | Admission::Ignored)), "{admitted:?}");
    }
    assert_eq!(world.platform.powerful(), [*certificate.id()]);
    assert_eq!(world.platform.things(), [NAME]);
    let stored = world.stored(NAME).await;
    assert_eq!(stored.reservation.expect("it is reserved").attempts, 1);
    assert!(NOW.after(Attempt::LEASE) > NOW);
}
