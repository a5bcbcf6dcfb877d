//! The ports of cvm on AWS: the device registry on DynamoDB and the platform on AWS IoT.
//!
//! Clients are made once, by [`Clients::from_environment`], and borrowed from then on.

mod certificate_authorities;
mod clients;
mod error;
mod item;
mod platform;
mod registry;

pub use certificate_authorities::{
    AuthorityPage, CertificateAuthorities, CertificateAuthority, JustInTimeProvisioning, Registration,
};
pub use clients::Clients;
pub use platform::AwsIot;
pub use registry::{DynamoDbRegistry, TABLE_KEY};
