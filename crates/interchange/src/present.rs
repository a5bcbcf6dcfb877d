use serde::{Deserialize, Deserializer};

/// Tells `null`, which takes away, from what is left out; the field has a default, which is the latter.
///
/// # Errors
///
/// Where what is there cannot be read.
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}
