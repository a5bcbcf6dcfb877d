//! Parses texts and intrinsic functions.
//!
//! Semantics: AWS IoT Developer Guide, *Provisioning templates*, section "Intrinsic functions", and where it says
//! nothing, AWS CloudFormation User Guide, *Intrinsic function reference*. Where both say nothing, the strict reading:
//! `Fn::Join` and `Fn::Select` take a list that is not empty, `Fn::Split` a delimiter that is not empty, delimiters and
//! map names are literal, values of `Mappings` are texts, and `${` in `Fn::Sub` is always closed.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde_json::Value;

use super::declarations::Declarations;
use super::error::{TemplateError, TemplateProblem, excerpt};
use super::expression::{Expression, List, Piece, Scope, index_from};
use super::json::Node;

/// An expression that must give a `T`, and its place in the template. A literal is checked as it is parsed.
#[derive(Clone, Debug)]
pub(super) struct Field<T> {
    pub(super) path: String,
    pub(super) expression: Expression,
    kind: PhantomData<fn() -> T>,
}

impl<T: TryFrom<String, Error: Into<TemplateProblem>>> Field<T> {
    pub(super) fn parse(node: &Node<'_>, declared: &Declarations) -> Result<Self, TemplateError> {
        let expression = expression(node, declared)?;
        if let Expression::Literal(text) = &expression {
            T::try_from(text.clone()).map_err(|error| node.error(error))?;
        }
        Ok(Self { path: node.path.clone(), expression, kind: PhantomData })
    }

    pub(super) fn evaluate(&self, scope: Scope<'_>) -> Result<T, TemplateError> {
        let value = self.expression.evaluate(scope).and_then(|text| T::try_from(text).map_err(Into::into));
        value.map_err(|problem| TemplateError::At { path: self.path.clone(), problem })
    }
}

/// Whether a value is a function's call, well-formed or not.
pub(super) fn is_call(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.keys().any(|key| key == "Ref" || key.starts_with("Fn::")))
}

/// A text, or a function that gives one.
pub(super) fn expression(node: &Node<'_>, declared: &Declarations) -> Result<Expression, TemplateError> {
    if let Value::String(text) = node.value {
        return Ok(Expression::Literal(text.clone()));
    }
    let (function, argument) = call(node)?;
    let expression = match function {
        "Ref" => reference(&argument, declared)?,
        "Fn::FindInMap" => find_in_map(&argument, declared)?,
        "Fn::Join" => join(&argument, declared)?,
        "Fn::Select" => select(&argument, declared)?,
        "Fn::Split" => {
            return Err(node.error(TemplateProblem::Expected("a text; choose one part of Fn::Split with Fn::Select")));
        }
        "Fn::Sub" => substitute(&argument, declared)?,
        _ => {
            let expected = "Ref, Fn::FindInMap, Fn::Join, Fn::Select, Fn::Split, Fn::Sub".to_owned();
            return Err(argument.error(TemplateProblem::Unknown { expected }));
        }
    };
    declared.fold(node, expression)
}

/// A list of texts, or the function that gives one.
pub(super) fn list(node: &Node<'_>, declared: &Declarations) -> Result<List, TemplateError> {
    if node.value.is_array() {
        let items: Result<_, _> = node.items()?.iter().map(|item| expression(item, declared)).collect();
        return items.map(List::Items);
    }
    let ("Fn::Split", argument) = call(node)? else {
        return Err(node.error(TemplateProblem::Expected("a list or Fn::Split")));
    };
    let [delimiter, text] = argument.exactly("a list of a delimiter and a text")?;
    if delimiter.text()?.is_empty() {
        return Err(delimiter.error(TemplateProblem::Expected("a delimiter of at least one character")));
    }
    let text = Box::new(expression(&text, declared)?);
    Ok(List::Split { delimiter: delimiter.text()?.to_owned(), text })
}

fn call<'a>(node: &Node<'a>) -> Result<(&'a str, Node<'a>), TemplateError> {
    let expected = || node.error(TemplateProblem::Expected("a text or an object of one function"));
    let entries = node.entries().map_err(|_| expected())?;
    let [call]: [_; 1] = entries.try_into().map_err(|_| expected())?;
    Ok(call)
}

fn reference(argument: &Node<'_>, declared: &Declarations) -> Result<Expression, TemplateError> {
    let name = argument.text()?;
    declared.check(argument, name)?;
    Ok(Expression::Parameter(name.to_owned()))
}

fn find_in_map(argument: &Node<'_>, declared: &Declarations) -> Result<Expression, TemplateError> {
    let [map, top, second] = argument.exactly("a list of a map's name, a top-level key and a second-level key")?;
    let name = map.text()?;
    let Some(entries) = declared.mappings.0.get(name) else {
        return Err(map.error(TemplateProblem::NoSuchMap { map: excerpt(name) }));
    };
    let (top, second) = (expression(&top, declared)?, expression(&second, declared)?);
    let possible =
        entries.iter().any(|(key, values)| can_be(&top, key) && values.keys().any(|key| can_be(&second, key)));
    if !possible {
        return Err(argument.error(TemplateProblem::NoSuchEntry { map: excerpt(name) }));
    }
    Ok(Expression::FindInMap { map: name.to_owned(), top: Box::new(top), second: Box::new(second) })
}

fn can_be(expression: &Expression, key: &str) -> bool {
    !matches!(expression, Expression::Literal(text) if text != key)
}

fn join(argument: &Node<'_>, declared: &Declarations) -> Result<Expression, TemplateError> {
    let [delimiter, values] = argument.exactly("a list of a delimiter and a list")?;
    Ok(Expression::Join { delimiter: delimiter.text()?.to_owned(), list: filled(&values, declared)? })
}

fn select(argument: &Node<'_>, declared: &Declarations) -> Result<Expression, TemplateError> {
    let [index_node, values] = argument.exactly("a list of an index and a list")?;
    let list = filled(&values, declared)?;
    let index = match index_node.value {
        Value::Number(number) => Expression::Literal(number.to_string()),
        _ => expression(&index_node, declared)?,
    };
    if let Expression::Literal(text) = &index {
        let index = index_from(text).map_err(|problem| index_node.error(problem))?;
        if let List::Items(items) = &list
            && index >= items.len()
        {
            return Err(index_node.error(TemplateProblem::Index { length: items.len() }));
        }
    }
    Ok(Expression::Select { index: Box::new(index), list })
}

fn filled(node: &Node<'_>, declared: &Declarations) -> Result<List, TemplateError> {
    match list(node, declared)? {
        List::Items(items) if items.is_empty() => {
            Err(node.error(TemplateProblem::Expected("a list of at least one element")))
        }
        list => Ok(list),
    }
}

fn substitute(argument: &Node<'_>, declared: &Declarations) -> Result<Expression, TemplateError> {
    let (text, variables) = if argument.value.is_string() {
        (argument.clone(), BTreeMap::new())
    } else {
        let [text, variables] = argument.exactly("a text, or a list of a text and an object of variables")?;
        let mut parsed = BTreeMap::new();
        for (name, variable) in variables.entries()? {
            parsed.insert(name.to_owned(), expression(&variable, declared)?);
        }
        (text, parsed)
    };
    let pieces = pieces(text.text()?).map_err(|problem| text.error(problem))?;
    for piece in &pieces {
        if let Piece::Name(name) = piece
            && !variables.contains_key(name)
        {
            declared.check(&text, name)?;
        }
    }
    Ok(Expression::Substitute { pieces, variables })
}

fn pieces(text: &str) -> Result<Vec<Piece>, TemplateProblem> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, next)) = after.split_once('}') else { return Err(TemplateProblem::Unclosed) };
        pieces.push(Piece::Literal(before.to_owned()));
        pieces.push(match name.strip_prefix('!') {
            Some("") => return Err(TemplateProblem::Unclosed),
            Some(literal) => Piece::Literal(format!("${{{literal}}}")),
            None if name.is_empty() => return Err(TemplateProblem::Unclosed),
            None => Piece::Name(name.to_owned()),
        });
        rest = next;
    }
    pieces.push(Piece::Literal(rest.to_owned()));
    Ok(pieces)
}
