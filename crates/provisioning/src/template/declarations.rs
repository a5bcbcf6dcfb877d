//! The `Parameters` and `Mappings` sections.

use std::collections::BTreeMap;

use super::error::{TemplateError, TemplateProblem, excerpt};
use super::expression::{Expression, Mappings, Scope};
use super::json::Node;
use super::{PSEUDO_PARAMETERS, Parameters, is_pseudo_parameter};

/// What a template declares for its functions to refer to.
#[derive(Clone, Debug, Default)]
pub(super) struct Declarations {
    /// The parameters with their defaults.
    pub(super) parameters: BTreeMap<String, Option<String>>,
    pub(super) mappings: Mappings,
}

impl Declarations {
    pub(super) fn parse(root: &Node<'_>) -> Result<Self, TemplateError> {
        let mut declared = Self::default();
        if let Some(section) = root.optional("Parameters") {
            for (name, parameter) in section.entries()? {
                declared.parameters.insert(name.to_owned(), parameter_default(name, &parameter)?);
            }
        }
        if let Some(section) = root.optional("Mappings") {
            declared.mappings = mappings(&section)?;
        }
        Ok(declared)
    }

    pub(super) fn scope<'a>(&'a self, values: &'a BTreeMap<String, String>) -> Scope<'a> {
        Scope { values, parameters: &self.parameters, mappings: &self.mappings, guarded: false }
    }

    /// Refuses a reference to a parameter that is neither declared nor a pseudo parameter.
    pub(super) fn check(&self, node: &Node<'_>, name: &str) -> Result<(), TemplateError> {
        if self.parameters.contains_key(name) || is_pseudo_parameter(name) {
            return Ok(());
        }
        Err(node.error(TemplateProblem::UndeclaredParameter { name: excerpt(name) }))
    }

    /// An expression without references, replaced by its text; so its errors are found as it is parsed.
    pub(super) fn fold(&self, node: &Node<'_>, expression: Expression) -> Result<Expression, TemplateError> {
        if !expression.references().is_empty() {
            return Ok(expression);
        }
        let folded = expression.evaluate(self.scope(&BTreeMap::new()));
        folded.map(Expression::Literal).map_err(|problem| node.error(problem))
    }
}

fn parameter_default(name: &str, parameter: &Node<'_>) -> Result<Option<String>, TemplateError> {
    if name.starts_with("AWS::") && !is_pseudo_parameter(name) {
        let expected = PSEUDO_PARAMETERS.join(", ");
        return Err(parameter.error(TemplateProblem::Unknown { expected }));
    }
    parameter.only(&["Type", "Default"])?;
    let kind = parameter.required("Type")?;
    if kind.text()? != "String" {
        return Err(kind.error(TemplateProblem::Expected("String")));
    }
    let Some(default) = parameter.optional("Default") else { return Ok(None) };
    if is_pseudo_parameter(name) {
        return Err(default.error(TemplateProblem::PseudoDefault));
    }
    let text = default.text()?;
    // The same limits as for a value that is sent.
    Parameters::default().insert(name, text).map_err(|error| default.error(error))?;
    Ok(Some(text.to_owned()))
}

fn mappings(section: &Node<'_>) -> Result<Mappings, TemplateError> {
    let mut mappings = Mappings::default();
    for (name, map) in section.entries()? {
        let tops = mappings.0.entry(name.to_owned()).or_default();
        for (top, entry) in map.entries()? {
            let values = tops.entry(top.to_owned()).or_default();
            for (second, value) in entry.entries()? {
                values.insert(second.to_owned(), value.text()?.to_owned());
            }
        }
    }
    Ok(mappings)
}
