//! Whether a certificate is revoked, asked one at a time (RFC 6960, in the profile of RFC 5019).

mod request;
mod responder;
mod response;

pub use self::request::{InvalidOcspRequest, OcspRequest, RequestedCertificate};
pub use self::responder::OcspResponder;
pub use self::response::{CertificateStatus, OcspResponse};
