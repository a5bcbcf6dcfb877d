//! The device registry on a database of one's own: SQLite in a folder, or MySQL or MariaDB for several servers.
//!
//! Every change is one transaction: the item is read, changed by the domain's own rules, and written with what happened,
//! so that the audit trail knows of every change that there is. The statements are the same for both databases; what
//! differs is in `sqlite`, `mysql` and the schema.

mod audit_trail;
mod change;
mod claims;
mod connection;
mod decisions;
mod decoy;
mod device_store;
mod devices;
mod error;
mod fleet;
mod index;
mod issuers;
mod jobs;
mod keys;
mod ledger;
mod mysql;
mod places;
mod presence;
mod queue;
mod registry;
mod restore;
mod schema;
mod sqlite;
mod tombstones;
mod trail_hash;
mod trim_trail;
mod unknown_devices;
mod verify_trail;

pub use decisions::Decision;
pub use error::OpenError;
pub use issuers::IssuedBy;
pub use jobs::SqlJobs;
pub use registry::SqlRegistry;
pub use verify_trail::{BrokenChain, InvalidTrailEnd, TrailEnd, Verified};
