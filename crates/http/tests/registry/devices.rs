//! Devices and their modules, one by one and many at once.

use axum::Extension;
use axum::body::Body;
use axum::http::header::ETAG;
use axum::http::{Request, StatusCode};
use cvm_http::NoRestore;
use cvm_provisioning::{Changes as _, Device, DeviceStore as _, Door, Presence, Presences as _, State};
use cvm_testkit::fixture::{NOW, attempt, csr, device, id, later, origin, request};
use cvm_testkit::scenario::World;
use cvm_testkit::{MemoryRegistry, Script};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::api::Api;

#[tokio::test]
async fn a_device_is_made_read_changed_and_deleted() {
    let api = Api::new(&Script::default());
    let made = api.put("/devices/sn-1?api-version=2021-04-12", None, json!({"deviceId": "sn-1"})).await;
    assert_eq!((made.status, &made.body["status"]), (200, &json!("enabled")));
    assert!(made.body["authentication"]["symmetricKey"]["primaryKey"].as_str().unwrap().len() > 40);
    let tag = made.header(ETAG.as_str()).to_owned();
    assert_eq!(tag, format!("\"{}\"", made.body["etag"].as_str().unwrap()));
    assert_eq!(api.put("/devices/sn-1", None, json!({})).await.header("iothub-errorcode"), "DeviceAlreadyExists");

    let read = api.get("/devices/sn-1").await;
    assert_eq!(read.body["authentication"]["symmetricKey"]["primaryKey"], Value::Null, "keys are shown once");
    assert_eq!(read.body["connectionStateUpdatedTime"], "0001-01-01T00:00:00Z");
    assert_eq!(api.send("GET", "/devices/sn-1", &[("if-none-match", &tag)], "").await.status, 304);

    made.is("Device");
    read.is("Device");

    // What was read is sent back, with one thing changed.
    let mut body = read.body;
    body["status"] = json!("disabled");
    body["statusReason"] = json!("stolen");
    let before = api.device("sn-1").await;
    let changed = api.put("/devices/sn-1", Some(&tag), body).await;
    assert_eq!((changed.status, &changed.body["statusReason"]), (200, &json!("stolen")));
    assert_eq!(api.device("sn-1").await.attestation, before.attestation);
    assert_eq!(api.put("/devices/sn-1", Some(&tag), json!({"status": "enabled"})).await.status, 412);

    let kept = api.put("/devices/sn-1", Some("*"), json!({"capabilities": {"iotEdge": true}})).await;
    assert_eq!((&kept.body["status"], &kept.body["statusReason"]), (&json!("disabled"), &json!("stolen")));
    let grouped = api.put("/devices/sn-1", Some("*"), json!({"cvm": {"group": "berlin", "template": "camera"}})).await;
    assert_eq!((&grouped.body["cvm"]["group"], &grouped.body["cvm"]["template"]), (&json!("berlin"), &json!("camera")));
    let alone = api.put("/devices/sn-1", Some("*"), json!({"cvm": {"group": null}})).await;
    assert_eq!((&alone.body["cvm"]["group"], &alone.body["cvm"]["template"]), (&Value::Null, &json!("camera")));
    assert_eq!(api.send("DELETE", "/devices/sn-1", &[], "").await.status, 400, "not without If-Match");
    assert_eq!(api.send("DELETE", "/devices/sn-1", &[("if-match", &tag)], "").await.status, 412);
    assert_eq!(api.send("DELETE", "/devices/sn-1", &[("if-match", "\"*\"")], "").await.status, 204);
    assert_eq!(api.get("/devices/sn-1").await.header("iothub-errorcode"), "DeviceNotFound");
    assert_eq!(api.put("/devices/sn-1", Some("*"), json!({})).await.status, 404);
    let actors: Vec<_> = api.registry.take_writes().into_iter().map(|write| write.by.unwrap()).collect();
    assert!(actors.iter().all(|by| by.door == Door::Registry && by.actor.as_ref().unwrap().as_str() == "anna"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_writers_with_one_entity_tag_one_wins() {
    let api = Api::new(&Script::default());
    for round in 0..50 {
        let uri = format!("/devices/sn-{round}");
        let tag = api.put(&uri, None, json!({})).await.header("etag").to_owned();
        let write = |reason: &str| {
            let request = Request::put(&uri).header("if-match", &tag);
            let request = request.body(Body::from(json!({ "statusReason": reason }).to_string())).unwrap();
            tokio::spawn(api.router.clone().oneshot(request))
        };
        let (one, other) = (write("one"), write("other"));
        let mut statuses = [one.await.unwrap().unwrap(), other.await.unwrap().unwrap()].map(|answer| answer.status());
        statuses.sort_unstable();
        assert_eq!(statuses, [StatusCode::OK, StatusCode::PRECONDITION_FAILED]);
    }
}

#[tokio::test]
async fn a_list_goes_on_where_it_ended_and_can_be_filtered() {
    let api = Api::new(&Script::default());
    for number in 0..250 {
        let group = if number % 2 == 0 { "even" } else { "odd" };
        let body = json!({"cvm": {"group": group, "attestation": {"kind": "nothing"}}});
        assert_eq!(api.put(&format!("/devices/sn-{number:03}"), None, body).await.status, 200);
    }
    assert_eq!(api.get("/devices").await.body.as_array().unwrap().len(), 250);
    assert_eq!(api.get("/devices/?top=7").await.body.as_array().unwrap().len(), 7);
    assert_eq!(api.get("/devices?group=odd&state=registered&status=enabled").await.body.as_array().unwrap().len(), 125);
    assert_eq!(api.get("/devices?changedSince=2027-01-15T08:00:01Z").await.body, json!([]));
    let (mut place, mut count) = (String::new(), 0);
    loop {
        let headers = [("x-ms-continuation", place.as_str()), ("x-ms-max-item-count", "100")];
        let query = json!({"query": "SELECT * FROM devices"}).to_string();
        let page = api.send("POST", "/devices/query", &headers, query).await;
        count += page.body.as_array().unwrap().len();
        place = page.header("x-ms-continuation").to_owned();
        if place.is_empty() {
            break;
        }
    }
    assert_eq!(count, 250);
    let counts = api.get("/statistics/devices").await.body;
    assert_eq!((&counts["totalDeviceCount"], &counts["disabledDeviceCount"]), (&json!(250), &json!(0)));
}

#[tokio::test]
async fn what_was_said_of_an_earlier_device_says_nothing_of_this_one() {
    let api = Api::new(&Script::default());
    assert!(api.registry.add(&device("sn-1"), &origin()).await.unwrap());
    let presence = |since| Presence {
        connected: true,
        since,
        order: u64::try_from(since.seconds()).unwrap(),
        client_id: "sn-1".to_owned(),
        certificate: "ab".repeat(32).parse().unwrap(),
    };
    let earlier = NOW.before(std::time::Duration::from_secs(1));
    for (since, state) in [(earlier, "Disconnected"), (later(1), "Connected")] {
        api.registry.note_presence(&id("sn-1"), &presence(since)).await.unwrap();
        assert_eq!(api.get("/devices/sn-1").await.body["connectionState"], state);
        assert_eq!(api.get("/devices").await.body[0]["connectionState"], state);
    }
    assert_eq!(api.get("/statistics/service").await.body, json!({"connectedDeviceCount": 1}));
}

#[tokio::test]
async fn of_many_at_once_each_is_done_by_itself() {
    let api = Api::new(&Script::default());
    let done = api.post("/devices", json!([{"id": "sn-1"}, {"id": "sn-1", "moduleId": "m-1"}])).await;
    let told = json!({"entries": ["created", "created"]});
    let expected = json!({"isSuccessful": true, "errors": [], "warnings": [], "cvm": told});
    assert_eq!((done.status, done.body), (200, expected));
    let mixed = json!([
        {"id": "sn-1", "importMode": "create"},
        {"id": "sn-2", "importMode": "Create", "tags": {"site": "berlin"}},
        {"id": "no id"},
        {"id": "sn-1", "importMode": "updateTwin"},
        {"id": "sn-1", "importMode": "updateIfMatchETag", "eTag": "other", "status": "disabled"},
    ]);
    let answer = api.post("/devices", mixed).await;
    answer.is("BulkAnswer");
    assert_eq!((answer.status, &answer.body["isSuccessful"]), (400, &json!(false)));
    let errors = answer.body["errors"].as_array().unwrap();
    let codes: Vec<_> = errors.iter().map(|error| error["errorCode"].as_str().unwrap()).collect();
    assert_eq!(codes, ["DeviceAlreadyExists", "ArgumentInvalid", "ArgumentInvalid", "PreconditionFailed"]);
    assert_eq!(errors[1]["deviceId"], "", "what is no id is not repeated");
    assert_eq!(answer.body["cvm"]["entries"], json!([null, "created", null, null, null]));
    assert_eq!(answer.body["warnings"][0]["deviceId"], "sn-2");
    assert_eq!(api.get("/devices/sn-2").await.status, 200);
    let many: Vec<_> = (0..101).map(|number| json!({"id": format!("x-{number}")})).collect();
    let refused = api.post("/devices", json!(many)).await;
    assert_eq!((refused.status, refused.header("iothub-errorcode")), (413, "TooManyDevices"));
    assert_eq!(api.get("/devices/x-0").await.status, 404, "nothing of it is done");
    let most =
        json!((0..100).map(|number| json!({"id": format!("x-{number}"), "importMode": "create"})).collect::<Vec<_>>());
    assert_eq!(api.post("/devices", most.clone()).await.body["isSuccessful"], true);
    let again = api.post("/devices", most).await;
    assert_eq!((again.status, again.body["errors"].as_array().unwrap().len()), (400, 100));
    let twice =
        api.post("/devices", json!([{"id": "t", "importMode": "create"}, {"id": "t", "importMode": "create"}])).await;
    assert_eq!((twice.status, &twice.body["cvm"]["entries"]), (400, &json!(["created", null])));
}

#[tokio::test]
async fn what_was_done_before_is_no_error_when_it_is_asked_for_again() {
    let api = Api::new(&Script::default());
    let token = |digest| json!({"kind": "token", "tokenDigest": digest});
    let entry = |digest| json!([{"id": "sn-1", "importMode": "create", "cvm": {"attestation": token(digest)}}]);
    let (own, others) = (entry("A".repeat(43)), entry(format!("{}E", "A".repeat(42))));
    assert_eq!(api.post("/devices", own.clone()).await.body["cvm"]["entries"], json!(["created"]));
    let before = api.device("sn-1").await;
    assert_eq!(api.post("/devices", own.clone()).await.body["errors"][0]["errorCode"], "DeviceAlreadyExists");
    assert_eq!(api.post("/devices?again=true", own).await.body["cvm"]["entries"], json!(["created"]));
    let refused = api.post("/devices?again=true", others).await;
    assert_eq!(refused.body["errors"][0]["errorCode"], "DeviceAlreadyExists", "it is another device's token");
    assert_eq!(api.device("sn-1").await, before);
    let module = json!([{"id": "sn-1", "moduleId": "m-1", "cvm": {"attestation": token("A".repeat(43))}}]);
    assert_eq!(api.post("/devices", module).await.body["cvm"]["entries"], json!(["created"]));
    let modules = api.device("sn-1").await.modules;
    assert_eq!(modules.into_values().next().unwrap().attestation, before.attestation);
    assert_eq!(api.post("/devices?again=perhaps", json!([])).await.status, 400);
}

#[tokio::test]
async fn what_was_exported_is_put_back_as_it_was_and_over_nothing() {
    let api = Api::new(&Script::default());
    let mut was = device("sn-1");
    was.disable("lost".parse().ok(), NOW);
    for device in [was.clone(), device("sn-2")] {
        assert!(api.registry.add(&device, &origin()).await.unwrap());
    }
    let exported = api.post("/devices/export?top=1", json!({})).await;
    exported.is_list_of("ExportedDevice");
    let next = exported.header("x-ms-continuation").to_owned();
    let rest = api.post(&format!("/devices/export?continuation={next}"), json!({})).await;
    assert_eq!((exported.body.as_array().unwrap().len(), rest.body.as_array().unwrap().len()), (1, 1));
    let disabled = api.post("/devices/export?status=disabled", json!({"excludeDigests": true})).await.body;
    assert_eq!((disabled.as_array().unwrap().len(), &disabled[0]["id"]), (1, &json!("sn-1")));
    assert!(!disabled.to_string().contains("tokenDigest"));

    let empty = Api::new(&Script::default());
    let without = empty.post("/devices?restore=true", disabled).await;
    assert_eq!(without.body["errors"][0]["errorCode"], "ArgumentInvalid", "nobody would know its token");
    let both = json!([exported.body[0], rest.body[0]]);
    let restored = empty.post("/devices?restore=true", both.clone()).await;
    assert_eq!(restored.body["cvm"]["entries"], json!(["created", "created"]));
    assert_eq!(empty.device("sn-1").await, was);
    let again = empty.post("/devices?restore=true", both.clone()).await;
    assert_eq!(again.body["cvm"]["entries"], json!(["unchanged", "unchanged"]));
    empty.put("/devices/sn-1", Some("*"), json!({"status": "enabled"})).await;
    let other = empty.post("/devices?restore=true", both).await;
    assert_eq!(other.body["errors"][0]["errorCode"], "DeviceAlreadyExists");
}

#[tokio::test]
async fn threat_59_an_operator_who_may_not_restore_devices_restores_none() {
    let api = Api::new(&Script::default());
    assert!(api.registry.add(&device("sn-1"), &origin()).await.unwrap());
    let exported = api.post("/devices/export", json!({})).await.body;
    let empty = Api::new(&Script::default());
    let limited = Api { router: empty.router.clone().layer(Extension(NoRestore)), ..Api::new(&Script::default()) };
    let job = json!({"type": "import", "cvm": {"restore": true}});
    for (uri, body) in [("/devices?restore=true", exported.clone()), ("/jobs/create", job)] {
        let refused = limited.post(uri, body).await;
        assert!(refused.is_for_another_role, "whoever counts refusals is told: {uri}");
        assert_eq!((refused.status, refused.header("iothub-errorcode")), (403, "GenericForbidden"), "{uri}");
    }
    assert_eq!(limited.post("/devices?restore=false", json!([{"id": "sn-2"}])).await.status, 200);
    assert_eq!(empty.post("/devices?restore=true", exported).await.status, 200);
}

#[tokio::test]
async fn a_module_is_made_read_changed_and_deleted() {
    let api = Api::new(&Script::default());
    let uri = "/devices/sn-1/modules/m-1";
    assert_eq!(api.put(uri, None, json!({})).await.header("iothub-errorcode"), "DeviceNotFound");
    api.put("/devices/sn-1", None, json!({})).await;
    assert_eq!(api.get(uri).await.header("iothub-errorcode"), "ModuleNotFound");
    let made = api.put(uri, None, json!({"moduleId": "m-1", "managedBy": "iotEdge"})).await;
    made.is("Module");
    assert_eq!((made.status, &made.body["managedBy"]), (200, &json!("iotEdge")));
    assert_eq!(api.put(uri, None, json!({})).await.header("iothub-errorcode"), "ModuleAlreadyExistsOnDevice");
    let changed = api.put(uri, Some(made.header("etag")), json!({"managedBy": null})).await;
    assert_eq!((changed.status, &changed.body["managedBy"]), (200, &Value::Null));
    assert_eq!(api.put(uri, Some(made.header("etag")), json!({})).await.status, 412);
    assert_eq!(api.get("/devices/sn-1/modules").await.body[0]["moduleId"], "m-1");
    assert_eq!(api.send("DELETE", uri, &[("if-match", "*")], "").await.status, 204);
    assert_eq!(api.get("/devices/sn-1/modules").await.body, json!([]));
    let agent = api.put("/devices/sn-1/modules/%24edgeAgent", None, json!({"managedBy": "iotEdge"})).await;
    agent.is("Module");
    assert_eq!((agent.status, &agent.body["moduleId"]), (200, &json!("$edgeAgent")));
    assert_eq!(api.put("/devices/sn-1/modules/%24other", None, json!({})).await.status, 400);
}

#[tokio::test]
async fn an_id_is_taken_as_it_is_decoded_or_refused() {
    let api = Api::new(&Script::default());
    for bad in [
        "pump%237", "a%25b", "a%2Bb", "o'brien", "%24x", "a@b", "a%2Fb", "%2e%2e", "a%00b", "a%20b", "%C3%BC", "a;b",
        "a=b", "(a)", "a*",
    ] {
        assert_eq!(api.put(&format!("/devices/{bad}"), None, json!({})).await.status, 400, "{bad}");
    }
    for (id, status) in [("sn%3A1", 200), ("sn:1", 409), ("Sn-1", 200), ("sn-1", 200)] {
        assert_eq!(api.put(&format!("/devices/{id}"), None, json!({})).await.status, status, "{id}");
    }
}

#[tokio::test]
async fn a_person_decides_about_a_device_in_quarantine() {
    let api = Api::new(&Script::default());
    let waiting = Device { state: State::Quarantined, ..device("sn-1") };
    assert!(api.registry.add(&waiting, &origin()).await.unwrap());
    assert_eq!(api.post("/devices/sn-1/approve", json!({})).await.status, 400, "it has to be said");
    let approved = api.post("/devices/sn-1/approve", json!({"keepCertificate": true})).await;
    assert_eq!((approved.status, &approved.body["cvm"]["state"]), (200, &json!("provisioned")));
    assert_eq!(api.post("/devices/sn-1/approve", json!({"keepCertificate": true})).await.status, 409);
    assert_eq!(api.post("/devices/sn-1/renew", json!({})).await.body["cvm"]["state"], "registered");
    assert_eq!(api.post("/devices/sn-1/renew", json!({})).await.status, 409);
}

#[tokio::test]
async fn a_device_is_revoked_for_a_reason_and_for_good() {
    let api = Api::new(&Script::default());
    assert!(api.registry.add(&device("sn-1"), &origin()).await.unwrap());
    let nothing = api.post("/devices/sn-1/revoke", json!({"reason": "key leaked"})).await;
    assert_eq!(nothing.status, 409, "it has no certificate");
    nothing.is("Failure");
    let world = World::new(MemoryRegistry::default(), device("sn-2")).await;
    world.vend(&Script::default()).vend(request("sn-2", 1, Some(&csr("sn-2")), NOW)).await.unwrap();
    let provisioned = world.registry.find(&id("sn-2")).await.unwrap().unwrap();
    assert!(api.registry.add(&provisioned, &origin()).await.unwrap());
    for wrong in [json!({}), json!({"reason": ""}), json!({"reason": "a", "why": "b"})] {
        assert_eq!(api.post("/devices/sn-2/revoke", wrong).await.status, 400);
    }
    for _ in 0..2 {
        let revoked = api.post("/devices/sn-2/revoke", json!({"reason": "key leaked"})).await;
        revoked.is("Device");
        assert_eq!(revoked.body["cvm"]["state"], "revoked");
        assert_eq!((&revoked.body["status"], &revoked.body["statusReason"]), (&json!("enabled"), &json!("key leaked")));
    }
    assert_eq!(api.post("/devices/sn-2/renew", json!({})).await.status, 409);
}

#[tokio::test]
async fn a_device_that_is_refused_again_is_refused_anew() {
    let api = Api::new(&Script::default());
    assert!(api.registry.add(&device("sn-1"), &origin()).await.unwrap());
    for version in 2..4 {
        let disabled = api.post("/devices/sn-1/disable", json!({"reason": "lost"})).await;
        disabled.is("Device");
        assert_eq!((&disabled.body["status"], &disabled.body["cvm"]["version"]), (&json!("disabled"), &json!(version)));
    }
    for wrong in [json!({}), json!({"reason": ""}), json!({"reason": "a\nb"}), json!({"reason": "a", "why": "b"})] {
        assert_eq!(api.post("/devices/sn-1/disable", wrong).await.status, 400);
    }
}

#[tokio::test]
async fn a_device_that_is_let_in_again_has_its_wrong_proofs_forgotten() {
    let api = Api::new(&Script::default());
    assert!(api.registry.add(&Device { wrong_proofs: 9, ..device("sn-1") }, &origin()).await.unwrap());
    let said_again = api.put("/devices/sn-1", Some("*"), json!({"status": "enabled"})).await;
    assert_eq!(said_again.body["cvm"]["wrongProofs"]["count"], 9, "what is said again is no change");
    let enabled = api.post("/devices/sn-1/enable", json!({})).await;
    enabled.is("Device");
    assert_eq!((enabled.status, &enabled.body["cvm"]["wrongProofs"]["count"]), (200, &json!(0)));
    assert_eq!(api.post("/devices/sn-2/enable", json!({})).await.status, 404);
}

#[tokio::test]
async fn threat_08_a_key_that_another_device_has_is_not_registered() {
    let api = Api::new(&Script::default());
    let key = csr("sn-1");
    let mut owner = device("sn-1");
    owner.reserve(&attempt("sn-1", 1, &key, NOW));
    assert!(api.registry.add(&owner, &origin()).await.unwrap());
    let with_key = json!({"cvm": {"attestation": {"kind": "publicKey", "publicKey": key.key().fingerprint()}}});
    assert_eq!(api.put("/devices/sn-2", None, json!({})).await.status, 200);
    for (uri, headers) in [("/devices/sn-2", &[("if-match", "*")][..]), ("/devices/sn-3", &[])] {
        let refused = api.send("PUT", uri, headers, with_key.to_string()).await;
        assert_eq!((refused.status, refused.header("iothub-errorcode")), (409, "GenericConflict"), "{uri}");
        assert!(refused.body["Message"].as_str().unwrap().contains("device sn-1 has this key"), "{}", refused.body);
    }
    assert_eq!(api.get("/devices/sn-3").await.status, 404);
    let own = api.send("PUT", "/devices/sn-1", &[("if-match", "*")], with_key.to_string()).await;
    assert_eq!(own.status, 200, "{}", own.body);
}
