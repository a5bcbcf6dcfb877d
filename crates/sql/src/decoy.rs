//! What reading a device costs, for ids that no device has: else the response time would tell them apart.
//!
//! An id always gets the same one of two decoys, one like a device that was registered and one like a device that has its
//! certificate. So an id that takes longer than another says nothing of either.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::hint::black_box;
use std::sync::LazyLock;

use cvm_provisioning::{
    Attestation, CertificateId, Credential, Device, GenerationId, KeyFingerprint, ThingName, Timestamp,
};

use crate::devices;

/// The length of a device certificate in PEM.
const PEM: usize = 900;

static DECOYS: LazyLock<[String; 2]> = LazyLock::new(|| {
    let (registered, provisioned) = (device(), with_certificate(device()));
    [registered, provisioned].map(|device| devices::record(&device).unwrap_or_default())
});
static HASH: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Reads a device that there is not.
pub(crate) fn read(id: &str) {
    let [registered, provisioned] = &*DECOYS;
    let record = if HASH.hash_one(id).is_multiple_of(2) { registered } else { provisioned };
    let _ = black_box(devices::of_record(&record.clone(), id));
}

#[expect(clippy::expect_used, reason = "the id is a constant, and a test reads it")]
fn device() -> Device {
    let key = KeyFingerprint::of(b"decoy");
    let id = "decoy".parse().expect("it is an id");
    let attestation = Attestation::PublicKey { key };
    Device::new(id, GenerationId::new(0), attestation, Timestamp::from_seconds(0))
}

fn with_certificate(device: Device) -> Device {
    let certificate = CertificateId::of(b"decoy");
    let Ok(thing) = ThingName::try_from("decoy".to_owned()) else { return device };
    let credential = Credential {
        certificate,
        certificate_name: certificate.to_string(),
        pem: "A".repeat(PEM),
        key: KeyFingerprint::of(b"decoy"),
        key_made_here: false,
        not_after: Timestamp::from_seconds(0),
        issued_at: Timestamp::from_seconds(0),
        used_at: None,
        group: None,
        thing,
        configuration: BTreeMap::new(),
    };
    Device { credential: Some(credential), ..device }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoy_is_a_device() {
        for record in &*DECOYS {
            devices::of_record(record, "decoy").unwrap();
        }
        let [registered, provisioned] = &*DECOYS;
        assert!(!registered.contains("certificatePem") && provisioned.contains("certificatePem"));
    }
}
