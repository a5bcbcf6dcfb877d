//! Conditional requests (RFC 9110 section 13) as the identity registry has them.

use axum::http::HeaderMap;
use axum::http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use cvm_provisioning::{ETag, Precondition};

use super::failure::Failure;

/// The most tags in a header.
const MAX_TAGS: usize = 16;

/// What a header says of tags.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Tags {
    /// `*`, or `"*"` as some tools send it.
    Any,
    /// These. A weak tag is not among them: it matches nothing here.
    OneOf(Vec<ETag>),
}

/// What a PUT is meant to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Put {
    /// Make it new.
    Create,
    /// Change what is there.
    Update(Precondition),
}

/// A PUT without `If-Match`, or with `If-None-Match: *`, is for something new.
pub(super) fn put(headers: &HeaderMap) -> Result<Put, Failure> {
    match (tags(headers, &IF_MATCH)?, tags(headers, &IF_NONE_MATCH)?) {
        (None, None | Some(Tags::Any)) => Ok(Put::Create),
        (Some(tags), None) => Ok(Put::Update(tags.into())),
        (None, Some(Tags::OneOf(_))) => Err(Failure::argument("of If-None-Match, a PUT takes * only")),
        (Some(_), Some(_)) => Err(Failure::argument("send If-Match or If-None-Match, not both")),
    }
}

/// What has to be so for a DELETE, which never goes without `If-Match`.
pub(super) fn delete(headers: &HeaderMap) -> Result<Precondition, Failure> {
    let tags = tags(headers, &IF_MATCH)?;
    tags.map(Precondition::from)
        .ok_or_else(|| Failure::argument("send If-Match with the entity tag, or with * to delete whatever is there"))
}

/// What has to be so for a request that may say nothing of it.
pub(super) fn optional(headers: &HeaderMap) -> Result<Precondition, Failure> {
    Ok(tags(headers, &IF_MATCH)?.map_or(Precondition::Exists, Precondition::from))
}

/// Whether the caller of a GET has the very state already.
pub(super) fn is_known(headers: &HeaderMap, etag: &ETag) -> Result<bool, Failure> {
    Ok(tags(headers, &IF_NONE_MATCH)?.is_some_and(|tags| Precondition::from(tags).holds(etag)))
}

impl From<Tags> for Precondition {
    fn from(tags: Tags) -> Self {
        match tags {
            Tags::Any => Self::Exists,
            Tags::OneOf(tags) => Self::IsOneOf(tags),
        }
    }
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Failure> {
    let wanted = || Failure::argument(format!("{name} is *, or up to {MAX_TAGS} entity tags in quotes"));
    if !headers.contains_key(name) {
        return Ok(None);
    }
    let mut values = headers.get_all(name).iter();
    if let (Some(only), None) = (values.next(), values.next())
        && matches!(only.as_bytes().trim_ascii(), b"*" | b"\"*\"")
    {
        return Ok(Some(Tags::Any));
    }
    let mut found = Vec::new();
    let mut count = 0;
    for value in headers.get_all(name) {
        // No tag of ours has a comma in it; one of somebody else's falls to pieces, none of which is ours.
        for tag in value.to_str().map_err(|_| wanted())?.split(',').map(str::trim) {
            count += 1;
            match tag {
                "" => return Err(wanted()),
                _ if count > MAX_TAGS => return Err(wanted()),
                _ if tag.starts_with("W/") => {}
                _ => found.push(tag.parse().map_err(|_| wanted())?),
            }
        }
    }
    Ok(Some(Tags::OneOf(found)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &'static str) -> Result<Option<Tags>, Failure> {
        tags(&HeaderMap::from_iter([(IF_MATCH, axum::http::HeaderValue::from_static(value))]), &IF_MATCH)
    }

    #[test]
    fn tags_are_read_with_quotes_or_without_and_weak_ones_match_nothing() {
        let one = |tag: &str| Ok(Some(Tags::OneOf(vec![tag.parse().unwrap()])));
        assert_eq!(read("\"1-a\""), one("1-a"));
        assert_eq!(read("1-a"), one("1-a"));
        assert_eq!(read("W/\"1-a\", \"2-a\""), one("2-a"));
        assert_eq!(read("W/\"1-a\""), Ok(Some(Tags::OneOf(Vec::new()))));
        for any in ["*", "\"*\""] {
            assert_eq!(read(any), Ok(Some(Tags::Any)));
        }
        for bad in ["", "\"", "a b", "\"a\",,\"b\"", "\"a"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert_eq!(tags(&HeaderMap::new(), &IF_MATCH), Ok(None));
    }
}
