//! How devices are written for other tools.
//!
//! The shapes are those of the identity registry of Azure IoT Hub (service REST API, version 2021-04-12), so that tools
//! made for it can be used; what it has no word for stands beside it under `cvm`.

mod authentication;
mod extension;

pub use authentication::{Authentication, InvalidAuthentication, Keys, SymmetricKey, Thumbprints};
pub use extension::{AttestationDocument, Extension, InvalidExtension};
