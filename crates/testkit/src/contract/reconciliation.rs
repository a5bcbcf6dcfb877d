//! What reconciliation goes by: the index of certificates, what is unsettled, and the places that it has come to.

use cvm_provisioning::{CertificateId, CertificateOwner, Changes as _, Leftover, Remains, Reserve};

use super::cases::Cases;
use super::{LEAF, OTHER_LEAF, put};
use crate::fixture::{NOW, csr, device, id};
use crate::scenario::Registry;

pub(super) async fn a_certificate_finds_its_device<R: Registry>(registry: &R, cases: &Cases) {
    for device in &cases.devices {
        put(registry, device).await;
        for certificate in [cases.credential.certificate, CertificateId::of(LEAF), CertificateId::of(OTHER_LEAF)] {
            let expected = (device.indexed_certificate() == Some(certificate))
                .then(|| CertificateOwner { device: device.id.clone(), used: device.is_used(&certificate) });
            assert_eq!(registry.device_of(&certificate).await.expect("the store answers"), expected, "{device:?}");
        }
    }
}

pub(super) async fn what_is_unsettled_is_found<R: Registry>(registry: &R) {
    let key = csr("unsettled");
    let attempt = crate::fixture::attempt("unsettled", 1, &key, NOW);
    put(registry, &device("unsettled")).await;
    assert!(
        !registry.unsettled(1_000).await.expect("the store answers").iter().any(|there| there.id == id("unsettled"))
    );
    let Reserve::Held(held) = registry.reserve(&attempt).await.expect("the store answers") else {
        panic!("it is free")
    };
    assert!(
        registry.unsettled(1_000).await.expect("the store answers").iter().any(|there| there.id == id("unsettled"))
    );
    registry.release(&held, &attempt, &Leftover::Known(None), Remains::Nothing).await.expect("the store answers");
    assert!(
        !registry.unsettled(1_000).await.expect("the store answers").iter().any(|there| there.id == id("unsettled"))
    );
}

pub(super) async fn a_place_is_kept_until_it_is_moved<R: Registry>(registry: &R) {
    for place in [None, Some("here"), Some("there"), None] {
        registry.move_to("contract", place).await.expect("the store answers");
        assert_eq!(registry.place("contract").await.expect("the store answers").as_deref(), place);
        assert_eq!(registry.place("another").await.expect("the store answers"), None);
    }
}
