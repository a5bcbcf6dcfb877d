use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use cvm_provisioning::{Certificate, KeyFingerprint};
use cvm_testkit::fixture::csr;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData,
    date_time_ymd,
};
use serde_json::Value;
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::Pem;

use crate::support::{Cvm, dynamodb, mode};

const CA: &str = "--ca-cert factory/ca.pem --ca-key factory/ca.key";

/// The command beside a CA that it made.
fn with_ca() -> Cvm {
    let cvm = Cvm::new();
    cvm.run_with(["ca", "create", "--name", "Factory 1", "--out", "factory"], "").text();
    cvm
}

fn certificates(pem: &str) -> Vec<Pem> {
    Pem::iter_from_buffer(pem.as_bytes()).map(Result::unwrap).collect()
}

/// The first certificate in a file, looked at.
fn look<T>(cvm: &Cvm, name: &str, at: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
    at(&certificates(&cvm.read(name))[0].parse_x509().unwrap())
}

fn key_of(private_key_pem: &str) -> KeyFingerprint {
    KeyFingerprint::of(&KeyPair::from_pem(private_key_pem).unwrap().subject_public_key_info())
}

fn openssl(cvm: &Cvm, words: &str) -> String {
    let output = Command::new("openssl").args(words.split_whitespace()).current_dir(cvm.path("")).output().unwrap();
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_ca_has_the_profile_of_one_that_signs_devices_only() {
    let cvm = Cvm::new();
    let words = ["ca", "create", "--name", "Factory 1", "--organization", "Example", "--out", "f", "--days", "30"];
    let made = cvm.run_with(words.into_iter().chain(["--output", "json"]), "").json();
    let certificate = Certificate::parse(&cvm.read("f/ca.pem")).unwrap();
    assert_eq!(made["caId"], certificate.id().to_string());
    assert_eq!(*certificate.key(), key_of(&cvm.read("f/ca.key")));
    assert_eq!((mode(&cvm.path("f/ca.key")), mode(&cvm.path("f"))), (0o600, 0o700));
    look(&cvm, "f/ca.pem", |ca| {
        assert_eq!(ca.subject().to_string(), "O=Example, CN=Factory 1");
        assert_eq!(ca.issuer(), ca.subject());
        ca.verify_signature(None).unwrap();
        let constraints = ca.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(0));
        let usage = ca.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
        assert!(!usage.value.digital_signature());
        assert!(ca.raw_serial().len() <= 20 && ca.raw_serial()[0] < 0x80);
    });
    let now = OffsetDateTime::now_utc();
    assert!(certificate.not_before() < now && certificate.not_before() > now - Duration::hours(1));
    assert!((certificate.not_after() - now - Duration::days(30)).abs() < Duration::hours(1));
}

#[test]
fn a_cas_key_is_never_overwritten() {
    let cvm = with_ca();
    let key = cvm.read("factory/ca.key");
    for file in ["ca.pem", "ca.key"] {
        let failure = cvm.run("ca create --name Other --out factory").failure();
        assert!(failure.contains("never overwritten"), "{failure}");
        assert_eq!(cvm.read("factory/ca.key"), key);
        if file == "ca.pem" {
            std::fs::remove_file(cvm.path("factory/ca.pem")).unwrap();
        }
    }
    assert_eq!(cvm.run("ca create --name Other --out other --days 0").code, 2);
}

#[test]
fn an_issued_certificate_has_the_profile_of_a_device_and_openssl_takes_it() {
    for curve in ["p256", "p384"] {
        let cvm = Cvm::new();
        cvm.run(&format!("ca create --name Factory --out factory --key-algorithm {curve}")).text();
        let text = cvm.run(&format!("ca issue {CA} --device sn-0001 --out devices")).text();
        assert!(text.contains("openssl verify -purpose sslclient"), "{text}");
        assert_eq!(mode(&cvm.path("devices/sn-0001/device.key")), 0o600);
        let chain = cvm.read("devices/sn-0001/device.pem");
        assert_eq!(certificates(&chain).len(), 2);
        assert!(chain.ends_with(&cvm.read("factory/ca.pem")), "the CA comes last");
        let end = chain.find(&cvm.read("factory/ca.pem")).unwrap();
        let (leaf, ca) = (Certificate::parse(&chain[..end]).unwrap(), Certificate::parse(&chain[end..]).unwrap());
        assert_eq!(*leaf.key(), key_of(&cvm.read("devices/sn-0001/device.key")));
        assert_eq!(leaf.common_name(), Ok(Some("sn-0001".parse().unwrap())));
        assert!(leaf.not_before() >= ca.not_before() && leaf.not_after() < ca.not_after());
        let ago = OffsetDateTime::now_utc() - leaf.not_before();
        assert!(ago > Duration::minutes(4) && ago < Duration::minutes(7), "{ago}");
        look(&cvm, "devices/sn-0001/device.pem", |leaf| {
            assert_eq!(leaf.version.0, 2, "version 3 is encoded as 2");
            assert_eq!(leaf.subject().iter().count(), 1);
            let constraints = leaf.basic_constraints().unwrap().unwrap();
            assert!(constraints.critical && !constraints.value.ca);
            let usage = leaf.key_usage().unwrap().unwrap();
            assert!(usage.critical && usage.value.digital_signature() && !usage.value.key_encipherment());
            let extended = leaf.extended_key_usage().unwrap().unwrap().value;
            assert!(extended.client_auth && !extended.server_auth && !extended.any);
            assert!(leaf.raw_serial().len() <= 20 && leaf.raw_serial()[0] < 0x80);
        });
        openssl(&cvm, "verify -purpose sslclient -x509_strict -CAfile factory/ca.pem devices/sn-0001/device.pem");
    }
}

#[test]
fn a_certificate_does_not_outlive_its_ca() {
    let cvm = Cvm::new();
    cvm.run("ca create --name Factory --out factory --days 7").text();
    let run = cvm.run(&format!("ca issue {CA} --device sn-0001 --out devices --days 30"));
    assert!(run.stderr.contains("end with their CA"), "{}", run.stderr);
    let chain = cvm.read("devices/sn-0001/device.pem");
    let ends: Vec<i64> =
        certificates(&chain).iter().map(|pem| pem.parse_x509().unwrap().validity().not_after.timestamp()).collect();
    assert_eq!(ends[0], ends[1]);
}

#[test]
fn a_list_is_issued_once_however_often_it_is_run() {
    let cvm = with_ca();
    let line = format!("ca issue {CA} --devices - --out devices --manifest devices.jsonl");
    let text = cvm.run_with(line.split_whitespace(), "sn-1\nsn-2\r\n\n# spare\nsn-3").text();
    assert!(text.contains("issued 3 certificates") && text.contains("wrote 3 lines"), "{text}");
    let chains = ["sn-1", "sn-2", "sn-3"].map(|id| cvm.read(&format!("devices/{id}/device.pem")));
    let manifest = cvm.read("devices.jsonl");
    for (line, chain) in manifest.lines().zip(&chains) {
        let entry: Value = serde_json::from_str(line).unwrap();
        let leaf = Certificate::parse(&chain[..chain.find(&cvm.read("factory/ca.pem")).unwrap()]).unwrap();
        assert_eq!(entry["certificateId"], leaf.id().to_string());
        assert_eq!(entry["keyFingerprint"], leaf.key().to_string());
        assert!(entry["deviceId"].is_string() && entry["notAfter"].is_string());
    }
    let serials: std::collections::BTreeSet<Vec<u8>> =
        chains.iter().map(|chain| certificates(chain)[0].parse_x509().unwrap().raw_serial().to_vec()).collect();
    assert_eq!(serials.len(), 3);

    // A run that was interrupted after sn-3, in the middle of sn-4.
    std::fs::create_dir(cvm.path("devices/.partial-sn-4")).unwrap();
    cvm.write("devices/.partial-sn-4/device.key", "half a key");
    cvm.write("serials.txt", "sn-1\nsn-2\nsn-3\nsn-4\nsn-4\n");
    let line = format!("ca issue {CA} --devices serials.txt --out devices --manifest devices.jsonl --output json");
    let run = cvm.run(&line).text();
    let rows: Vec<Value> = run.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.iter().map(|row| &row["isNew"]).collect::<Vec<_>>(), [false, false, false, true, false]);
    assert_eq!(chains, ["sn-1", "sn-2", "sn-3"].map(|id| cvm.read(&format!("devices/{id}/device.pem"))));
    assert!(!cvm.path("devices/.partial-sn-4").exists());
    let again = cvm.read("devices.jsonl");
    assert!(again.starts_with(&manifest) && again.lines().count() == 5, "{again}");
}

#[test]
fn a_bad_line_stops_the_run_and_what_was_issued_is_kept() {
    let cvm = with_ca();
    let long = "x".repeat(65);
    for (list, expected) in [
        ("sn-1\nsn 2\n", "line 2 is no device id"),
        ("sn-1\n../../sn-2\n", "line 2 is no device id"),
        (&format!("sn-1\n{long}\n"), "on line 2 has more than the 64"),
    ] {
        cvm.write("serials.txt", list);
        let line = format!("ca issue {CA} --devices serials.txt --out devices --manifest devices.jsonl");
        let failure = cvm.run(&line).failure();
        assert!(failure.contains(expected) && failure.contains("run the same command again"), "{failure}");
        assert!(cvm.path("devices/sn-1/device.pem").exists());
        assert!(!cvm.path("devices.jsonl").exists(), "a list that is not complete is no list");
    }
}

#[test]
fn of_a_request_only_the_key_is_taken() {
    let cvm = with_ca();
    let request = csr("sn-0001");
    cvm.write("request.pem", request.pem());
    cvm.write("request.der", request.der());
    for (out, file) in [("pem", "request.pem"), ("der", "request.der")] {
        cvm.run(&format!("ca issue {CA} --device sn-0001 --csr {file} --out {out}")).text();
        let chain = cvm.read(&format!("{out}/sn-0001/device.pem"));
        assert_eq!(certificates(&chain)[0].parse_x509().unwrap().public_key().raw, request.key().spki());
        assert!(!cvm.path(out).join("sn-0001/device.key").exists());
    }
    let failure = cvm.run(&format!("ca issue {CA} --device sn-0002 --csr request.pem --out pem")).failure();
    assert!(failure.contains("of device sn-0001"), "{failure}");
    cvm.write("other.pem", csr("sn-0001").pem());
    let failure = cvm.run(&format!("ca issue {CA} --device sn-0001 --csr other.pem --out pem")).failure();
    assert!(failure.contains("another key"), "{failure}");
}

#[test]
fn the_cas_own_key_is_no_devices_key() {
    let cvm = with_ca();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let key = KeyPair::from_pem(&cvm.read("factory/ca.key")).unwrap();
    cvm.write("own.csr", params.serialize_request(&key).unwrap().der());
    let failure = cvm.run(&format!("ca issue {CA} --device sn-1 --csr own.csr --out devices")).failure();
    assert!(failure.contains("own key"), "{failure}");
    assert!(!cvm.path("devices/sn-1").exists());
}

#[test]
fn a_folder_of_somebody_else_is_left_alone() {
    let cvm = with_ca();
    let issue = format!("ca issue {CA} --device sn-1 --out devices");
    cvm.run(&issue).text();
    assert!(cvm.run(&issue).text().contains("already"));
    std::fs::remove_file(cvm.path("devices/sn-1/device.key")).unwrap();
    assert!(cvm.run(&issue).failure().contains("not the complete folder"));
    cvm.run("ca create --name Other --out other").text();
    let other = "ca issue --ca-cert other/ca.pem --ca-key other/ca.key --device sn-2 --out devices";
    cvm.run(other).text();
    assert!(cvm.run(&format!("ca issue {CA} --device sn-2 --out devices")).failure().contains("another CA"));
    std::fs::rename(cvm.path("devices/sn-2"), cvm.path("devices/sn-3")).unwrap();
    let other = "ca issue --ca-cert other/ca.pem --ca-key other/ca.key --device sn-3 --out devices";
    assert!(cvm.run(other).failure().contains("another device"));

    let folder = std::fs::File::open(cvm.path("devices")).unwrap();
    folder.lock().unwrap();
    assert!(cvm.run(&issue).failure().contains("another run"));
}

#[test]
fn threat_54_a_ca_that_must_not_sign_is_refused_and_said_which_file_is_to_blame() {
    let cvm = with_ca();
    let authority = |name: &str, adjust: &dyn Fn(&mut CertificateParams)| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2199, 1, 1));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        adjust(&mut params);
        cvm.write(&format!("{name}.pem"), params.self_signed(&key).unwrap().pem());
        cvm.write(&format!("{name}.key"), key.serialize_pem());
        std::fs::set_permissions(cvm.path(&format!("{name}.key")), PermissionsExt::from_mode(0o600)).unwrap();
    };
    authority("good", &|_| ());
    authority("expired", &|params| params.not_after = date_time_ymd(2021, 1, 1));
    authority("early", &|params| params.not_before = date_time_ymd(2198, 1, 1));
    authority("leaf", &|params| params.is_ca = IsCa::ExplicitNoCa);
    authority("crl-only", &|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    authority("exposed", &|_| ());
    std::fs::set_permissions(cvm.path("exposed.key"), PermissionsExt::from_mode(0o644)).unwrap();
    cvm.write("text.pem", "no certificate");
    for (certificate, key, expected) in [
        ("expired.pem", "expired.key", "expired.pem cannot be used: it expired at 2021-01-01T00:00:00Z"),
        ("early.pem", "early.key", "not valid before"),
        ("leaf.pem", "leaf.key", "no CA's"),
        ("crl-only.pem", "crl-only.key", "no keyCertSign"),
        ("exposed.pem", "exposed.key", "`chmod 600 exposed.key`"),
        ("good.pem", "leaf.key", "the key in leaf.key does not belong to the certificate in good.pem"),
        ("text.pem", "good.key", "text.pem holds no certificate"),
        ("good.pem", "missing.key", "missing.key cannot be read"),
    ] {
        for command in ["issue --device sn-1 --out devices", "register"] {
            let failure = cvm.run(&format!("ca {command} --ca-cert {certificate} --ca-key {key}")).failure();
            assert!(failure.contains(expected), "{expected}: {failure}");
        }
    }
    assert!(!cvm.path("devices").exists());
    let line = "ca issue --ca-cert good.pem --ca-key - --device sn-1 --out devices";
    cvm.run_with(line.split_whitespace(), &cvm.read("good.key")).text();
}

#[test]
fn a_ca_of_openssl_signs_too() {
    let cvm = Cvm::new();
    openssl(&cvm, "ecparam -name prime256v1 -genkey -noout -out ca.key");
    openssl(&cvm, "req -x509 -new -key ca.key -subj /C=DE/O=Example/OU=Devices/CN=Factory -days 9 -out ca.pem");
    std::fs::set_permissions(cvm.path("ca.key"), PermissionsExt::from_mode(0o600)).unwrap();
    cvm.run("ca issue --ca-cert ca.pem --ca-key ca.key --device sn-1 --out devices").text();
    openssl(&cvm, "verify -purpose sslclient -CAfile ca.pem devices/sn-1/device.pem");

    // Two attributes of one kind are more than the library can repeat.
    openssl(&cvm, "req -x509 -new -key ca.key -subj /OU=One/OU=Two/CN=Factory -days 9 -out ca.pem");
    let failure = cvm.run("ca issue --ca-cert ca.pem --ca-key ca.key --device sn-2 --out devices").failure();
    assert!(failure.contains("byte for byte"), "{failure}");
    openssl(&cvm, "req -x509 -new -key ca.key -multivalue-rdn -subj /OU=One+CN=Factory -days 9 -out ca.pem");
    let failure = cvm.run("ca issue --ca-cert ca.pem --ca-key ca.key --device sn-2 --out devices").failure();
    assert!(failure.contains("several attributes"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_other_tools_are_read_with_what_stands_around_their_blocks() {
    let (endpoint, _) = dynamodb().await;
    let cvm = Cvm::on(&endpoint);
    // The key has the parameters of its curve before it.
    openssl(&cvm, "ecparam -name prime256v1 -genkey -out ca.key");
    openssl(&cvm, "req -x509 -new -key ca.key -subj /CN=Factory -days 9 -text -out ca.pem");
    for (encrypt, file) in [("pkey", "pkcs8.key"), ("ec", "traditional.key")] {
        openssl(&cvm, &format!("{encrypt} -in ca.key -aes256 -passout pass:secret -out {file}"));
    }
    for file in ["ca.key", "pkcs8.key", "traditional.key"] {
        std::fs::set_permissions(cvm.path(file), PermissionsExt::from_mode(0o600)).unwrap();
    }
    assert!(cvm.read("ca.key").contains("EC PARAMETERS") && cvm.read("traditional.key").contains("Proc-Type"));
    cvm.run("ca issue --ca-cert ca.pem --ca-key ca.key --device sn-1 --out devices").text();
    for encrypted in ["pkcs8.key", "traditional.key"] {
        let issue = format!("ca issue --ca-cert ca.pem --ca-key {encrypted} --device sn-2 --out devices");
        let failure = cvm.run(&issue).failure();
        assert!(failure.contains("the key is encrypted") && failure.contains("openssl pkcs8"), "{failure}");
    }

    let certificate = Certificate::parse(&certificate_of(&cvm, "devices/sn-1/device.pem")).unwrap();
    openssl(
        &cvm,
        "pkcs12 -export -in devices/sn-1/device.pem -inkey devices/sn-1/device.key -out bag.p12 -passout pass:",
    );
    openssl(&cvm, "pkcs12 -in bag.p12 -nodes -passin pass: -out bag.pem");
    assert!(cvm.read("bag.pem").contains("Bag Attributes") && cvm.read("bag.pem").contains("PRIVATE KEY"));
    for file in ["devices/sn-1/device.pem", "bag.pem"] {
        let added = cvm.run(&format!("device add sn-1 --certificate {file} --output json")).json();
        assert_eq!(added["attestation"]["certificateId"], certificate.id().to_string(), "{file}");
        cvm.run("device delete sn-1").text();
    }
}

/// The first certificate in a file, in PEM.
fn certificate_of(cvm: &Cvm, name: &str) -> String {
    let text = cvm.read(name);
    let end = "-----END CERTIFICATE-----";
    text[..text.find(end).unwrap() + end.len()].to_owned()
}

#[test]
fn what_cannot_go_together_is_wrong_usage() {
    let cvm = with_ca();
    for words in [
        "",
        "--device sn-1 --devices serials.txt",
        "--devices serials.txt --csr sn-1.csr",
        "--device ../sn-1",
        "--device sn-1 --days 0",
    ] {
        assert_eq!(cvm.run(&format!("ca issue {CA} --out devices {words}")).code, 2, "{words}");
    }
    let line = "ca issue --ca-cert factory/ca.pem --ca-key - --devices - --out devices";
    assert_eq!(cvm.run_with(line.split_whitespace(), "").code, 2);
    assert_eq!(cvm.run(&format!("ca register {CA} --jitp fleet")).code, 2);
    assert_eq!(cvm.run("ca deactivate 00").code, 2);
}
