//! Looks at an AWS IoT policy document for rights that one device would have over another.
//!
//! Sources: AWS IoT Developer Guide, *AWS IoT Core policies*, with its pages *AWS IoT Core policy actions*, *AWS IoT Core
//! action resources*, *Basic AWS IoT Core policy variables* and *Thing policy variables*.

mod finding;
mod resource;

use serde_json::Value;

use self::resource::{Kind, Resource};
use crate::{InvalidPolicyDocument, PolicyDocument};

pub use self::finding::{PolicyFinding, PolicyProblem, Severity};

/// Finds what is wrong with a policy that all devices of a fleet share, in the order of the document.
///
/// A policy is sound when each device can connect as itself alone, and can reach its own topics alone. An empty answer
/// means that nothing was found, not that there is nothing: what a rule or a shadow does with a message is not known
/// here.
///
/// The document may be as CloudFormation has it: `${AWS::Region}` and other pseudo parameters of a stack stand for a
/// fixed text, `${!iot:ClientId}` for the variable, and `{"Fn::Sub": "text"}` for the text. `${parameter}` stands for a
/// value that is the device's own.
///
/// ```
/// use cvm_provisioning::{PolicyProblem, lint_policy};
///
/// let findings = lint_policy(
///     r#"{
///         "Version": "2012-10-17",
///         "Statement": [{ "Effect": "Allow", "Action": "iot:*", "Resource": "*" }]
///     }"#,
/// );
/// assert_eq!(findings[0].problem, PolicyProblem::EveryAction);
/// assert_eq!(findings[0].path, "/Statement/0/Action");
/// ```
pub fn lint_policy(document: &str) -> Vec<PolicyFinding> {
    let mut findings = Findings::default();
    match PolicyDocument::try_from(document.to_owned()) {
        Ok(_) => {}
        Err(problem @ InvalidPolicyDocument::TooLong { .. }) => findings.add("", PolicyProblem::Document(problem)),
        Err(problem) => {
            findings.add("", PolicyProblem::Document(problem));
            return findings.0;
        }
    }
    if let Ok(document) = serde_json::from_str::<Value>(document) {
        lint(&document, &mut findings);
    }
    findings.0
}

#[derive(Default)]
struct Findings(Vec<PolicyFinding>);

impl Findings {
    fn add(&mut self, path: impl Into<String>, problem: PolicyProblem) {
        self.0.push(PolicyFinding { path: path.into(), problem });
    }
}

fn lint(document: &Value, findings: &mut Findings) {
    if document.get("Version").and_then(Value::as_str) != Some("2012-10-17") {
        findings.add("/Version", PolicyProblem::Version);
    }
    let statements: Vec<(String, &Value)> = match document.get("Statement") {
        Some(Value::Array(statements)) => {
            statements.iter().enumerate().map(|(index, value)| (format!("/Statement/{index}"), value)).collect()
        }
        Some(statement @ Value::Object(_)) => vec![("/Statement".to_owned(), statement)],
        _ => {
            findings.add("/Statement", PolicyProblem::Expected("a list of statements"));
            return;
        }
    };
    let statements: Vec<Statement<'_>> =
        statements.into_iter().filter_map(|(path, value)| Statement::parse(path, value, findings)).collect();

    let connects = || statements.iter().filter(|statement| statement.kinds().any(|(_, kind)| kind == Kind::Client));
    let only_attached = connects().next().is_some() && connects().all(|statement| statement.is_attached);
    for statement in &statements {
        statement.lint(only_attached, findings);
    }
}

/// A statement that allows something.
struct Statement<'a> {
    path: String,
    actions: Vec<(String, &'a str)>,
    resources: Vec<(String, Resource)>,
    /// Whether it holds only while the certificate is attached to the thing that the client id names.
    is_attached: bool,
}

impl<'a> Statement<'a> {
    fn parse(path: String, value: &'a Value, findings: &mut Findings) -> Option<Self> {
        let at = |key: &str| format!("{path}/{key}");
        match value.get("Effect").and_then(Value::as_str) {
            Some("Allow") => {}
            // What is denied gives no rights.
            Some("Deny") => return None,
            _ => {
                findings.add(at("Effect"), PolicyProblem::Expected("Allow or Deny"));
                return None;
            }
        }
        for (key, problem) in
            [("NotAction", PolicyProblem::AllButAction), ("NotResource", PolicyProblem::AllButResource)]
        {
            if value.get(key).is_some() {
                findings.add(at(key), problem);
                return None;
            }
        }
        let mut texts = |key: &str| {
            let texts = texts(&at(key), value.get(key));
            if texts.is_none() {
                findings.add(at(key), PolicyProblem::Expected("a text, or a list of at least one text"));
            }
            texts
        };
        let (actions, resources) = (texts("Action")?, texts("Resource")?);
        let mut parsed = Vec::new();
        for (path, text) in resources {
            match Resource::parse(text) {
                Some(resource) => parsed.push((path, resource)),
                None => findings.add(path, PolicyProblem::Expected("* or an ARN, such as arn:aws:iot:::topic/...")),
            }
        }
        Some(Self { is_attached: is_attached(value), path, actions, resources: parsed })
    }

    /// The kinds of resource that its actions are about.
    fn kinds(&self) -> impl Iterator<Item = (&str, Kind)> {
        self.actions.iter().flat_map(|(_, action)| Kind::of(action).map(move |kind| (*action, kind)))
    }

    fn lint(&self, only_attached: bool, findings: &mut Findings) {
        for (path, action) in &self.actions {
            if matches!(*action, "*" | "iot:*") {
                findings.add(path, PolicyProblem::EveryAction);
            }
        }
        let mut kinds: Vec<(&str, Kind)> = Vec::new();
        for (action, kind) in self.kinds() {
            if !kinds.iter().any(|(_, known)| *known == kind) {
                kinds.push((action, kind));
            }
        }
        for (path, resource) in &self.resources {
            if resource.is_everything() && !kinds.is_empty() {
                findings.add(path, PolicyProblem::EveryResource);
                continue;
            }
            let mut problems: Vec<PolicyProblem> = Vec::new();
            for (_, kind) in kinds.iter().filter(|(_, kind)| resource.is_of(*kind)) {
                let problem = kind.problem(resource);
                problems.extend(problem.filter(|problem| !problems.contains(problem)));
            }
            for problem in problems {
                findings.add(path, problem);
            }
            if resource.names_the_client_id() && !self.is_attached && !only_attached {
                findings.add(path, PolicyProblem::ChosenByTheDevice);
            }
        }
        for (action, kind) in &kinds {
            let is_one = !action.contains(['*', '?']);
            if is_one && !self.resources.is_empty() && !self.resources.iter().any(|(_, resource)| resource.is_of(*kind))
            {
                let (action, expected) = (resource::excerpt(action), kind.name());
                findings.add(format!("{}/Resource", self.path), PolicyProblem::NoEffect { action, expected });
            }
        }
        if kinds.iter().any(|(_, kind)| *kind == Kind::Client) && !self.is_attached {
            findings.add(format!("{}/Condition", self.path), PolicyProblem::NotAttached);
        }
    }
}

/// A text or a list of texts, each with its place.
fn texts<'a>(path: &str, value: Option<&'a Value>) -> Option<Vec<(String, &'a str)>> {
    let Some(Value::Array(items)) = value else { return Some(vec![(path.to_owned(), text(value?)?)]) };
    let texts = items.iter().enumerate().map(|(index, item)| Some((format!("{path}/{index}"), text(item)?)));
    texts.collect::<Option<Vec<_>>>().filter(|texts| !texts.is_empty())
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("Fn::Sub")?.as_str())
}

/// Whether the statement has the condition `Bool: { "iot:Connection.Thing.IsAttached": "true" }`.
fn is_attached(statement: &Value) -> bool {
    let condition = statement.get("Condition").and_then(|condition| condition.get("Bool")?.as_object());
    let Some(condition) = condition else { return false };
    condition.iter().any(|(key, value)| {
        let value = match value {
            Value::Array(values) if values.len() == 1 => &values[0],
            other => other,
        };
        let is_true = value.as_bool() == Some(true) || value.as_str().is_some_and(|text| text == "true");
        key.eq_ignore_ascii_case("iot:Connection.Thing.IsAttached") && is_true
    })
}

#[cfg(test)]
mod tests;
