//! The form in which stores keep devices, claims, who changed them and what happened: one record each, which serde writes as the store has
//! it. The names of the fields are a promise to every store there is.

mod attestation;
mod audit_entry;
mod claim;
mod credential;
mod device;
mod module;
mod origin;
mod presence;
mod status;

pub use attestation::{CA, CERTIFICATE, PUBLIC_KEY, TOKEN};
pub use audit_entry::AuditEntryRecord;
pub use claim::ClaimRecord;
pub use credential::{CredentialRecord, GivenRecord, SupersededRecord, superseded};
pub use device::DeviceRecord;
pub use origin::OriginRecord;
pub use presence::PresenceRecord;
pub use status::ENABLED;
