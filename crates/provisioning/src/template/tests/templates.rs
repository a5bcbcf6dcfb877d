//! Templates in the shapes that the developer guide describes.

use serde_json::{Value, json};

use super::*;

#[test]
fn a_fleet_template_gives_everything_it_says() {
    let template = json!({
        "Parameters": { "Serial": { "Type": "String" }, "Site": { "Type": "String", "Default": "oslo" } },
        "Mappings": { "Sites": { "oslo": { "url": "https://no.example" }, "rome": { "url": "https://it.example" } } },
        "Resources": {
            "meter": {
                "Type": "AWS::IoT::Thing",
                "Properties": {
                    "ThingName": { "Fn::Join": ["", ["meter_", { "Ref": "Serial" }]] },
                    "AttributePayload": { "version": "v1", "serial": { "Ref": "Serial" } },
                    "ThingTypeName": "meter-b",
                    "ThingGroups": ["meters", { "Fn::Sub": "site-${Site}" }],
                    "BillingGroup": "meters-bill",
                    "PackageVersions": { "firmware": "1.2.3" }
                },
                "OverrideSettings": { "AttributePayload": "MERGE", "ThingTypeName": "REPLACE", "ThingGroups": "DO_NOTHING" }
            },
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": { "CertificateId": { "Ref": "AWS::IoT::Certificate::Id" }, "Status": "Active" },
                "OverrideSettings": { "Status": "REPLACE" }
            },
            "own": {
                "Type": "AWS::IoT::Policy",
                "Properties": { "PolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [{
                        "Effect": "Allow",
                        "Action": ["iot:Publish"],
                        "Resource": [{ "Fn::Sub": "arn:aws:iot:eu-west-1:123456789012:topic/${Serial}/${!iot:ClientId}" }],
                        "Condition": { "Bool": { "iot:Connection.Thing.IsAttached": [true] } }
                    }]
                } }
            },
            "shared": { "Type": "AWS::IoT::Policy", "Properties": { "PolicyName": "meters" } }
        },
        "DeviceConfiguration": {
            "fallback": "https://www.example",
            "url": { "Fn::FindInMap": ["Sites", { "Ref": "Site" }, "url"] }
        }
    });
    let parsed = parse(&template).unwrap();
    assert!(!parsed.uses_certificate_id_outside_certificate());
    assert_eq!(parsed.certificate_source(), CertificateSource::Id);
    assert_eq!(parsed.parameters().collect::<Vec<_>>(), [("Serial", None), ("Site", Some("oslo"))]);

    let Resources { thing, certificate, policies, device_configuration } =
        parsed.evaluate(&values(&[("Serial", "0042")])).unwrap();
    assert_eq!(thing.name.as_str(), "meter_0042");
    let attributes: Vec<_> = thing.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(attributes, [("serial", "0042"), ("version", "v1")]);
    assert_eq!(thing.type_name.unwrap().as_str(), "meter-b");
    assert_eq!(thing.groups.iter().map(ThingGroupName::as_str).collect::<Vec<_>>(), ["meters", "site-oslo"]);
    assert_eq!(thing.billing_group.unwrap().as_str(), "meters-bill");
    let packages: Vec<_> = thing.package_versions.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(packages, [("firmware", "1.2.3")]);
    let expected = ThingOverride {
        attribute_payload: Override::Merge,
        thing_type_name: Override::Replace,
        thing_groups: Override::DoNothing,
    };
    assert_eq!(thing.override_settings, expected);
    assert_eq!(certificate.status, CertificateStatus::Active);
    assert_eq!(certificate.override_status, Override::Replace);
    let [Policy::Document(document), Policy::Name(name)] = &policies[..] else { panic!("{policies:?}") };
    let document: Value = serde_json::from_str(document.as_str()).unwrap();
    let statement = &document["Statement"][0];
    assert_eq!(statement["Resource"], json!(["arn:aws:iot:eu-west-1:123456789012:topic/0042/${iot:ClientId}"]));
    assert_eq!(statement["Condition"]["Bool"]["iot:Connection.Thing.IsAttached"], json!([true]));
    assert_eq!(name.as_str(), "meters");
    assert_eq!(device_configuration["url"], "https://no.example");
    assert_eq!(device_configuration["fallback"], "https://www.example");
}

#[test]
fn a_jitp_template_takes_the_certificates_fields() {
    let template = json!({
        "Parameters": {
            "AWS::IoT::Certificate::CommonName": { "Type": "String" },
            "AWS::IoT::Certificate::Country": { "Type": "String" },
            "AWS::IoT::Certificate::Id": { "Type": "String" }
        },
        "Resources": {
            "thing": {
                "Type": "AWS::IoT::Thing",
                "Properties": {
                    "ThingName": { "Ref": "AWS::IoT::Certificate::CommonName" },
                    "AttributePayload": { "certificate": { "Ref": "AWS::IoT::Certificate::Id" } },
                    "ThingGroups": ["lamps", { "Ref": "AWS::IoT::Certificate::Country" }]
                }
            },
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": { "CertificateId": { "Ref": "AWS::IoT::Certificate::Id" }, "Status": "INACTIVE" },
                "OverrideSettings": { "Status": "DO_NOTHING" }
            },
            "policy": { "Type": "AWS::IoT::Policy", "Properties": { "PolicyDocument": CONNECT } }
        }
    });
    let parsed = parse(&template).unwrap();
    assert!(parsed.uses_certificate_id_outside_certificate());
    let mut given = values(&[("AWS::IoT::Certificate::CommonName", "lamp-7"), ("AWS::IoT::Certificate::Id", "ab12")]);
    let missing = parsed.evaluate(&given).unwrap_err();
    assert_eq!(
        place(missing),
        ("/Parameters/AWS::IoT::Certificate::Country".to_owned(), TemplateProblem::MissingValue)
    );
    given.insert("AWS::IoT::Certificate::Country", "FR").unwrap();
    let resources = parsed.evaluate(&given).unwrap();
    assert_eq!(resources.thing.name.as_str(), "lamp-7");
    assert_eq!(resources.certificate.status, CertificateStatus::Inactive);
    assert_eq!(resources.policies, [Policy::Document(PolicyDocument::try_from(CONNECT.to_owned()).unwrap())]);
}

#[test]
fn a_template_may_name_several_policies() {
    let mut template = smallest();
    for name in ["base-policy", "tele-policy"] {
        template["Resources"][name] = json!({ "Type": "AWS::IoT::Policy", "Properties": { "PolicyName": name } });
    }
    let names = ["base-policy", "tele-policy"].map(|name| Policy::Name(name.to_owned().try_into().unwrap()));
    assert_eq!(evaluate(&template, &[("Serial", "sn-1")]).unwrap().policies, names);
}

#[test]
fn a_bulk_template_needs_no_value_for_what_only_names_its_certificate() {
    let mut template = smallest();
    template["Parameters"]["CSR"] = json!({ "Type": "String" });
    template["Resources"]["certificate"]["Properties"] = json!({ "CertificateSigningRequest": { "Ref": "CSR" } });
    assert_eq!(parse(&template).unwrap().certificate_source(), CertificateSource::SigningRequest);
    assert!(evaluate(&template, &[("Serial", "sn-1")]).is_ok());
    assert!(evaluate(&template, &[("Serial", "sn-1"), ("CSR", "-----BEGIN")]).is_ok());
    template["Resources"]["certificate"]["Properties"] =
        json!({ "CertificatePem": { "Ref": "CSR" }, "CACertificatePem": { "Ref": "CSR" } });
    assert_eq!(parse(&template).unwrap().certificate_source(), CertificateSource::Pem);
}

#[test]
fn what_a_template_leaves_out_has_the_strict_default() {
    let resources = evaluate(&smallest(), &[("Serial", "sn-1")]).unwrap();
    assert_eq!(resources.thing.override_settings, ThingOverride::default());
    assert_eq!(resources.thing.override_settings.attribute_payload, Override::Fail);
    assert_eq!(resources.certificate.override_status, Override::Fail);
    assert_eq!(resources.certificate.status, CertificateStatus::Active);
    assert_eq!(resources.certificate.principal_type, ThingPrincipalType::NonExclusive);
    assert!(resources.policies.is_empty() && resources.device_configuration.is_empty());
    assert!(parse(&smallest()).unwrap().declares("Serial"));
    assert!(!parse(&smallest()).unwrap().declares("AWS::IoT::Certificate::Id"));
}
