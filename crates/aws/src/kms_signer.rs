use std::fmt;

use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{KeyUsageType, MessageType, SigningAlgorithmSpec};
use cvm_authority::{SignatureAlgorithm, Signer, SignerError};
use cvm_provisioning::{BadKey, PlatformError, PublicKey};

use crate::error::platform_error;

/// A CA's key in AWS KMS, which signs there and never leaves it.
///
/// It is an asymmetric key for signing, on NIST P-256, P-384 or P-521, or RSA of 2048 to 4096 bits. Whoever signs needs
/// `kms:Sign` on it, and to [open](KmsSigner::open) it `kms:GetPublicKey`. AWS KMS takes 4,096 bytes to sign and a digest of any number
/// (AWS KMS API Reference, *Sign*), so it is given the digest.
pub struct KmsSigner {
    client: Client,
    key_id: String,
    public_key: PublicKey,
}

impl KmsSigner {
    /// The key of this id or ARN whose public half is known already, as it is from the CA's certificate. A signature of
    /// another key is noticed before anybody gets it.
    pub fn known(client: Client, key_id: impl Into<String>, public_key: PublicKey) -> Self {
        Self { client, key_id: key_id.into(), public_key }
    }

    /// The key of this id, alias (`alias/…`) or ARN. Its public half is fetched, once.
    ///
    /// # Errors
    ///
    /// [`KmsKeyError`].
    pub async fn open(client: Client, key_id: impl Into<String>) -> Result<Self, KmsKeyError> {
        let key_id = key_id.into();
        let found = client.get_public_key().key_id(&key_id).send().await;
        let found = found.map_err(platform_error("fetch the CA's public key"))?;
        if found.key_usage() != Some(&KeyUsageType::SignVerify) {
            return Err(KmsKeyError::Usage);
        }
        let spki = found.public_key().ok_or(KmsKeyError::Usage)?;
        let public_key = PublicKey::from_spki(spki.as_ref())?;
        // What is meant by an alias may be another key tomorrow; the certificate belongs to this one.
        let key_id = found.key_id.unwrap_or(key_id);
        Ok(Self { client, key_id, public_key })
    }
}

impl KmsSigner {
    /// Its ARN, where it was [opened](Self::open), else the name by which it is [known](Self::known).
    pub fn key_id(&self) -> &str {
        &self.key_id
    }
}

impl Signer for KmsSigner {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    async fn sign(&self, to_be_signed: &[u8]) -> Result<Vec<u8>, SignerError> {
        let signing_algorithm = match self.algorithm() {
            SignatureAlgorithm::EcdsaSha256 => SigningAlgorithmSpec::EcdsaSha256,
            SignatureAlgorithm::EcdsaSha384 => SigningAlgorithmSpec::EcdsaSha384,
            SignatureAlgorithm::EcdsaSha512 => SigningAlgorithmSpec::EcdsaSha512,
            SignatureAlgorithm::RsaSha256 => SigningAlgorithmSpec::RsassaPkcs1V15Sha256,
        };
        let signed = self
            .client
            .sign()
            .key_id(&self.key_id)
            .message_type(MessageType::Digest)
            .message(Blob::new(self.algorithm().digest(to_be_signed)))
            .signing_algorithm(signing_algorithm)
            .send()
            .await;
        let signed = signed.map_err(|error| match platform_error("sign with the CA's key")(error) {
            error @ PlatformError::Refused { .. } => SignerError::Refused { source: error.into() },
            error => SignerError::Unavailable { source: error.into() },
        })?;
        let signature = signed.signature.ok_or_else(|| SignerError::Unavailable { source: Box::new(NoSignature) })?;
        Ok(signature.into_inner())
    }
}

impl fmt::Debug for KmsSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KmsSigner")
            .field("key_id", &self.key_id)
            .field("public_key", &self.public_key)
            .finish_non_exhaustive()
    }
}

/// Why a key of AWS KMS is no CA's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KmsKeyError {
    /// AWS KMS did not say what the key is.
    #[error("the CA's key was not found: check its id, and that the role allows kms:GetPublicKey on it")]
    Kms(#[from] PlatformError),
    /// It encrypts, or agrees on keys.
    #[error("the CA's key is no key for signing: make one with --key-usage SIGN_VERIFY")]
    Usage,
    /// It is on another curve, or shorter than is good.
    #[error("the CA's key must not be used: {0}")]
    Weak(#[from] BadKey),
}

/// An answer of AWS KMS that has no signature in it.
#[derive(Debug, thiserror::Error)]
#[error("AWS KMS has answered without a signature")]
struct NoSignature;
