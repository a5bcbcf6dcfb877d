//! What the domain needs from the world. Each method is one call of the service behind it on the common path, because
//! calls are what a vend costs.

mod own_authority;
mod platform;
mod registry;

pub use self::own_authority::{CertificateAuthority, CertificateLedger, LedgerEntry};
pub use self::platform::{
    CertificateSummary, Certificates, ClaimIssuer, Departures, Inventory, InventoryPage, Platform, PlatformError,
};
pub use self::registry::{
    CertificateIndex, CertificateOwner, ClaimStore, Cursors, DeviceCounts, DeviceFilter, DeviceStore, NotRestored,
    Page, Presences, RegistryError, Reserve, Tombstones, UnsettledDevice,
};

/// Where audit records go.
pub trait Audit: Send + Sync {
    /// Keeps one record.
    fn record(&self, record: &crate::AuditRecord<'_>);
}
