use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// The DevicePolicy of template.yaml, as CloudFormation has it before and after it fills in what is the stack's.
fn device_policy(arn: &str, open: &str) -> Value {
    let thing = format!("{open}iot:Connection.Thing.ThingName}}");
    json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "iot:Connect",
                "Resource": format!("{arn}:client/{thing}"),
                "Condition": { "Bool": { "iot:Connection.Thing.IsAttached": "true" } },
            },
            {
                "Effect": "Allow",
                "Action": ["iot:Publish", "iot:Receive"],
                "Resource": format!("{arn}:topic/devices/{thing}/*"),
            },
            {
                "Effect": "Allow",
                "Action": "iot:Subscribe",
                "Resource": format!("{arn}:topicfilter/devices/{thing}/*"),
            },
        ],
    })
}

/// The same with a change to one statement.
fn changed(statement: usize, key: &str, value: Value) -> Value {
    let mut policy = device_policy(ARN, "${");
    policy["Statement"][statement][key] = value;
    policy
}

const ARN: &str = "arn:aws:iot:eu-central-1:123456789012";

fn found(policy: &Value) -> Vec<(String, PolicyProblem)> {
    lint_policy(&policy.to_string()).into_iter().map(|finding| (finding.path, finding.problem)).collect()
}

#[test]
fn threat_50_the_policy_of_the_stack_passes() {
    for (arn, open) in
        [(ARN, "${"), ("arn:${AWS::Partition}:iot:${AWS::Region}:${AWS::AccountId}", "${!"), ("arn:aws:iot:*:*", "${")]
    {
        assert_eq!(found(&device_policy(arn, open)), []);
    }
    let mut policy = device_policy("arn:aws:iot:${AWS::Region}:${AWS::AccountId}", "${!");
    for statement in policy["Statement"].as_array_mut().unwrap() {
        statement["Resource"] = json!([{ "Fn::Sub": statement["Resource"] }]);
    }
    assert_eq!(found(&policy), []);
    assert!(
        include_str!("../../../../template.yaml").contains("client/${!iot:Connection.Thing.ThingName}"),
        "the copy above is of this policy"
    );
}

#[test]
fn threat_50_an_action_of_everything_is_refused() {
    for action in ["*", "iot:*"] {
        let problems = found(&changed(1, "Action", json!(action)));
        assert_eq!(problems[0], ("/Statement/1/Action".to_owned(), PolicyProblem::EveryAction));
    }
    let policy = changed(1, "Resource", json!("*"));
    assert_eq!(found(&policy), [("/Statement/1/Resource".to_owned(), PolicyProblem::EveryResource)]);
    // An action with a wildcard is all the actions that it is for.
    let policy = json!({ "Effect": "Allow", "Action": "iot:Pub*", "Resource": format!("{ARN}:topic/*") });
    let policy = json!({ "Version": "2012-10-17", "Statement": policy });
    assert_eq!(found(&policy), [("/Statement/Resource".to_owned(), PolicyProblem::Unbound)]);
}

#[test]
fn threat_50_a_client_is_bound_to_the_device() {
    let client = |name: &str| changed(0, "Resource", json!(format!("{ARN}:client/{name}")));
    for (name, problem) in [
        ("*", PolicyProblem::ClientWildcard),
        ("sn-*", PolicyProblem::ClientWildcard),
        ("${iot:Connection.Thing.ThingName}*", PolicyProblem::ClientWildcard),
        ("sn-1", PolicyProblem::UnboundClient),
        ("${iot:DomainName}", PolicyProblem::UnboundClient),
        ("${AWS::StackName}", PolicyProblem::UnboundClient),
    ] {
        assert_eq!(found(&client(name)), [("/Statement/0/Resource".to_owned(), problem)], "{name}");
    }
    for name in ["${iot:Certificate.Subject.CommonName}", "meter-${iot:Connection.Thing.ThingName}", "${iot:ClientId}"]
    {
        assert_eq!(found(&client(name)), [], "{name}");
    }
    for everything in ["*", &format!("{ARN}:*"), "arn:aws:iot:*"] {
        let policy = changed(0, "Resource", json!(everything));
        assert_eq!(found(&policy)[0].1, PolicyProblem::EveryResource, "{everything}");
    }
}

#[test]
fn threat_50_topics_are_bound_to_the_device() {
    let thing = "${iot:Connection.Thing.ThingName}";
    for (statement, name, problem) in [
        (1, "topic/*".to_owned(), PolicyProblem::Unbound),
        (1, "topic/devices/*".to_owned(), PolicyProblem::Unbound),
        (1, format!("topic/*/{thing}/*"), PolicyProblem::Unbound),
        (1, format!("topic/devices/{thing}*"), PolicyProblem::PrefixWildcard),
        (1, "topic/alerts".to_owned(), PolicyProblem::Shared),
        (2, "topicfilter/*".to_owned(), PolicyProblem::Unbound),
        (2, "topicfilter/devices/+/state".to_owned(), PolicyProblem::Unbound),
        (2, "topicfilter/#".to_owned(), PolicyProblem::Unbound),
        (2, format!("topicfilter/+/{thing}"), PolicyProblem::Unbound),
    ] {
        let policy = changed(statement, "Resource", json!([format!("{ARN}:{name}")]));
        assert_eq!(found(&policy), [(format!("/Statement/{statement}/Resource/0"), problem)], "{name}");
    }
    for name in ["$aws/things/${iot:Connection.Thing.ThingName}/shadow/*", "$aws/certificates/create/*", "$aws/rules/a"]
    {
        assert_eq!(found(&changed(1, "Resource", json!(format!("{ARN}:topic/{name}")))), [], "{name}");
    }
    let shadow = json!({ "Effect": "Allow", "Action": "iot:GetThingShadow", "Resource": format!("{ARN}:thing/*") });
    let policy = json!({ "Version": "2012-10-17", "Statement": [shadow] });
    assert_eq!(found(&policy)[0].1, PolicyProblem::Unbound);
}

#[test]
fn threat_50_all_but_something_is_never_allowed() {
    let mut policy = device_policy(ARN, "${");
    policy["Statement"][1] = json!({ "Effect": "Allow", "NotAction": "iot:Connect", "Resource": "*" });
    policy["Statement"][2] = json!({ "Effect": "Allow", "Action": "iot:Publish", "NotResource": "a" });
    assert_eq!(
        found(&policy),
        [
            ("/Statement/1/NotAction".to_owned(), PolicyProblem::AllButAction),
            ("/Statement/2/NotResource".to_owned(), PolicyProblem::AllButResource),
        ]
    );
    policy["Statement"][1]["Effect"] = json!("Deny");
    policy["Statement"][2]["Effect"] = json!("Deny");
    assert_eq!(found(&policy), []);
}

#[test]
fn a_client_without_its_thing_is_warned_about() {
    for condition in [
        Value::Null,
        json!({ "Bool": { "iot:Connection.Thing.IsAttached": "false" } }),
        json!({ "Bool": { "iot:Connection.Thing.IsAttached": ["true", "false"] } }),
        json!({ "StringEquals": { "iot:Connection.Thing.ThingTypeName": "camera" } }),
    ] {
        let problems = found(&changed(0, "Condition", condition));
        assert_eq!(problems, [("/Statement/0/Condition".to_owned(), PolicyProblem::NotAttached)]);
        assert_eq!(problems[0].1.severity(), Severity::Warning);
    }
    for condition in [json!(["true"]), json!(true)] {
        let policy = changed(0, "Condition", json!({ "Bool": { "iot:Connection.Thing.IsAttached": condition } }));
        assert_eq!(found(&policy), []);
    }
}

#[test]
fn what_the_device_chooses_itself_is_warned_about() {
    let mut policy = device_policy(ARN, "${");
    policy["Statement"][1]["Resource"] = json!(format!("{ARN}:topic/devices/${{iot:ClientId}}/*"));
    assert_eq!(found(&policy), [], "the connection binds the client id to the thing");
    policy["Statement"][0].as_object_mut().unwrap().remove("Condition");
    let problems = found(&policy);
    assert!(problems.contains(&("/Statement/1/Resource".to_owned(), PolicyProblem::ChosenByTheDevice)), "{problems:?}");
    assert!(problems.iter().all(|(_, problem)| problem.severity() == Severity::Warning));
}

#[test]
fn an_action_without_a_resource_of_its_kind_is_warned_about() {
    let policy = changed(2, "Resource", json!(format!("{ARN}:topic/devices/${{iot:ClientId}}/*")));
    let problem = PolicyProblem::NoEffect { action: "iot:Subscribe".to_owned(), expected: "topicfilter" };
    assert_eq!(found(&policy), [("/Statement/2/Resource".to_owned(), problem)]);
}

#[test]
fn what_is_no_policy_is_refused() {
    for (text, problem) in [
        ("", PolicyProblem::Document(InvalidPolicyDocument::NotJson)),
        ("[]", PolicyProblem::Document(InvalidPolicyDocument::NotAnObject)),
        (r#"{"Version":"a","Version":"b"}"#, PolicyProblem::Document(InvalidPolicyDocument::DuplicateKey)),
        (r#"{"Statement":[]}"#, PolicyProblem::Version),
        (r#"{"Version":"2012-10-17"}"#, PolicyProblem::Expected("a list of statements")),
        (r#"{"Version":"2012-10-17","Statement":[1]}"#, PolicyProblem::Expected("Allow or Deny")),
    ] {
        assert_eq!(lint_policy(text)[0].problem, problem, "{text}");
    }
    for (key, value) in [("Action", json!(7)), ("Resource", json!([])), ("Resource", json!([7]))] {
        assert!(matches!(found(&changed(1, key, value))[0].1, PolicyProblem::Expected(_)), "{key}");
    }
    let long = changed(1, "Sid", json!("x".repeat(2048)));
    let problems = found(&long);
    assert!(
        matches!(problems[..], [(_, PolicyProblem::Document(InvalidPolicyDocument::TooLong { .. }))]),
        "{problems:?}"
    );
}

#[test]
fn every_problem_says_what_to_do() {
    for problem in [PolicyProblem::EveryAction, PolicyProblem::Shared, PolicyProblem::NotAttached] {
        assert!(!problem.advice().is_empty() && !problem.to_string().ends_with('.'), "{problem}");
    }
}

proptest! {
    #[test]
    fn any_text_is_looked_at_without_a_panic(action in r"(iot:)?[A-Za-z*?]{0,12}", resource in r"(arn:aws:iot:|topic/|[${}:/*?+#!A-Zé]|iot:ClientId){0,12}") {
        let statement = json!({ "Effect": "Allow", "Action": action, "Resource": resource });
        found(&json!({ "Version": "2012-10-17", "Statement": [statement] }));
        lint_policy(&resource);
    }
}
