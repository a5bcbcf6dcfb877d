//! Points on the curves that AWS IoT takes.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, EcdsaVerificationAlgorithm, ParsedPublicKey,
};

use crate::der::{BadDer, Element, OID, Reader, SEQUENCE};
use crate::{BadKey, KeyAlgorithm};

/// secp256r1, 1.2.840.10045.3.1.7.
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// secp384r1, 1.3.132.0.34.
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
/// secp521r1, 1.3.132.0.35.
const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];

/// Reads the parameters of the key's algorithm, which name the curve, and checks the `ECPoint` (RFC 5480 section 2).
pub(crate) fn read(identifier: &mut Reader<'_>, point: &[u8]) -> Result<KeyAlgorithm, BadKey> {
    match identifier.element()? {
        Element { tag: SEQUENCE, .. } => Err(BadKey::ExplicitCurve),
        Element { tag: OID, content: P256, .. } => on_curve(KeyAlgorithm::P256, &ECDSA_P256_SHA256_ASN1, 32, point),
        Element { tag: OID, content: P384, .. } => on_curve(KeyAlgorithm::P384, &ECDSA_P384_SHA384_ASN1, 48, point),
        Element { tag: OID, content: P521, .. } => on_curve(KeyAlgorithm::P521, &ECDSA_P521_SHA512_ASN1, 66, point),
        Element { tag: OID, content, .. } => Err(BadKey::Curve { found: curve_name(content) }),
        Element { tag, .. } => Err(BadKey::Encoding(BadDer::Tag { expected: OID, found: tag })),
    }
}

fn on_curve(
    curve: KeyAlgorithm,
    verification: &'static EcdsaVerificationAlgorithm,
    coordinate: usize,
    point: &[u8],
) -> Result<KeyAlgorithm, BadKey> {
    match point {
        [0] => Err(BadKey::PointAtInfinity),
        [2 | 3 | 6 | 7, ..] => Err(BadKey::CompressedPoint),
        _ if point.len() != 1 + 2 * coordinate => {
            Err(BadKey::PointLength { expected: 1 + 2 * coordinate, found: point.len() })
        }
        _ => ParsedPublicKey::new(verification, point).map(|_| curve).map_err(|_| BadKey::OffCurve),
    }
}

fn curve_name(oid: &[u8]) -> &'static str {
    match oid {
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x01] => "P-192",
        [0x2b, 0x81, 0x04, 0x00, 0x21] => "P-224",
        [0x2b, 0x81, 0x04, 0x00, 0x0a] => "secp256k1",
        [0x2b, 0x24, 0x03, 0x03, 0x02, 0x08, 0x01, 0x01, ..] => "a Brainpool curve",
        _ => "another curve",
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PublicKeyData};

    use super::*;
    use crate::der::{NULL, encode, read_all};

    fn refusal(parameters: &[u8], point: &[u8]) -> BadKey {
        read_all(parameters, |parameters| read(parameters, point)).unwrap_err()
    }

    #[test]
    fn threat_19_a_point_is_uncompressed_and_on_its_named_curve() {
        let valid = KeyPair::generate().unwrap();
        let point = valid.der_bytes();
        let named = encode(OID, &[P256]);
        assert_eq!(read_all(&named, |parameters| read(parameters, point)), Ok(KeyAlgorithm::P256));

        let mut off = point.to_vec();
        off[64] ^= 1;
        let too_large = [&[4][..], &[0xff; 64]].concat();
        for (point, error) in [
            (&[0][..], BadKey::PointAtInfinity),
            (&[], BadKey::PointLength { expected: 65, found: 0 }),
            (&[4], BadKey::PointLength { expected: 65, found: 1 }),
            (&[0; 65], BadKey::OffCurve),
            (&[&[4][..], &[0; 64]].concat(), BadKey::OffCurve),
            (&too_large, BadKey::OffCurve),
            (&off, BadKey::OffCurve),
            (&[&[2][..], &point[1..33]].concat(), BadKey::CompressedPoint),
            (&[&[6][..], &point[1..]].concat(), BadKey::CompressedPoint),
        ] {
            assert_eq!(refusal(&named, point), error, "{point:02x?}");
        }
        let other = encode(OID, &[P384]);
        assert_eq!(refusal(&other, point), BadKey::PointLength { expected: 97, found: 65 });
    }

    #[test]
    fn threat_19_a_curve_is_given_by_its_name() {
        let point = [4; 65];
        assert_eq!(refusal(&[SEQUENCE, 0], &point), BadKey::ExplicitCurve);
        assert_eq!(refusal(&[], &point), BadKey::Encoding(BadDer::Truncated));
        let implicit = BadKey::Encoding(BadDer::Tag { expected: OID, found: NULL });
        assert_eq!(refusal(&[NULL, 0], &point), implicit);
        let two = [encode(OID, &[P256]), vec![NULL, 0]].concat();
        let key = KeyPair::generate().unwrap();
        let trailing = BadKey::Encoding(BadDer::TrailingBytes { count: 2 });
        assert_eq!(refusal(&two, key.der_bytes()), trailing);
    }
}
