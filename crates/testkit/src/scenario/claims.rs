//! Devices that claim: the hook, what AWS IoT does after it, and the first connection.

use std::collections::BTreeMap;

use cvm_provisioning::{
    Attestation, Certificate, CertificateId, Claim, Confirmation, Device, Door, Origin, ProvisioningRequest, Standing,
    State, Timestamp,
};

use super::first_connect::connection;
use super::{Registry, World};
use crate::fixture::{NOW, csr, device, later, templates};
use crate::{Fault, Script};

const NAME: &str = "sn-1";

/// A device that any claim may claim.
pub fn claimed_device() -> Device {
    Device { attestation: Attestation::Claim { certificate: None }, ..device(NAME) }
}

/// AWS IoT's question about a certificate that it has made for a device.
pub fn question(certificate: &Certificate, claim: &CertificateId, now: Timestamp) -> ProvisioningRequest {
    ProvisioningRequest {
        template: "fleet".parse().expect("a template name"),
        claim: Some(*claim),
        certificate: *certificate.id(),
        pem: certificate.pem().to_owned(),
        client_id: Some(NAME.to_owned()),
        parameters: BTreeMap::from([("SerialNumber".to_owned(), NAME.to_owned())]),
        origin: Origin::new(Door::Hook, "test".to_owned()),
        now,
    }
}

impl<R: Registry> World<R> {
    /// A claim certificate that the registry has not known before.
    pub async fn claim(&self, quota: Option<u64>) -> CertificateId {
        let fingerprint = *csr("claim").key().fingerprint();
        let claim = Claim { quota, ..Claim::new(CertificateId::of(fingerprint.as_bytes()), NOW) };
        assert!(self.registry.put_claim(&claim, None).await.expect("the store answers"), "the claim is new");
        claim.certificate
    }

    /// A certificate that AWS IoT makes for a device that is connected with a claim.
    pub async fn made_for_claim(&self) -> Certificate {
        let issued = self.platform.issue(&csr(NAME)).await.expect("the platform issues").certificate;
        self.platform.register(&issued, None, Standing::Pending);
        issued
    }

    /// AWS IoT asks the hook and, on a yes, does its part.
    pub async fn register_thing(&self, certificate: &Certificate, claim: &CertificateId, now: Timestamp) -> bool {
        let allowed = self.hook(&Script::default()).answer(&question(certificate, claim, now)).await.is_ok();
        if allowed {
            self.run_template(certificate).await;
        }
        allowed
    }

    async fn run_template(&self, certificate: &Certificate) {
        let device = self.stored(NAME).await;
        let resources = templates().evaluate(&device, &BTreeMap::new()).expect("the template fits");
        self.platform.provision(certificate.id(), &resources.thing, "device");
    }

    /// The device connects with this certificate.
    pub async fn connects(&self, certificate: &Certificate, at: Timestamp) -> Confirmation {
        let event = connection(certificate.id(), NAME, at);
        self.confirm(&Script::default()).connected(&event).await.expect("the connection is taken note of")
    }

    async fn used(&self, claim: &CertificateId) -> u64 {
        self.registry.find_claim(claim).await.expect("the store answers").expect("the claim is there").used
    }
}

/// The hook fails at every call in every way. The same certificate is let through then, at once and later, and counted
/// once where the first reservation still holds; another certificate is let through when the lease has run out.
pub async fn fault_matrix<R: Registry>(registry: impl Fn() -> R) {
    for fault in Fault::FAILURES {
        for n in 1..=2 {
            for (same, wait) in [(true, 1), (true, 31), (false, 31)] {
                let context = format!("{fault:?} at call {n}, same certificate: {same}, after {wait} s");
                let world = World::new(registry(), claimed_device()).await;
                let claim = world.claim(None).await;
                let certificate = world.made_for_claim().await;
                let script = Script::fail(n, fault);
                let hook = world.hook(&script);
                let first = script.run(hook.answer(&question(&certificate, &claim, NOW))).await;
                assert!(script.calls() >= n && !matches!(first, Some(Ok(_))), "{context}: {first:?}");
                let reserved = world.stored(NAME).await.state == State::Reserved;
                assert_eq!(world.used(&claim).await, u64::from(reserved), "{context}");

                let next = if same { certificate } else { world.made_for_claim().await };
                assert!(world.register_thing(&next, &claim, later(wait)).await, "{context}");
                let counted = u64::from(reserved) + u64::from(!reserved || wait == 31);
                assert_eq!(world.used(&claim).await, counted, "{context}");
                assert_eq!(world.connects(&next, later(wait + 1)).await, Confirmation::Confirmed, "{context}");
                let stored = world.stored(NAME).await;
                assert_eq!((stored.state, stored.is_used(next.id())), (State::Provisioned, true), "{context}");
                assert_eq!(world.platform.powerful(), [*next.id()], "{context}");
            }
        }
    }
}

/// The device lost the answer, keys and all, and asks again with a new certificate: it gets it when the lease has run
/// out, and the first one, which nobody ever used, loses its power at the first connection.
pub async fn a_lost_answer_bricks_nobody<R: Registry>(registry: R) {
    let world = World::new(registry, claimed_device()).await;
    let claim = world.claim(None).await;
    let (lost, kept) = (world.made_for_claim().await, world.made_for_claim().await);
    assert!(world.register_thing(&lost, &claim, NOW).await);
    assert!(!world.register_thing(&kept, &claim, later(29)).await, "the first attempt may still be under way");
    assert!(world.register_thing(&kept, &claim, later(30)).await);
    assert_eq!(world.connects(&kept, later(31)).await, Confirmation::Confirmed);
    assert_eq!(world.platform.powerful(), [*kept.id()]);
    assert_eq!(world.stored(NAME).await.credential.expect("it has one").certificate, *kept.id());
}

/// AWS IoT failed after the hook's yes: the same certificate may try again at once, and another one after the lease.
pub async fn a_failed_provisioning_blocks_nobody<R: Registry>(registry: R) {
    let world = World::new(registry, claimed_device()).await;
    let claim = world.claim(None).await;
    let (failed, next) = (world.made_for_claim().await, world.made_for_claim().await);
    for second in 0..3 {
        let hook = world.hook(&Script::default());
        assert!(hook.answer(&question(&failed, &claim, later(second))).await.is_ok());
    }
    assert_eq!(world.used(&claim).await, 1, "one reservation is counted once");
    assert!(world.register_thing(&next, &claim, later(30)).await);
    assert_eq!(world.connects(&next, later(31)).await, Confirmation::Confirmed);
    assert_eq!(world.platform.powerful(), [*next.id()]);
}

/// A clone claims a device that has its certificate: refused, the device waits for a person, and keeps what it has.
pub async fn a_clone_claims_nothing<R: Registry>(registry: R) {
    let world = World::new(registry, claimed_device()).await;
    let claim = world.claim(None).await;
    let (own, clone) = (world.made_for_claim().await, world.made_for_claim().await);
    assert!(world.register_thing(&own, &claim, NOW).await);
    assert_eq!(world.connects(&own, later(5)).await, Confirmation::Confirmed);
    assert!(world.register_thing(&own, &claim, later(6)).await, "the device itself, again");
    assert!(!world.register_thing(&clone, &claim, later(60)).await);
    let stored = world.stored(NAME).await;
    assert_eq!(stored.state, State::Quarantined);
    assert_eq!(stored.credential.expect("it keeps it").certificate, *own.id());
    assert_eq!(world.platform.powerful(), [*own.id()]);
    assert_eq!(world.used(&claim).await, 1);
}

/// The word of the first connection comes late, when a clone has taken the reservation over already: the device that
/// connected first stays, and the clone is put out at its own first connection.
pub async fn the_first_to_connect_stays<R: Registry>(registry: R) {
    let world = World::new(registry, claimed_device()).await;
    let claim = world.claim(None).await;
    let (own, clone) = (world.made_for_claim().await, world.made_for_claim().await);
    assert!(world.register_thing(&own, &claim, NOW).await);
    assert!(world.register_thing(&clone, &claim, later(31)).await, "nobody has heard of a connection yet");
    assert_eq!(world.connects(&own, later(32)).await, Confirmation::Confirmed);
    assert_eq!(world.platform.powerful(), [*own.id()], "what the clone got is out of power at once");
    assert_eq!(world.connects(&clone, later(33)).await, Confirmation::Nothing);
    assert_eq!(world.connects(&own, later(40)).await, Confirmation::Nothing, "one read from now on");
}
