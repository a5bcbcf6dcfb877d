//! What holds for every template and every value.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};

use super::*;

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 128,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x7e3a),
        ..ProptestConfig::default()
    }
}

/// A template that hands `call` to the device, with the parameters `a` (no default) and `b` (default `b-default`).
fn template(call: &Value) -> Value {
    json!({
        "Parameters": { "a": { "Type": "String" }, "b": { "Type": "String", "Default": "b-default" } },
        "Mappings": { "m": { "x": { "k": "one" }, "y": { "k": "two" } } },
        "Resources": {
            "t": { "Type": "AWS::IoT::Thing", "Properties": { "ThingName": "fixed" } },
            "c": { "Type": "AWS::IoT::Certificate", "Properties": { "CertificateId": "fixed" } }
        },
        "DeviceConfiguration": { "result": call }
    })
}

fn result(call: &Value, a: &str) -> Result<String, TemplateError> {
    let mut values = Parameters::default();
    values.insert("a", a).unwrap();
    let resources = ProvisioningTemplate::parse(&template(call).to_string())?.evaluate(&values)?;
    Ok(resources.device_configuration["result"].clone())
}

/// Expressions and near misses of every function.
fn calls() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        6 => "[a-z$&*{}!|-]{0,6}".prop_map(Value::from),
        6 => Just(json!({ "Ref": "a" })),
        3 => Just(json!({ "Ref": "b" })),
        2 => Just(json!({ "Ref": "AWS::IoT::Certificate::Id" })),
        3 => Just(json!({ "Fn::Sub": "${a}|${!b}" })),
        3 => Just(json!({ "Fn::FindInMap": ["m", { "Ref": "a" }, "k"] })),
        1 => any::<i8>().prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        let list = prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            inner.clone().prop_map(|text| json!({ "Fn::Split": ["-", text] })),
        ];
        prop_oneof![
            3 => (".{0,2}", list.clone()).prop_map(|(delimiter, list)| json!({ "Fn::Join": [delimiter, list] })),
            3 => (0..3_u8, list.clone()).prop_map(|(index, list)| json!({ "Fn::Select": [index, list] })),
            1 => (inner.clone(), list.clone()).prop_map(|(index, list)| json!({ "Fn::Select": [index, list] })),
            3 => inner.clone().prop_map(|value| json!({ "Fn::Sub": ["${v}-${b}${v}", { "v": value }] })),
            1 => (inner.clone(), inner).prop_map(|(top, second)| json!({ "Fn::FindInMap": ["m", top, second] })),
            1 => list,
        ]
    })
}

fn any_json() -> impl Strategy<Value = Value> {
    let keys = prop_oneof![
        prop::sample::select(vec!["Ref", "Fn::Join", "Type", "Properties", "Parameters", "Resources", "Default"])
            .prop_map(str::to_owned),
        ".{0,4}",
    ];
    let leaf = prop_oneof![
        ".{0,8}".prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from)
    ];
    leaf.prop_recursive(6, 48, 5, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            btree_map(keys.clone(), inner, 0..5).prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn ref_gives_the_value_or_else_the_default(value in ".{0,64}") {
        prop_assert_eq!(result(&json!({ "Ref": "a" }), &value), Ok(value.clone()));
        prop_assert_eq!(result(&json!({ "Ref": "b" }), &value), Ok("b-default".to_owned()));
    }

    #[test]
    fn joining_what_was_split_changes_nothing(delimiter in "[a-c|]{1,2}", text in "[a-d|]{0,32}") {
        let call = json!({ "Fn::Join": [delimiter, { "Fn::Split": [delimiter, { "Ref": "a" }] }] });
        prop_assert_eq!(result(&call, &text), Ok(text.clone()));
    }

    #[test]
    fn select_of_split_picks_that_part_or_is_refused(parts in vec("[a-z]{0,4}", 1..6), index in 0..8_usize) {
        let text = parts.join("|");
        let call = json!({ "Fn::Select": [index, { "Fn::Split": ["|", { "Ref": "a" }] }] });
        prop_assert_eq!(result(&call, &text).ok(), parts.get(index).cloned());
    }

    #[test]
    fn select_of_a_list_picks_that_element_or_is_refused(items in vec("[a-z]{0,4}", 1..6), index in 0..8_usize) {
        let call = json!({ "Fn::Select": [index.to_string(), items] });
        prop_assert_eq!(result(&call, "").ok(), items.get(index).cloned());
    }

    #[test]
    fn sub_is_the_join_of_its_pieces(before in "[^$]{0,8}", after in "[^$]{0,8}", value in ".{0,16}") {
        let sub = json!({ "Fn::Sub": format!("{before}${{a}}{after}") });
        let variable = json!({ "Fn::Sub": [format!("{before}${{v}}{after}"), { "v": { "Ref": "a" } }] });
        let join = json!({ "Fn::Join": ["", [before, { "Ref": "a" }, after]] });
        let joined = result(&join, &value);
        prop_assert!(joined.is_ok());
        prop_assert_eq!(&result(&sub, &value), &joined);
        prop_assert_eq!(&result(&variable, &value), &joined);
    }

    #[test]
    fn a_substituted_value_is_not_substituted_again(name in "[ab!]{0,2}") {
        let value = format!("${{{name}}}");
        prop_assert_eq!(result(&json!({ "Fn::Sub": "${a}" }), &value), Ok(value.clone()));
    }

    #[test]
    fn find_in_map_looks_up_or_is_refused(top in "[w-z]", second in "[j-l]") {
        let expected = match (top.as_str(), second.as_str()) {
            ("x", "k") => Some("one".to_owned()),
            ("y", "k") => Some("two".to_owned()),
            _ => None,
        };
        prop_assert_eq!(result(&json!({ "Fn::FindInMap": ["m", { "Ref": "a" }, second] }), &top).ok(), expected.clone());
        prop_assert_eq!(result(&json!({ "Fn::FindInMap": ["m", top, second] }), "").ok(), expected);
    }

    #[test]
    fn every_expression_gives_text_or_a_refusal(call in calls(), value in "[a-z0-9$*{}|-]{0,12}") {
        let _ = result(&call, &value);
    }

    #[test]
    fn threat_50_a_hostile_value_is_refused_or_has_no_effect_on_a_policy_document(
        call in calls(),
        value in "[*?$#+/{}\"\\\\ ]{1,8}",
    ) {
        let document = json!({ "Statement": [{ "Resource": { "Fn::Sub": ["x/${v}", { "v": call }] } }] });
        let mut body = template(&json!("unused"));
        body["Resources"]["p"] = json!({ "Type": "AWS::IoT::Policy", "Properties": { "PolicyDocument": document } });
        let Ok(parsed) = ProvisioningTemplate::parse(&body.to_string()) else { return Ok(()) };
        let policies = |a: &str| {
            let mut values = Parameters::default();
            values.insert("a", a).unwrap();
            values.insert("AWS::IoT::Certificate::Id", "ab12").unwrap();
            parsed.evaluate(&values).map(|resources| resources.policies)
        };
        prop_assert_eq!(policies(&value).ok(), policies("*").ok());
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = ProvisioningTemplate::parse(&text);
    }

    #[test]
    fn any_json_is_read_or_refused(json in any_json()) {
        let _ = ProvisioningTemplate::parse(&json.to_string());
    }

    #[test]
    fn any_json_in_any_place_is_evaluated_or_refused(
        json in any_json(),
        place in prop::sample::select(vec![
            "/Parameters/a", "/Mappings/m", "/Resources/t", "/Resources/t/Properties", "/Resources/t/Properties/ThingName",
            "/Resources/c/Properties", "/DeviceConfiguration", "/DeviceConfiguration/result",
        ]),
    ) {
        let mut body = template(&json!({ "Ref": "a" }));
        *body.pointer_mut(place).unwrap() = json;
        let mut values = Parameters::default();
        values.insert("a", "value").unwrap();
        if let Ok(parsed) = ProvisioningTemplate::parse(&body.to_string()) {
            let _ = parsed.evaluate(&values);
        }
    }

    #[test]
    fn any_template_up_to_the_limit_is_read_or_refused(unit in calls(), depth in 1..120_usize) {
        let mut call = unit;
        for _ in 0..depth {
            let deeper = json!({ "Fn::Join": ["", [call]] });
            if template(&deeper).to_string().len() > ProvisioningTemplate::MAX_LENGTH {
                break;
            }
            call = deeper;
        }
        let _ = result(&call, "value");
    }
}
