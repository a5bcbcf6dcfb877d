//! Which signatures count, and what they are checked with. Everything that is not in the table is refused.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA256_ASN1,
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA512_ASN1, ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA384_ASN1,
    ECDSA_P521_SHA512_ASN1, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    UnparsedPublicKey, VerificationAlgorithm,
};

use crate::der::{self, OID, SEQUENCE};
use crate::{KeyAlgorithm, PublicKey};

/// Checks a signature by `key` over `message`, made as the DER `AlgorithmIdentifier` says.
///
/// # Errors
///
/// [`BadSignature`] if the algorithm is not accepted, does not fit the key or the signature is not the key's.
pub(crate) fn verify(key: &PublicKey, identifier: &[u8], message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
    let algorithm = accepted(key.algorithm(), identifier).ok_or_else(|| refusal(identifier))?;
    UnparsedPublicKey::new(algorithm, key.spki()).verify(message, signature).map_err(|_| BadSignature::Wrong)
}

/// Why a signature does not count.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BadSignature {
    /// An algorithm that is not accepted.
    #[error(
        "the request is signed with {found}: sign it with SHA-256, SHA-384 or SHA-512 and RSA PKCS #1 v1.5 or ECDSA"
    )]
    Algorithm {
        /// What it is.
        found: &'static str,
    },
    /// An accepted algorithm, but for another kind of key.
    #[error("the signature algorithm is for another kind of key than the one in the request")]
    OtherKey,
    /// An accepted algorithm with parameters it must not have (RFC 4055 section 5, RFC 5758 section 3.2).
    #[error("the signature algorithm's parameters are wrong: NULL or absent for RSA, absent for ECDSA")]
    Parameters,
    /// The signature is not this key's over these bytes.
    #[error("the signature is not the key's: the request was damaged, changed after signing, or signed by another key")]
    Wrong,
}

/// The accepted `AlgorithmIdentifier`s in full, parameters included, so that comparing bytes checks all of them. For RSA
/// the parameters are NULL or absent (RFC 4055 section 5: both must be accepted).
const RSA_SHA256: &[u8] = &[0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11, 5, 0];
const RSA_SHA384: &[u8] = &[0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12, 5, 0];
const RSA_SHA512: &[u8] = &[0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13, 5, 0];
const RSA_SHA256_ABSENT: &[u8] = &[0x30, 11, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11];
const RSA_SHA384_ABSENT: &[u8] = &[0x30, 11, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12];
const RSA_SHA512_ABSENT: &[u8] = &[0x30, 11, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13];
const ECDSA_SHA256: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const ECDSA_SHA384: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
const ECDSA_SHA512: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4];

fn accepted(key: KeyAlgorithm, identifier: &[u8]) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match (key, identifier) {
        (KeyAlgorithm::P256, ECDSA_SHA256) => &ECDSA_P256_SHA256_ASN1,
        (KeyAlgorithm::P256, ECDSA_SHA384) => &ECDSA_P256_SHA384_ASN1,
        (KeyAlgorithm::P256, ECDSA_SHA512) => &ECDSA_P256_SHA512_ASN1,
        (KeyAlgorithm::P384, ECDSA_SHA256) => &ECDSA_P384_SHA256_ASN1,
        (KeyAlgorithm::P384, ECDSA_SHA384) => &ECDSA_P384_SHA384_ASN1,
        (KeyAlgorithm::P384, ECDSA_SHA512) => &ECDSA_P384_SHA512_ASN1,
        (KeyAlgorithm::P521, ECDSA_SHA256) => &ECDSA_P521_SHA256_ASN1,
        (KeyAlgorithm::P521, ECDSA_SHA384) => &ECDSA_P521_SHA384_ASN1,
        (KeyAlgorithm::P521, ECDSA_SHA512) => &ECDSA_P521_SHA512_ASN1,
        (KeyAlgorithm::Rsa { .. }, RSA_SHA256 | RSA_SHA256_ABSENT) => &RSA_PKCS1_2048_8192_SHA256,
        (KeyAlgorithm::Rsa { .. }, RSA_SHA384 | RSA_SHA384_ABSENT) => &RSA_PKCS1_2048_8192_SHA384,
        (KeyAlgorithm::Rsa { .. }, RSA_SHA512 | RSA_SHA512_ABSENT) => &RSA_PKCS1_2048_8192_SHA512,
        _ => return None,
    })
}

/// What is wrong with an identifier that is not accepted for the key.
fn refusal(identifier: &[u8]) -> BadSignature {
    let with_null = [RSA_SHA256, RSA_SHA384, RSA_SHA512];
    let absent = [RSA_SHA256_ABSENT, RSA_SHA384_ABSENT, RSA_SHA512_ABSENT, ECDSA_SHA256, ECDSA_SHA384, ECDSA_SHA512];
    let all = with_null.into_iter().chain(absent);
    if all.clone().any(|accepted| accepted == identifier) {
        return BadSignature::OtherKey;
    }
    let Some(oid) = algorithm(identifier) else {
        return BadSignature::Algorithm { found: "an unreadable algorithm" };
    };
    if all.filter_map(algorithm).any(|accepted| accepted == oid) {
        return BadSignature::Parameters;
    }
    BadSignature::Algorithm {
        found: match oid {
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4] => "RSA and MD5",
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5] => "RSA and SHA-1",
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10] => "RSA-PSS",
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 14] => "RSA and SHA-224",
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1] => "ECDSA and SHA-1",
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 1] => "ECDSA and SHA-224",
            _ => "another algorithm",
        },
    }
}

/// The object identifier in an `AlgorithmIdentifier`.
fn algorithm(identifier: &[u8]) -> Option<&[u8]> {
    let content = der::read_all(identifier, |outer| outer.expect(SEQUENCE)).ok()?.content;
    der::Reader::new(content).expect(OID).ok().map(|oid| oid.content)
}
