//! Our own CA: device certificates by one profile, revocation lists, and the keys that sign them.
//!
//! Nothing of a signing request but its key gets into a certificate: [`Authority::issue`] takes a [`PublicKey`] and
//! nothing else of it. What was signed is taken apart again and compared with the [`Profile`] before it is handed out.
//! The crate has no clock, no network and no store; whoever calls it says what time it is.
//!
//! | to find | look in |
//! |---|---|
//! | what a device's certificate says | [`Profile`] |
//! | who signs it | [`Authority`], [`Authorities`], [`SharedAuthorities`] |
//! | where the key is | [`Signer`], [`LocalSigner`] |
//! | how a CA comes to be | [`AuthorityProfile`] |
//! | what is revoked | [`RevokedCertificate`], [`Crl`], [`OcspResponder`] |
//!
//! [`PublicKey`]: cvm_provisioning::PublicKey

mod authorities;
mod authority;
mod ca_certificates;
mod contents;
mod create;
mod crl;
mod issue;
mod key_encryption;
mod key_file;
mod library_issuer;
mod lint;
mod local_signer;
mod moment;
mod ocsp;
mod own_platform;
mod profile;
mod recognize;
mod revocation_address;
mod revoked;
mod serial_number;
mod server_name;
mod shared_authorities;
mod sign;
mod signer;
mod subject_text;
mod temporary_file;
mod unfit;
mod uri;

pub use authorities::{Authorities, SetError};
pub use authority::{Authority, public_key};
pub use ca_certificates::{CaCertificates, InvalidCaCertificates};
pub use create::{AuthorityProfile, CreateError, Tier};
pub use crl::{Crl, CrlError};
pub use issue::{IssueError, Issued};
pub use key_encryption::{InvalidPassphrase, Passphrase};
pub use key_file::{KeyFile, KeyFileError};
pub use lint::Defect;
pub use local_signer::{Curve, KeyError, LocalSigner, unencrypted_key};
pub use ocsp::{CertificateStatus, InvalidOcspRequest, OcspRequest, OcspResponder, OcspResponse, RequestedCertificate};
pub use own_platform::OwnPlatform;
pub use profile::Profile;
pub use recognize::Recognized;
pub use revocation_address::{RevocationAddress, published_name};
pub use revoked::{RevocationReason, RevokedCertificate};
pub use serial_number::{InvalidSerialNumber, SerialNumber};
pub use server_name::{InvalidServerName, ServerName};
pub use shared_authorities::SharedAuthorities;
pub use sign::SigningError;
pub use signer::{SignatureAlgorithm, Signer, SignerError};
pub use subject_text::{InvalidSubjectText, SubjectText};
pub use temporary_file::temporary_file;
pub use unfit::Unfit;
pub use uri::{InvalidUri, Uri};

#[cfg(test)]
mod testing;
