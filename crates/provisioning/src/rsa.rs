//! RSA keys of a bounded size whose modulus is not known to be factored easily.

use std::iter;

use num_bigint::BigUint;

use crate::der::{self, BadDer, NULL, Reader, SEQUENCE};
use crate::{BadKey, KeyAlgorithm, PublicKey};

/// The primes below 752: what NIST SP 800-89 section 5.3.3 has divided out of a modulus.
static PRIMES: [u32; 133] = primes();

/// ROCA (CVE-2017-15361) shows modulo the primes up to this one, which divide the generator's constant for every size.
const LARGEST_ROCA_PRIME: u32 = 167;

/// Enough for all the keys seen in the wild that fall to Fermat's method (CVE-2022-26320); real primes of 1024 bits
/// are so far apart that no number of rounds would do.
const FERMAT_ROUNDS: usize = 100;

/// Reads the parameters of the key's algorithm, which are NULL, and checks the `RSAPublicKey` (RFC 8017 appendix
/// A.1.1).
pub(crate) fn read(parameters: &mut Reader<'_>, key: &[u8]) -> Result<KeyAlgorithm, BadKey> {
    if parameters.element().ok().is_none_or(|null| null.encoded != [NULL, 0]) {
        return Err(BadKey::AlgorithmParameters);
    }
    let (modulus, exponent) = der::read_all(key, |outer| {
        outer.expect(SEQUENCE)?.read(|key| Ok::<_, BadDer>((key.unsigned_integer()?, key.unsigned_integer()?)))
    })?;
    let bits = bit_length(modulus);
    if bits < PublicKey::MIN_RSA_BITS {
        return Err(BadKey::RsaTooSmall { bits });
    }
    if bits > PublicKey::MAX_RSA_BITS {
        return Err(BadKey::RsaTooLarge { bits });
    }
    if !bits.is_multiple_of(8) {
        return Err(BadKey::RsaOddSize { bits });
    }
    if exponent != [1, 0, 1] {
        let small = exponent.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        return Err(BadKey::RsaExponent { found: if exponent.len() <= 8 { small } else { u64::MAX } });
    }
    check_modulus(modulus)?;
    Ok(KeyAlgorithm::Rsa { bits })
}

fn bit_length(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

/// Refuses a modulus, given as big-endian bytes, that has a small factor, was made by the Infineon library with the
/// ROCA flaw, or is the product of two primes close to each other.
fn check_modulus(modulus: &[u8]) -> Result<(), BadKey> {
    let residues = residues(modulus);
    if let Some(position) = residues.iter().position(|residue| *residue == 0) {
        return Err(BadKey::RsaSmallFactor { factor: PRIMES[position] });
    }
    let roca = PRIMES
        .iter()
        .zip(residues)
        .skip(1)
        .take_while(|(prime, _)| **prime <= LARGEST_ROCA_PRIME)
        .all(|(prime, residue)| is_power_of_65537(residue, *prime));
    if roca {
        return Err(BadKey::RsaRoca);
    }
    if has_close_factors(&BigUint::from_bytes_be(modulus)) {
        return Err(BadKey::RsaClosePrimes);
    }
    Ok(())
}

/// `modulus` modulo each of [`PRIMES`]. The long division is by three of them at once, whose product fits 32 bits.
fn residues(modulus: &[u8]) -> Vec<u32> {
    let by_three = |primes: &'static [u32]| {
        let rest = residue(modulus, primes.iter().product());
        primes.iter().map(move |prime| rest % prime)
    };
    PRIMES.chunks(3).flat_map(by_three).collect()
}

/// `modulus` modulo `divisor`, four bytes at a time.
fn residue(modulus: &[u8], divisor: u32) -> u32 {
    let word = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let rest = modulus.rchunks(4).rev().fold(0, |rest, bytes| (rest << 32 | word(bytes)) % u64::from(divisor));
    rest as u32
}

/// Whether `residue` is in the multiplicative group that 65537 generates modulo `prime`.
///
/// The flawed library makes primes of the form `k * M + (65537^a mod M)` where `M` is the product of the first primes
/// (Nemec and others, "The Return of Coppersmith's Attack", CCS 2017, section 2). Both factors, and so the modulus, are
/// then powers of 65537 modulo each of these primes; about one honest modulus in 2^28 is as well.
fn is_power_of_65537(residue: u32, prime: u32) -> bool {
    let mut power = 1;
    loop {
        if power == residue {
            return true;
        }
        power = power * (65537 % prime) % prime;
        if power == 1 {
            return false;
        }
    }
}

/// Fermat's method: if `modulus = a^2 - b^2`, it is `(a - b)(a + b)`. Looks for `a` from the square root upwards.
fn has_close_factors(modulus: &BigUint) -> bool {
    let root = modulus.sqrt();
    let first = if root.pow(2) == *modulus { root } else { root + 1u32 };
    let b_squared = first.pow(2) - modulus;
    iter::successors(Some((first, b_squared)), |(a, b_squared)| Some((a + 1u32, b_squared + (a << 1) + 1u32)))
        .take(FERMAT_ROUNDS)
        .any(|(_, b_squared)| is_square(&b_squared))
}

/// The small moduli rule out all but one number in a hundred before the costly root is taken.
fn is_square(number: &BigUint) -> bool {
    let is_square_modulo = |modulus: u32| {
        let rest = (number % modulus).iter_u32_digits().next().unwrap_or_default();
        (0..modulus).any(|root| root * root % modulus == rest)
    };
    [64, 63, 65, 11].into_iter().all(is_square_modulo) && number.sqrt().pow(2) == *number
}

const fn primes() -> [u32; 133] {
    let mut primes = [2; 133];
    let (mut found, mut candidate) = (1, 3);
    while found < primes.len() {
        let mut divisor = 3;
        while candidate % divisor != 0 {
            divisor += 2;
        }
        if divisor == candidate {
            primes[found] = candidate;
            found += 1;
        }
        candidate += 2;
    }
    primes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::der::{INTEGER, encode, read_all};

    fn refusal(parameters: &[u8], key: &[u8]) -> BadKey {
        read_all(parameters, |parameters| read(parameters, key)).unwrap_err()
    }

    fn rsa_key(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
        let integer = |number: &[u8]| encode(INTEGER, &[if number[0] < 0x80 { &[] } else { &[0] }, number]);
        encode(SEQUENCE, &[&integer(modulus), &integer(exponent)])
    }

    /// An odd number of so many bytes with the top bit set.
    fn modulus(length: usize) -> Vec<u8> {
        let mut bytes = vec![0xc5; length];
        bytes[length - 1] = 0x35;
        bytes
    }

    #[test]
    fn the_primes_are_those_below_752() {
        assert_eq!(PRIMES[..5], [2, 3, 5, 7, 11]);
        assert_eq!(PRIMES[132], 751);
        assert_eq!(PRIMES[38], LARGEST_ROCA_PRIME);
    }

    #[test]
    fn residues_are_the_same_however_the_bytes_are_grouped() {
        for length in 1..=9 {
            let bytes: Vec<u8> = (0..length).map(|index| 0x9d_u8.wrapping_mul(index + 1)).collect();
            let number = bytes.iter().fold(0u128, |number, byte| number << 8 | u128::from(*byte));
            let expected = PRIMES.map(|prime| (number % u128::from(prime)) as u32);
            assert_eq!(residues(&bytes), expected);
        }
    }

    #[test]
    fn squares_are_told_from_their_neighbours() {
        for root in 2u64..2000 {
            let square = BigUint::from(root * root);
            assert!(is_square(&square));
            assert!(!is_square(&(&square + 1u32)));
            assert!(!is_square(&(square - 1u32)));
        }
        assert!(is_square(&BigUint::ZERO));
    }

    #[test]
    fn threat_19_fermat_finds_close_factors_up_to_its_rounds() {
        let middle = BigUint::from(1u32) << 40;
        let product = |distance: u32| (&middle - distance) * (&middle + distance);
        assert!(has_close_factors(&product(0)));
        assert!(has_close_factors(&product(2)));
        // So far apart, the round that finds them is distance^2 / 2^41: round 99 and round 101.
        assert!(has_close_factors(&product(14_758_000)));
        assert!(!has_close_factors(&product(14_904_000)));
    }

    #[test]
    fn threat_19_the_size_of_an_rsa_key_is_bounded() {
        for (length, error) in [
            (128, BadKey::RsaTooSmall { bits: 1024 }),
            (255, BadKey::RsaTooSmall { bits: 2040 }),
            (513, BadKey::RsaTooLarge { bits: 4104 }),
            (2048, BadKey::RsaTooLarge { bits: 16384 }),
        ] {
            assert_eq!(refusal(&[NULL, 0], &rsa_key(&modulus(length), &[1, 0, 1])), error);
        }
        let mut short = modulus(257);
        short[0] = 0x01;
        assert_eq!(refusal(&[NULL, 0], &rsa_key(&short, &[1, 0, 1])), BadKey::RsaOddSize { bits: 2049 });
        assert_eq!(refusal(&[NULL, 0], &rsa_key(&[0], &[1, 0, 1])), BadKey::RsaTooSmall { bits: 0 });
    }

    #[test]
    fn threat_19_the_rsa_exponent_is_65537() {
        for (exponent, found) in [
            (&[0][..], 0),
            (&[1], 1),
            (&[3], 3),
            (&[1, 0, 0], 65536),
            (&[1, 0, 0, 1], 0x0100_0001),
            (&[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], u64::MAX),
        ] {
            assert_eq!(refusal(&[NULL, 0], &rsa_key(&modulus(256), exponent)), BadKey::RsaExponent { found });
        }
    }

    #[test]
    fn threat_19_a_modulus_with_a_small_factor_is_refused() {
        let mut even = modulus(256);
        even[255] = 0x34;
        assert_eq!(refusal(&[NULL, 0], &rsa_key(&even, &[1, 0, 1])), BadKey::RsaSmallFactor { factor: 2 });
        assert_eq!(refusal(&[NULL, 0], &rsa_key(&[0xff; 256], &[1, 0, 1])), BadKey::RsaSmallFactor { factor: 3 });
    }

    #[test]
    fn threat_19_an_rsa_key_has_one_encoding() {
        let key = |modulus: &[&[u8]]| encode(SEQUENCE, &[&encode(INTEGER, modulus), &encode(INTEGER, &[&[1, 0, 1]])]);
        let (negative, padded) = (key(&[&modulus(256)]), key(&[&[0, 0], &modulus(256)]));
        assert_eq!(refusal(&[NULL, 0], &negative), BadKey::Encoding(BadDer::Integer));
        assert_eq!(refusal(&[NULL, 0], &padded), BadKey::Encoding(BadDer::Integer));
        let key = key(&[&[0], &modulus(256)]);
        assert_eq!(refusal(&[], &key), BadKey::AlgorithmParameters);
        assert_eq!(refusal(&[INTEGER, 1, 0], &key), BadKey::AlgorithmParameters);
        let trailing = [&key[..], &[0]].concat();
        assert_eq!(refusal(&[NULL, 0], &trailing), BadKey::Encoding(BadDer::TrailingBytes { count: 1 }));
    }
}
