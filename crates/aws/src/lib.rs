//! The ports of cvm on AWS: the device registry on DynamoDB, the platform on AWS IoT, a CA's key in AWS KMS.
//!
//! Clients are made once, by [`Clients`], and borrowed from then on.

mod audit_trail;
mod certificate_authorities;
mod certificates;
mod change;
mod changed_by;
mod claim_certificates;
mod claims;
mod clients;
mod departures;
mod device_store;
mod error;
mod event_bus;
mod index;
mod iot_events;
mod item;
mod job_store;
mod keys;
mod kms_signer;
mod own_ca;
mod platform;
mod presence;
mod registry;
mod stream;

pub use audit_trail::{DynamoDbAuditTrail, HOUR_INDEX};
pub use certificate_authorities::{
    AuthorityPage, CertificateAuthorities, CertificateAuthority, JustInTimeProvisioning, Registration,
};
pub use clients::{Clients, NotAFunction};
pub use event_bus::EventBridge;
pub use index::{CERTIFICATE_INDEX, UNSETTLED_INDEX};
pub use iot_events::{CertificateRegistered, HookAnswer, HookQuestion, PresenceChanged};
pub use job_store::{DynamoDbJobs, JOB_KEY, job_written};
pub use kms_signer::{KmsKeyError, KmsSigner};
pub use own_ca::OwnCa;
pub use platform::AwsIot;
pub use registry::{DynamoDbRegistry, TABLE_KEY};
pub use stream::registry_write;
