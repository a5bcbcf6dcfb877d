use std::fmt;
use std::str::FromStr;

/// A URI that a certificate can have: a scheme, a colon, and at least one character of those that RFC 3986 allows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Uri(String);

impl Uri {
    /// The longest URI, in characters. RFC 5280 has no bound; this one keeps certificates small, for devices.
    pub const MAX_LENGTH: usize = 256;

    /// The URI as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it can be fetched without a certificate having to be verified for that.
    pub(crate) fn is_http(&self) -> bool {
        self.0.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("http://"))
    }
}

impl FromStr for Uri {
    type Err = InvalidUri;

    fn from_str(text: &str) -> Result<Self, InvalidUri> {
        if text.len() > Self::MAX_LENGTH {
            return Err(InvalidUri::TooLong { length: text.len() });
        }
        let (scheme, rest) = text.split_once(':').ok_or(InvalidUri::Scheme)?;
        let in_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(in_scheme) {
            return Err(InvalidUri::Scheme);
        }
        let in_rest = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte);
        if rest.is_empty() || !rest.bytes().all(in_rest) {
            return Err(InvalidUri::Character);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no [`Uri`], or one that cannot be used there.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidUri {
    /// A character that has to be escaped with `%`, or nothing after the scheme.
    #[error("expected a URI with at least one character after its scheme, and others than RFC 3986 has written as %XX")]
    Character,
    /// Not fetched with plain HTTP.
    #[error("expected a URI with http://: over TLS the list would be needed to fetch the list (RFC 5280 section 8)")]
    NotHttp,
    /// No scheme and colon.
    #[error("expected a URI with a scheme, such as urn:example:device:")]
    Scheme,
    /// Longer than [`Uri::MAX_LENGTH`].
    #[error("expected a URI of at most {max} characters, this one has {length}", max = Uri::MAX_LENGTH)]
    TooLong {
        /// Its length, in bytes.
        length: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_has_a_scheme_and_no_character_to_escape() {
        for good in ["urn:dev:ser:", "spiffe://example.org/device/", "http://crl.example.org/1.crl", "a:%20"] {
            assert_eq!(good.parse::<Uri>().unwrap().as_str(), good);
        }
        for (bad, error) in [
            ("", InvalidUri::Scheme),
            ("//example.org", InvalidUri::Scheme),
            ("1a:b", InvalidUri::Scheme),
            ("a b:c", InvalidUri::Scheme),
            ("urn:", InvalidUri::Character),
            ("urn:a b", InvalidUri::Character),
            ("urn:é", InvalidUri::Character),
            ("urn:a\0", InvalidUri::Character),
        ] {
            assert_eq!(bad.parse::<Uri>(), Err(error), "{bad:?}");
        }
        assert_eq!(format!("a:{}", "b".repeat(255)).parse::<Uri>(), Err(InvalidUri::TooLong { length: 257 }));
    }
}
