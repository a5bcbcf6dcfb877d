//! Policy documents: the text AWS IoT takes, and the template's part that makes one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::declarations::Declarations;
use super::error::{TemplateError, TemplateProblem};
use super::expression::{Expression, Scope};
use super::function::{expression, is_call};
use super::json::{Node, UniqueKeys};

/// The JSON text of a policy: one object, no key twice, at most 2,048 characters not counting white space (AWS General
/// Reference, *AWS IoT Core endpoints and quotas*, "Policy document size").
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PolicyDocument(String);

impl PolicyDocument {
    /// The longest document, in characters that are not white space.
    pub const MAX_LENGTH: usize = 2048;

    /// The document as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PolicyDocument {
    type Error = InvalidPolicyDocument;

    fn try_from(text: String) -> Result<Self, InvalidPolicyDocument> {
        let length = text.chars().filter(|character| !matches!(character, ' ' | '\t' | '\n' | '\r')).count();
        if length > Self::MAX_LENGTH {
            return Err(InvalidPolicyDocument::TooLong { length });
        }
        match UniqueKeys::parse(&text) {
            Ok(Value::Object(_)) => Ok(Self(text)),
            Ok(_) => Err(InvalidPolicyDocument::NotAnObject),
            Err(TemplateError::DuplicateKey { .. }) => Err(InvalidPolicyDocument::DuplicateKey),
            Err(_) => Err(InvalidPolicyDocument::NotJson),
        }
    }
}

impl fmt::Display for PolicyDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no [`PolicyDocument`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPolicyDocument {
    /// One object has the same key twice, so two readers could read two policies.
    #[error("a policy document has no key twice in one object")]
    DuplicateKey,
    /// JSON, but not an object.
    #[error("a policy document is a JSON object")]
    NotAnObject,
    /// Not JSON.
    #[error("a policy document is JSON")]
    NotJson,
    /// Longer than [`PolicyDocument::MAX_LENGTH`].
    #[error(
        "a policy document has at most {max} characters without white space, this one has {length}",
        max = PolicyDocument::MAX_LENGTH
    )]
    TooLong {
        /// Its length in characters that are not white space.
        length: usize,
    },
}

/// `PolicyDocument` in a template: a text, a function that gives one, or an object with functions in it.
#[derive(Clone, Debug)]
pub(super) struct DocumentField {
    path: String,
    document: Document,
}

#[derive(Clone, Debug)]
enum Document {
    Text(Expression),
    Tree(Tree),
}

#[derive(Clone, Debug)]
enum Tree {
    Expression(Expression),
    List(Vec<Self>),
    Literal(Value),
    Object(BTreeMap<String, Self>),
}

impl DocumentField {
    pub(super) fn parse(node: &Node<'_>, declared: &Declarations) -> Result<Self, TemplateError> {
        let document = match node.value {
            Value::Object(_) if !is_call(node.value) => Document::Tree(tree(node, declared)?),
            _ => Document::Text(expression(node, declared)?),
        };
        let field = Self { path: node.path.clone(), document };
        if field.references().is_empty() {
            field.evaluate(declared.scope(&BTreeMap::new()))?;
        }
        Ok(field)
    }

    /// The document. Parameters' values in it hold `[A-Za-z0-9:_.-]` only, so a device can neither add a wildcard or a
    /// policy variable nor leave the text it stands in; texts of the template's author stay as they are.
    pub(super) fn evaluate(&self, scope: Scope<'_>) -> Result<PolicyDocument, TemplateError> {
        let text = self.draft(Scope { guarded: true, ..scope })?;
        PolicyDocument::try_from(text)
            .map_err(|problem| TemplateError::At { path: self.path.clone(), problem: problem.into() })
    }

    /// The text for these values, whatever they are and whatever it is.
    pub(super) fn draft(&self, scope: Scope<'_>) -> Result<String, TemplateError> {
        let text = match &self.document {
            Document::Text(expression) => expression.evaluate(scope),
            Document::Tree(tree) => tree.evaluate(scope).map(|value| value.to_string()),
        };
        text.map_err(|problem| TemplateError::At { path: self.path.clone(), problem })
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn references(&self) -> BTreeSet<String> {
        match &self.document {
            Document::Text(expression) => expression.references(),
            Document::Tree(tree) => tree.references(),
        }
    }
}

impl Tree {
    fn evaluate(&self, scope: Scope<'_>) -> Result<Value, TemplateProblem> {
        Ok(match self {
            Self::Expression(expression) => Value::String(expression.evaluate(scope)?),
            Self::List(items) => Value::Array(items.iter().map(|item| item.evaluate(scope)).collect::<Result<_, _>>()?),
            Self::Literal(value) => value.clone(),
            Self::Object(entries) => {
                let evaluated = entries.iter().map(|(key, value)| Ok((key.clone(), value.evaluate(scope)?)));
                Value::Object(evaluated.collect::<Result<_, TemplateProblem>>()?)
            }
        })
    }

    fn references(&self) -> BTreeSet<String> {
        match self {
            Self::Expression(expression) => expression.references(),
            Self::List(items) => items.iter().flat_map(Self::references).collect(),
            Self::Literal(_) => BTreeSet::new(),
            Self::Object(entries) => entries.values().flat_map(Self::references).collect(),
        }
    }
}

fn tree(node: &Node<'_>, declared: &Declarations) -> Result<Tree, TemplateError> {
    Ok(match node.value {
        value if is_call(value) => Tree::Expression(expression(node, declared)?),
        Value::Object(_) => {
            let mut entries = BTreeMap::new();
            for (key, value) in node.entries()? {
                entries.insert(key.to_owned(), tree(&value, declared)?);
            }
            Tree::Object(entries)
        }
        Value::Array(_) => Tree::List(node.items()?.iter().map(|item| tree(item, declared)).collect::<Result<_, _>>()?),
        literal => Tree::Literal(literal.clone()),
    })
}
