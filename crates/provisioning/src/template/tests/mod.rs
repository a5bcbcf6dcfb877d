//! Tests of whole templates, by what they are about.

mod features;
mod functions;
mod refusals;
mod templates;
mod values;

use serde_json::{Value, json};

use super::*;

const CONNECT: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"arn:aws:iot:eu-west-1:123456789012:client/${iot:Connection.Thing.ThingName}"}]}"#;

/// The smallest sound template: a thing named after the parameter `Serial`.
fn smallest() -> Value {
    json!({
        "Parameters": { "Serial": { "Type": "String" } },
        "Resources": {
            "thing": { "Type": "AWS::IoT::Thing", "Properties": { "ThingName": { "Ref": "Serial" } } },
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": { "CertificateId": { "Ref": "AWS::IoT::Certificate::Id" } }
            }
        }
    })
}

/// The smallest template with `value` as `key` of the object at `pointer`.
fn with(pointer: &str, key: &str, value: Value) -> Value {
    let mut template = smallest();
    template.pointer_mut(pointer).unwrap().as_object_mut().unwrap().insert(key.to_owned(), value);
    template
}

fn with_thing(key: &str, value: Value) -> Value {
    with("/Resources/thing/Properties", key, value)
}

fn with_policy(document: Value) -> Value {
    let mut properties = json!({});
    properties["PolicyDocument"] = document;
    with("/Resources", "policy", json!({ "Type": "AWS::IoT::Policy", "Properties": properties }))
}

fn parse(template: &Value) -> Result<ProvisioningTemplate, TemplateError> {
    ProvisioningTemplate::parse(&template.to_string())
}

fn values(values: &[(&str, &str)]) -> Parameters {
    let mut parameters = Parameters::default();
    for (name, value) in values {
        parameters.insert(*name, *value).unwrap();
    }
    parameters
}

fn evaluate(template: &Value, given: &[(&str, &str)]) -> Result<Resources, TemplateError> {
    parse(template)?.evaluate(&values(given))
}

fn refusal(template: &Value) -> (String, TemplateProblem) {
    place(parse(template).unwrap_err())
}

fn place(error: TemplateError) -> (String, TemplateProblem) {
    match error {
        TemplateError::At { path, problem } => (path, problem),
        other => panic!("expected a place, got {other:?}"),
    }
}
