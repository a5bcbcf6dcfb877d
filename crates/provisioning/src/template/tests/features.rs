use super::*;

fn features(template: &Value) -> Vec<(String, FeatureKind)> {
    let features = parse(template).unwrap().features();
    features.into_iter().map(|feature| (feature.path, feature.kind)).collect()
}

fn with_certificate(key: &str, value: Value) -> Value {
    with("/Resources/certificate/Properties", key, value)
}

#[test]
fn what_every_door_can_do_is_no_feature() {
    let mut template = smallest();
    template["Parameters"]["Serial"]["Default"] = json!("0");
    assert_eq!(features(&template), []);
    let parameter = ("/Parameters/Serial".to_owned(), FeatureKind::Parameter);
    assert_eq!(features(&smallest()), [parameter]);
}

#[test]
fn each_feature_has_its_place() {
    let parameter = || ("/Parameters/Serial".to_owned(), FeatureKind::Parameter);
    let thing = "/Resources/thing/Properties";
    for (template, path, kind) in [
        (
            with_thing("AttributePayload", json!({ "id": { "Ref": "AWS::IoT::Certificate::Id" } })),
            "/Parameters/AWS::IoT::Certificate::Id",
            FeatureKind::CertificateId,
        ),
        (
            with_thing("PackageVersions", json!({ "p": "1" })),
            &format!("{thing}/PackageVersions"),
            FeatureKind::PackageVersions,
        ),
        (
            with_certificate("Status", json!("INACTIVE")),
            "/Resources/certificate/Properties/Status",
            FeatureKind::InactiveCertificate,
        ),
        (
            with("", "DeviceConfiguration", json!({ "a": "b" })),
            "/DeviceConfiguration",
            FeatureKind::DeviceConfiguration,
        ),
    ] {
        assert_eq!(features(&template), [parameter(), (path.to_owned(), kind)]);
    }
    let named = with_thing("AttributePayload", json!({ "cn": { "Ref": "AWS::IoT::Certificate::CommonName" } }));
    let path = "/Parameters/AWS::IoT::Certificate::CommonName".to_owned();
    assert_eq!(features(&named), [(path, FeatureKind::CertificateField), parameter()]);

    let one = with_thing("ThingName", json!("gateway"));
    assert_eq!(features(&one)[1], (format!("{thing}/ThingName"), FeatureKind::OneThing));
    let mut no_thing = smallest();
    no_thing["Resources"].as_object_mut().unwrap().remove("thing");
    assert_eq!(features(&no_thing)[1], ("/Resources".to_owned(), FeatureKind::NoThing));
    let named_by_device = with_certificate("CertificateId", json!({ "Ref": "Serial" }));
    let parameter_of_id = FeatureKind::CertificateIdParameter("Serial".to_owned());
    assert!(features(&named_by_device).contains(&("/Resources".to_owned(), parameter_of_id)));
    let mut pem = smallest();
    pem["Resources"]["certificate"]["Properties"] = json!({ "CertificatePem": { "Ref": "Serial" } });
    let source = FeatureKind::CertificateSource(CertificateSource::Pem);
    assert!(features(&pem).contains(&("/Resources".to_owned(), source)));
    assert_eq!(features(&with_certificate("Status", json!("active"))), [parameter()]);
}

#[test]
fn a_policy_is_drafted_with_its_parameters_marked() {
    let kind = |template: Value| features(&template).pop().unwrap();
    let (path, shared) = kind(with_policy(json!(CONNECT)));
    assert_eq!(path, "/Resources/policy/Properties/PolicyDocument");
    assert_eq!(shared, FeatureKind::PolicyDocument { draft: Ok(CONNECT.to_owned()), per_device: false });

    let document = json!({ "Resource": { "Fn::Sub": "topic/${Serial}/${!iot:ClientId}" } });
    let draft = r#"{"Resource":"topic/${parameter}/${iot:ClientId}"}"#.to_owned();
    assert_eq!(kind(with_policy(document)).1, FeatureKind::PolicyDocument { draft: Ok(draft), per_device: true });

    let mut unknown = with_policy(json!({ "Resource": { "Fn::FindInMap": ["m", { "Ref": "Serial" }, "k"] } }));
    unknown["Mappings"] = json!({ "m": { "sn-1": { "k": "topic" } } });
    assert!(matches!(kind(unknown).1, FeatureKind::PolicyDocument { draft: Err(_), per_device: true }));
}

#[test]
fn all_values_that_are_missing_are_named_at_once() {
    let mut template = smallest();
    template["Parameters"]["Site"] = json!({ "Type": "String" });
    template["Parameters"]["Room"] = json!({ "Type": "String", "Default": "1" });
    let template = parse(&template).unwrap();
    assert_eq!(template.missing(&values(&[])), ["Serial", "Site"]);
    assert_eq!(template.missing(&values(&[("Serial", "1"), ("Site", "a")])), [] as [&str; 0]);
}
