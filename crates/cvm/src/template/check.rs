use std::path::{Path, PathBuf};

use clap::Args;
use cvm_provisioning::{ProvisioningTemplate, Severity, lint_policy};
use serde_json::json;

use super::door::{TemplateUse, general_findings};
use super::finding::Finding;
use super::{MAX_FILE, TemplateCommandError};
use crate::error::CommandError;
use crate::file;
use crate::output::Output;

/// Say what is wrong with a provisioning template or a policy
///
/// Errors are what AWS IoT or the door would refuse, and policies that let one device act as another; the exit code is
/// then 1. Warnings may be meant. Without --type, what only some of the doors cannot do is a warning.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckArguments {
    /// The template's body in JSON, `-` for stdin
    #[arg(required_unless_present = "policy")]
    file: Option<PathBuf>,
    /// Who is to run it
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    door: Option<TemplateUse>,
    /// Check an AWS IoT policy document instead; CloudFormation's ${AWS::...} may stand in it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "door"])]
    policy: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  cvm template check template.json
  cvm template check template.json --type jitp
  cvm template check --policy policy.json
  cvm template check template.json --output json | jq .findings";

pub(super) fn run(arguments: &CheckArguments, output: &Output) -> Result<(), CommandError> {
    match (&arguments.file, &arguments.policy) {
        (_, Some(path)) => {
            let findings = lint_policy(&read(path)?);
            let findings: Vec<Finding> = findings.iter().map(|finding| Finding::in_policy("", finding)).collect();
            report(path, &findings, None, output)
        }
        (Some(path), None) => {
            let (findings, doors) = check(&read(path)?, arguments.door);
            report(path, &findings, Some(&doors), output)
        }
        // clap asks for one of them.
        (None, None) => Ok(()),
    }
}

fn read(path: &Path) -> Result<String, TemplateCommandError> {
    Ok(file::read_text(path, MAX_FILE)?)
}

/// What is wrong with a template, and the doors that can run it.
fn check(body: &str, door: Option<TemplateUse>) -> (Vec<Finding>, Vec<TemplateUse>) {
    let template = match ProvisioningTemplate::parse(body) {
        Ok(template) => template,
        Err(error) => return (vec![error.into()], Vec::new()),
    };
    let mut findings = general_findings(&template);
    let is_sound = !findings.iter().any(Finding::is_error);
    let mut doors = TemplateUse::ALL.to_vec();
    doors.retain(|door| is_sound && !door.findings(&template).iter().any(Finding::is_error));
    match door {
        Some(door) => findings.extend(door.findings(&template)),
        None => findings.extend(TemplateUse::ALL.iter().flat_map(|door| of_one_door(*door, &template))),
    }
    (findings, doors)
}

/// What one of several doors cannot do.
fn of_one_door(door: TemplateUse, template: &ProvisioningTemplate) -> impl Iterator<Item = Finding> {
    door.findings(template).into_iter().map(move |finding| Finding {
        severity: Severity::Warning,
        message: format!("{door}: {}", finding.message),
        ..finding
    })
}

fn report(
    path: &Path,
    findings: &[Finding],
    doors: Option<&[TemplateUse]>,
    output: &Output,
) -> Result<(), CommandError> {
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    let names: Option<Vec<&str>> = doors.map(|doors| doors.iter().map(|door| door.name()).collect());
    output.json(&json!({
        "file": path.display().to_string(),
        "errors": errors,
        "warnings": findings.len() - errors,
        "types": names,
        "findings": findings,
    }))?;
    // The worst comes first.
    for severity in [Severity::Error, Severity::Warning] {
        for finding in findings.iter().filter(|finding| finding.severity == severity) {
            finding.say(output)?;
        }
    }
    if errors > 0 {
        return Err(TemplateCommandError::Problems { path: path.to_owned(), errors }.into());
    }
    match names.as_deref() {
        Some([]) => output.done(format_args!("{} is a sound template, but no door can run it", path.display())),
        Some(names) => output.done(format_args!("{} can be run by: {}", path.display(), names.join(", "))),
        None => output.done(format_args!("nothing was found in {} that must not be", path.display())),
    }?;
    Ok(())
}
