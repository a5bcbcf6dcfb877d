//! Names that are a SHA-256: 64 lower-case hexadecimal digits outside, 32 bytes inside.

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

/// A newtype for one kind of SHA-256, so that a certificate's id is never taken for a key's fingerprint.
macro_rules! sha256_name {
    ($(#[$documentation:meta])* $name:ident) => {
        $(#[$documentation])*
        #[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd, serde::Deserialize, serde::Serialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; 32]);

        impl $name {
            /// The name of these DER bytes.
            pub fn of(der: &[u8]) -> Self {
                Self(sha256(der))
            }

            /// The SHA-256 itself.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidDigest;

            fn from_str(text: &str) -> Result<Self, InvalidDigest> {
                parse(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidDigest;

            fn try_from(text: String) -> Result<Self, InvalidDigest> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.to_string()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

sha256_name! {
    /// Which public key: the SHA-256 of its DER `SubjectPublicKeyInfo`.
    ///
    /// It is what RFC 7469 section 2.4 pins and what
    /// `openssl pkey -pubin -outform DER | sha256sum` prints, so an operator can compute it without this program.
    /// Upper case and colons between the bytes are read; lower case without colons is written. Prefixes are refused.
    KeyFingerprint
}

sha256_name! {
    /// Which certificate: the SHA-256 of its DER, which is what AWS IoT gives as `certificateId`.
    ///
    /// It can be computed before AWS is asked, and `openssl x509 -fingerprint -sha256` prints it with colons.
    CertificateId
}

/// Why a text is no SHA-256 in hexadecimal.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDigest {
    /// A character that is no hexadecimal digit.
    #[error(
        "a SHA-256 is written in the digits 0-9 a-f, with colons between all bytes or none, without blanks or a prefix"
    )]
    Character,
    /// Not 64 characters.
    #[error("a SHA-256 is 64 hexadecimal digits, this text has {length} bytes")]
    Length {
        /// Its length in bytes.
        length: usize,
    },
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, bytes).as_ref());
    sum
}

fn parse(text: &str) -> Result<[u8; 32], InvalidDigest> {
    let wanted = InvalidDigest::Length { length: text.len() };
    let mut digits = text.to_owned();
    // As `openssl x509 -fingerprint` prints it.
    if text.len() == 95 && text.split(':').all(|byte| byte.len() == 2) {
        digits.retain(|digit| digit != ':');
    }
    if digits.len() != 64 {
        return Err(wanted);
    }
    let sum = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| InvalidDigest::Character)?;
    sum.try_into().map_err(|_| wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_fingerprint_is_written_in_lower_case_and_read_in_both() {
        assert_eq!(KeyFingerprint::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.to_uppercase().parse(), Ok(KeyFingerprint::of(b"")));
        let with_colons =
            |text: &str| text.as_bytes().chunks(2).map(String::from_utf8_lossy).collect::<Vec<_>>().join(":");
        assert_eq!(with_colons(&EMPTY.to_uppercase()).parse(), Ok(CertificateId::of(b"")));
        assert_eq!(serde_json::to_string(&CertificateId::of(b"")).unwrap(), format!("\"{EMPTY}\""));
        assert_eq!(serde_json::from_str::<CertificateId>(&format!("\"{EMPTY}\"")).unwrap(), CertificateId::of(b""));
    }

    #[test]
    fn what_is_not_64_hexadecimal_digits_is_no_fingerprint() {
        assert_eq!("".parse::<KeyFingerprint>(), Err(InvalidDigest::Length { length: 0 }));
        assert_eq!(format!("sha256:{EMPTY}").parse::<KeyFingerprint>(), Err(InvalidDigest::Length { length: 71 }));
        for bad in
            [format!("{}:", &"ab:".repeat(32)[..94]), format!("{EMPTY}{}", ":".repeat(31)), "a:".repeat(47) + "b"]
        {
            assert_eq!(bad.parse::<KeyFingerprint>(), Err(InvalidDigest::Length { length: 95 }), "{bad}");
        }
        for bad in [EMPTY.replace('e', ":"), EMPTY.replace("e3", "+3"), format!("é{}", &EMPTY[2..])] {
            assert_eq!(bad.parse::<KeyFingerprint>(), Err(InvalidDigest::Character), "{bad}");
        }
    }
}
