//! What each function gives, and which calls are refused.

use serde_json::{Value, json};

use super::*;

/// What a function gives, read back from the device configuration.
fn function(call: Value, given: &[(&str, &str)]) -> Result<String, TemplateError> {
    let mut template = smallest();
    template["Mappings"] =
        json!({ "Sites": { "rome": { "url": "https://it.example" }, "oslo": { "url": "n", "alt": "o" } } });
    template["Parameters"]["Other"] = json!({ "Type": "String", "Default": "fallback" });
    template["DeviceConfiguration"] = json!({});
    template["DeviceConfiguration"]["result"] = call;
    let given: Vec<_> = [("Serial", "sn-1")].into_iter().chain(given.iter().copied()).collect();
    evaluate(&template, &given).map(|mut resources| resources.device_configuration.remove("result").unwrap())
}

fn function_refusal(call: Value, given: &[(&str, &str)]) -> TemplateProblem {
    place(function(call, given).unwrap_err()).1
}

#[test]
fn functions_give_what_their_reference_says() {
    let other = json!({ "Ref": "Other" });
    for (call, expected) in [
        (json!("plain ${text}"), "plain ${text}"),
        (json!({ "Ref": "Serial" }), "sn-1"),
        (json!({ "Ref": "Other" }), "fallback"),
        (json!({ "Fn::Join": [":", ["a", "b", "c"]] }), "a:b:c"),
        (json!({ "Fn::Join": ["", ["a", other]] }), "afallback"),
        (json!({ "Fn::Join": ["+", { "Fn::Split": ["|", "a||c|"] }] }), "a++c+"),
        (json!({ "Fn::Select": [1, ["a", "b"]] }), "b"),
        (json!({ "Fn::Select": ["2", { "Fn::Split": [",", "a,b,c"] }] }), "c"),
        (json!({ "Fn::Select": ["1", { "Fn::Split": ["-", { "Ref": "Serial" }] }] }), "1"),
        (json!({ "Fn::FindInMap": ["Sites", "rome", "url"] }), "https://it.example"),
        (json!({ "Fn::Sub": "a-${Serial}-${!Literal}-$" }), "a-sn-1-${Literal}-$"),
        (json!({ "Fn::Sub": ["${x}${x}${Other}", { "x": { "Ref": "Serial" } }] }), "sn-1sn-1fallback"),
        (json!({ "Fn::Sub": ["${Serial}", { "Serial": "shadow" }] }), "shadow"),
        (json!({ "Fn::Sub": ["${a}-${Other}", { "a": { "Fn::FindInMap": ["Sites", "oslo", "alt"] } }] }), "o-fallback"),
    ] {
        assert_eq!(function(call.clone(), &[]).as_deref(), Ok(expected), "{call}");
    }
    assert_eq!(function(json!({ "Ref": "Other" }), &[("Other", "")]).as_deref(), Ok(""));
    let pick = json!({ "Fn::FindInMap": ["Sites", { "Ref": "Other" }, "url"] });
    assert_eq!(function(pick.clone(), &[("Other", "rome")]).as_deref(), Ok("https://it.example"));
    assert_eq!(function_refusal(pick, &[]), TemplateProblem::NoSuchEntry { map: "Sites".to_owned() });
}

#[test]
fn an_unresolved_reference_is_refused() {
    let undeclared = TemplateProblem::UndeclaredParameter { name: "Nobody".to_owned() };
    for call in [
        json!({ "Ref": "Nobody" }),
        json!({ "Fn::Sub": "${Nobody}" }),
        json!({ "Fn::Sub": ["x", { "unused": { "Ref": "Nobody" } }] }),
        json!({ "Fn::Select": [0, ["a", { "Ref": "Nobody" }]] }),
    ] {
        assert_eq!(function_refusal(call.clone(), &[]), undeclared, "{call}");
    }
    // A logical name is no parameter.
    assert!(matches!(function_refusal(json!({ "Ref": "thing" }), &[]), TemplateProblem::UndeclaredParameter { .. }));
    let mut source = smallest();
    source["Resources"]["certificate"]["Properties"]["CertificateId"] = json!({ "Ref": "Nobody" });
    assert_eq!(refusal(&source).1, undeclared);
}

#[test]
fn a_lookup_that_can_never_succeed_is_refused_at_start() {
    let missing = |call: Value| function_refusal(call, &[]);
    let entry = TemplateProblem::NoSuchEntry { map: "Sites".to_owned() };
    assert_eq!(
        missing(json!({ "Fn::FindInMap": ["Nowhere", "a", "b"] })),
        TemplateProblem::NoSuchMap { map: "Nowhere".to_owned() }
    );
    assert_eq!(missing(json!({ "Fn::FindInMap": ["Sites", "bern", "url"] })), entry);
    assert_eq!(missing(json!({ "Fn::FindInMap": ["Sites", "rome", "alt"] })), entry);
    let template = |call: Value| {
        let mut template = with("", "DeviceConfiguration", json!({ "result": call }));
        template["Mappings"] = json!({ "Sites": { "rome": { "url": "i" } } });
        refusal(&template).1
    };
    assert_eq!(template(json!({ "Fn::FindInMap": ["Sites", { "Ref": "Serial" }, "alt"] })), entry);
    assert_eq!(template(json!({ "Fn::FindInMap": ["Sites", "bern", { "Ref": "Serial" }] })), entry);
}

#[test]
fn a_malformed_function_is_refused() {
    for call in [
        json!(1),
        json!(null),
        json!({}),
        json!(["a"]),
        json!({ "Ref": "Serial", "Fn::Sub": "x" }),
        json!({ "Ref": { "Ref": "Serial" } }),
        json!({ "Fn::Join": ["", []] }),
        json!({ "Fn::Join": ["", ["a"], "b"] }),
        json!({ "Fn::Join": [{ "Ref": "Serial" }, ["a"]] }),
        json!({ "Fn::Join": ["", "a"] }),
        json!({ "Fn::Join": ["", { "Ref": "Serial" }] }),
        json!({ "Fn::Join": ["", ["a", null]] }),
        json!({ "Fn::Select": [-1, ["a"]] }),
        json!({ "Fn::Select": ["+0", ["a"]] }),
        json!({ "Fn::Select": [0.5, ["a"]] }),
        json!({ "Fn::Select": ["one", ["a"]] }),
        json!({ "Fn::Select": [0, []] }),
        json!({ "Fn::Split": ["-", "a-b"] }),
        json!({ "Fn::Select": [0, { "Fn::Split": ["", "a"] }] }),
        json!({ "Fn::FindInMap": ["Sites", "rome"] }),
        json!({ "Fn::FindInMap": [{ "Ref": "Serial" }, "rome", "url"] }),
        json!({ "Fn::Sub": [{ "Ref": "Serial" }, {}] }),
        json!({ "Fn::Sub": ["x"] }),
        json!({ "Fn::Sub": ["x", "y"] }),
    ] {
        assert!(matches!(function_refusal(call.clone(), &[]), TemplateProblem::Expected(_)), "{call}");
    }
    for text in ["${", "${}", "${!}", "a ${Serial"] {
        assert_eq!(function_refusal(json!({ "Fn::Sub": text }), &[]), TemplateProblem::Unclosed, "{text}");
    }
}

#[test]
fn an_index_beyond_the_list_is_refused() {
    let beyond = json!({ "Fn::Select": [1, [{ "Ref": "Serial" }]] });
    assert_eq!(function_refusal(beyond, &[]), TemplateProblem::Index { length: 1 });
    let literal = json!({ "Fn::Select": [2, { "Fn::Split": ["-", "a-b"] }] });
    assert_eq!(function_refusal(literal, &[]), TemplateProblem::Index { length: 2 });
    let chosen = json!({ "Fn::Select": [{ "Ref": "Other" }, ["a", "b"]] });
    assert_eq!(function(chosen.clone(), &[("Other", "1")]).as_deref(), Ok("b"));
    assert_eq!(function_refusal(chosen.clone(), &[("Other", "2")]), TemplateProblem::Index { length: 2 });
    assert_eq!(
        function_refusal(chosen, &[("Other", "99999999999999999999")]),
        TemplateProblem::Expected("a list index, in decimal digits")
    );
}

#[test]
fn text_that_multiplies_itself_is_refused() {
    let mut call = json!({ "Ref": "Other" });
    for _ in 0..20 {
        call = json!({ "Fn::Sub": ["${a}${a}${a}${a}", { "a": call }] });
    }
    assert_eq!(function_refusal(call.clone(), &[]), TemplateProblem::TextTooLong);
    // Nothing, multiplied, is nothing, and is found to be so in linear time.
    assert_eq!(function(call, &[("Other", "")]).as_deref(), Ok(""));
    let joined = json!({ "Fn::Join": ["", vec![json!({ "Ref": "Other" }); 4]] });
    assert_eq!(function_refusal(joined, &[("Other", &"x".repeat(4096))]), TemplateProblem::TextTooLong);
}
