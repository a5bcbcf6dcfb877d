use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use cvm_provisioning::{
    CertificateStatus, Parameters, Policy, ProvisioningTemplate, Resources, Thing, ThingPrincipalType,
};
use serde_json::{Value, json};

use super::door::TemplateUse;
use super::{MAX_FILE, TemplateCommandError};
use crate::arguments::{Assignment, by_name};
use crate::error::CommandError;
use crate::facts::Facts;
use crate::file;
use crate::output::Output;

/// Show what a device would get from a provisioning template
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct RenderArguments {
    /// The template's body in JSON, `-` for stdin
    file: PathBuf,
    /// A parameter's value; repeatable
    #[arg(long = "parameter", visible_alias = "parameters", value_name = "NAME=VALUE")]
    parameters: Vec<Assignment>,
    /// A JSON object with the values of parameters
    #[arg(long, value_name = "FILE")]
    parameters_file: Option<PathBuf>,
    /// Who is to run it; what that door cannot do is refused
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    door: Option<TemplateUse>,
}

const EXAMPLES: &str = "\
Examples:
  cvm template render template.json --parameter SerialNumber=sn-0001
  cvm template render template.json --parameters-file sn-0001.json
  cvm template render template.json --type jitp \\
      --parameter AWS::IoT::Certificate::CommonName=sn-0001
  cvm template render template.json --parameter SerialNumber=sn-0001 \\
      --output json | jq .deviceConfiguration";

/// What a device gets; a template may make no thing.
type Rendered = Resources<Option<Thing>>;

pub(super) fn run(arguments: &RenderArguments, output: &Output) -> Result<(), CommandError> {
    let resources = render(arguments, output)?;
    output.json(&view(&resources))?;
    for line in lines(&resources) {
        output.say(line)?;
    }
    Ok(())
}

fn render(arguments: &RenderArguments, output: &Output) -> Result<Rendered, CommandError> {
    let RenderArguments { file: path, parameters, parameters_file, door } = arguments;
    let body = file::read_text(path, MAX_FILE).map_err(TemplateCommandError::from)?;
    let template = ProvisioningTemplate::parse(&body)
        .map_err(|source| TemplateCommandError::Template { path: path.clone(), source })?;
    if let Some(door) = door {
        let findings = door.findings(&template);
        let errors = findings.iter().filter(|finding| finding.is_error()).count();
        for finding in findings.iter().filter(|finding| finding.is_error()) {
            output.note(format_args!("{}: {}", finding.path, finding.message))?;
        }
        if errors > 0 {
            return Err(TemplateCommandError::Problems { path: path.clone(), errors }.into());
        }
    }
    Ok(evaluate(&template, parameters.clone(), parameters_file.as_deref())?)
}

fn evaluate(
    template: &ProvisioningTemplate,
    assignments: Vec<Assignment>,
    parameters_file: Option<&Path>,
) -> Result<Rendered, TemplateCommandError> {
    let mut values = Parameters::default();
    let from_file = parameters_file.map(read_values).transpose()?.unwrap_or_default();
    for (name, value) in from_file.into_iter().chain(by_name(assignments)?) {
        values.insert(name, value)?;
    }
    let missing = template.missing(&values);
    if !missing.is_empty() {
        return Err(TemplateCommandError::Missing { names: missing.into_iter().map(str::to_owned).collect() });
    }
    template.render(&values).map_err(TemplateCommandError::Evaluation)
}

fn read_values(path: &Path) -> Result<BTreeMap<String, String>, TemplateCommandError> {
    let text = file::read_text(path, MAX_FILE)?;
    serde_json::from_str(&text).map_err(|_| TemplateCommandError::ParametersFile { path: path.to_owned() })
}

/// What a device would get. Every field is always there; `thing` is `null` where the template makes none.
fn view(Resources { thing, certificate, policies, device_configuration }: &Rendered) -> Value {
    json!({
        "thing": thing.as_ref().map(thing_view),
        "certificate": {
            "status": status(certificate.status),
            "exclusive": certificate.principal_type == ThingPrincipalType::Exclusive,
        },
        "policies": policies.iter().map(|policy| match policy {
            Policy::Document(document) => json!({ "name": null, "document": document.as_str() }),
            Policy::Name(name) => json!({ "name": name.as_str(), "document": null }),
        }).collect::<Vec<_>>(),
        "deviceConfiguration": device_configuration,
    })
}

fn thing_view(thing: &Thing) -> Value {
    let attributes = thing.attributes.iter().map(|(name, value)| (name.to_string(), json!(value.as_str())));
    let packages = thing.package_versions.iter().map(|(name, version)| (name.to_string(), json!(version.as_str())));
    json!({
        "name": thing.name.as_str(),
        "attributes": Value::Object(attributes.collect()),
        "type": thing.type_name.as_ref().map(|name| name.as_str()),
        "groups": thing.groups.iter().map(|group| group.as_str()).collect::<Vec<_>>(),
        "billingGroup": thing.billing_group.as_ref().map(|group| group.as_str()),
        "packageVersions": Value::Object(packages.collect()),
    })
}

/// The same, one fact a line.
fn lines(Resources { thing, certificate, policies, device_configuration }: &Rendered) -> Vec<String> {
    let mut facts = Facts::default();
    match thing {
        Some(thing) => add_thing(thing, &mut facts),
        None => facts.add("thing", "none: the template has no AWS::IoT::Thing"),
    }
    let exclusive = certificate.principal_type == ThingPrincipalType::Exclusive;
    let others = if exclusive { ", for no other thing" } else { "" };
    facts.add("certificate", format_args!("{}{others}", status(certificate.status)));
    for policy in policies {
        match policy {
            Policy::Document(document) => facts.add("policy", document),
            Policy::Name(name) => facts.add("policy", name),
        }
    }
    for (name, value) in device_configuration {
        facts.add("configuration", format_args!("{name}={value}"));
    }
    facts.0
}

fn add_thing(thing: &Thing, facts: &mut Facts) {
    facts.add("thing", &thing.name);
    for (name, value) in &thing.attributes {
        facts.add("  attribute", format_args!("{name}={value}"));
    }
    if let Some(name) = &thing.type_name {
        facts.add("  type", name);
    }
    for group in &thing.groups {
        facts.add("  group", group);
    }
    if let Some(group) = &thing.billing_group {
        facts.add("  billing", group);
    }
    for (package, version) in &thing.package_versions {
        facts.add("  package", format_args!("{package}={version}"));
    }
}

fn status(status: CertificateStatus) -> &'static str {
    match status {
        CertificateStatus::Active => "active",
        CertificateStatus::Inactive => "inactive",
    }
}
