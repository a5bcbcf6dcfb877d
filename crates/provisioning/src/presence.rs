use crate::{CertificateId, Timestamp};

/// Whether a device is connected, as the platform last said. Its word takes a moment, and nothing is decided by it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Presence {
    /// Whether it was.
    pub connected: bool,
    /// When that came to be.
    pub since: Timestamp,
    /// The platform's clock in milliseconds since 1970-01-01: of two words the later counts.
    pub order: u64,
    /// The client id of the connection.
    pub client_id: String,
    /// The certificate of the connection.
    pub certificate: CertificateId,
}
