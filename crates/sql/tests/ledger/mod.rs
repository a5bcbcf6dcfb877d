//! What a device was given is found by the device, by its number and by its id, however it came into the ledger.

use std::collections::BTreeSet;
use std::sync::Arc;

use cvm_provisioning::{
    Certificate, CertificateId, CertificateIndex as _, CertificateLedger as _, Changes as _, DeviceStore as _,
    RefusedKeys, Standing, VendAtOnce, VendRequest, Vended, Vending as _,
};
use cvm_sql::SqlRegistry;
use cvm_testkit::MemoryAudit;
use cvm_testkit::fixture::{csr, device, id, later, origin, request, templates};

use super::own_ca::own_ca;

const NAME: &str = "sn-given";
const LIVES: u64 = 3;

/// A device that is vended, renews twice and is deleted, time after time. `upgrade` makes of what is there what an earlier
/// version has written.
pub(super) async fn knows_what_a_device_was_given(registry: &SqlRegistry, upgrade: impl Fn()) {
    let vend = VendAtOnce {
        registry: registry.clone(),
        authority: own_ca(registry).await,
        audit: MemoryAudit::default(),
        templates: templates(),
        refused_keys: RefusedKeys::default(),
    };
    let mut given = BTreeSet::new();
    for life in 0..LIVES {
        let at = |second| later(1_000 * life + second);
        assert!(registry.add(&device(NAME), &origin()).await.unwrap());
        let keys = [csr(NAME), csr(NAME), csr(NAME)];
        let mut last: Option<Vended> = None;
        for (second, key) in (1..).zip(&keys) {
            let shown = last.as_ref().map(|last| Arc::new(Certificate::parse(&last.credential.pem).unwrap()));
            let asked = || VendRequest { shown: shown.clone(), ..request(NAME, second.into(), Some(key), at(second)) };
            let vended = vend.vend(asked()).await.unwrap();
            assert!(!vended.replayed && given.insert(vended.credential.certificate));
            if life == 1 {
                upgrade();
            }
            // Again is the same, after other writes, too.
            let mut changed = registry.find(&id(NAME)).await.unwrap().unwrap();
            assert_eq!(changed.credential.as_ref(), Some(&vended.credential));
            let version = changed.version;
            changed.disable(None, at(second));
            assert!(registry.replace(&changed, version, &origin()).await.unwrap());
            changed.enable(None, at(second));
            assert!(registry.replace(&changed, version + 1, &origin()).await.unwrap());
            let again = vend.vend(asked()).await.unwrap();
            assert!(again.replayed);
            assert_eq!(again.credential, vended.credential);
            let listed = registry.list(&Default::default(), None, 1_000).await.unwrap().devices;
            let listed = listed.into_iter().find(|device| device.id == id(NAME)).unwrap();
            assert_eq!(listed.credential.as_ref(), Some(&vended.credential));
            is_known(registry, &given, Some(vended.credential.certificate)).await;
            last = Some(vended);
        }
        let there = registry.find(&id(NAME)).await.unwrap().unwrap();
        let version = there.version;
        let tombstone = there.clone().bury(at(9));
        assert!(registry.remove(&tombstone, version, &origin()).await.unwrap());
        is_known(registry, &given, None).await;
        for certificate in &given {
            registry.set_standing(certificate, Standing::Revoked, at(9)).await.unwrap();
            assert_eq!(registry.entry(certificate).await.unwrap().unwrap().standing, Standing::Revoked);
        }
    }
}

async fn is_known(registry: &SqlRegistry, given: &BTreeSet<CertificateId>, current: Option<CertificateId>) {
    let entries = registry.entries_of(&NAME.to_owned().try_into().unwrap()).await.unwrap();
    assert_eq!(entries.len(), given.len());
    assert_eq!(entries.iter().map(|entry| entry.id).collect::<BTreeSet<_>>(), *given);
    for entry in entries {
        assert_eq!(entry.id, *Certificate::parse(&entry.pem).unwrap().id());
        assert_eq!(registry.entry(&entry.id).await.unwrap().as_ref(), Some(&entry));
        assert_eq!(registry.entry_of_serial(&entry.issuer, &entry.serial).await.unwrap().as_ref(), Some(&entry));
        let owner = registry.device_of(&entry.id).await.unwrap().map(|owner| owner.device);
        assert_eq!(owner, Some(id(NAME)).filter(|_| current == Some(entry.id)));
    }
}
