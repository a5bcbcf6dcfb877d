//! The ports of cvm on AWS: the device registry on DynamoDB and the platform on AWS IoT.
//!
//! Clients are made once, by [`Clients`], and borrowed from then on.

mod certificate_authorities;
mod certificates;
mod claim_certificates;
mod claims;
mod clients;
mod error;
mod index;
mod iot_events;
mod item;
mod platform;
mod registry;

pub use certificate_authorities::{
    AuthorityPage, CertificateAuthorities, CertificateAuthority, JustInTimeProvisioning, Registration,
};
pub use clients::{Clients, NotAFunction};
pub use index::{CERTIFICATE_INDEX, UNSETTLED_INDEX};
pub use iot_events::{CertificateRegistered, Connected, HookAnswer, HookQuestion};
pub use platform::AwsIot;
pub use registry::{DynamoDbRegistry, TABLE_KEY};
