//! Changes that lose the race: they are decided again, and given up in the end.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::sync::atomic::{AtomicUsize, Ordering};

use cvm_provisioning::{
    Attempt, Beside, Change, Changes as _, Credential, Csr, Denial, Device, DeviceCounts, DeviceFilter, DeviceId,
    DeviceStore, KeyFingerprint, Leftover, Origin, Page, Put, Refusal, RegistryError, Remains, Reserve, State,
};
use cvm_testkit::fixture::{NOW, attempt, csr, device, id, later, origin};
use cvm_testkit::{MemoryPlatform, MemoryRegistry};

/// A store in which somebody else writes to the device just before each of the next changes.
struct Raced {
    registry: MemoryRegistry,
    races: AtomicUsize,
    other: fn(&mut Device),
}

impl Raced {
    async fn new(races: usize, other: fn(&mut Device)) -> Self {
        let registry = MemoryRegistry::default();
        assert!(registry.add(&device("sn-1"), &origin()).await.unwrap());
        Self { registry, races: races.into(), other }
    }

    async fn stored(&self) -> Device {
        self.registry.find(&id("sn-1")).await.unwrap().unwrap()
    }
}

impl DeviceStore for Raced {
    async fn put(&self, change: &Change) -> Result<Put, RegistryError> {
        let is_raced = self.races.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if is_raced {
            let before = self.stored().await;
            let mut after = before.clone();
            (self.other)(&mut after);
            assert!(self.registry.swap(&before, &after, &origin()).await?);
        }
        self.registry.put(change).await
    }

    async fn find(&self, id: &DeviceId) -> Result<Option<Device>, RegistryError> {
        self.registry.find(id).await
    }

    async fn count_refusal(&self, device: &DeviceId, refusal: &Refusal, by: &Origin) -> Result<(), RegistryError> {
        self.registry.count_refusal(device, refusal, by).await
    }

    async fn owner_of(&self, key: &KeyFingerprint) -> Result<Option<DeviceId>, RegistryError> {
        self.registry.owner_of(key).await
    }

    async fn list(&self, filter: &DeviceFilter, after: Option<&DeviceId>, limit: u16) -> Result<Page, RegistryError> {
        self.registry.list(filter, after, limit).await
    }

    async fn count(&self) -> Result<DeviceCounts, RegistryError> {
        self.registry.count().await
    }
}

/// What changes nothing about who may be admitted.
fn note(device: &mut Device) {
    device.enable(None, NOW);
}

fn disable(device: &mut Device) {
    device.disable(None, NOW);
}

async fn credential(key: &Csr) -> Credential {
    let issued = MemoryPlatform::default().issue(key).await.unwrap();
    Credential::of(&issued, "sn-1".to_owned().try_into().unwrap(), NOW)
}

fn first() -> Attempt {
    attempt("sn-1", 1, &csr("sn-1"), NOW)
}

#[tokio::test]
async fn a_reservation_that_loses_the_race_is_decided_again() {
    let attempt = first();
    let raced = Raced::new(7, note).await;
    assert!(matches!(raced.reserve(&attempt).await.unwrap(), Reserve::Held(_)));
    let raced = Raced::new(8, note).await;
    assert!(matches!(raced.reserve(&attempt).await, Err(RegistryError::Throttled { .. })), "the device asks again");
    let raced = Raced::new(1, disable).await;
    assert!(matches!(raced.reserve(&attempt).await.unwrap(), Reserve::Refused(Some(found)) if !found.status.enabled));
    assert_eq!(raced.stored().await.state, State::Registered);
}

#[tokio::test]
async fn a_commit_that_loses_the_race_is_the_holders_or_lost() {
    let key = csr("sn-1");
    let attempt = attempt("sn-1", 1, &key, NOW);
    let credential = credential(&key).await;
    for (races, other, outcome) in
        [(7, note as fn(&mut Device), Some(true)), (8, note, None), (1, disable, Some(false))]
    {
        let raced = Raced::new(0, other).await;
        let Reserve::Held(held) = raced.reserve(&attempt).await.unwrap() else { panic!("it is free") };
        raced.races.store(races, Ordering::SeqCst);
        let committed = raced.commit(&held, &attempt, &credential, &Beside::NOTHING).await;
        assert_eq!(committed.ok().map(|committed| committed.is_ok()), outcome, "{races}");
        let is_given = raced.stored().await.state == State::Provisioned;
        assert_eq!(is_given, outcome == Some(true), "{races}");
    }
}

#[tokio::test]
async fn a_release_that_loses_the_race_is_made_all_the_same() {
    let attempt = first();
    let raced = Raced::new(0, note).await;
    let Reserve::Held(held) = raced.reserve(&attempt).await.unwrap() else { panic!("it is free") };
    raced.races.store(2, Ordering::SeqCst);
    let released = raced.release(&held, &attempt, &Leftover::Known(None), Remains::Nothing).await.unwrap().unwrap();
    assert_eq!((released.state, raced.stored().await), (State::Registered, released));
}

#[tokio::test]
async fn threat_04_a_clone_is_quarantined_whoever_writes_at_the_same_time() {
    let key = csr("sn-1");
    let attempt = attempt("sn-1", 1, &key, NOW);
    let credential = credential(&key).await;
    let raced = Raced::new(0, note).await;
    let Reserve::Held(held) = raced.reserve(&attempt).await.unwrap() else { panic!("it is free") };
    raced.commit(&held, &attempt, &credential, &Beside::NOTHING).await.unwrap().unwrap();
    let found = raced.stored().await;
    let clone = cvm_testkit::fixture::attempt("sn-1", 2, &csr("sn-1"), later(1));
    raced.races.store(3, Ordering::SeqCst);
    let refusal = Refusal::new(Denial::Cloned, Some(&found), &clone);
    raced.refuse(&found.id, Some(&found), &refusal, &origin()).await.unwrap();
    let stored = raced.stored().await;
    assert_eq!((stored.state, stored.last_refusal.map(|last| last.denial)), (State::Quarantined, Some(Denial::Cloned)));
    assert_eq!(stored.credential.map(|kept| kept.certificate), Some(credential.certificate), "the certificate stays");
}
