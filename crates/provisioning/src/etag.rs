use std::fmt;
use std::str::FromStr;

use crate::GenerationId;

/// An entity tag (RFC 9110 section 8.8.3): names one state of one device or module, and no other state of any that has
/// had its id. It is opaque to whoever was given it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ETag(String);

impl ETag {
    const MAX_LENGTH: usize = 64;

    /// The tag of what is in this generation at this version.
    pub fn of(generation: GenerationId, version: u64) -> Self {
        Self(format!("{version}-{generation}"))
    }

    /// The tag without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ETag {
    type Err = InvalidETag;

    /// Reads a tag, in quotes or without.
    fn from_str(text: &str) -> Result<Self, InvalidETag> {
        let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
        let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'"';
        if !(1..=Self::MAX_LENGTH).contains(&bare.len()) || !bare.bytes().all(allowed) {
            return Err(InvalidETag);
        }
        Ok(Self(bare.to_owned()))
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text is no [`ETag`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an entity tag is what the ETag header or the etag property said, in quotes or without")]
pub struct InvalidETag;
