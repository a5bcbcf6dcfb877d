use std::os::unix::fs::PermissionsExt as _;

use cvm_provisioning::{Attestation, CertificateId, Changes as _, DeviceStore, EnrolmentToken, Tombstones};
use cvm_testkit::MemoryPlatform;
use cvm_testkit::fixture::{TOKEN, csr, device, id, origin};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::support::{Cvm, TABLE, api, dynamodb, mode, serve};

/// The digest that the registry keeps of the device's token.
async fn digest(registry: &impl DeviceStore, device: &str) -> String {
    match registry.find(&id(device)).await.unwrap().unwrap().attestation {
        Attestation::Token { digest, .. } => digest.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_added_device_has_a_token_that_is_shown_once_and_kept_as_a_digest() {
    let (endpoint, registry) = dynamodb().await;
    let cvm = Cvm::on(&endpoint);
    let added = cvm.run("device add sn-0001 --output json").json();
    let token: EnrolmentToken = added["token"].as_str().unwrap().parse().unwrap();
    let digest = digest(&registry, "sn-0001").await;
    assert_eq!(digest, token.digest().to_string());
    for line in ["device show sn-0001", "device show sn-0001 --output json", "device list", "device list --output json"]
    {
        let shown = cvm.run(line).text();
        assert!(shown.contains("sn-0001"), "{shown}");
        assert!(!shown.contains(token.reveal()) && !shown.contains(&digest), "{shown}");
        assert!(!shown.contains('\x1b'), "a pipe gets no colours: {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_command_is_named_when_a_device_is_added() {
    let (endpoint, _) = dynamodb().await;
    let cvm = Cvm::on(&endpoint);
    let text = cvm.run("device add sn-0001").text();
    assert!(text.starts_with("✔ sn-0001 is registered"), "{text}");
    assert!(text.contains("shown this once") && text.contains("cvm vend --url URL --device sn-0001"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_taken_once() {
    let (endpoint, registry) = dynamodb().await;
    let cvm = Cvm::on(&endpoint);
    cvm.run("device add sn-0001").text();
    let before = digest(&registry, "sn-0001").await;
    let failure = cvm.run("device add sn-0001 --token-out token").failure();
    assert!(failure.contains("cvm device show sn-0001"), "{failure}");
    assert!(!cvm.path("token").exists(), "a token that no device has is not left behind");
    assert_eq!(digest(&registry, "sn-0001").await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_goes_to_a_new_private_file_where_one_is_named() {
    let (endpoint, registry) = dynamodb().await;
    let cvm = Cvm::on(&endpoint);
    let text = cvm.run("device add sn-0001 --token-out token --token-ttl 7d").text();
    let token: EnrolmentToken = cvm.read("token").trim_end().parse().unwrap();
    assert!(!text.contains(token.reveal()), "{text}");
    assert!(text.contains("--token-file token"), "{text}");
    assert_eq!(mode(&cvm.path("token")), 0o600);
    assert_eq!(digest(&registry, "sn-0001").await, token.digest().to_string());
    let expiry = cvm.run("device show sn-0001 --output json").json()["attestation"]["expiresAt"].clone();
    assert!(expiry.is_string(), "{expiry}");

    let failure = cvm.run("device add sn-0002 --token-out token").failure();
    assert!(failure.contains("token is there already"), "{failure}");
    assert_eq!(cvm.read("token").trim_end(), token.reveal());
    assert_eq!(registry.find(&id("sn-0002")).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_ones_own_comes_from_a_file_or_stdin_and_is_never_repeated() {
    let (endpoint, registry) = dynamodb().await;
    let cvm = Cvm::on(&endpoint);
    let expected = TOKEN.parse::<EnrolmentToken>().unwrap().digest().to_string();
    cvm.write("token", format!("{TOKEN}\r\n"));
    let exposed = cvm.run("device add sn-0001 --token-file token").failure();
    assert!(exposed.contains("chmod 600 token"), "{exposed}");
    std::fs::set_permissions(cvm.path("token"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let added = cvm.run("device add sn-0001 --token-file token --output json").json();
    assert_eq!(added["token"], Value::Null);
    let run = cvm.run_with(["device", "add", "sn-0002", "--token-file", "-"], TOKEN);
    assert!(!run.text().contains(TOKEN));
    assert_eq!(digest(&registry, "sn-0001").await, expected);
    assert_eq!(digest(&registry, "sn-0002").await, expected);

    let failure = cvm.run_with(["device", "add", "sn-0003", "--token-file", "-"], "hunter2").failure();
    assert!(failure.contains("22 to 256") && !failure.contains("hunter2"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_registered_from_its_request_its_file_or_its_fingerprint() {
    let (endpoint, _) = dynamodb().await;
    let cvm = Cvm::on(&endpoint);
    let request = csr("sn-0001");
    let fingerprint = request.key().fingerprint().to_string();
    cvm.write("request.pem", request.pem());
    cvm.write("request.der", request.der());
    cvm.write("public.der", request.key().spki());
    cvm.write("dump.pem", format!("\u{feff}Certificate Request:\r\n    Data:\r\n{}", request.pem()));
    let bytes = request.key().fingerprint().as_bytes();
    let with_colons: Vec<_> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    for (device, proof) in [
        ("sn-0001", "--csr request.pem"),
        ("sn-0001", "--csr request.der"),
        ("sn-0002", "--public-key-file public.der"),
        ("sn-0003", &format!("--public-key {fingerprint}")),
        ("sn-0001", "--csr dump.pem"),
        ("sn-0003", &format!("--public-key {}", with_colons.join(":"))),
    ] {
        let added = cvm.run(&format!("device add {device} {proof} --output json")).json();
        let attestation = json!({
            "kind": "public-key", "key": fingerprint, "expiresAt": null, "certificateId": null, "user": null,
        });
        assert_eq!(added["attestation"], attestation);
        assert_eq!(added["token"], Value::Null);
        cvm.run(&format!("device delete {device}")).text();
    }
    let failure = cvm.run("device add sn-0004 --csr request.der").failure();
    assert!(failure.contains("of device sn-0001"), "{failure}");
    assert_eq!(cvm.run("device add sn-0005 --csr request.pem --token-ttl 1d").code, 2);
    assert_eq!(cvm.run(&format!("device add sn-0005 --public-key {fingerprint} --key-origin service")).code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_aws_iot_lets_in_is_added_without_a_token_and_told_where_to_go() {
    let (endpoint, registry) = dynamodb().await;
    let cvm = Cvm::on(&endpoint);
    let certificate = MemoryPlatform::default().issue(&csr("sn-0001")).await.unwrap().certificate;
    cvm.write("sn-0001.pem", certificate.pem());
    let own = *certificate.id();
    let shared = CertificateId::of(b"a CA, or a claim");
    for (proof, expected, next) in [
        (format!("--ca {shared}"), Attestation::Ca { id: Some(shared) }, "with its factory certificate"),
        (
            format!("--certificate {own}"),
            Attestation::Certificate { id: own, second: None },
            "with its factory certificate",
        ),
        (
            "--certificate sn-0001.pem".to_owned(),
            Attestation::Certificate { id: own, second: None },
            "with its factory certificate",
        ),
        ("--claim".to_owned(), Attestation::Claim { certificate: None }, "the client id sn-0001"),
        (format!("--claim {shared}"), Attestation::Claim { certificate: Some(shared) }, "the client id sn-0001"),
        ("--trusted-user".to_owned(), Attestation::TrustedUser { claim: None }, "POST /v1/claims"),
    ] {
        let text = cvm.run(&format!("device add sn-0001 {proof}")).text();
        assert!(text.contains(next) && !text.contains("token") && !text.contains("cvm vend"), "{proof}: {text}");
        assert_eq!(registry.find(&id("sn-0001")).await.unwrap().unwrap().attestation, expected, "{proof}");
        cvm.run("device delete sn-0001").text();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_14_a_certificate_that_names_another_device_is_refused() {
    let (endpoint, registry) = dynamodb().await;
    let cvm = Cvm::on(&endpoint);
    let certificate = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let key = KeyPair::generate().unwrap();
    let signed = |params: CertificateParams| params.self_signed(&key).unwrap();
    cvm.write("other.pem", signed(certificate("sn-0002")).pem());
    let failure = cvm.run("device add sn-0001 --certificate other.pem").failure();
    assert!(failure.contains("of device sn-0002"), "{failure}");
    let mut authority = certificate("sn-0001");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    cvm.write("ca.pem", signed(authority).pem());
    let failure = cvm.run("device add sn-0001 --certificate ca.pem").failure();
    assert!(failure.contains("certificate of a CA") && failure.contains("--ca "), "{failure}");
    assert_eq!(registry.find(&id("sn-0001")).await.unwrap(), None);

    let named_otherwise = signed(certificate("Factory 1/0815"));
    cvm.write("factory.der", named_otherwise.der());
    let added = cvm.run("device add sn-0001 --certificate factory.der --output json").json();
    assert_eq!(added["attestation"]["certificateId"], CertificateId::of(named_otherwise.der()).to_string());
}

#[test]
fn a_device_has_one_proof_and_what_goes_with_it() {
    let cvm = Cvm::new().with("CVM_TABLE", TABLE);
    let id = CertificateId::of(b"certificate");
    let proofs =
        [format!("--ca {id}"), format!("--certificate {id}"), "--claim".to_owned(), "--trusted-user".to_owned()];
    for (number, proof) in proofs.iter().enumerate() {
        for (other, reason) in [
            ("--token-file token", "cannot be used with"),
            (&format!("--public-key {id}"), "cannot be used with"),
            ("--csr request.pem", "cannot be used with"),
            (&proofs[(number + 1) % proofs.len()], "cannot be used with"),
            ("--token-out token", "no enrolment token is made"),
            ("--token-ttl 7d", "no enrolment token is made"),
            ("--key-origin service", "only for a device that proves itself with an enrolment token"),
        ] {
            let run = cvm.run(&format!("device add sn-0001 {proof} {other}"));
            assert!(run.code == 2 && run.stderr.contains(reason), "{proof} {other}: {}", run.stderr);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_key_file_with_a_private_key_in_it_is_refused() {
    let (endpoint, _) = dynamodb().await;
    let cvm = Cvm::on(&endpoint);
    cvm.write("key.pem", KeyPair::generate().unwrap().serialize_pem());
    let failure = cvm.run("device add sn-0001 --public-key-file key.pem").failure();
    assert!(failure.contains("private key"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_chose_is_shown_and_the_id_is_not_for_choosing() {
    let (endpoint, _) = dynamodb().await;
    let cvm = Cvm::on(&endpoint);
    cvm.run(
        "device add sn-0001 --key-origin service --template cameras --parameter Site=berlin --parameter Rack=a=b \
         --settable Firmware",
    )
    .text();
    let shown = cvm.run("device show sn-0001 --output json").json();
    assert_eq!(shown["keyOrigin"], "service");
    assert_eq!(shown["template"], "cameras");
    assert_eq!(shown["parameters"], json!({ "Rack": "a=b", "Site": "berlin" }));
    assert_eq!(shown["settableParameters"], json!(["Firmware"]));
    for taken in ["--parameter SerialNumber=x", "--settable DeviceId", "--parameter A=1 --parameter A=2"] {
        assert_eq!(cvm.run(&format!("device add sn-0002 {taken}")).code, 2, "{taken}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_a_shown_device_is_always_there() {
    let (endpoint, _) = dynamodb().await;
    let cvm = Cvm::on(&endpoint);
    cvm.run("device add sn-0001").text();
    let shown = cvm.run("device show sn-0001 --output json").json();
    let mut names: Vec<&str> = shown.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    let expected = [
        "attestation",
        "certificate",
        "createdAt",
        "deviceId",
        "enrolledWith",
        "generation",
        "group",
        "keyOrigin",
        "lastRefusal",
        "parameters",
        "reservation",
        "settableParameters",
        "state",
        "status",
        "statusReason",
        "statusSince",
        "superseded",
        "template",
        "unsettledSince",
        "updatedAt",
        "version",
        "wrongProofs",
    ];
    assert_eq!(names, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_filtered_limited_and_goes_on_page_after_page() {
    let (endpoint, registry) = dynamodb().await;
    let cvm = Cvm::on(&endpoint);
    for number in 0..450 {
        let mut device = device(&format!("sn-{number:04}"));
        if number % 100 == 0 {
            device.disable("recalled".parse().ok(), device.created_at);
        }
        assert!(registry.add(&device, &origin()).await.unwrap());
    }
    let rows = |line: &str| cvm.run(line).text().lines().count();
    assert_eq!(rows("device list"), 1 + 450);
    assert_eq!(rows("device list --limit 201"), 1 + 201);
    assert_eq!(rows("device list --status disabled"), 1 + 5);
    assert_eq!(rows("device list --status disabled --limit 2 --output json"), 2);
    assert_eq!(rows("device list --state registered --output json"), 450);
    assert_eq!(rows("device list --state quarantined --output json"), 0);

    let json = cvm.run("device list --output json").text();
    let mut ids: Vec<String> = json
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["deviceId"].as_str().unwrap().to_owned())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 450, "each device once");

    let text = cvm.run("device list").text();
    let column = text.lines().next().unwrap().find("STATE").unwrap();
    assert!(text.lines().skip(1).all(|line| line[column..].starts_with("registered ")), "aligned");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_device_keeps_its_reason_until_it_is_enabled() {
    let (endpoint, _) = dynamodb().await;
    let cvm = Cvm::on(&endpoint);
    cvm.run("device add sn-0001").text();
    let disable = ["device", "disable", "sn-0001", "--reason", "stolen, ticket 4711", "--output", "json"];
    assert_eq!(cvm.run_with(disable, "").json()["statusReason"], "stolen, ticket 4711");
    assert!(cvm.run("device show sn-0001").text().contains(": stolen, ticket 4711"));
    let enabled = cvm.run("device enable sn-0001 --output json").json();
    assert_eq!((&enabled["status"], &enabled["statusReason"]), (&json!("enabled"), &Value::Null));
    assert_eq!(cvm.run("device disable sn-0001").code, 2, "a reason has to be given");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_is_shown_with_both_keys_and_ended_by_a_person() {
    let (endpoint, registry) = dynamodb().await;
    let cvm = Cvm::on(&endpoint).with("CVM_URL", serve(api(registry)).await);
    cvm.run("device add sn-0001 --token-out token").text();
    let vended = cvm.run("vend --device sn-0001 --token-file token --output json").json();
    let certificate = vended["certificateId"].as_str().unwrap();

    let failure = cvm.run("vend --device sn-0001 --token-file token --out clone").failure_after("✔ made");
    assert!(failure.contains("403") && failure.contains("cvm device show sn-0001"), "{failure}");
    let shown = cvm.run("device show sn-0001 --output json").json();
    assert_eq!((&shown["state"], &shown["lastRefusal"]["reason"]), (&json!("quarantined"), &json!("cloned")));
    let [device_key, other_key] = [&shown["certificate"]["key"], &shown["lastRefusal"]["key"]];
    assert_ne!(device_key, other_key);
    let text = cvm.run("device show sn-0001").text();
    for part in [certificate, device_key.as_str().unwrap(), other_key.as_str().unwrap(), "cvm device approve sn-0001"] {
        assert!(text.contains(part), "{part} in {text}");
    }

    let kept = cvm.run("device approve sn-0001 --keep --output json").json();
    assert_eq!(kept["state"], "provisioned");
    let again = cvm.run("vend --device sn-0001 --token-file token --output json").json();
    assert_eq!(again["certificateId"], certificate, "the true device is as it was");
    assert!(cvm.run("device approve sn-0001").failure().contains("not in quarantine but provisioned"));

    cvm.run("vend --device sn-0001 --token-file token --out clone --output json").failure();
    assert_eq!(cvm.run("device approve sn-0001 --output json").json()["state"], "registered");
    let replaced = cvm.run("vend --device sn-0001 --token-file token --out clone --output json").json();
    assert_ne!(replaced["certificateId"], certificate, "the next key was admitted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_device_leaves_a_tombstone_with_its_certificate_and_a_free_id() {
    let (endpoint, registry) = dynamodb().await;
    let cvm = Cvm::on(&endpoint).with("CVM_URL", serve(api(registry.clone())).await);
    cvm.run("device add sn-0001 --token-out token").text();
    let vended = cvm.run("vend --device sn-0001 --token-file token --output json").json();
    let certificate = vended["certificateId"].as_str().unwrap();

    let disabled = cvm.run("device disable sn-0001 --reason sold");
    assert!(disabled.stderr.contains(&format!("{certificate} out of power")), "{}", disabled.stderr);
    let generation = cvm.run("device show sn-0001 --output json").json()["generation"].as_str().unwrap().to_owned();
    assert_eq!(cvm.run("device delete sn-0001").code, 0);
    assert!(cvm.run("device show sn-0001").failure().contains("not in the registry"));
    let tombstone = registry.tombstone(&"sn-0001".parse().unwrap(), generation.parse().unwrap()).await.unwrap();
    let credential = tombstone.unwrap().device.credential.unwrap();
    assert_eq!(credential.certificate.to_string(), certificate, "what is left to remove is known");

    cvm.run("device add sn-0001 --claim").text();
    let anew = cvm.run("device show sn-0001 --output json").json();
    assert_ne!(anew["generation"].as_str().unwrap(), generation);
    assert_eq!(anew["certificate"], Value::Null);
    assert!(cvm.run("device renew sn-0001").failure().contains("no certificate to renew"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_let_in_by_nothing_but_its_registration_anew() {
    let (endpoint, registry) = dynamodb().await;
    let cvm = Cvm::on(&endpoint).with("CVM_URL", serve(api(registry)).await);
    cvm.run("device add sn-0001 --token-out token").text();
    let nothing = cvm.run("device revoke sn-0001 --reason leaked").failure();
    assert!(nothing.contains("no certificate to revoke yet") && nothing.contains("cvm device disable"), "{nothing}");
    let certificate = cvm.run("vend --device sn-0001 --token-file token --out one --output json").json();
    let revoked = cvm.run("device revoke sn-0001 --reason leaked");
    let id = certificate["certificateId"].as_str().unwrap();
    assert!(revoked.stderr.contains(&format!("revoking its certificate {id}")), "{}", revoked.stderr);
    let shown = cvm.run("device show sn-0001 --output json").json();
    assert_eq!((&shown["state"], &shown["statusReason"]), (&json!("revoked"), &json!("leaked")));
    let text = cvm.run("device show sn-0001").text();
    assert!(text.contains("status        enabled\n") && text.contains("state         revoked: leaked\n"), "{text}");
    for way in ["one", "two"] {
        cvm.run(&format!("vend --device sn-0001 --token-file token --out {way}")).failure_after("");
    }
    assert!(cvm.run("device renew sn-0001").failure().contains("it is revoked"));
    cvm.run("device delete sn-0001").text();
    cvm.run("device add sn-0001 --token-out anew").text();
    cvm.run("vend --device sn-0001 --token-file anew --out anew-device --output json").json();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_says_what_to_do_next_in_words_or_in_json() {
    let (endpoint, _) = dynamodb().await;
    let cvm = Cvm::on(&endpoint);
    let failure = cvm.run("device show sn-0404").failure();
    assert!(failure.contains("error: ") && failure.contains("next:  `cvm device add sn-0404`"), "{failure}");
    let failure: Value = serde_json::from_str(&cvm.run("device enable sn-0404 --output json").failure()).unwrap();
    assert_eq!(failure["error"]["code"], "not-found");
    assert!(failure["error"]["advice"].is_string() && failure["error"]["message"].is_string());
    let failure = cvm.run("device list --table other").failure();
    assert!(failure.contains("ResourceNotFound") && failure.contains("name of the table"), "{failure}");
}

#[test]
fn wrong_usage_exits_with_2() {
    let cvm = Cvm::new();
    for line in ["", "device", "device show", "device list --state lost", "device add sn/1", "device list", "vend"] {
        let run = cvm.run(line);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{line:?}: {}", run.stderr);
    }
    let run = cvm.run("device list --limit x --output json");
    let usage: Value = serde_json::from_str(&run.stderr).unwrap();
    assert_eq!((run.code, &usage["error"]["code"]), (2, &json!("usage")));
    assert!(cvm.run("device list").stderr.contains("CVM_TABLE"));
    assert!(cvm.run("--version").text().starts_with("cvm "));
    assert!(cvm.run(&format!("device add --help --table {TABLE}")).text().contains("Examples:"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_devices_of_a_table_are_changed_after_a_preview_and_a_confirmation() {
    let (endpoint, registry) = dynamodb().await;
    let cvm = Cvm::on(&endpoint);
    for (device, group) in [("sn-1", "berlin"), ("sn-2", "berlin"), ("other", "hamburg")] {
        cvm.run(&format!("device add {device} --group {group} --token-out {device}.token")).text();
    }
    let change = "device disable --reason recall --group berlin";
    let preview = cvm.run(&format!("{change} --dry-run")).text();
    assert!(preview.contains("sn-1") && preview.contains("sn-2") && !preview.contains("other"), "{preview}");
    let asked = cvm.run(change);
    assert_eq!(asked.code, 2, "{}", asked.stderr);
    assert!(asked.stderr.contains("disable 2 devices") && asked.stderr.contains("--yes"), "{}", asked.stderr);
    assert!(registry.find(&id("sn-1")).await.unwrap().unwrap().status.enabled);

    let done = cvm.run(&format!("{change} --yes")).text();
    assert!(done.contains("✔ sn-1 disabled") && done.contains("2 devices disabled, 0 failed"), "{done}");
    for (device, enabled) in [("sn-1", false), ("sn-2", false), ("other", true)] {
        assert_eq!(registry.find(&id(device)).await.unwrap().unwrap().status.enabled, enabled, "{device}");
    }
    let listed = cvm.run("device list --prefix sn- --sort id --reverse --output json").text();
    assert!(listed.find("sn-2").unwrap() < listed.find("sn-1").unwrap() && !listed.contains("other"), "{listed}");

    cvm.write("list", "sn-1\nsn-9\n");
    let deleted = cvm.run("device delete --file list --yes");
    assert_eq!(deleted.code, 1, "{}", deleted.stdout);
    assert!(deleted.stdout.contains("✘ device sn-9 is not in the registry"), "{}", deleted.stdout);
    assert!(registry.find(&id("sn-1")).await.unwrap().is_none());
}
