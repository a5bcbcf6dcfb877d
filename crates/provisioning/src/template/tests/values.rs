//! What a value may do, and where it may not go.

use serde_json::{Value, json};

use super::*;

#[test]
fn threat_14_a_hostile_value_reaches_no_name_or_attribute() {
    let reference = json!({ "Ref": "Serial" });
    let places = [
        with_thing("ThingName", json!({ "Fn::Sub": "t-${Serial}" })),
        with_thing("ThingTypeName", reference.clone()),
        with_thing("ThingGroups", json!({ "Fn::Split": [",", reference.clone()] })),
        with_thing("BillingGroup", reference.clone()),
        with_thing("AttributePayload", json!({ "serial": reference.clone() })),
        with_thing("PackageVersions", json!({ "firmware": reference.clone() })),
        with("/Resources", "p", json!({ "Type": "AWS::IoT::Policy", "Properties": { "PolicyName": reference } })),
    ];
    for template in places {
        for hostile in ["*", "a b", "a\0", "a\n", "ｓｎ", "${iot:ClientId}", "a?", "a\"", "\u{200b}"] {
            let error = evaluate(&template, &[("Serial", hostile)]).unwrap_err();
            assert!(!error.to_string().contains(hostile), "{error}");
            assert!(matches!(place(error).1, TemplateProblem::Name(_)), "{hostile:?} in {template}");
        }
        assert!(evaluate(&template, &[("Serial", "sn-1")]).is_ok(), "{template}");
    }
}

#[test]
fn threats_14_and_50_a_value_in_a_policy_document_means_nothing_there() {
    let document = |resource: Value| json!({ "Version": "2012-10-17", "Statement": [{ "Resource": resource }] });
    let text = json!({ "Fn::Sub": r#"{"Statement":[{"Resource":"arn:aws:iot:::topic/${Serial}/*"}]}"# });
    let places = [
        text,
        document(json!({ "Ref": "Serial" })),
        document(json!([{ "Fn::Sub": "topic/${Serial}" }])),
        document(json!({ "Fn::Sub": ["topic/${s}", { "s": { "Ref": "Serial" } }] })),
        document(json!({ "Fn::Join": ["/", ["topic", { "Ref": "Serial" }]] })),
        document(json!({ "Fn::Select": [0, { "Fn::Split": ["/", { "Ref": "Serial" }] }] })),
        json!({ "Fn::Join": ["", ["{\"Resource\":\"", { "Ref": "Serial" }, "\"}"]] }),
    ];
    let hostile = [
        "",
        "*",
        "a*",
        "?",
        "${iot:ClientId}",
        "$",
        "a/b",
        "a\",\"Effect\":\"Allow",
        "\\u002a",
        "a b",
        "é",
        "+",
        "#",
        "a\n",
    ];
    for place_of_value in places {
        let mut template = with_policy(place_of_value);
        template["Resources"]["thing"]["Properties"]["ThingName"] = json!("fixed");
        for value in hostile {
            let (path, problem) = place(evaluate(&template, &[("Serial", value)]).unwrap_err());
            assert_eq!(path, "/Resources/policy/Properties/PolicyDocument");
            assert_eq!(
                problem,
                TemplateProblem::UnsafeValue { parameter: "Serial".to_owned() },
                "{value:?} in {template}"
            );
        }
        let resources = evaluate(&template, &[("Serial", "AA:bb_0-9.c")]).unwrap();
        let Policy::Document(document) = &resources.policies[0] else { panic!("{resources:?}") };
        assert!(document.as_str().contains("AA:bb_0-9.c"));
    }
}

#[test]
fn an_empty_part_of_a_value_reaches_no_policy_document() {
    let split = json!({ "Fn::Split": ["-", { "Ref": "Serial" }] });
    let template = with_policy(json!({ "Resource": { "Fn::Select": [0, split] } }));
    assert_eq!(place(evaluate(&template, &[("Serial", "a-")]).unwrap_err()).1, TemplateProblem::EmptyPart);
    assert!(evaluate(&template, &[("Serial", "a-b")]).is_ok());
}

#[test]
fn a_value_may_choose_among_the_authors_texts_in_a_policy_document() {
    let lookup = json!({ "Fn::FindInMap": ["Topics", { "Ref": "Serial" }, "topic"] });
    let mut template = with_policy(json!({ "Resource": lookup }));
    template["Resources"]["thing"]["Properties"]["ThingName"] = json!("fixed");
    template["Mappings"] = json!({ "Topics": { "New York": { "topic": "arn:aws:iot:::topic/ny/*" } } });
    let resources = evaluate(&template, &[("Serial", "New York")]).unwrap();
    assert_eq!(
        resources.policies,
        [Policy::Document(PolicyDocument::try_from(r#"{"Resource":"arn:aws:iot:::topic/ny/*"}"#.to_owned()).unwrap())]
    );
}

#[test]
fn a_value_for_an_undeclared_parameter_is_refused() {
    let error = evaluate(&smallest(), &[("Serial", "sn-1"), ("Sneaky\n", "x")]).unwrap_err();
    assert_eq!(error, TemplateError::UndeclaredValue { name: "Sneaky\\n".to_owned() });
    assert!(evaluate(&smallest(), &[("Serial", "sn-1"), ("AWS::IoT::Certificate::Country", "FR")]).is_ok());
    assert!(evaluate(&smallest(), &[("Serial", "sn-1"), ("AWS::IoT::Certificate::Key", "x")]).is_err());
}

#[test]
fn a_parameter_without_value_and_default_is_refused_by_name() {
    let missing = |template: &Value, given: &[(&str, &str)]| place(evaluate(template, given).unwrap_err());
    assert_eq!(missing(&smallest(), &[]), ("/Parameters/Serial".to_owned(), TemplateProblem::MissingValue));
    let unused = with("/Parameters", "Unused", json!({ "Type": "String" }));
    assert_eq!(missing(&unused, &[("Serial", "a")]), ("/Parameters/Unused".to_owned(), TemplateProblem::MissingValue));
    let pseudo = with_thing("ThingName", json!({ "Ref": "AWS::IoT::Certificate::SerialNumber" }));
    assert_eq!(missing(&pseudo, &[("Serial", "a")]).0, "/Parameters/AWS::IoT::Certificate::SerialNumber");
}

#[test]
fn a_certificate_id_that_is_only_declared_needs_no_value() {
    let template = with("/Parameters", CERTIFICATE_ID, json!({ "Type": "String" }));
    assert!(!parse(&template).unwrap().uses_certificate_id_outside_certificate());
    assert!(evaluate(&template, &[("Serial", "sn-1")]).is_ok());
}

#[test]
fn the_use_of_the_certificate_id_is_found_wherever_it_hides() {
    let id = json!({ "Ref": CERTIFICATE_ID });
    for template in [
        with_thing("ThingName", json!({ "Fn::Sub": "t-${AWS::IoT::Certificate::Id}" })),
        with_thing("ThingGroups", json!({ "Fn::Split": [",", id] })),
        with_thing("AttributePayload", json!({ "a": { "Fn::Select": [0, ["a", id]] } })),
        with_thing("PackageVersions", json!({ "a": id })),
        with_policy(json!({ "Statement": [{ "Resource": { "Fn::Join": ["", ["a", id]] } }] })),
        with("", "DeviceConfiguration", json!({ "a": { "Fn::Sub": ["x", { "unused": id }] } })),
    ] {
        assert!(parse(&template).unwrap().uses_certificate_id_outside_certificate(), "{template}");
    }
}

#[test]
fn parameters_are_bounded_and_given_once() {
    let mut parameters = Parameters::default();
    assert_eq!(parameters.insert("", "v"), Err(InvalidParameter::NameLength { length: 0 }));
    assert_eq!(parameters.insert("n".repeat(2049), "v"), Err(InvalidParameter::NameLength { length: 2049 }));
    assert_eq!(parameters.insert("n", "é".repeat(4097)), Err(InvalidParameter::ValueLength { length: 4097 }));
    assert_eq!(parameters.insert("n".repeat(2048), "é".repeat(4096)), Ok(()));
    assert_eq!(parameters.insert("n", "v"), Ok(()));
    assert_eq!(parameters.insert("n", "w"), Err(InvalidParameter::Repeated));
}

#[test]
fn a_device_does_not_speak_for_its_certificate() {
    let sent = |name: &str| Parameters::from_device(BTreeMap::from([(name.to_owned(), "v".to_owned())]));
    assert_eq!(sent("AWS::IoT::Certificate::CommonName"), Err(InvalidParameter::Reserved));
    assert!(sent("Serial").is_ok());
}
