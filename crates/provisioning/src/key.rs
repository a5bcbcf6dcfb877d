use std::collections::HashSet;
use std::fmt;

use crate::der::{self, BadDer, OID, SEQUENCE};
use crate::{BadPem, KeyFingerprint, elliptic_curve, pem, rsa};

/// A public key of a kind that AWS IoT accepts, and that is not known to be weak.
///
/// RSA of 2048 to 4096 bits with the exponent 65537, or a point on P-256, P-384 or P-521: the AWS IoT API reference,
/// `CreateCertificateFromCsr`, has these curves and RSA from 2048 bits. The encoding is checked to be the one DER
/// encoding that RFC 3279 and RFC 5480 give the key, with the point uncompressed, so a key has exactly one
/// [`KeyFingerprint`] and a refused key cannot come back in other bytes.
///
/// Moduli with small factors, of the ROCA generator and with close primes are recognised. The weak keys of Debian
/// (CVE-2008-0166) are not, because telling them takes a list of some hundred thousand keys and none is shipped: an
/// operator who fears them puts their fingerprints into [`RefusedKeys`].
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct PublicKey {
    algorithm: KeyAlgorithm,
    spki: Vec<u8>,
    fingerprint: KeyFingerprint,
}

impl PublicKey {
    /// The smallest RSA modulus, in bits.
    pub const MIN_RSA_BITS: usize = 2048;

    /// The largest RSA modulus, in bits. It bounds what a stranger can make us compute.
    pub const MAX_RSA_BITS: usize = 4096;

    /// The label of a key in PEM.
    pub const LABEL: &str = "PUBLIC KEY";

    /// The longest text that [`PublicKey::parse`] looks at, in bytes: many times the longest key.
    pub const MAX_TEXT: usize = 4096;

    /// Reads a key from text: one PEM block `PUBLIC KEY` (RFC 7468 section 13), or the base64 of the DER.
    ///
    /// # Errors
    ///
    /// [`BadKey::Pem`] for the text, else as [`PublicKey::from_spki`].
    pub fn parse(text: &str) -> Result<Self, BadKey> {
        Self::from_spki(&pem::decode(text, &[Self::LABEL], Self::MAX_TEXT)?)
    }

    /// Reads a DER `SubjectPublicKeyInfo` (RFC 5280 section 4.1).
    ///
    /// # Errors
    ///
    /// [`BadKey`] if it is not DER to the last byte, or a key that is not accepted. An RSA modulus is computed with
    /// only after its size was found to be within bounds.
    pub fn from_spki(spki: &[u8]) -> Result<Self, BadKey> {
        let (algorithm, key) = der::read_all(spki, |outer| {
            outer.expect(SEQUENCE)?.read(|info| Ok::<_, BadKey>((info.expect(SEQUENCE)?, info.bit_string()?)))
        })?;
        let algorithm = algorithm.read(|identifier| match identifier.expect(OID)?.content {
            RSA => rsa::read(identifier, key),
            EC => elliptic_curve::read(identifier, key),
            other => Err(BadKey::Algorithm { found: algorithm_name(other) }),
        })?;
        Ok(Self { algorithm, spki: spki.to_vec(), fingerprint: KeyFingerprint::of(spki) })
    }

    /// What kind of key it is.
    pub fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    /// The name of the key: the SHA-256 of [`PublicKey::spki`].
    pub fn fingerprint(&self) -> &KeyFingerprint {
        &self.fingerprint
    }

    /// The DER `SubjectPublicKeyInfo`, as it was read.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, {})", self.algorithm, self.fingerprint)
    }
}

/// The kinds of key that are accepted.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum KeyAlgorithm {
    /// An elliptic curve key on NIST P-256.
    P256,
    /// An elliptic curve key on NIST P-384.
    P384,
    /// An elliptic curve key on NIST P-521.
    P521,
    /// An RSA key.
    Rsa {
        /// The length of its modulus.
        bits: usize,
    },
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::P256 => f.write_str("P-256"),
            Self::P384 => f.write_str("P-384"),
            Self::P521 => f.write_str("P-521"),
            Self::Rsa { bits } => write!(f, "RSA-{bits}"),
        }
    }
}

/// The keys that no device may have: those reported as compromised, and those of CAs and other issuers.
#[derive(Clone, Debug, Default)]
pub struct RefusedKeys(HashSet<KeyFingerprint>);

impl RefusedKeys {
    /// Whether the key is among them.
    pub fn contains(&self, key: &KeyFingerprint) -> bool {
        self.0.contains(key)
    }
}

impl FromIterator<KeyFingerprint> for RefusedKeys {
    fn from_iter<I: IntoIterator<Item = KeyFingerprint>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

impl Extend<KeyFingerprint> for RefusedKeys {
    fn extend<I: IntoIterator<Item = KeyFingerprint>>(&mut self, keys: I) {
        self.0.extend(keys);
    }
}

/// Why a public key is not accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BadKey {
    /// A kind of key that is not accepted.
    #[error("the key is {found}: use RSA from 2048 bits, or one of the curves P-256, P-384 and P-521")]
    Algorithm {
        /// What it is.
        found: &'static str,
    },
    /// The parameters of an RSA key are not the NULL of RFC 3279 section 2.3.1.
    #[error("the RSA key's algorithm parameters are not NULL, which RFC 3279 demands")]
    AlgorithmParameters,
    /// A compressed or hybrid point.
    #[error("the elliptic curve point is compressed or hybrid: encode it uncompressed, 04 then x then y")]
    CompressedPoint,
    /// A curve that is not accepted.
    #[error("the key is on {found}: generate it on P-256, P-384 or P-521")]
    Curve {
        /// The curve.
        found: &'static str,
    },
    /// The curve is described by its parameters rather than its name (CVE-2020-0601).
    #[error(
        "the key spells out its curve: encode the curve by name, as openssl does with -pkeyopt ec_param_enc:named_curve"
    )]
    ExplicitCurve,
    /// Not a DER `SubjectPublicKeyInfo`.
    #[error("the public key is not DER: {0}")]
    Encoding(#[from] BadDer),
    /// The point is not on the curve, so the key is none.
    #[error("the elliptic curve point is not on the curve: the key was damaged or made up")]
    OffCurve,
    /// Not one PEM block or base64.
    #[error("the public key cannot be read: {0}")]
    Pem(#[from] BadPem),
    /// The point at infinity, whose private key is zero.
    #[error("the elliptic curve point is the point at infinity: generate a key")]
    PointAtInfinity,
    /// The coordinates do not have the curve's length.
    #[error("the elliptic curve point has {found} bytes, on this curve it has {expected}")]
    PointLength {
        /// The length of an uncompressed point on the curve, in bytes.
        expected: usize,
        /// The length that came, in bytes.
        found: usize,
    },
    /// Two primes so close that Fermat's method finds them (CVE-2022-26320).
    #[error("the RSA key's primes are so close that anyone can find them (CVE-2022-26320): replace the generator")]
    RsaClosePrimes,
    /// An exponent other than 65537.
    #[error("the RSA key's public exponent is {found}: generate the key with 65537")]
    RsaExponent {
        /// The exponent, or `u64::MAX` for all that are larger.
        found: u64,
    },
    /// A modulus of whole bytes is what everything else can work with.
    #[error("the RSA key has {bits} bits: take a multiple of 8, such as 2048")]
    RsaOddSize {
        /// The length of its modulus.
        bits: usize,
    },
    /// A key of the Infineon generator with the ROCA flaw.
    #[error(
        "the RSA key was made by a flawed security chip and can be broken (ROCA, CVE-2017-15361): update the chip's \
         firmware, or make the key outside of it"
    )]
    RsaRoca,
    /// A modulus that a small prime divides, which includes the even ones.
    #[error("the RSA key's modulus can be divided by {factor}: the key was damaged or its generator is broken")]
    RsaSmallFactor {
        /// The smallest prime that divides it.
        factor: u32,
    },
    /// Above [`PublicKey::MAX_RSA_BITS`].
    #[error("the RSA key has {bits} bits, at most {max} are accepted", max = PublicKey::MAX_RSA_BITS)]
    RsaTooLarge {
        /// The length of its modulus.
        bits: usize,
    },
    /// Below [`PublicKey::MIN_RSA_BITS`].
    #[error("the RSA key has {bits} bits, at least {min} are required", min = PublicKey::MIN_RSA_BITS)]
    RsaTooSmall {
        /// The length of its modulus.
        bits: usize,
    },
}

/// rsaEncryption, 1.2.840.113549.1.1.1.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// id-ecPublicKey, 1.2.840.10045.2.1.
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// What the keys are that people send by mistake.
fn algorithm_name(oid: &[u8]) -> &'static str {
    match oid {
        [0x2b, 0x65, 0x6e] => "X25519",
        [0x2b, 0x65, 0x6f] => "X448",
        [0x2b, 0x65, 0x70] => "Ed25519",
        [0x2b, 0x65, 0x71] => "Ed448",
        [0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01] => "DSA",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a] => "RSA restricted to PSS",
        _ => "of an unknown kind",
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PublicKeyData};

    use super::*;

    #[test]
    fn the_curves_of_aws_iot_are_accepted() {
        for (algorithm, expected) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, KeyAlgorithm::P256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, KeyAlgorithm::P384),
            (&rcgen::PKCS_ECDSA_P521_SHA512, KeyAlgorithm::P521),
        ] {
            let spki = KeyPair::generate_for(algorithm).unwrap().subject_public_key_info();
            let key = PublicKey::from_spki(&spki).unwrap();
            assert_eq!(key.algorithm(), expected);
            assert_eq!(key.fingerprint(), &KeyFingerprint::of(&spki));
        }
    }

    #[test]
    fn a_public_key_is_read_from_its_own_pem_block_only() {
        let pair = KeyPair::generate().unwrap();
        let text = pem::encode("PUBLIC KEY", &pair.subject_public_key_info());
        let fingerprint = KeyFingerprint::of(&pair.subject_public_key_info());
        assert_eq!(PublicKey::parse(&text).unwrap().fingerprint(), &fingerprint);
        assert_eq!(PublicKey::parse(&text.replace("PUBLIC", "RSA PUBLIC")), Err(BadKey::Pem(BadPem::Label)));
        assert_eq!(PublicKey::parse(&pair.serialize_pem()), Err(BadKey::Pem(BadPem::PrivateKey)));
    }

    #[test]
    fn threat_20_and_23_a_refused_key_is_found_by_its_fingerprint() {
        let [stolen, fresh] = [b"stolen", b"fresh!"].map(|bytes| KeyFingerprint::of(bytes));
        let mut refused = RefusedKeys::from_iter([stolen]);
        assert!(refused.contains(&stolen) && !refused.contains(&fresh));
        refused.extend([fresh]);
        assert!(refused.contains(&fresh));
    }
}
