use std::fmt;
use std::str::FromStr;

/// A label in EST's address, `/.well-known/est/{label}/…` (RFC 7030 section 3.2.2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EstLabel(String);

impl EstLabel {
    /// The most characters it may have.
    pub const MAX_LENGTH: usize = 64;
}

/// The path segments that RFC 7030 gives a meaning; no label may be one of them.
const OPERATIONS: [&str; 6] = ["cacerts", "csrattrs", "fullcmc", "serverkeygen", "simpleenroll", "simplereenroll"];

impl FromStr for EstLabel {
    type Err = InvalidEstLabel;

    fn from_str(text: &str) -> Result<Self, InvalidEstLabel> {
        let character = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let length = 1..=Self::MAX_LENGTH;
        if !length.contains(&text.len()) || !text.bytes().all(character) || text.starts_with('.') {
            return Err(InvalidEstLabel::Characters);
        }
        if OPERATIONS.contains(&text) {
            return Err(InvalidEstLabel::Operation);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for EstLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text is no [`EstLabel`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEstLabel {
    /// Too long, empty, or not of the characters that a label has.
    #[error("a label has 1 to {max} letters, digits, `-`, `_` and `.`, and does not begin with `.`", max = EstLabel::MAX_LENGTH)]
    Characters,
    /// The name of one of EST's operations.
    #[error("a label is no operation of EST, such as cacerts")]
    Operation,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_one_segment_of_a_path_and_no_operation() {
        for good in ["a", "Building-7", "v1.2_x"] {
            assert_eq!(good.parse::<EstLabel>().unwrap().to_string(), good);
        }
        for bad in ["", ".", "..", "a/b", "a b", "{a}", "*", "a%2f", &"x".repeat(65)] {
            assert_eq!(bad.parse::<EstLabel>(), Err(InvalidEstLabel::Characters), "{bad:?}");
        }
        for operation in OPERATIONS {
            assert_eq!(operation.parse::<EstLabel>(), Err(InvalidEstLabel::Operation));
        }
    }
}
