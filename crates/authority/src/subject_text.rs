use std::str::FromStr;

use cvm_provisioning::is_printable;

/// A CA's name or its organisation: 1 to 64 characters, which are ub-common-name and ub-organization-name of RFC 5280
/// appendix A.1, of printable characters and without blanks at its ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SubjectText(String);

impl SubjectText {
    /// The longest text, in characters.
    pub const MAX_LENGTH: usize = 64;

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SubjectText {
    type Err = InvalidSubjectText;

    fn from_str(text: &str) -> Result<Self, InvalidSubjectText> {
        let length = text.chars().count();
        if !(1..=Self::MAX_LENGTH).contains(&length) {
            return Err(InvalidSubjectText::Length { length });
        }
        if text.trim() != text || !text.chars().all(is_printable) {
            return Err(InvalidSubjectText::Character);
        }
        Ok(Self(text.to_owned()))
    }
}

/// Why a text is no part of a CA's subject.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSubjectText {
    /// A control character, one that changes the direction of text, or a blank at an end.
    #[error("expected a name of printable characters and without blanks at its ends")]
    Character,
    /// Nothing, or more than [`SubjectText::MAX_LENGTH`].
    #[error("expected 1 to {max} characters, this name has {length}", max = SubjectText::MAX_LENGTH)]
    Length {
        /// Its length, in characters.
        length: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_a_subject_or_is_refused() {
        for good in ["Factory 1", "工場", &"x".repeat(64)] {
            assert_eq!(good.parse::<SubjectText>().unwrap().as_str(), good);
        }
        assert_eq!("".parse::<SubjectText>().unwrap_err(), InvalidSubjectText::Length { length: 0 });
        assert_eq!("x".repeat(65).parse::<SubjectText>().unwrap_err(), InvalidSubjectText::Length { length: 65 });
        for bad in [" Factory", "Factory ", "a\nb", "a\0"] {
            assert_eq!(bad.parse::<SubjectText>().unwrap_err(), InvalidSubjectText::Character, "{bad:?}");
        }
    }
}
