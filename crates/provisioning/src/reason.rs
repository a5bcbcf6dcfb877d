use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::is_printable;

/// A reason in an operator's words: 1 to 200 printable characters on one line.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReasonText(String);

impl ReasonText {
    const MAX_CHARACTERS: usize = 200;

    /// The words.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ReasonText {
    type Err = InvalidReason;

    fn from_str(text: &str) -> Result<Self, InvalidReason> {
        let characters = text.chars().count();
        if characters == 0 || characters > Self::MAX_CHARACTERS || !text.chars().all(is_printable) {
            return Err(InvalidReason);
        }
        Ok(Self(text.to_owned()))
    }
}

/// How a stored reason is read: one that was accepted when more characters were is shown without them.
impl TryFrom<String> for ReasonText {
    type Error = InvalidReason;

    fn try_from(text: String) -> Result<Self, InvalidReason> {
        let shown = |character| if is_printable(character) { character } else { char::REPLACEMENT_CHARACTER };
        text.chars().map(shown).collect::<String>().parse()
    }
}

impl From<ReasonText> for String {
    fn from(reason: ReasonText) -> Self {
        reason.0
    }
}

impl fmt::Display for ReasonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text is no [`ReasonText`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a reason has 1 to {max} printable characters on one line", max = ReasonText::MAX_CHARACTERS)]
pub struct InvalidReason;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_14_a_reason_is_printable_text_on_one_line() {
        assert_eq!("stolen, ticket 4711".parse::<ReasonText>().unwrap().as_str(), "stolen, ticket 4711");
        for bad in ["", "a\nb", "a\u{1b}[2J", "a\u{202e}b", "\u{2066}a\u{2069}", "a\u{200b}", &"x".repeat(201)] {
            assert_eq!(bad.parse::<ReasonText>(), Err(InvalidReason), "{bad:?}");
        }
    }

    #[test]
    fn a_stored_reason_with_such_characters_is_still_read() {
        let stored: ReasonText = serde_json::from_str("\"a\u{202e}b\"").unwrap();
        assert_eq!(stored.as_str(), "a\u{fffd}b");
    }
}
