use cvm_aws::DynamoDbRegistry;
use cvm_provisioning::{
    Attempt, AttemptId, Attestation, Certificate, CertificateId, Changes as _, Claim, ClaimStore, Credential, Csr,
    Device, GroupCredential, IssuedCertificate, MadeOut, Proof, Put,
};
use cvm_testkit::MemoryPlatform;
use cvm_testkit::fixture::{NOW, csr, device, id, later, origin};
use serde_json::{Value, json};

use crate::iot::{Failing, Iot};
use crate::support::{Cvm, dynamodb, mode, serve};

/// The command with a registry and an AWS IoT.
async fn cvm() -> (Cvm, DynamoDbRegistry, Iot) {
    let (endpoint, registry) = dynamodb().await;
    let iot = Iot::new(registry.clone());
    let cvm = Cvm::on(&endpoint).with("AWS_ENDPOINT_URL_IOT", serve(iot.router()).await);
    (cvm, registry, iot)
}

async fn claim(registry: &DynamoDbRegistry, id: &str) -> Claim {
    registry.find_claim(&id.parse().unwrap()).await.unwrap().unwrap()
}

async fn issued(request: &Csr) -> IssuedCertificate {
    MemoryPlatform::default().issue(request).await.unwrap()
}

/// Has a device reserved with this claim, once more each time.
async fn reserve(registry: &DynamoDbRegistry, claim: &CertificateId, device: &Device) -> Device {
    let certificate = CertificateId::of(device.id.as_str().as_bytes());
    let key = *csr("other").key().fingerprint();
    let proof = Proof::of_certificate(certificate, key, GroupCredential::Claim(*claim));
    let mut reserved = device.clone();
    reserved.reserve(&Attempt {
        id: AttemptId::of(&certificate),
        device: device.id.clone(),
        proof,
        origin: origin(),
        now: NOW,
        prepared: None,
    });
    let claim = registry.find_claim(claim).await.unwrap().unwrap();
    let held = registry.reserve_with_claim(&claim, &reserved, device.version, &origin()).await.unwrap();
    assert_eq!(held, Put::Done);
    reserved
}

async fn claimed_device(registry: &DynamoDbRegistry, claim: &CertificateId, name: &str) -> Device {
    let device = Device { attestation: Attestation::Claim { certificate: None }, ..device(name) };
    assert!(registry.add(&device, &origin()).await.unwrap());
    reserve(registry, claim, &device).await
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_11_a_claim_is_changed_without_being_given_a_new_life() {
    let (cvm, registry, _) = cvm().await;
    let certificate = issued(&csr("claim")).await.certificate;
    let id = *certificate.id();
    cvm.write("claim.pem", certificate.pem());
    let added = cvm.run("claim add claim.pem --quota 2 --expires 52w --output json").json();
    assert_eq!((&added["claimCertificateId"], &added["quota"]), (&json!(id.to_string()), &json!(2)));
    assert_eq!((&added["used"], &added["status"], &added["madeOutTo"]), (&json!(0), &json!("enabled"), &Value::Null));
    claimed_device(&registry, &id, "sn-0001").await;

    let changed = cvm.run(&format!("claim add {id} --quota 9 --output json")).json();
    assert_eq!((&changed["quota"], &changed["used"]), (&json!(9), &json!(1)));
    assert_eq!((&changed["expiresAt"], &changed["createdAt"]), (&added["expiresAt"], &added["createdAt"]));
    cvm.run(&format!("claim revoke {id} --registry-only")).text();
    let run = cvm.run(&format!("claim add {id} --quota any --expires never"));
    assert!(run.stderr.contains("stays revoked") && run.stderr.contains("--enable"), "{}", run.stderr);
    let revoked = claim(&registry, &id.to_string()).await;
    assert_eq!((revoked.quota, revoked.expires_at, revoked.used), (None, None, 1));
    assert!(!revoked.status.enabled);
    cvm.run(&format!("claim add {id} --enable")).text();
    let enabled = claim(&registry, &id.to_string()).await;
    assert!(enabled.status.enabled);
    assert_eq!(enabled, Claim { status: enabled.status.clone(), ..revoked });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_claim_certificate_is_not_registered() {
    let (cvm, registry, _) = cvm().await;
    cvm.write("claim.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    assert!(cvm.run("claim add claim.key").failure().contains("private key"));
    let failure = cvm.run("claim add e3b0c44298fc1c149afbf4c8996fb924").failure();
    assert!(failure.contains("64 hexadecimal digits"), "{failure}");
    for line in ["claim add", "claim add claim.pem --quota 0", "claim add claim.pem --expires 5", "claim revoke x"] {
        assert_eq!(cvm.run(line).code, 2, "{line}");
    }
    assert_eq!(Cvm::new().run("claim list").code, 2, "there is no table");
    assert_eq!(registry.claims().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_claim_is_known_before_it_is_let_in() {
    let (cvm, registry, iot) = cvm().await;
    let line = "claim create --policy cvm-claim --out new/claim --quota 7 --expires 1w --output json";
    let created = cvm.run(line).json();
    let id = created["claimCertificateId"].as_str().unwrap();
    assert_eq!(iot.calls(), ["create", "attach cvm-claim", "ACTIVE while enabled"]);
    assert_eq!(iot.active(), [id]);
    let claim = claim(&registry, id).await;
    assert_eq!((claim.quota, claim.expires_at.is_some(), claim.used), (Some(7), true, 0));
    assert_eq!(created["files"], json!({ "privateKey": "new/claim/claim.key", "certificate": "new/claim/claim.pem" }));
    assert_eq!(Certificate::parse(&cvm.read("new/claim/claim.pem")).unwrap().id().to_string(), id);
    assert_eq!(std::fs::read_dir(cvm.path("new/claim")).unwrap().count(), 2, "nothing else is left");
    assert_eq!([mode(&cvm.path("new/claim")), mode(&cvm.path("new/claim/claim.key"))], [0o700, 0o600]);

    let failure = cvm.run(line).failure();
    assert!(failure.contains("claim.pem is there already"), "{failure}");
    assert_eq!(iot.calls(), Vec::<String>::new(), "a claim in use is left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_fails_anywhere_leaves_nothing_active_and_goes_on_when_it_is_run_again() {
    for call in 0..3 {
        for is_done in [false, true] {
            let (cvm, registry, iot) = cvm().await;
            iot.fail(Some(Failing { call, is_done }));
            let line = "claim create --policy cvm-claim --out claim --quota 7";
            let failure = cvm.run(line).failure_after("✔ the claim's key is in claim/claim.key");
            assert!(failure.contains("same command again"), "{failure}");
            assert_eq!(iot.active(), Vec::<String>::new(), "call {call}");
            assert!(!cvm.path("claim/claim.pem").exists());
            let key = cvm.read("claim/claim.key");

            cvm.run(line).text();
            assert_eq!(cvm.read("claim/claim.key"), key);
            let in_use = Certificate::parse(&cvm.read("claim/claim.pem")).unwrap().id().to_string();
            assert_eq!(iot.active(), [in_use.as_str()], "call {call}");
            assert_eq!(claim(&registry, &in_use).await.quota, Some(7));
            assert_eq!(registry.claims().await.unwrap().len(), 1);
            assert!(iot.certificates.lock().unwrap()[&in_use].policies.contains(&"cvm-claim".to_owned()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_cannot_be_registered_is_not_let_in() {
    let (cvm, registry, iot) = cvm().await;
    let failure =
        cvm.run("claim create --policy cvm-claim --out claim --table other").failure_after("✔ the claim's key");
    assert!(failure.contains("not active") && failure.contains("aws iot delete-certificate"), "{failure}");
    assert_eq!(iot.calls(), ["create", "attach cvm-claim"]);
    cvm.run("claim create --policy cvm-claim --out claim").text();
    assert_eq!(iot.calls(), ["describe", "attach cvm-claim", "ACTIVE while enabled"]);
    assert_eq!(registry.claims().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_11_a_claim_that_was_revoked_meanwhile_is_not_taken_into_use() {
    let (cvm, registry, iot) = cvm().await;
    iot.fail(Some(Failing { call: 2, is_done: false }));
    cvm.run("claim create --policy cvm-claim --out claim").failure_after("✔ the claim's key");
    let id = registry.claims().await.unwrap()[0].certificate;
    cvm.run(&format!("claim revoke {id} --registry-only")).text();
    for revoked in ["in the registry", "on AWS IoT too"] {
        let failure = cvm.run("claim create --policy cvm-claim --out claim").failure_after("✔ the claim's key");
        assert!(failure.contains("was revoked"), "{revoked}: {failure}");
        assert_eq!(iot.active(), Vec::<String>::new());
        cvm.run(&format!("claim revoke {id}")).text();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_11_a_revocation_stops_claims_first_and_then_connections() {
    let (cvm, registry, iot) = cvm().await;
    let certificate = issued(&csr("claim")).await.certificate;
    let id = certificate.id().to_string();
    iot.add(certificate.id(), certificate.pem());
    cvm.run(&format!("claim add {id}")).text();
    let revoke = ["claim", "revoke", &id[..12], "--reason", "found in a firmware image", "--output", "json"];
    let revoked = cvm.run_with(revoke, "").json();
    assert_eq!(iot.calls(), ["INACTIVE while disabled", "REVOKED while disabled"]);
    assert_eq!((&revoked["status"], &revoked["onAwsIot"]), (&json!("disabled"), &json!("revoked")));
    assert_eq!(revoked["statusReason"], "found in a firmware image");

    let before = claim(&registry, &id).await;
    let again = cvm.run(&format!("claim revoke {id} --reason another"));
    assert!(again.stderr.contains("keep their certificates"), "{}", again.stderr);
    assert!(again.text().contains(&format!("cvm claim report {id}")));
    assert_eq!(claim(&registry, &id).await, before, "once more is the same as once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_aws_iot_does_not_take_part_in_counts_in_the_registry() {
    let (cvm, registry, iot) = cvm().await;
    let id = CertificateId::of(b"of a trusted user").to_string();
    cvm.run(&format!("claim add {id}")).text();
    let run = cvm.run(&format!("claim revoke {id} --registry-only --output json"));
    assert!(run.stderr.contains("as it was"), "{}", run.stderr);
    assert_eq!(run.json()["onAwsIot"], "untouched");
    assert_eq!(iot.calls(), Vec::<String>::new());
    assert_eq!(cvm.run(&format!("claim revoke {id} --output json")).json()["onAwsIot"], "absent");

    cvm.run(&format!("claim add {id} --enable")).text();
    iot.fail(Some(Failing { call: 0, is_done: false }));
    let failure = cvm.run(&format!("claim revoke {id}")).failure_after("✔ claim");
    assert!(failure.contains("may still connect") && failure.contains("run this again"), "{failure}");
    assert!(!claim(&registry, &id).await.status.enabled);

    let nobody = CertificateId::of(b"nobody");
    assert!(cvm.run(&format!("claim revoke {nobody}")).failure().contains("claims nothing"));
    assert_eq!(registry.find_claim(&nobody).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_are_listed_with_what_is_left_of_them() {
    let (cvm, registry, _) = cvm().await;
    assert!(cvm.run("claim list").stderr.contains("there is no claim"));
    let [open, spent, over, vouched] = [&b"a"[..], b"b", b"c", b"d"].map(CertificateId::of);
    let made_out = MadeOut { user: "arn:aws:iam::1:user/ann".parse().unwrap(), device: id("sn-0001") };
    for claim in [
        Claim::new(open, NOW),
        Claim { quota: Some(1), ..Claim::new(spent, later(1)) },
        Claim { expires_at: Some(later(0)), ..Claim::new(over, later(2)) },
        Claim { made_out: Some(made_out), ..Claim::new(vouched, later(3)) },
    ] {
        let expired = claim.expires_at.map(|_| cvm_provisioning::Timestamp::from_seconds(1));
        assert!(registry.put_claim(&Claim { expires_at: expired, ..claim }, None).await.unwrap());
    }
    claimed_device(&registry, &spent, "sn-0002").await;
    let text = cvm.run("claim list").text();
    let lines: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split("  ").map(str::trim).collect()).collect();
    let cells: Vec<String> = lines
        .iter()
        .map(|cells| cells.iter().filter(|cell| !cell.is_empty()).copied().collect::<Vec<_>>().join("|"))
        .collect();
    let short = |id: CertificateId| id.to_string()[..12].to_owned();
    assert!(cells[0].starts_with(&format!("{}|enabled|0|never|2027-01-15|-", short(open))), "{text}");
    assert!(cells[1].starts_with(&format!("{}|used up|1/1|never", short(spent))), "{text}");
    assert!(cells[2].starts_with(&format!("{}|expired|0|1970-01-01T00:00:01Z", short(over))), "{text}");
    assert!(cells[3].ends_with("|for sn-0001 by arn:aws:iam::1:user/ann"), "{text}");

    let json = cvm.run("claim list --output json").text();
    let first: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    let names: Vec<&str> = first.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names.len(), 10, "every field is always there: {names:?}");
    assert_eq!(first["claimCertificateId"], open.to_string(), "whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_11_a_report_has_every_device_of_the_claim_and_no_other() {
    let (cvm, registry, _) = cvm().await;
    let [leaked, other] = [&b"leaked"[..], b"other"].map(CertificateId::of);
    for id in [leaked, other] {
        assert!(registry.put_claim(&Claim::new(id, NOW), None).await.unwrap());
    }
    for number in 0..230 {
        assert!(registry.add(&device(&format!("sn-{number:04}")), &origin()).await.unwrap());
    }
    claimed_device(&registry, &leaked, "waiting").await;
    claimed_device(&registry, &other, "another").await;
    let reserved = claimed_device(&registry, &leaked, "connected").await;
    let mut confirmed = reserved.clone();
    let certificate = issued(&csr("connected")).await;
    let credential = Credential::of(&certificate, "connected".to_owned().try_into().unwrap(), later(5));
    confirmed.confirm(Credential { used_at: Some(later(6)), ..credential }, later(6));
    assert!(registry.replace(&confirmed, reserved.version, &origin()).await.unwrap());

    let run = cvm.run(&format!("claim report {leaked} --output json"));
    assert!(run.stderr.contains("2 devices") && run.stderr.contains("1 reserved, 1 provisioned"), "{}", run.stderr);
    let text = run.text();
    let mut devices: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    devices.sort_unstable_by_key(|device| device["deviceId"].as_str().unwrap().to_owned());
    let connected = json!({
        "deviceId": "connected", "state": "provisioned", "certificateId": certificate.certificate.id().to_string(),
        "reservedUntil": null, "confirmedAt": later(5).to_string(), "usedAt": later(6).to_string(),
    });
    let waiting = json!({
        "deviceId": "waiting", "state": "reserved", "certificateId": CertificateId::of(b"waiting").to_string(),
        "reservedUntil": later(30).to_string(), "confirmedAt": null, "usedAt": null,
    });
    assert_eq!(devices, [connected, waiting]);

    let text = cvm.run(&format!("claim report {}", &leaked.to_string()[..8])).text();
    assert!(text.lines().count() == 3 && text.starts_with("DEVICE "), "{text}");
    let nobody = CertificateId::of(b"nobody");
    assert!(cvm.run(&format!("claim report {nobody}")).stderr.contains("0 devices"));
}
