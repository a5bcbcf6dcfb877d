//! What the domain needs from the world. Each method is one call of the service behind it on the common path, because
//! calls are what a vend costs.

use std::error::Error;

use crate::{
    Attempt, Credential, Csr, Device, DeviceId, IssuedCertificate, Leftover, PolicyName, Refusal, ReservationLost,
    Thing, ThingGroupName, ThingName, ThingPrincipalType,
};

/// The device registry as a device's own path uses it.
///
/// Each method is one conditional write with the effect of the [`Device`] method of the same name.
pub trait Reservations: Send + Sync {
    /// Reserves the device for this attempt where [`Device::decide`] says
    /// [`Decision::Provision`](crate::Decision::Provision), and changes nothing where it says anything else.
    fn reserve(&self, attempt: &Attempt) -> impl Future<Output = Result<Reserve, RegistryError>> + Send;

    /// Ends a reservation with success.
    fn commit(
        &self,
        attempt: &Attempt,
        credential: &Credential,
    ) -> impl Future<Output = Result<Result<(), ReservationLost>, RegistryError>> + Send;

    /// Ends a reservation without success, at once; the next attempt builds on what is left.
    fn release(&self, attempt: &Attempt, left: &Leftover) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// Writes down that an attempt was refused, in one write whatever the reason, so that reasons cannot be told apart
    /// by the time they take: a wrong proof is counted, a clone puts the device into quarantine.
    fn refuse(&self, device: &DeviceId, refusal: &Refusal) -> impl Future<Output = Result<(), RegistryError>> + Send;
}

/// What became of a reservation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reserve {
    /// The device as it is now, reserved for the attempt.
    Held(Device),
    /// The device as it was found, unchanged; `None` where there is no such device.
    Refused(Option<Device>),
}

/// The device registry as operators use it.
pub trait DeviceStore: Send + Sync {
    /// Registers a device; `false` where the id is taken, which changes nothing.
    fn add(&self, device: &Device) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// The device as it is at this moment.
    fn find(&self, id: &DeviceId) -> impl Future<Output = Result<Option<Device>, RegistryError>> + Send;

    /// Some of the devices, in no order, and where to go on.
    fn list(&self, after: Option<&DeviceId>, limit: u16) -> impl Future<Output = Result<Page, RegistryError>> + Send;

    /// Puts `device` in the place of the item that it was read from and changed; `false` where the item is no longer
    /// at `version`, which changes nothing.
    fn replace(&self, device: &Device, version: u64) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// Removes the item; `false` where it is no longer at `version`, which changes nothing.
    fn delete(&self, id: &DeviceId, version: u64) -> impl Future<Output = Result<bool, RegistryError>> + Send;
}

/// A page of a list.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Page {
    /// The devices on it; there may be none although more pages follow.
    pub devices: Vec<Device>,
    /// Where the next page begins, if there is one.
    pub next: Option<DeviceId>,
}

/// The registry could not say yes or no.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// An item is not what this version of cvm writes.
    #[error("the registry item of device {device} cannot be read; was it written by a newer version?")]
    Corrupt {
        /// The item's key.
        device: String,
        /// What is wrong with it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The store asks for a slower pace.
    #[error("the device registry is throttled")]
    Throttled {
        /// The store's words.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The call failed or its outcome is unknown.
    #[error("the device registry did not answer")]
    Unavailable {
        /// What happened.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// The IoT platform that devices connect to.
///
/// A certificate can do something when it is active, has a policy and is attached to a thing; policies grant rights to
/// *the attached thing* only, so that a certificate without one is powerless.
pub trait Platform: Send + Sync {
    /// Has a certificate made for the CSR's key. Asking twice makes two.
    fn issue(&self, csr: &Csr) -> impl Future<Output = Result<IssuedCertificate, PlatformError>> + Send;

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
    ) -> impl Future<Output = Result<Vec<IssuedCertificate>, PlatformError>> + Send;

    /// Takes all power from a certificate and removes it as far as the platform allows at once; again is the same as
    /// once, and a certificate that is gone already is no error.
    fn retire(
        &self,
        thing: &ThingName,
        certificate_name: &str,
    ) -> impl Future<Output = Result<(), PlatformError>> + Send;
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

/// Where audit records go.
pub trait Audit: Send + Sync {
    /// Keeps one record.
    fn record(&self, record: &crate::AuditRecord<'_>);
}
