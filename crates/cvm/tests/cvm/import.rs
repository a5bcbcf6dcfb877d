use cvm_provisioning::{Attestation, Device, DeviceFilter, DeviceStore, EnrolmentToken};
use cvm_testkit::fixture::id;
use serde_json::{Value, json};

use crate::support::{Cvm, dynamodb, mode};

async fn all(registry: &impl DeviceStore) -> Vec<Device> {
    let mut devices = registry.list(&DeviceFilter::default(), None, 1_000).await.unwrap().devices;
    devices.sort_by(|a, b| a.id.cmp(&b.id));
    devices
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_imported_and_its_tokens_are_in_a_private_file_once() {
    let (endpoint, registry) = dynamodb().await;
    let cvm = Cvm::on(&endpoint);
    cvm.write("list.csv", "\u{feff}serial,group\r\nsn-1,berlin\r\nsn-2,\r\n");
    let done = cvm.run("device import list.csv --tokens tokens --group paris --output json").json();
    assert_eq!((&done["created"], &done["failed"]), (&json!(2), &json!(0)));
    assert_eq!(mode(&cvm.path("tokens")), 0o600);
    for kept in lines(&cvm.read("tokens")) {
        let token: EnrolmentToken = kept["token"].as_str().unwrap().parse().unwrap();
        let device = registry.find(&id(kept["deviceId"].as_str().unwrap())).await.unwrap().unwrap();
        let expected = Attestation::Token { digest: token.digest(), second: None, expires_at: None };
        assert_eq!(device.attestation, expected);
    }
    let groups: Vec<_> = all(&registry).await.into_iter().map(|device| device.group.unwrap().to_string()).collect();
    assert_eq!(groups, ["berlin", "paris"]);
    let again = cvm.run("device import list.csv --tokens tokens").failure();
    assert!(again.contains("tokens cannot be written"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_41_bad_lines_are_told_by_their_numbers_and_the_others_are_imported() {
    let (endpoint, registry) = dynamodb().await;
    let cvm = Cvm::on(&endpoint);
    cvm.write("list.csv", "id\nsn-1\n=1\nsn-1\n\nsn-2\n");
    let run = cvm.run("device import list.csv --proof claim --errors bad");
    assert!(run.failure_after("2 created").contains("bad says which and why"));
    let bad: Vec<_> =
        lines(&cvm.read("bad")).into_iter().map(|line| (line["line"].clone(), line["code"].clone())).collect();
    assert_eq!(bad, [(json!(3), json!("invalid")), (json!(4), json!("duplicate"))]);
    let failure = cvm.run("device import list.csv --proof claim --errors bad").failure_after("0 created");
    assert!(failure.contains("4 lines failed"), "{failure}");
    assert_eq!(all(&registry).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_and_a_command_that_could_not_work_write_nothing() {
    let (endpoint, registry) = dynamodb().await;
    let cvm = Cvm::on(&endpoint);
    cvm.write("list.csv", "id\nsn-1\n");
    assert!(cvm.run("device import list.csv --dry-run --tokens tokens").text().starts_with("1 lines can be imported"));
    assert!(!cvm.path("tokens").exists());
    let refused = cvm.run("device import list.csv");
    assert_eq!(refused.code, 2, "its token would be lost");
    assert!(
        refused.stderr.contains("--tokens FILE") && !cvm.path("list.csv.cvm-import").exists(),
        "{}",
        refused.stderr
    );
    assert_eq!(cvm.run("device import list.csv --proof nothing").code, 2);
    assert!(cvm.run("device import absent.csv --proof claim").failure().contains("absent.csv cannot be read"));
    assert_eq!(all(&registry).await, []);
    // What the message of the refusal says to do.
    assert!(cvm.run("device import list.csv --tokens tokens").text().starts_with("1 created"));
    let refused = cvm.run("device import list.csv --dry-run").failure_after("0 lines can be imported, 1 cannot");
    assert!(refused.contains("line 2, sn-1: the device is in the registry already"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_cannot_be_reached_leaves_neither_journal_nor_tokens() {
    let cvm = Cvm::on("http://127.0.0.1:1");
    cvm.write("list.csv", "id\nsn-1\n");
    cvm.run("device import list.csv --tokens tokens").failure();
    assert!(!cvm.path("list.csv.cvm-import").exists() && !cvm.path("tokens").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_lines_are_text_for_people_and_json_for_programs() {
    let (endpoint, _) = dynamodb().await;
    let cvm = Cvm::on(&endpoint);
    cvm.write("list.csv", "id,status\n=1,\nsn-1,shipped\n");
    let text = cvm.run("device import list.csv --proof claim").failure_after("0 created");
    assert!(text.contains("! line 2: deviceId \"=1\": the cell begins like a formula"), "{text}");
    assert!(text.contains("! line 3: status \"shipped\": expected enabled or disabled"), "{text}");
    let program = cvm.run("device import list.csv --proof claim --output json");
    assert_eq!(lines(&program.stderr)[1]["line"], 3, "{}", program.stderr);
    let ignored = cvm.run("device import list.csv --proof claim --column ignore=status").failure_after("1 created");
    assert!(!ignored.contains("line 3"), "{ignored}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_table_is_one_error() {
    let cvm = Cvm::on("http://127.0.0.1:1");
    cvm.write("mes.json", "{\n  \"devices\": [\n    {\"deviceId\": \"sn-1\"}\n  ]\n}\n");
    let failure = cvm.run("device import mes.json --dry-run --errors bad").failure();
    assert!(failure.contains("one JSON document over several lines"), "{failure}");
    assert_eq!(cvm.read("bad"), "");
    cvm.write("list.xlsx", b"PK\x03\x04\x14\0\x06\0");
    assert!(cvm.run("device import list.xlsx --dry-run").failure().contains("workbook"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guess_about_the_ids_is_told() {
    let (endpoint, registry) = dynamodb().await;
    let cvm = Cvm::on(&endpoint);
    cvm.write("list.csv", "sn-0001\r\nsn-0002\r\n");
    let list = cvm.run("device import list.csv --proof claim");
    assert!(list.stderr.contains("each line is read as a device id"), "{}", list.stderr);
    cvm.write("modules.csv", "MAC,cn\nAABBCC000000,node-1\n");
    let modules = cvm.run("device import modules.csv --proof claim");
    assert!(modules.stderr.contains("the ids are read from \"cn\""), "{}", modules.stderr);
    let ids: Vec<_> = all(&registry).await.into_iter().map(|device| device.id.to_string()).collect();
    assert_eq!(ids, ["node-1", "sn-0001", "sn-0002"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_exported_is_put_back_into_an_empty_registry_as_it_was() {
    let (endpoint, registry) = dynamodb().await;
    let cvm = Cvm::on(&endpoint);
    cvm.run_with(["device", "import", "-", "--tokens", "tokens"], "serial,parameter.Site\nsn-1,a\nsn-2,b\n").text();
    cvm.run("device disable sn-2 --reason lost").text();
    cvm.run("device export --out devices.jsonl").text();
    assert_eq!(mode(&cvm.path("devices.jsonl")), 0o600);
    let before = all(&registry).await;
    assert_eq!(cvm.run("device export").text(), cvm.read("devices.jsonl"));
    let unchanged = cvm.run("device import devices.jsonl --output json").json();
    assert_eq!(unchanged["unchanged"], 2, "{unchanged}");

    let (endpoint, restored) = dynamodb().await;
    let empty = Cvm::on(&endpoint);
    empty.write("devices.jsonl", cvm.read("devices.jsonl"));
    empty.run("device import devices.jsonl --restore").text();
    assert_eq!(all(&restored).await, before);
    let again = empty.run("device import devices.jsonl --restore --output json").json();
    assert_eq!((&again["unchanged"], &again["failed"]), (&json!(2), &json!(0)), "{again}");
    let table = empty.run("device export --format csv").text();
    assert!(table.starts_with("deviceId,status,") && table.lines().count() == 3, "{table}");
}
