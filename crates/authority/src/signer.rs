use std::error::Error;
use std::fmt;

use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, RSA_PKCS1_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};
use cvm_provisioning::{KeyAlgorithm, PublicKey};
use pkcs8::ObjectIdentifier;

use crate::LocalSigner;

/// A CA's private key, wherever it is.
pub trait Signer: Send + Sync {
    /// The public half of the key.
    fn public_key(&self) -> &PublicKey;

    /// With which algorithm it signs. There is one for each kind of key, so nothing is left to choose.
    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::of(self.public_key().algorithm())
    }

    /// The signature over these bytes, in the form that a certificate has: DER for ECDSA (RFC 3279 section 2.2.3), the
    /// number itself for RSA.
    ///
    /// A certificate has some hundred bytes; a revocation list can have megabytes, which a service that signs at most
    /// 4,096 bytes is given the digest of.
    fn sign(&self, to_be_signed: &[u8]) -> impl Future<Output = Result<Vec<u8>, SignerError>> + Send;

    /// The key, where it is in the memory of this process: it signs without waiting, and what it signs need not be
    /// doubted.
    fn in_memory(&self) -> Option<&LocalSigner> {
        None
    }
}

impl<S: Signer> Signer for &S {
    fn public_key(&self) -> &PublicKey {
        (*self).public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        (*self).algorithm()
    }

    fn sign(&self, to_be_signed: &[u8]) -> impl Future<Output = Result<Vec<u8>, SignerError>> + Send {
        (*self).sign(to_be_signed)
    }

    fn in_memory(&self) -> Option<&LocalSigner> {
        (*self).in_memory()
    }
}

/// How a CA signs.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum SignatureAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    EcdsaSha256,
    /// ECDSA on P-384 with SHA-384.
    EcdsaSha384,
    /// ECDSA on P-521 with SHA-512.
    EcdsaSha512,
    /// RSA PKCS #1 v1.5 with SHA-256.
    RsaSha256,
}

impl SignatureAlgorithm {
    /// The one that is used with a key of this kind.
    pub const fn of(key: KeyAlgorithm) -> Self {
        match key {
            KeyAlgorithm::P256 => Self::EcdsaSha256,
            KeyAlgorithm::P384 => Self::EcdsaSha384,
            KeyAlgorithm::P521 => Self::EcdsaSha512,
            KeyAlgorithm::Rsa { .. } => Self::RsaSha256,
        }
    }

    /// The digest that is signed: 32, 48 or 64 octets. Services that hold keys are given it in place of the bytes.
    pub fn digest(self, bytes: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::EcdsaSha256 | Self::RsaSha256 => &SHA256,
            Self::EcdsaSha384 => &SHA384,
            Self::EcdsaSha512 => &SHA512,
        };
        digest(algorithm, bytes).as_ref().to_vec()
    }

    /// Whether this is the key's signature over these bytes.
    pub fn verifies(self, key: &PublicKey, signed: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn VerificationAlgorithm = match self {
            Self::EcdsaSha256 => &ECDSA_P256_SHA256_ASN1,
            Self::EcdsaSha384 => &ECDSA_P384_SHA384_ASN1,
            Self::EcdsaSha512 => &ECDSA_P521_SHA512_ASN1,
            Self::RsaSha256 => &RSA_PKCS1_2048_8192_SHA256,
        };
        UnparsedPublicKey::new(algorithm, key.spki()).verify(signed, signature).is_ok()
    }

    /// Its name in the library that encodes certificates.
    pub(crate) const fn of_library(self) -> &'static rcgen::SignatureAlgorithm {
        match self {
            Self::EcdsaSha256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Self::EcdsaSha384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Self::EcdsaSha512 => &rcgen::PKCS_ECDSA_P521_SHA512,
            Self::RsaSha256 => &rcgen::PKCS_RSA_SHA256,
        }
    }

    /// Its object identifier (RFC 5758 section 3.2, RFC 4055 section 5).
    pub(crate) const fn object_identifier(self) -> ObjectIdentifier {
        match self {
            Self::EcdsaSha256 => ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"),
            Self::EcdsaSha384 => ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3"),
            Self::EcdsaSha512 => ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4"),
            Self::RsaSha256 => ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11"),
        }
    }
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcdsaSha256 => "ECDSA P-256 with SHA-256",
            Self::EcdsaSha384 => "ECDSA P-384 with SHA-384",
            Self::EcdsaSha512 => "ECDSA P-521 with SHA-512",
            Self::RsaSha256 => "RSA PKCS #1 v1.5 with SHA-256",
        })
    }
}

/// Why a key did not sign.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignerError {
    /// It will not sign if it is asked again.
    #[error("the CA's key refuses to sign: check that it is enabled and that this program may use it")]
    Refused {
        /// What was said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// It may sign if it is asked again.
    #[error("the CA's key did not sign in time, or cannot be reached: ask again")]
    Unavailable {
        /// What went wrong.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl SignerError {
    /// Whether it may sign if it is asked again.
    pub const fn is_for_now(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
