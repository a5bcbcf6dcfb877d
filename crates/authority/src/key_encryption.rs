//! Private keys under a passphrase: PBES2 with PBKDF2-HMAC-SHA256 and AES-256-CBC (RFC 8018), which OpenSSL and every
//! other tool reads. The form is `pkcs8`'s, the cryptography is that of everything else here.

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::cipher::{
    AES_256, AES_256_KEY_LEN, DecryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::pbkdf2::{PBKDF2_HMAC_SHA256, derive};
use pkcs8::der::Decode;
use pkcs8::der::asn1::OctetStringRef;
use pkcs8::der::pem::LineEnding;
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::{self, Parameters, Pbkdf2Prf};
use pkcs8::{EncryptedPrivateKeyInfoRef, SecretDocument};
use zeroize::Zeroizing;

use crate::KeyError;

/// What a key is encrypted with. It is wiped from memory when it is dropped.
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// A passphrase of at least one character. The text counts as it is, blanks and newlines included.
    ///
    /// # Errors
    ///
    /// [`InvalidPassphrase`] for an empty one, which protects nothing.
    pub fn new(text: Zeroizing<String>) -> Result<Self, InvalidPassphrase> {
        if text.is_empty() { Err(InvalidPassphrase) } else { Ok(Self(text)) }
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// A text is no [`Passphrase`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the passphrase is empty: give one, or none at all")]
pub struct InvalidPassphrase;

/// The key, which is in PKCS #8, as PEM that the passphrase opens.
pub(crate) fn encrypt(key: &[u8], passphrase: &Passphrase) -> Result<Zeroizing<String>, Unspecified> {
    let mut salt = [0; SALT_LENGTH];
    aws_lc_rs::rand::fill(&mut salt)?;
    let cipher = PaddedBlockEncryptingKey::cbc_pkcs7(cipher_key(passphrase, &salt, ITERATIONS)?)?;
    // There is room for the padding, so that no copy of the key is left behind where the text was before.
    let mut encrypted = Zeroizing::new(Vec::with_capacity(key.len() + IV_LENGTH));
    encrypted.extend_from_slice(key);
    let context = cipher.encrypt(&mut *encrypted)?;
    let iv = <&[u8; IV_LENGTH]>::try_from(<&[u8]>::try_from(&context)?).map_err(|_| Unspecified)?;

    let parameters = Parameters::generate_pbkdf2_sha256_aes256cbc(ITERATIONS.get(), &salt, *iv);
    let document = SecretDocument::try_from(EncryptedPrivateKeyInfoRef {
        encryption_algorithm: parameters.map_err(|_| Unspecified)?.into(),
        encrypted_data: OctetStringRef::new(&encrypted).map_err(|_| Unspecified)?,
    });
    document.and_then(|document| Ok(document.to_pem(LABEL, LineEnding::LF)?)).map_err(|_| Unspecified)
}

/// The key in PKCS #8 that was encrypted so.
pub(crate) fn decrypt(document: &[u8], passphrase: &Passphrase) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let info = EncryptedPrivateKeyInfoRef::from_der(document).map_err(|_| KeyError::Encryption)?;
    let EncryptionScheme::Pbes2(Parameters { kdf, encryption: pbes2::EncryptionScheme::Aes256Cbc { iv } }) =
        info.encryption_algorithm
    else {
        return Err(KeyError::Encryption);
    };
    let derivation = kdf.pbkdf2().filter(|derivation| derivation.prf == Pbkdf2Prf::HmacWithSha256);
    let derivation = derivation.ok_or(KeyError::Encryption)?;
    let iterations = NonZeroU32::new(derivation.iteration_count).filter(|count| *count <= MAX_ITERATIONS);
    let iterations = iterations.ok_or(KeyError::Encryption)?;

    let cipher = cipher_key(passphrase, derivation.salt.as_ref(), iterations)?;
    let cipher = PaddedBlockDecryptingKey::cbc_pkcs7(cipher)?;
    let mut bytes = Zeroizing::new(info.encrypted_data.as_bytes().to_vec());
    let length =
        cipher.decrypt(&mut bytes, DecryptionContext::Iv128(iv.into())).map_err(|_| KeyError::Passphrase)?.len();
    bytes.truncate(length);
    Ok(bytes)
}

fn cipher_key(passphrase: &Passphrase, salt: &[u8], iterations: NonZeroU32) -> Result<UnboundCipherKey, Unspecified> {
    let mut key = Zeroizing::new([0; AES_256_KEY_LEN]);
    derive(PBKDF2_HMAC_SHA256, iterations, salt, passphrase.0.as_bytes(), &mut *key);
    UnboundCipherKey::new(&AES_256, &*key)
}

pub(crate) const LABEL: &str = "ENCRYPTED PRIVATE KEY";
/// OWASP Password Storage Cheat Sheet, for PBKDF2-HMAC-SHA256.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(600_000).unwrap();
/// A file that asks for more would have the program compute for minutes.
const MAX_ITERATIONS: NonZeroU32 = NonZeroU32::new(20_000_000).unwrap();
/// In bytes; RFC 8018 section 4.1 wants eight at least.
const SALT_LENGTH: usize = 16;
/// The block of AES, in bytes.
const IV_LENGTH: usize = 16;
