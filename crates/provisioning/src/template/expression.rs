//! The intrinsic functions, evaluated. `function.rs` parses them.

use std::collections::{BTreeMap, BTreeSet};

use super::error::{TemplateProblem, excerpt};

/// The longest text that `Fn::Join` and `Fn::Sub` may build, in bytes: as long as a whole template body. It bounds what
/// nested functions can make of a value.
pub(super) const MAX_TEXT: usize = 10_240;

/// Something whose value is a text.
#[derive(Clone, Debug)]
pub(super) enum Expression {
    FindInMap { map: String, top: Box<Self>, second: Box<Self> },
    Join { delimiter: String, list: List },
    Literal(String),
    Parameter(String),
    Select { index: Box<Self>, list: List },
    Substitute { pieces: Vec<Piece>, variables: BTreeMap<String, Self> },
}

/// Something whose value is a list of texts.
#[derive(Clone, Debug)]
pub(super) enum List {
    Items(Vec<Expression>),
    Split { delimiter: String, text: Box<Expression> },
}

/// A stretch of `Fn::Sub`'s text.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Literal(String),
    /// A variable of this `Fn::Sub`, or else a parameter.
    Name(String),
}

/// The `Mappings` section: map, top-level key, second-level key, value.
#[derive(Clone, Debug, Default)]
pub(super) struct Mappings(pub(super) BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>);

/// Where an expression finds its values.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) values: &'a BTreeMap<String, String>,
    /// The declared parameters with their defaults.
    pub(super) parameters: &'a BTreeMap<String, Option<String>>,
    pub(super) mappings: &'a Mappings,
    /// Whether the text goes into a policy document, where a value must not carry meaning of its own.
    pub(super) guarded: bool,
}

impl Expression {
    /// The text, for the values in `scope`. Each part of the expression is evaluated at most once, so the work is
    /// bounded by the template's size times the longest value or [`MAX_TEXT`].
    pub(super) fn evaluate(&self, scope: Scope<'_>) -> Result<String, TemplateProblem> {
        match self {
            Self::Literal(text) => Ok(text.clone()),
            Self::Parameter(name) => scope.parameter(name).map(str::to_owned),
            Self::Join { delimiter, list } => join(delimiter, &list.evaluate(scope)?),
            Self::Select { index, list } => {
                let index = index.evaluate(scope.unguarded())?;
                list.select(index_from(&index)?, scope)
            }
            Self::FindInMap { map, top, second } => {
                // Keys choose among the author's texts and never become text themselves.
                let top = top.evaluate(scope.unguarded())?;
                let second = second.evaluate(scope.unguarded())?;
                let found =
                    scope.mappings.0.get(map).and_then(|map| map.get(&top)).and_then(|entry| entry.get(&second));
                found.cloned().ok_or_else(|| TemplateProblem::NoSuchEntry { map: excerpt(map) })
            }
            Self::Substitute { pieces, variables } => substitute(pieces, variables, scope),
        }
    }

    /// The parameters it refers to, pseudo parameters included.
    pub(super) fn references(&self) -> BTreeSet<String> {
        match self {
            Self::Literal(_) => BTreeSet::new(),
            Self::Parameter(name) => BTreeSet::from([name.clone()]),
            Self::Join { list, .. } => list.references(),
            Self::Select { index, list } => &index.references() | &list.references(),
            Self::FindInMap { top, second, .. } => &top.references() | &second.references(),
            Self::Substitute { pieces, variables } => {
                let names = pieces.iter().filter_map(|piece| match piece {
                    Piece::Name(name) if !variables.contains_key(name) => Some(name.clone()),
                    Piece::Name(_) | Piece::Literal(_) => None,
                });
                names.chain(variables.values().flat_map(Self::references)).collect()
            }
        }
    }
}

impl List {
    pub(super) fn evaluate(&self, scope: Scope<'_>) -> Result<Vec<String>, TemplateProblem> {
        match self {
            Self::Items(items) => items.iter().map(|item| item.evaluate(scope)).collect(),
            Self::Split { delimiter, text } => {
                let text = text.evaluate(scope)?;
                let parts: Vec<String> = text.split(delimiter).map(str::to_owned).collect();
                if scope.guarded && parts.iter().any(String::is_empty) {
                    Err(TemplateProblem::EmptyPart)
                } else {
                    Ok(parts)
                }
            }
        }
    }

    pub(super) fn references(&self) -> BTreeSet<String> {
        match self {
            Self::Items(items) => items.iter().flat_map(Expression::references).collect(),
            Self::Split { text, .. } => text.references(),
        }
    }

    fn select(&self, index: usize, scope: Scope<'_>) -> Result<String, TemplateProblem> {
        match self {
            Self::Items(items) => {
                items.get(index).ok_or(TemplateProblem::Index { length: items.len() })?.evaluate(scope)
            }
            Self::Split { .. } => {
                let mut parts = self.evaluate(scope)?;
                if index < parts.len() {
                    Ok(parts.swap_remove(index))
                } else {
                    Err(TemplateProblem::Index { length: parts.len() })
                }
            }
        }
    }
}

impl<'a> Scope<'a> {
    fn unguarded(self) -> Self {
        Self { guarded: false, ..self }
    }

    fn parameter(self, name: &str) -> Result<&'a str, TemplateProblem> {
        let default = || self.parameters.get(name).and_then(Option::as_ref);
        let value = self.values.get(name).or_else(default).ok_or(TemplateProblem::MissingValue)?;
        if self.guarded && !is_inert(value) {
            return Err(TemplateProblem::UnsafeValue { parameter: excerpt(name) });
        }
        Ok(value)
    }
}

/// The number a `Fn::Select` index is written as: decimal digits, nothing else.
pub(super) fn index_from(text: &str) -> Result<usize, TemplateProblem> {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let index = if digits { text.parse().ok() } else { None };
    index.ok_or(TemplateProblem::Expected("a list index, in decimal digits"))
}

/// Whether a value says nothing in a policy document: no wildcard, no policy variable, no JSON, and not nothing, since
/// `topic/<nothing>*` would be another rule.
fn is_inert(value: &str) -> bool {
    let inert = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_' | b'.' | b'-');
    !value.is_empty() && value.bytes().all(inert)
}

fn join(delimiter: &str, parts: &[String]) -> Result<String, TemplateProblem> {
    let delimiters = delimiter.len().saturating_mul(parts.len().saturating_sub(1));
    let length = parts.iter().fold(delimiters, |length, part| length.saturating_add(part.len()));
    if length > MAX_TEXT { Err(TemplateProblem::TextTooLong) } else { Ok(parts.join(delimiter)) }
}

fn substitute(
    pieces: &[Piece],
    variables: &BTreeMap<String, Expression>,
    scope: Scope<'_>,
) -> Result<String, TemplateProblem> {
    let mut evaluated = BTreeMap::new();
    for (name, expression) in variables {
        evaluated.insert(name, expression.evaluate(scope)?);
    }
    let mut text = String::new();
    for piece in pieces {
        text.push_str(match piece {
            Piece::Literal(literal) => literal,
            Piece::Name(name) => match evaluated.get(name) {
                Some(variable) => variable,
                None => scope.parameter(name)?,
            },
        });
        if text.len() > MAX_TEXT {
            return Err(TemplateProblem::TextTooLong);
        }
    }
    Ok(text)
}
