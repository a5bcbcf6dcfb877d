use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{Attempt, Certificate, CertificateId, GroupCredential, KeyFingerprint, Resources, ThingName, Timestamp};

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
    /// When the platform first saw a device connect with it; `None` as long as it did not.
    pub used_at: Option<Timestamp>,
    /// What the device shared with others when it asked for the certificate, where it showed it.
    pub group: Option<GroupCredential>,
    /// The thing that the device became.
    pub thing: ThingName,
    /// The device configuration that it was given.
    pub configuration: BTreeMap<String, String>,
}

impl Credential {
    /// What is kept of a certificate that was made in this attempt, or found where an earlier one left it. The key is
    /// the certificate's own, whoever asks.
    pub fn new(issued: &IssuedCertificate, attempt: &Attempt, resources: &Resources) -> Self {
        Self {
            key_made_here: attempt.proof.key_made_here,
            group: attempt.proof.group,
            configuration: resources.device_configuration.clone(),
            ..Self::of(issued, resources.thing.name.clone(), attempt.now)
        }
    }

    /// Whether the certificate has expired.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.not_after < now
    }

    /// What is kept of a certificate that the platform made or registered without us.
    pub fn of(issued: &IssuedCertificate, thing: ThingName, now: Timestamp) -> Self {
        let IssuedCertificate { name, certificate } = issued;
        Self {
            certificate: *certificate.id(),
            certificate_name: name.clone(),
            pem: certificate.pem().to_owned(),
            key: *certificate.key(),
            key_made_here: false,
            not_after: certificate.not_after().into(),
            issued_at: now,
            used_at: None,
            group: None,
            thing,
            configuration: BTreeMap::new(),
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

/// A certificate that the platform has, whoever made it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RegisteredCertificate {
    /// The certificate and its name.
    pub issued: IssuedCertificate,
    /// The CA that issued it, where that is not the platform's own.
    pub ca: Option<CertificateId>,
    /// Whether it is let in.
    pub standing: Standing,
}

/// Whether the platform lets a certificate in.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Yes.
    Active,
    /// No, until it is activated again.
    Inactive,
    /// Not yet: it was registered at a first connection, or made for a claim.
    Pending,
    /// Never again.
    Revoked,
}

impl Standing {
    /// All of them.
    const ALL: [Self; 4] = [Self::Active, Self::Inactive, Self::Pending, Self::Revoked];

    /// The word for it in stores.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Revoked => "revoked",
        }
    }

    /// The standing that this is the word for.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|standing| standing.name() == name)
    }
}

/// A temporary claim certificate with its key, for a trusted user to hand to a device.
pub struct IssuedClaim {
    /// Its id.
    pub certificate: CertificateId,
    /// The certificate in PEM.
    pub pem: String,
    /// Its private key in PEM; the only copy.
    pub private_key: Zeroizing<String>,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl fmt::Debug for IssuedClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("IssuedClaim");
        fields.field("certificate", &self.certificate).field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}
