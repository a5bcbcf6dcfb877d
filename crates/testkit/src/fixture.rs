//! Devices, keys and templates that tests begin with.

use std::collections::BTreeMap;
use std::time::Duration;

use cvm_provisioning::{
    Attempt, AttemptId, Attestation, Csr, Device, DeviceId, DeviceKey, Door, EnrolmentToken, GenerationId, Origin,
    Proof, ProvisioningTemplate, Templates, Timestamp, VendRequest,
};

/// The moment at which tests begin.
pub const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// The token of [`device`].
pub const TOKEN: &str = "test-token-with-enough-entropy-0123456789";

/// What [`templates`] makes of a device: a thing of its own id in a group, with one policy and a device configuration.
pub const TEMPLATE: &str = r#"{
    "Parameters": {
        "SerialNumber": {"Type": "String"},
        "Site": {"Type": "String", "Default": "nowhere"}
    },
    "Resources": {
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {
                "ThingName": {"Ref": "SerialNumber"},
                "AttributePayload": {"site": {"Ref": "Site"}}
            }
        },
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}
        },
        "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "device"}}
    },
    "DeviceConfiguration": {"topic": {"Fn::Join": ["/", ["devices", {"Ref": "SerialNumber"}]]}}
}"#;

/// The templates of [`TEMPLATE`] alone.
pub fn templates() -> Templates {
    let template = ProvisioningTemplate::parse(TEMPLATE).expect("the template is one");
    Templates::new(template, BTreeMap::new()).expect("a vend can run it")
}

/// The id of a device.
pub fn id(text: &str) -> DeviceId {
    text.parse().expect("the id is one")
}

/// A moment after [`NOW`].
pub fn later(seconds: u64) -> Timestamp {
    NOW.after(Duration::from_secs(seconds))
}

/// A request of a test.
pub fn origin() -> Origin {
    Origin::new(Door::Command, "test".to_owned())
}

/// A device on the allowlist that proves itself with [`TOKEN`].
pub fn device(name: &str) -> Device {
    let attestation = Attestation::Token { digest: token().digest(), second: None, expires_at: None };
    Device::new(id(name), GenerationId::new(7), attestation, NOW)
}

/// [`TOKEN`], parsed.
pub fn token() -> EnrolmentToken {
    TOKEN.parse().expect("the token is one")
}

/// A new key of this device's, as its CSR.
pub fn csr(name: &str) -> Csr {
    DeviceKey::generate(&id(name)).expect("the test machine has randomness").1
}

/// An attempt with this number, by this key and [`TOKEN`].
pub fn attempt(name: &str, number: u128, csr: &Csr, now: Timestamp) -> Attempt {
    let proof = Proof::of_key(*csr.key().fingerprint(), Some(token().digest()), false);
    Attempt { id: AttemptId::new(number), device: id(name), proof, origin: origin(), now, prepared: None }
}

/// A request by this device with this key, or for one made by us, and with [`TOKEN`].
pub fn request(name: &str, number: u128, csr: Option<&Csr>, now: Timestamp) -> VendRequest {
    VendRequest {
        attempt: AttemptId::new(number),
        device: id(name),
        csr: csr.cloned(),
        token: Some(token()),
        shown: None,
        parameters: BTreeMap::new(),
        origin: Origin::new(Door::Command, number.to_string()),
        now,
    }
}
