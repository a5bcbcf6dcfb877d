//! One test per way for a template to be refused.

use serde_json::{Value, json};

use super::*;
use crate::{Templates, UnusableTemplate};

#[test]
fn a_body_beyond_the_limit_is_refused() {
    let mut body = smallest().to_string();
    body.push_str(&" ".repeat(ProvisioningTemplate::MAX_LENGTH - body.len()));
    assert!(ProvisioningTemplate::parse(&body).is_ok());
    body.push(' ');
    assert_eq!(ProvisioningTemplate::parse(&body).unwrap_err(), TemplateError::TooLong { length: 10_241 });
}

#[test]
fn what_is_not_json_is_refused() {
    assert_eq!(ProvisioningTemplate::parse("{,").unwrap_err(), TemplateError::NotJson { line: 1, column: 2 });
    for text in ["", "not JSON", "Resources:\n  thing: {}\n", "{} {}"] {
        let error = ProvisioningTemplate::parse(text).unwrap_err();
        assert!(matches!(error, TemplateError::NotJson { .. }) && !error.to_string().contains("nested"), "{error}");
    }
    assert_eq!(refusal(&json!([])), (String::new(), TemplateProblem::Expected("an object")));
}

#[test]
fn deep_nesting_is_refused() {
    let error = ProvisioningTemplate::parse(&"[".repeat(5000)).unwrap_err();
    assert!(matches!(error, TemplateError::TooDeep { line: 1, .. }), "{error}");
}

#[test]
fn a_duplicate_key_is_refused() {
    let body = smallest().to_string().replacen("\"thing\"", "\"certificate\"", 1);
    assert!(matches!(ProvisioningTemplate::parse(&body).unwrap_err(), TemplateError::DuplicateKey { line: 1, .. }));
    let escaped = r#"{"Resources":{},"\u0052esources":{}}"#;
    assert!(matches!(ProvisioningTemplate::parse(escaped).unwrap_err(), TemplateError::DuplicateKey { .. }));
}

#[test]
fn an_unknown_key_is_refused_with_its_place() {
    for (template, expected) in [
        (with("", "Outputs", json!({})), "/Outputs"),
        (with("/Parameters/Serial", "NoEcho", json!(true)), "/Parameters/Serial/NoEcho"),
        (with("/Parameters", "AWS::Region", json!({ "Type": "String" })), "/Parameters/AWS::Region"),
        (with("/Resources/thing", "DependsOn", json!("x")), "/Resources/thing/DependsOn"),
        (with_thing("thingName", json!("x")), "/Resources/thing/Properties/thingName"),
        (
            with("/Resources/certificate/Properties", "CertificateID", json!("x")),
            "/Resources/certificate/Properties/CertificateID",
        ),
        (with("/Resources", "a/b", json!({ "Type": "AWS::IoT::Topic" })), "/Resources/a~1b/Type"),
        (
            with_thing("ThingName", json!({ "Fn::GetAtt": ["a", "b"] })),
            "/Resources/thing/Properties/ThingName/Fn::GetAtt",
        ),
        (
            with("/Resources/thing", "OverrideSettings", json!({ "BillingGroup": "FAIL" })),
            "/Resources/thing/OverrideSettings/BillingGroup",
        ),
    ] {
        let (path, problem) = refusal(&template);
        assert_eq!(path, expected);
        assert!(matches!(problem, TemplateProblem::Unknown { .. }), "{problem:?}");
    }
    let long = with("", &"k\n".repeat(100), json!({}));
    assert!(refusal(&long).0.len() < 200 && !refusal(&long).0.contains('\n'));
}

#[test]
fn a_missing_key_is_refused() {
    for (pointer, key) in [
        ("", "Resources"),
        ("/Parameters/Serial", "Type"),
        ("/Resources/thing", "Type"),
        ("/Resources/thing", "Properties"),
        ("/Resources/thing/Properties", "ThingName"),
        ("/Resources/certificate", "Properties"),
    ] {
        let mut template = smallest();
        template.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(key);
        assert_eq!(refusal(&template), (pointer.to_owned(), TemplateProblem::Missing { key }));
    }
}

#[test]
fn there_is_exactly_one_certificate_and_at_most_one_thing() {
    let without = |key: &str| {
        let mut template = smallest();
        template["Resources"].as_object_mut().unwrap().remove(key);
        template
    };
    for (kind, key) in [("AWS::IoT::Thing", "thing"), ("AWS::IoT::Certificate", "certificate")] {
        let second = with("/Resources", "second", smallest()["Resources"][key].clone());
        assert_eq!(refusal(&second).1, TemplateProblem::ResourceCount { resource: kind, count: 2 });
    }
    let certificate = TemplateProblem::ResourceCount { resource: "AWS::IoT::Certificate", count: 0 };
    assert_eq!(refusal(&without("certificate")).1, certificate);
    // What fleet provisioning may do is nothing that a device of the registry can become.
    let no_thing = parse(&without("thing")).unwrap();
    assert!(!no_thing.has_thing());
    let problem = place(no_thing.evaluate(&values(&[("Serial", "a")])).unwrap_err()).1;
    assert_eq!(problem, TemplateProblem::ResourceCount { resource: "AWS::IoT::Thing", count: 0 });
    let unusable = Templates::new(no_thing, BTreeMap::new()).unwrap_err();
    assert_eq!(unusable, UnusableTemplate::NoThing);
}

#[test]
fn a_device_names_no_certificate() {
    let with_id = |id: Value| with("/Resources/certificate/Properties", "CertificateId", id);
    let own = json!({ "Ref": "Serial" });
    for template in [with_id(own.clone()), with_id(json!({ "Fn::Join": ["", [own, "b"]] }))] {
        let template = parse(&template).unwrap();
        assert_eq!(template.certificate_id_parameter(), Some("Serial"));
        let unusable = Templates::new(template, BTreeMap::new()).unwrap_err();
        assert_eq!(unusable, UnusableTemplate::CertificateIdParameter);
    }
    for template in [smallest(), with_id(json!("fixed"))] {
        assert_eq!(parse(&template).unwrap().certificate_id_parameter(), None);
    }
}

#[test]
fn a_parameter_is_a_string_with_a_bounded_literal_default() {
    let declare = |parameter: Value| refusal(&with("/Parameters", "P", parameter));
    assert_eq!(declare(json!({ "Type": "Number" })).1, TemplateProblem::Expected("String"));
    assert_eq!(declare(json!("String")).1, TemplateProblem::Expected("an object"));
    assert_eq!(declare(json!({ "Type": "String", "Default": 1 })).0, "/Parameters/P/Default");
    assert_eq!(declare(json!({ "Type": "String", "Default": { "Ref": "Serial" } })).0, "/Parameters/P/Default");
    let long = json!({ "Type": "String", "Default": "x".repeat(4097) });
    assert_eq!(declare(long).1, TemplateProblem::Parameter(InvalidParameter::ValueLength { length: 4097 }));
    let pseudo = with("/Parameters", "AWS::IoT::Certificate::Country", json!({ "Type": "String", "Default": "FR" }));
    assert_eq!(refusal(&pseudo).1, TemplateProblem::PseudoDefault);
}

#[test]
fn mappings_are_two_levels_of_literal_text() {
    for map in
        [json!("x"), json!({ "a": "x" }), json!({ "a": { "b": ["x"] } }), json!({ "a": { "b": { "Ref": "Serial" } } })]
    {
        let (path, problem) = refusal(&with("", "Mappings", json!({ "Map": map })));
        assert!(path.starts_with("/Mappings/Map"), "{path}");
        assert!(matches!(problem, TemplateProblem::Expected(_)), "{problem:?}");
    }
}

#[test]
fn a_literal_that_is_no_name_is_refused_at_start() {
    for (key, value, place) in [
        ("ThingName", json!("a b"), "ThingName"),
        ("ThingName", json!({ "Fn::Join": ["*", ["a", "b"]] }), "ThingName"),
        ("ThingTypeName", json!(""), "ThingTypeName"),
        ("ThingGroups", json!(["ok", "not ok"]), "ThingGroups"),
        ("BillingGroup", json!("a/b"), "BillingGroup"),
        ("AttributePayload", json!({ "a b": "v" }), "AttributePayload/a b"),
        ("AttributePayload", json!({ "a": "v w" }), "AttributePayload/a"),
        ("PackageVersions", json!({ "a": "" }), "PackageVersions/a"),
    ] {
        let (path, problem) = refusal(&with_thing(key, value));
        assert_eq!(path, format!("/Resources/thing/Properties/{place}"));
        assert!(matches!(problem, TemplateProblem::Name(_)), "{problem:?}");
    }
}

#[test]
fn a_policy_document_is_one_json_object_of_bounded_size() {
    use InvalidPolicyDocument::{DuplicateKey, NotAnObject, NotJson, TooLong};
    let fits = format!("{{ \"a\" :\n\"{}\" }}", "x".repeat(2040));
    assert!(parse(&with_policy(json!(fits))).is_ok());
    for (document, expected) in [
        (json!("nothing"), NotJson),
        (json!("[]"), NotAnObject),
        (json!(r#"{"Effect":"Allow","Effect":"Deny"}"#), DuplicateKey),
        (json!({ "Fn::Join": ["", ["{", "{"]] }), NotJson),
        (json!(format!("{{\"a\":\"{}\"}}", "x".repeat(2041))), TooLong { length: 2049 }),
        (json!({ "a": "x".repeat(2041) }), TooLong { length: 2049 }),
    ] {
        assert_eq!(refusal(&with_policy(document)).1, TemplateProblem::PolicyDocument(expected));
    }
    for document in [json!(["a"]), json!(1), json!({ "Ref": "Serial", "Version": "x" })] {
        assert!(matches!(refusal(&with_policy(document)).1, TemplateProblem::Expected(_)));
    }
    let grown = with_policy(json!({ "a": { "Fn::Join": ["", vec![json!({ "Ref": "Serial" }); 40]] } }));
    let error = evaluate(&grown, &[("Serial", &"x".repeat(100))]).unwrap_err();
    assert_eq!(place(error).1, TemplateProblem::PolicyDocument(TooLong { length: 4008 }));
}

#[test]
fn a_policy_has_either_a_name_or_a_document() {
    for properties in [json!({}), json!({ "PolicyName": "p", "PolicyDocument": CONNECT })] {
        let policy = json!({ "Type": "AWS::IoT::Policy", "Properties": properties });
        let (path, problem) = refusal(&with("/Resources", "policy", policy));
        assert_eq!(path, "/Resources/policy/Properties");
        assert!(matches!(problem, TemplateProblem::NotOne { .. }));
    }
    let policy = json!({ "Type": "AWS::IoT::Policy", "Properties": { "PolicyName": "p" }, "OverrideSettings": {} });
    assert_eq!(refusal(&with("/Resources", "policy", policy)).0, "/Resources/policy/OverrideSettings");
}

#[test]
fn a_certificate_has_exactly_one_source() {
    for properties in [
        json!({}),
        json!({ "CertificateId": "a", "CertificateSigningRequest": "b" }),
        json!({ "CertificateId": "a", "CACertificatePem": "b" }),
        json!({ "CACertificatePem": "b" }),
    ] {
        let mut template = smallest();
        template["Resources"]["certificate"]["Properties"] = properties;
        assert!(matches!(refusal(&template).1, TemplateProblem::NotOne { .. }), "{template}");
    }
}

#[test]
fn settings_outside_their_enumeration_are_refused() {
    let certificate = "/Resources/certificate/Properties";
    assert_eq!(
        refusal(&with(certificate, "Status", json!("REVOKED"))).1,
        TemplateProblem::Expected("ACTIVE or INACTIVE")
    );
    assert_eq!(
        refusal(&with(certificate, "ThingPrincipalType", json!("ANY"))).1,
        TemplateProblem::Expected("EXCLUSIVE_THING or NON_EXCLUSIVE_THING")
    );
    for (resource, key, setting) in [
        ("/Resources/thing", "AttributePayload", json!("KEEP")),
        ("/Resources/thing", "ThingGroups", json!({ "Ref": "Serial" })),
        ("/Resources/thing", "ThingTypeName", json!("MERGE")),
        ("/Resources/certificate", "Status", json!("MERGE")),
    ] {
        let (path, problem) = refusal(&with(resource, "OverrideSettings", json!({ key: setting })));
        assert_eq!(path, format!("{resource}/OverrideSettings/{key}"));
        assert!(matches!(problem, TemplateProblem::Expected(_)));
    }
}

#[test]
fn a_thing_has_no_more_than_the_service_takes() {
    let attributes = |count: usize| {
        let attributes = (0..count).map(|index| (format!("a{index}"), json!("v")));
        Value::Object(attributes.collect())
    };
    assert!(parse(&with_thing("AttributePayload", attributes(3))).is_ok());
    assert!(matches!(
        refusal(&with_thing("AttributePayload", attributes(4))).1,
        TemplateProblem::TooMany { max: 3, count: 4, .. }
    ));
    let mut typed = with_thing("AttributePayload", attributes(50));
    typed["Resources"]["thing"]["Properties"]["ThingTypeName"] = json!("t");
    assert!(parse(&typed).is_ok());
    typed["Resources"]["thing"]["Properties"]["AttributePayload"] = attributes(51);
    assert!(matches!(refusal(&typed).1, TemplateProblem::TooMany { max: 50, count: 51, .. }));

    let groups = |count: usize| Value::from((0..count).map(|index| format!("g{index}")).collect::<Vec<_>>());
    assert!(parse(&with_thing("ThingGroups", groups(10))).is_ok());
    assert!(matches!(
        refusal(&with_thing("ThingGroups", groups(11))).1,
        TemplateProblem::TooMany { max: 10, count: 11, .. }
    ));

    let mut policies = smallest();
    for index in 0..11 {
        policies["Resources"][format!("p{index}")] =
            json!({ "Type": "AWS::IoT::Policy", "Properties": { "PolicyName": "p" } });
    }
    assert!(matches!(refusal(&policies).1, TemplateProblem::TooMany { max: 10, count: 11, .. }));
}
