//! JSON bodies that are objects.

use cvm_interchange::Object;
use serde::de::DeserializeOwned;

/// Reads an object. A byte order mark before it is ignored (RFC 8259 section 8.1).
pub(crate) fn json_object<T: DeserializeOwned>(body: &[u8]) -> Result<T, InvalidJson> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    serde_json::from_slice(body).map(|Object(object)| object).map_err(InvalidJson)
}

/// A body is not the object that an address takes.
#[derive(Debug, thiserror::Error)]
#[error("the body is not the JSON object asked for: {0}")]
pub(crate) struct InvalidJson(#[source] serde_json::Error);

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Pair {
        a: u8,
        b: u8,
    }

    #[test]
    fn an_object_is_read_and_an_array_is_not() {
        assert_eq!(json_object::<Pair>(b"\xef\xbb\xbf {\"a\": 1, \"b\": 2}").unwrap(), Pair { a: 1, b: 2 });
        for bad in [&b"[1, 2]"[..], b"\n [1,2]", b"", b"null", b"1", b"{\"a\": 1}"] {
            assert!(json_object::<Pair>(bad).is_err(), "{bad:?}");
        }
    }
}
