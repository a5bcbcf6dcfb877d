//! The platform that certificates come from and that devices connect to.

use std::error::Error;

use crate::{
    CertificateId, Csr, IssuedCertificate, IssuedClaim, KeyFingerprint, PolicyName, RegisteredCertificate, Standing,
    TemplateName, Thing, ThingGroupName, ThingName, ThingPrincipalType, Timestamp,
};

/// The IoT platform that devices connect to.
///
/// A certificate can do something when it is active, has a policy and is attached to a thing; policies grant rights to
/// *the attached thing* only, so that a certificate without one is powerless.
pub trait Platform: Send + Sync {
    /// Has a certificate made for the CSR's key and for this thing, to which it is not attached yet. Asking twice makes two.
    fn issue(
        &self,
        csr: &Csr,
        thing: &ThingName,
    ) -> impl Future<Output = Result<IssuedCertificate, PlatformError>> + Send;

    /// Whether certificates are those of a CA of our own, and the platform takes them as they are: then each is
    /// [prepared](Self::prepare), recorded and [registered](Self::register) instead of [issued](Self::issue).
    fn prepares(&self) -> bool {
        false
    }

    /// Signs a certificate for the CSR's key and for this thing, of which the platform knows nothing yet: what nobody
    /// records never was. Only where it [prepares](Self::prepares) them.
    fn prepare(
        &self,
        _csr: &Csr,
        _thing: &ThingName,
    ) -> impl Future<Output = Result<IssuedCertificate, PlatformError>> + Send {
        let source = "the platform makes its certificates itself".into();
        std::future::ready(Err(PlatformError::Refused { action: "prepare a certificate", source }))
    }

    /// Has the platform know a certificate that was prepared, and let it in; again is the same as once. `pem` is the
    /// certificate.
    fn register(&self, _pem: &str) -> impl Future<Output = Result<(), PlatformError>> + Send {
        std::future::ready(Ok(()))
    }

    /// Whether this is the key of our own CA, or of a CA above it, where there is one: no device may have it.
    fn has_key(&self, _key: &KeyFingerprint) -> bool {
        false
    }

    /// Makes the thing, or makes sure that the one there is what it should be.
    fn ensure_thing(&self, thing: &Thing) -> impl Future<Output = Result<(), PlatformError>> + Send;

    /// Attaches the certificate to the thing; again is the same as once.
    fn attach_thing(
        &self,
        thing: &ThingName,
        certificate_name: &str,
        kind: ThingPrincipalType,
    ) -> impl Future<Output = Result<(), PlatformError>> + Send;

    /// Attaches the policy to the certificate; again is the same as once.
    fn attach_policy(
        &self,
        policy: &PolicyName,
        certificate_name: &str,
    ) -> impl Future<Output = Result<(), PlatformError>> + Send;

    /// Adds the thing to the group; again is the same as once.
    fn join_group(
        &self,
        thing: &ThingName,
        group: &ThingGroupName,
    ) -> impl Future<Output = Result<(), PlatformError>> + Send;

    /// The active certificates attached to the thing: what attempts that died have left there.
    fn certificates_of(
        &self,
        thing: &ThingName,
    ) -> impl Future<Output = Result<Vec<RegisteredCertificate>, PlatformError>> + Send;

    /// Takes all power from a certificate and removes it as far as the platform allows at once; again is the same as
    /// once, and a certificate that is gone already is no error.
    fn retire(
        &self,
        thing: &ThingName,
        certificate_name: &str,
    ) -> impl Future<Output = Result<(), PlatformError>> + Send;
}

/// What the platform does when a device goes.
pub trait Departures: Send + Sync {
    /// Ends the connection of this client, if there is one. It may come back at once if its certificate is in power.
    fn disconnect(&self, client_id: &str) -> impl Future<Output = Result<(), PlatformError>> + Send;

    /// Removes a thing to which nothing is attached. `false` where something is; one that is gone is gone.
    fn remove_thing(&self, thing: &ThingName) -> impl Future<Output = Result<bool, PlatformError>> + Send;
}

/// Certificates that the platform has, whoever made them.
pub trait Certificates: Send + Sync {
    /// A certificate as the platform has it; `None` where it is gone.
    fn describe(
        &self,
        certificate: &CertificateId,
    ) -> impl Future<Output = Result<Option<RegisteredCertificate>, PlatformError>> + Send;

    /// Lets a certificate in, or keeps it out; again is the same as once, and one that is gone cannot be let in.
    fn set_standing(
        &self,
        certificate: &CertificateId,
        standing: Standing,
    ) -> impl Future<Output = Result<(), PlatformError>> + Send;

    /// The things that a certificate is attached to.
    fn things_of(&self, certificate_name: &str) -> impl Future<Output = Result<Vec<ThingName>, PlatformError>> + Send;
}

/// All that the platform has, a page at a time.
pub trait Inventory: Certificates {
    /// At most `limit` certificates (250), the youngest first, from a place that an earlier page gave.
    fn certificates(
        &self,
        after: Option<&str>,
        limit: u16,
    ) -> impl Future<Output = Result<InventoryPage<CertificateSummary>, PlatformError>> + Send;

    /// At most `limit` things (250) that carry the attribute `provisionedBy` with the value `cvm`, from a place that an
    /// earlier page gave.
    fn things(
        &self,
        after: Option<&str>,
        limit: u16,
    ) -> impl Future<Output = Result<InventoryPage<ThingName>, PlatformError>> + Send;

    /// The certificates attached to a thing, whatever their standing.
    fn all_certificates_of(
        &self,
        thing: &ThingName,
    ) -> impl Future<Output = Result<Vec<CertificateId>, PlatformError>> + Send;

    /// Whether a policy is attached to the certificate.
    fn has_policy(&self, certificate_name: &str) -> impl Future<Output = Result<bool, PlatformError>> + Send;

    /// Removes a certificate that is attached to nothing; one that is gone is no error.
    fn remove(&self, certificate: &CertificateId) -> impl Future<Output = Result<(), PlatformError>> + Send;
}

/// A page of what the platform has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InventoryPage<T> {
    /// What is on it; there may be nothing although more pages follow.
    pub items: Vec<T>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

/// A certificate in a list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CertificateSummary {
    /// Which.
    pub id: CertificateId,
    /// Whether it is let in.
    pub standing: Standing,
    /// When the platform got it.
    pub created_at: Timestamp,
}

/// The platform's own claims for trusted users.
pub trait ClaimIssuer: Send + Sync {
    /// Makes a claim certificate that lasts for minutes and serves this provisioning template.
    fn issue_claim(&self, template: &TemplateName) -> impl Future<Output = Result<IssuedClaim, PlatformError>> + Send;
}

/// The platform did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlatformError {
    /// The certificate it made is not what was asked for.
    #[error("the platform made a certificate that must not be handed out")]
    Defective {
        /// What is wrong with it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// It will not do this however often it is asked: a policy or group that does not exist, a right that is missing,
    /// a thing that is there and is another.
    #[error("the platform refuses to {action}; check the provisioning template and the function's role")]
    Refused {
        /// What it was asked to do.
        action: &'static str,
        /// Its words.
        source: Box<dyn Error + Send + Sync>,
    },
    /// It asks for a slower pace.
    #[error("the platform throttles: {action}")]
    Throttled {
        /// What it was asked to do.
        action: &'static str,
        /// Its words.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The call failed or its outcome is unknown.
    #[error("the platform did not answer: {action}")]
    Unavailable {
        /// What it was asked to do.
        action: &'static str,
        /// What happened.
        source: Box<dyn Error + Send + Sync>,
    },
}
