use serde_json::{Value, json};

use crate::support::{Cvm, Run};

const THING: &str = "/Resources/thing/Properties";

/// The template that the stack has by default, with the name of its policy filled in.
fn template() -> Value {
    let yaml = include_str!("../../../../template.yaml");
    let start = yaml.find(r#""Parameters": {"#).unwrap();
    let body = &yaml[yaml[..start].rfind('{').unwrap()..];
    let body = body.replace("${DevicePolicy}", "cvm-device");
    serde_json::Deserializer::from_str(&body).into_iter().next().unwrap().unwrap()
}

fn with(pointer: &str, key: &str, value: Value) -> Value {
    let mut template = template();
    template.pointer_mut(pointer).unwrap()[key] = value;
    template
}

fn check(template: &Value, options: &str) -> (Run, Value) {
    let cvm = Cvm::new();
    cvm.write("template.json", template.to_string());
    let run = cvm.run(&format!("template check template.json --output json {options}"));
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    (run, report)
}

/// The places and severities of what was found.
fn findings(report: &Value) -> Vec<(&str, &str)> {
    let findings = report["findings"].as_array().unwrap();
    for finding in findings {
        assert!(finding["message"].is_string() && finding["advice"].is_string(), "{finding}");
    }
    findings.iter().map(|finding| (finding["path"].as_str().unwrap(), finding["severity"].as_str().unwrap())).collect()
}

#[test]
fn the_template_of_the_stack_is_sound_for_the_doors_that_it_is_for() {
    for door in ["vend", "fleet"] {
        let (run, report) = check(&template(), &format!("--type {door}"));
        assert_eq!((run.code, findings(&report)), (0, vec![]), "{door}");
    }
    let (run, report) = check(&template(), "");
    assert_eq!((run.code, &report["types"]), (0, &json!(["vend", "fleet"])));
    assert!(findings(&report).iter().all(|(_, severity)| *severity == "warning"), "{report}");
    let (run, report) = check(&template(), "--type jitp");
    assert_eq!(run.code, 1);
    assert_eq!(findings(&report), [("/Parameters/SerialNumber", "error"), ("/DeviceConfiguration", "error")]);
}

#[test]
fn what_the_parser_refuses_has_its_place() {
    let cvm = Cvm::new();
    for (template, path) in [
        (with("", "Transform", json!("x")), "/Transform"),
        (with(THING, "ThingName", json!({ "Ref": "Serial" })), "/Resources/thing/Properties/ThingName/Ref"),
        (with(THING, "ThingName", json!({ "Fn::Base64": "x" })), "/Resources/thing/Properties/ThingName/Fn::Base64"),
        (with("", "Padding", json!("x".repeat(10_240))), ""),
    ] {
        let (run, report) = check(&template, "");
        assert_eq!((run.code, findings(&report)), (1, vec![(path, "error")]));
        assert_eq!((&report["errors"], &report["types"]), (&json!(1), &json!([])));
    }
    let marked = format!("\u{feff}{}", template());
    cvm.write("template.json", marked);
    assert!(cvm.run("template check template.json --type fleet").text().contains("can be run by"));
    cvm.write("template.json", "Resources:\n  thing: {}\n");
    let yaml = cvm.run("template check template.json").stdout;
    assert!(yaml.contains("line 1 column 1: the text is not JSON"), "{yaml}");
    cvm.write("template.json", "{ \"Resources\": ");
    let run = cvm.run("template check template.json");
    assert!(run.code == 1 && run.stdout.contains("error: line 1 column"), "{}", run.stdout);
    assert!(run.stderr.contains("template.json has 1 problem"), "{}", run.stderr);
    cvm.write("template.json", vec![b' '; 70_000]);
    assert!(cvm.run("template check template.json").failure().contains("more than"));
}

#[test]
fn what_one_door_cannot_do_is_an_error_for_it_and_a_warning_for_all() {
    let certificate = "/Resources/certificate/Properties";
    let id = json!({ "id": { "Ref": "AWS::IoT::Certificate::Id" } });
    let name = json!({ "Ref": "AWS::IoT::Certificate::CommonName" });
    let document = json!({ "PolicyDocument": "{\"Version\":\"2012-10-17\",\"Statement\":[]}" });
    for (template, door, path, others) in [
        (with(THING, "AttributePayload", id), "vend", "/Parameters/AWS::IoT::Certificate::Id", true),
        (
            with("/Resources/policy", "Properties", document),
            "vend",
            "/Resources/policy/Properties/PolicyDocument",
            true,
        ),
        (with(certificate, "Status", json!("INACTIVE")), "vend", "/Resources/certificate/Properties/Status", true),
        (
            with(THING, "PackageVersions", json!({ "p": "1" })),
            "vend",
            "/Resources/thing/Properties/PackageVersions",
            true,
        ),
        (with(THING, "ThingName", name), "fleet", "/Parameters/AWS::IoT::Certificate::CommonName", false),
        (with(certificate, "CertificateId", json!("a")), "vend", "", true),
    ] {
        let (run, report) = check(&template, &format!("--type {door}"));
        let found = findings(&report);
        assert_eq!(run.code == 1, found.contains(&(path, "error")), "{path}: {report}");
        assert!(path.is_empty() || run.code == 1, "{path}: {report}");
        let (run, report) = check(&template, "");
        assert_eq!(run.code, 0, "{report}");
        assert_eq!(report["types"].as_array().unwrap().contains(&json!("fleet")), others, "{report}");
    }
    let mut no_thing = template();
    no_thing["Resources"].as_object_mut().unwrap().remove("thing");
    let (run, report) = check(&no_thing, "--type fleet");
    assert_eq!((run.code, findings(&report)), (0, vec![("/Resources", "warning")]), "{report}");
    assert_eq!(check(&no_thing, "--type vend").0.code, 1);
    let (run, report) = check(&with(certificate, "CertificateId", json!({ "Ref": "SerialNumber" })), "--type fleet");
    assert_eq!((run.code, findings(&report)), (1, vec![("/Resources", "error")]), "{report}");
    let mut jitp = with(THING, "ThingName", json!({ "Ref": "AWS::IoT::Certificate::CommonName" }));
    jitp["Resources"]["thing"]["Properties"].as_object_mut().unwrap().retain(|key, _| key == "ThingName");
    jitp["Parameters"] = json!({ "AWS::IoT::Certificate::Country": { "Type": "String" } });
    jitp.as_object_mut().unwrap().remove("DeviceConfiguration");
    let (run, report) = check(&jitp, "--type jitp");
    let warned = ["CommonName", "Country"].map(|field| format!("/Parameters/AWS::IoT::Certificate::{field}"));
    assert_eq!((run.code, findings(&report)), (0, warned.iter().map(|path| (path.as_str(), "warning")).collect()));
    let (run, report) = check(&with(THING, "ThingName", json!("gateway")), "");
    assert_eq!(run.code, 1);
    assert!(findings(&report).contains(&("/Resources/thing/Properties/ThingName", "error")), "{report}");
}

#[test]
fn threat_50_the_policies_in_a_template_are_looked_at() {
    let policy = |resource: Value| {
        let statement = json!({ "Effect": "Allow", "Action": "iot:Publish", "Resource": resource });
        let document = json!({ "Version": "2012-10-17", "Statement": [statement] });
        with("/Resources/policy", "Properties", json!({ "PolicyDocument": document }))
    };
    let place = "/Resources/policy/Properties/PolicyDocument";
    let (run, report) = check(&policy(json!("*")), "--type fleet");
    assert_eq!(run.code, 1);
    assert_eq!(findings(&report), [(format!("{place}/Statement/0/Resource").as_str(), "error")]);

    let own = json!({ "Fn::Sub": "arn:aws:iot:eu-central-1:123456789012:topic/devices/${SerialNumber}/*" });
    let (run, report) = check(&policy(own), "--type fleet");
    assert_eq!((run.code, findings(&report)), (0, vec![(place, "warning")]), "a policy for each device");
}

#[test]
fn threat_50_a_policy_in_a_file_is_looked_at() {
    let cvm = Cvm::new();
    let good = r#"{
      "Version": "2012-10-17",
      "Statement": [{
        "Effect": "Allow",
        "Action": "iot:Connect",
        "Resource": "arn:${AWS::Partition}:iot:${AWS::Region}:${AWS::AccountId}:client/${!iot:Connection.Thing.ThingName}",
        "Condition": { "Bool": { "iot:Connection.Thing.IsAttached": "true" } }
      }]
    }"#;
    cvm.write("policy.json", good);
    assert!(cvm.run("template check --policy policy.json").text().starts_with("✔ nothing was found"));
    let bad = good.replace("iot:Connect\"", "iot:*\"");
    let run = cvm.run_with(["template", "check", "--policy", "-"], &bad);
    assert!(run.code == 1 && run.stdout.starts_with("error: /Statement/0/Action: every action"), "{}", run.stdout);
    assert!(run.stdout.contains("next: list what a device does"), "{}", run.stdout);
    for wrong in ["template check", "template check a.json --policy b.json", "template check --policy b --type vend"] {
        assert_eq!(cvm.run(wrong).code, 2, "{wrong}");
    }
}

#[test]
fn a_rendered_template_is_what_a_device_gets() {
    let cvm = Cvm::new();
    cvm.write("template.json", template().to_string());
    let device = cvm.run("template render template.json --parameter SerialNumber=sn-1 --output json").json();
    assert_eq!(
        device,
        json!({
            "thing": {
                "name": "sn-1",
                "attributes": { "provisionedBy": "cvm", "firmwareVersion": "unknown" },
                "type": null,
                "groups": [],
                "billingGroup": null,
                "packageVersions": {},
            },
            "certificate": { "status": "active", "exclusive": false },
            "policies": [{ "name": "cvm-device", "document": null }],
            "deviceConfiguration": { "topicPrefix": "devices/sn-1" },
        })
    );
    cvm.write("values.json", r#"{ "SerialNumber": "sn-1", "FirmwareVersion": "7" }"#);
    let text = cvm.run("template render template.json --parameters-file values.json --type vend").text();
    assert!(text.starts_with("thing         sn-1\n") && text.contains("firmwareVersion=7\n"), "{text}");
    assert!(text.contains("configuration topicPrefix=devices/sn-1\n"), "{text}");
}

#[test]
fn a_template_without_a_thing_is_rendered() {
    let cvm = Cvm::new();
    let mut template = template();
    template["Resources"].as_object_mut().unwrap().remove("thing").unwrap();
    cvm.write("template.json", template.to_string());
    for options in ["", "--type fleet"] {
        let render = format!("template render template.json --parameter SerialNumber=sn-1 {options}");
        assert!(cvm.run(&render).text().starts_with("thing         none"), "{options}");
        let device = cvm.run(&format!("{render} --output json")).json();
        assert_eq!((&device["thing"], &device["certificate"]["status"]), (&Value::Null, &json!("active")));
    }
    let vend = cvm.run("template render template.json --parameter SerialNumber=sn-1 --type vend");
    assert!(vend.code == 1 && vend.stderr.contains("becomes a thing"), "{}", vend.stderr);
}

#[test]
fn values_that_do_not_fit_are_refused() {
    let cvm = Cvm::new();
    let mut template = template();
    template["Parameters"]["Site"] = json!({ "Type": "String" });
    cvm.write("template.json", template.to_string());
    let failure = cvm.run("template render template.json").failure();
    assert!(failure.contains("values for SerialNumber, Site"), "{failure}");
    assert!(failure.contains("--parameter SerialNumber=VALUE --parameter Site=VALUE"), "{failure}");
    cvm.write("values.json", r#"{ "Site": "a" }"#);
    cvm.write("numbers.json", r#"{ "Site": 1 }"#);
    for (options, expected) in [
        ("--parameter Site=a --parameter SerialNumber=a/b", "a thing name is made of"),
        ("--parameter Site=a --parameter SerialNumber=a --parameter Room=1", "no parameter \"Room\""),
        ("--parameters-file values.json --parameter Site=b --parameter SerialNumber=a", "has a value already"),
        ("--parameters-file numbers.json", "no JSON object of texts"),
        ("--type jitp", "template.json has 3 problems"),
    ] {
        let failure = cvm.run(&format!("template render template.json {options}")).failure();
        assert!(failure.contains(expected), "{options}: {failure}");
    }
    assert_eq!(cvm.run("template render template.json --parameter Site=a --parameter Site=b").code, 2);
}
