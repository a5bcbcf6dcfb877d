use std::fmt;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use cvm_provisioning::{BadKey, PublicKey};
use pkcs8::SecretDocument;
use pkcs8::der::pem::LineEnding;
use zeroize::Zeroizing;

use crate::{Passphrase, Signer, SignerError, key_encryption};

/// A CA's key in the memory of this process, which is wiped when it is dropped. It is never shown.
///
/// The library that encodes certificates has a key of its own too, but keeps a copy that is not wiped.
pub struct LocalSigner {
    pair: Pair,
    public_key: PublicKey,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// The curves of the keys that are made here.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Curve {
    /// NIST P-256, which every device can verify.
    #[default]
    P256,
    /// NIST P-384.
    P384,
}

impl LocalSigner {
    /// The longest text that is read, in bytes: several times RSA-4096 in PEM.
    pub const MAX_TEXT: usize = 16_384;

    /// Makes a key.
    ///
    /// # Errors
    ///
    /// [`KeyError::Library`] if there is no randomness.
    pub fn generate(curve: Curve) -> Result<Self, KeyError> {
        Self::new(Pair::Ecdsa(EcdsaKeyPair::generate(match curve {
            Curve::P256 => &ECDSA_P256_SHA256_ASN1_SIGNING,
            Curve::P384 => &ECDSA_P384_SHA384_ASN1_SIGNING,
        })?))
    }

    /// Reads a key from PEM: PKCS #8, with or without a passphrase, or the older forms of OpenSSL without one. It is on
    /// P-256, P-384 or P-521, or RSA of 2048 to 4096 bits.
    ///
    /// # Errors
    ///
    /// [`KeyError`]. Nothing of the text is repeated in it.
    pub fn from_pem(text: &str, passphrase: Option<&Passphrase>) -> Result<Self, KeyError> {
        if text.len() > Self::MAX_TEXT {
            return Err(KeyError::Encoding);
        }
        let block = private_key_block(text)?;
        if is_encrypted_by_header(block) {
            return Err(KeyError::Encryption);
        }
        let (label, document) = SecretDocument::from_pem(block).map_err(|_| KeyError::Encoding)?;
        if label != key_encryption::LABEL {
            return Self::from_der(document.as_bytes());
        }
        let key = key_encryption::decrypt(document.as_bytes(), passphrase.ok_or(KeyError::Encrypted)?)?;
        // A wrong passphrase leaves a padding that looks right once in 256 times.
        Self::from_der(&key).map_err(|error| if error == KeyError::Encoding { KeyError::Passphrase } else { error })
    }

    /// Whether the text has a key under a passphrase, so that others may read it.
    pub(crate) fn is_encrypted(text: &str) -> bool {
        private_key_block(text).is_ok_and(|block| block.starts_with(&format!("{BEGIN}{}-", key_encryption::LABEL)))
    }

    /// The key as PKCS #8 PEM (RFC 5958), under the passphrase if there is one.
    ///
    /// # Errors
    ///
    /// [`KeyError::Library`] if there is no randomness.
    pub fn to_pem(&self, passphrase: Option<&Passphrase>) -> Result<Zeroizing<String>, KeyError> {
        let key = Zeroizing::new(match &self.pair {
            Pair::Ecdsa(pair) => pair.to_pkcs8v1()?.as_ref().to_vec(),
            Pair::Rsa(pair) => pair.as_der()?.as_ref().to_vec(),
        });
        match passphrase {
            Some(passphrase) => Ok(key_encryption::encrypt(&key, passphrase)?),
            None => SecretDocument::try_from(key.as_slice())
                .and_then(|document| document.to_pem(LABEL, LineEnding::LF))
                .map_err(|_| KeyError::Library),
        }
    }

    fn from_der(key: &[u8]) -> Result<Self, KeyError> {
        let curves: [&'static EcdsaSigningAlgorithm; 3] =
            [&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING, &ECDSA_P521_SHA512_ASN1_SIGNING];
        let ecdsa = curves.into_iter().find_map(|curve| EcdsaKeyPair::from_private_key_der(curve, key).ok());
        let rsa = || RsaKeyPair::from_pkcs8(key).or_else(|_| RsaKeyPair::from_der(key)).ok();
        Self::new(ecdsa.map(Pair::Ecdsa).or_else(|| rsa().map(Pair::Rsa)).ok_or(KeyError::Encoding)?)
    }

    /// The signature, without waiting for anything. It fails where there is no randomness.
    pub(crate) fn sign_at_once(&self, to_be_signed: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ecdsa(pair) => pair.sign(&random, to_be_signed).map(|signature| signature.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, to_be_signed, &mut signature).map(|()| signature)
            }
        }
    }

    fn new(pair: Pair) -> Result<Self, KeyError> {
        let public_key = match &pair {
            Pair::Ecdsa(pair) => pair.public_key().as_der()?,
            Pair::Rsa(pair) => pair.public_key().as_der()?,
        };
        Ok(Self { public_key: PublicKey::from_spki(public_key.as_ref())?, pair })
    }
}

impl Signer for LocalSigner {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    async fn sign(&self, to_be_signed: &[u8]) -> Result<Vec<u8>, SignerError> {
        self.sign_at_once(to_be_signed).map_err(|source| SignerError::Unavailable { source: source.into() })
    }

    fn in_memory(&self) -> Option<&LocalSigner> {
        Some(self)
    }
}

impl fmt::Debug for LocalSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalSigner").field(&self.public_key).finish()
    }
}

/// Why a key cannot be used, or none was made.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not one private key in PEM.
    #[error("expected one PEM block with an elliptic curve or RSA key")]
    Encoding,
    /// There is a passphrase to be given.
    #[error("the key is encrypted, and no passphrase was given")]
    Encrypted,
    /// Encrypted in another way than with PBKDF2-HMAC-SHA256 and AES-256-CBC.
    #[error(
        "the key is encrypted in a way that is not read: `openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256 \
         -iter 600000` writes it as expected"
    )]
    Encryption,
    /// The library gives no reason; in practice it has no entropy.
    #[error("the cryptographic library could not make or encode a key: try again")]
    Library,
    /// The passphrase is another.
    #[error("the passphrase is wrong, or the key was damaged")]
    Passphrase,
    /// The key is of a kind that is not used, or known to be weak.
    #[error("the key must not be used: {0}")]
    Weak(#[from] BadKey),
}

impl From<Unspecified> for KeyError {
    fn from(_: Unspecified) -> Self {
        Self::Library
    }
}

/// The one PEM block with a private key that is not encrypted, whatever stands around it.
///
/// # Errors
///
/// [`KeyError::Encrypted`], or [`KeyError::Encoding`] if there is not exactly one key.
pub fn unencrypted_key(text: &str) -> Result<&str, KeyError> {
    let block = private_key_block(text)?;
    match LocalSigner::is_encrypted(block) || is_encrypted_by_header(block) {
        true => Err(KeyError::Encrypted),
        false => Ok(block),
    }
}

/// Whether the block has the header by which OpenSSL marked encrypted keys before there was PKCS #8 (RFC 1421).
fn is_encrypted_by_header(block: &str) -> bool {
    block.lines().any(|line| line.starts_with("Proc-Type:") && line.contains("ENCRYPTED"))
}

/// The one block with a private key. OpenSSL writes the parameters of a curve into a block before it.
fn private_key_block(text: &str) -> Result<&str, KeyError> {
    let mut found = None;
    for (start, _) in text.match_indices(BEGIN) {
        let Some((label, _)) = text[start + BEGIN.len()..].split_once("-----") else { return Err(KeyError::Encoding) };
        if label.ends_with(LABEL) {
            let end = format!("-----END {label}-----");
            let length = text[start..].find(&end).ok_or(KeyError::Encoding)? + end.len();
            if found.replace(&text[start..start + length]).is_some() {
                return Err(KeyError::Encoding);
            }
        }
    }
    found.ok_or(KeyError::Encoding)
}

const BEGIN: &str = "-----BEGIN ";
const LABEL: &str = "PRIVATE KEY";
