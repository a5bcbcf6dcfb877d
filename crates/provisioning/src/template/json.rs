//! JSON with one value per key, walked with the path at hand.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::error::{TemplateError, TemplateProblem, excerpt};

/// A JSON value none of whose objects has a key twice. Its depth is bounded by serde_json, to 127 levels.
pub(super) struct UniqueKeys(pub(super) Value);

impl UniqueKeys {
    pub(super) fn parse(text: &str) -> Result<Value, TemplateError> {
        let parsed: Result<Self, serde_json::Error> = serde_json::from_str(text);
        parsed.map(|unique| unique.0).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            // The visitor below takes any JSON, so the one complaint of its own is a duplicate key.
            if error.is_data() {
                TemplateError::DuplicateKey { line, column }
            } else if error.to_string().starts_with("recursion limit exceeded") {
                TemplateError::TooDeep { line, column }
            } else {
                TemplateError::NotJson { line, column }
            }
        })
    }
}

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueKeysVisitor).map(Self)
    }
}

struct UniqueKeysVisitor;

impl<'de> Visitor<'de> for UniqueKeysVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(UniqueKeys(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, UniqueKeys(value))) = entries.next_entry::<String, UniqueKeys>()? {
            if object.insert(key, value).is_some() {
                return Err(A::Error::custom("duplicate key"));
            }
        }
        Ok(Value::Object(object))
    }
}

/// A JSON value and where it stands.
#[derive(Clone)]
pub(super) struct Node<'a> {
    pub(super) path: String,
    pub(super) value: &'a Value,
}

impl<'a> Node<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self { path: String::new(), value }
    }

    pub(super) fn error(&self, problem: impl Into<TemplateProblem>) -> TemplateError {
        TemplateError::At { path: self.path.clone(), problem: problem.into() }
    }

    /// The text here, which is no function.
    pub(super) fn text(&self) -> Result<&'a str, TemplateError> {
        self.value
            .as_str()
            .ok_or_else(|| self.error(TemplateProblem::Expected("a text, with no function in its place")))
    }

    pub(super) fn items(&self) -> Result<Vec<Self>, TemplateError> {
        let Value::Array(items) = self.value else { return Err(self.error(TemplateProblem::Expected("a list"))) };
        Ok(items.iter().enumerate().map(|(index, item)| self.child(&index.to_string(), item)).collect())
    }

    /// A list of exactly `N` elements.
    pub(super) fn exactly<const N: usize>(&self, expected: &'static str) -> Result<[Self; N], TemplateError> {
        let items = self.items().map_err(|_| self.error(TemplateProblem::Expected(expected)))?;
        items.try_into().map_err(|_| self.error(TemplateProblem::Expected(expected)))
    }

    pub(super) fn entries(&self) -> Result<Vec<(&'a str, Self)>, TemplateError> {
        let Value::Object(object) = self.value else { return Err(self.error(TemplateProblem::Expected("an object"))) };
        Ok(object.iter().map(|(key, value)| (key.as_str(), self.child(key, value))).collect())
    }

    /// Refuses an object with a key that is not in `known`.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), TemplateError> {
        match self.entries()?.into_iter().find(|(key, _)| !known.contains(key)) {
            Some((_, stranger)) => Err(stranger.error(TemplateProblem::Unknown { expected: known.join(", ") })),
            None => Ok(()),
        }
    }

    pub(super) fn optional(&self, key: &str) -> Option<Self> {
        self.value.get(key).map(|value| self.child(key, value))
    }

    pub(super) fn required(&self, key: &'static str) -> Result<Self, TemplateError> {
        self.optional(key).ok_or_else(|| self.error(TemplateProblem::Missing { key }))
    }

    fn child(&self, key: &str, value: &'a Value) -> Self {
        let token = excerpt(key).replace('~', "~0").replace('/', "~1");
        Self { path: format!("{}/{token}", self.path), value }
    }
}
