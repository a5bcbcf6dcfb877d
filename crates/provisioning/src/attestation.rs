use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::{KeyFingerprint, Timestamp};

/// What the registry stores so that a device can be checked; never a secret that could be replayed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Attestation {
    /// The device proves itself with a bearer token, of which only the digest is kept.
    Token {
        /// The token's digest.
        digest: TokenDigest,
        /// From when on the token proves nothing.
        expires_at: Option<Timestamp>,
    },
    /// The device proves that it holds the private half of a key that was registered; nothing secret is shared.
    PublicKey {
        /// The key that was registered.
        key: KeyFingerprint,
    },
}

impl Attestation {
    /// Whether `proof` is what this attestation asks for. The comparison of digests takes the same time wherever they
    /// differ.
    pub fn accepts(&self, proof: &Proof, now: Timestamp) -> bool {
        match self {
            Self::Token { digest, expires_at } => {
                let presented = proof.token.as_ref().is_some_and(|token| token.0.ct_eq(&digest.0).into());
                presented && expires_at.is_none_or(|end| now < end)
            }
            // A request is signed with its own key: holding that key is what the signature has proved.
            Self::PublicKey { key } => !proof.key_made_here && *key == proof.key,
        }
    }
}

/// What a device sent to prove itself, reduced to what may be kept and compared.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Proof {
    /// The digest of the bearer token, where one came.
    pub token: Option<TokenDigest>,
    /// The key that the certificate will be for.
    pub key: KeyFingerprint,
    /// Whether that key was made by us, and so proves nothing.
    pub key_made_here: bool,
}

/// A bearer token that lets one device enrol. High entropy by construction: made here from 256 random bits, or refused
/// when too short to be that.
pub struct EnrolmentToken(Zeroizing<String>);

impl EnrolmentToken {
    /// The fewest characters a token may have: 128 bits in base64url.
    pub const MIN_LENGTH: usize = 22;
    /// The most characters a token may have.
    pub const MAX_LENGTH: usize = 256;

    /// Makes a token of 256 random bits.
    ///
    /// # Errors
    ///
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Self, Unspecified> {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        aws_lc_rs::rand::fill(bytes.as_mut())?;
        Ok(Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes))))
    }

    /// What is stored and compared in the token's place.
    pub fn digest(&self) -> TokenDigest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, self.0.as_bytes()).as_ref());
        TokenDigest(bytes)
    }

    /// The token itself, to be shown once to whom it is for.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for EnrolmentToken {
    type Err = InvalidToken;

    /// Reads a token in the alphabet of RFC 6750's `b64token`.
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let allowed =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=');
        if !(Self::MIN_LENGTH..=Self::MAX_LENGTH).contains(&text.len()) {
            return Err(InvalidToken::Length { length: text.len() });
        }
        if !text.bytes().all(allowed) {
            return Err(InvalidToken::Character);
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }
}

impl fmt::Debug for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnrolmentToken(..)")
    }
}

/// Why a text is no [`EnrolmentToken`]; the text is never repeated.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidToken {
    /// A character outside RFC 6750's `b64token`.
    #[error("an enrolment token is made of the characters A-Z a-z 0-9 - . _ ~ + / = only")]
    Character,
    /// Too short to be unguessable, or absurdly long.
    #[error(
        "an enrolment token has {min} to {max} characters, this one has {length}",
        min = EnrolmentToken::MIN_LENGTH,
        max = EnrolmentToken::MAX_LENGTH
    )]
    Length {
        /// Its length.
        length: usize,
    },
}

/// The SHA-256 digest of an [`EnrolmentToken`]. A token is random, so a plain digest cannot be guessed back.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenDigest([u8; 32]);

impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl From<TokenDigest> for String {
    fn from(digest: TokenDigest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for TokenDigest {
    type Error = InvalidTokenDigest;

    fn try_from(text: String) -> Result<Self, InvalidTokenDigest> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidTokenDigest)?;
        Ok(Self(bytes.try_into().map_err(|_| InvalidTokenDigest)?))
    }
}

/// A stored digest is not 32 bytes of base64url.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a token digest is 32 bytes in base64url without padding")]
pub struct InvalidTokenDigest;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn key(byte: u8) -> KeyFingerprint {
        KeyFingerprint::of(&[byte])
    }

    fn proof(token: Option<&EnrolmentToken>, key: KeyFingerprint) -> Proof {
        Proof { token: token.map(EnrolmentToken::digest), key, key_made_here: false }
    }

    #[test]
    fn only_the_very_token_is_accepted() {
        let token = EnrolmentToken::generate().unwrap();
        let attestation = Attestation::Token { digest: token.digest(), expires_at: None };
        assert!(attestation.accepts(&proof(Some(&token), key(1)), NOW));
        assert!(!attestation.accepts(&proof(Some(&EnrolmentToken::generate().unwrap()), key(1)), NOW));
        assert!(!attestation.accepts(&proof(None, key(1)), NOW));
    }

    #[test]
    fn threat_10_an_expired_token_proves_nothing() {
        let token = EnrolmentToken::generate().unwrap();
        let attestation = Attestation::Token { digest: token.digest(), expires_at: Some(NOW) };
        assert!(attestation.accepts(&proof(Some(&token), key(1)), Timestamp::from_seconds(NOW.seconds() - 1)));
        assert!(!attestation.accepts(&proof(Some(&token), key(1)), NOW));
    }

    #[test]
    fn a_key_that_we_made_does_not_attest_a_device() {
        let attestation = Attestation::PublicKey { key: key(1) };
        let held = proof(None, key(1));
        assert!(attestation.accepts(&held, NOW));
        assert!(!attestation.accepts(&proof(None, key(2)), NOW));
        assert!(!attestation.accepts(&Proof { key_made_here: true, ..held }, NOW));
    }

    #[test]
    fn a_token_that_could_be_guessed_is_refused() {
        assert_eq!("hunter2".parse::<EnrolmentToken>().unwrap_err(), InvalidToken::Length { length: 7 });
        assert_eq!("é".repeat(20).parse::<EnrolmentToken>().unwrap_err(), InvalidToken::Character);
    }

    #[test]
    fn a_token_is_not_shown_by_accident() {
        let token = EnrolmentToken::generate().unwrap();
        assert!(!format!("{token:?}").contains(token.reveal()));
    }

    #[test]
    fn a_digest_survives_its_text_form() {
        let digest = EnrolmentToken::generate().unwrap().digest();
        assert_eq!(TokenDigest::try_from(digest.to_string()), Ok(digest));
        assert_eq!(TokenDigest::try_from("abc".to_owned()), Err(InvalidTokenDigest));
    }
}
