use std::str::FromStr;

use cvm_provisioning::{BadCertificate, Certificate, PublicKey};

use crate::{Authority, Signer, Unfit, public_key};

/// A CA's certificate and behind it those above it, each of which has signed the one before: what a text with one PEM
/// block after the other says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CaCertificates {
    /// The CA's own.
    pub certificate: Certificate,
    /// Those above it.
    pub above: Vec<Certificate>,
    /// The key in the CA's certificate.
    pub key: PublicKey,
}

impl CaCertificates {
    /// The CA that signs with this key.
    ///
    /// # Errors
    ///
    /// As [`Authority::new`].
    pub fn with_key<S: Signer>(self, signer: S) -> Result<Authority<S>, Unfit> {
        Authority::new(self.certificate, self.above, signer)
    }
}

impl FromStr for CaCertificates {
    type Err = InvalidCaCertificates;

    fn from_str(text: &str) -> Result<Self, InvalidCaCertificates> {
        if text.trim().is_empty() {
            return Err(InvalidCaCertificates::Empty);
        }
        let mut certificates = Certificate::parse_chain(text)?.into_iter();
        let certificate = certificates.next().ok_or(InvalidCaCertificates::Empty)?;
        let key = public_key(&certificate).map_err(InvalidCaCertificates::Key)?;
        Ok(Self { certificate, above: certificates.collect(), key })
    }
}

/// Why a text is not [`CaCertificates`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCaCertificates {
    /// A block is no certificate.
    #[error(transparent)]
    Certificate(#[from] BadCertificate),
    /// There is nothing in it.
    #[error("it holds no certificate")]
    Empty,
    /// No CA may have its key.
    #[error("its key cannot be used: {0}")]
    Key(Unfit),
}
