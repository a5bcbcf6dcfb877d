use std::collections::BTreeMap;

use crate::{Attempt, Certificate, CertificateId, KeyFingerprint, Resources, ThingName, Timestamp};

/// What a device was given, as far as the registry keeps it: enough to give the same answer again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Credential {
    /// The certificate's id on the platform.
    pub certificate: CertificateId,
    /// The platform's own name of the certificate (an ARN), by which it is attached.
    pub certificate_name: String,
    /// The certificate in PEM.
    pub pem: String,
    /// The key that it is for.
    pub key: KeyFingerprint,
    /// Whether that key was made by us.
    pub key_made_here: bool,
    /// The last moment of its validity.
    pub not_after: Timestamp,
    /// When it was made.
    pub issued_at: Timestamp,
    /// The thing that the device became.
    pub thing: ThingName,
    /// The device configuration that it was given.
    pub configuration: BTreeMap<String, String>,
}

impl Credential {
    /// What is kept of a certificate that was made in this attempt, or found where an earlier one left it. The key is
    /// the certificate's own, whoever asks.
    pub fn new(issued: &IssuedCertificate, attempt: &Attempt, resources: &Resources) -> Self {
        let IssuedCertificate { name, certificate } = issued;
        Self {
            certificate: *certificate.id(),
            certificate_name: name.clone(),
            pem: certificate.pem().to_owned(),
            key: *certificate.key(),
            key_made_here: attempt.proof.key_made_here,
            not_after: certificate.not_after().into(),
            issued_at: attempt.now,
            thing: resources.thing.name.clone(),
            configuration: resources.device_configuration.clone(),
        }
    }
}

/// A certificate as the platform holds it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IssuedCertificate {
    /// The platform's own name of it (an ARN).
    pub name: String,
    /// The certificate.
    pub certificate: Certificate,
}
