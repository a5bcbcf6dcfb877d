//! The fleet at a glance, and devices that are not registered.

use cvm_provisioning::{Changes as _, UnknownAttempt};
use cvm_testkit::Script;
use cvm_testkit::fixture::{NOW, attempt, csr, device, id, later, origin};
use serde_json::json;

use crate::api::Api;

#[tokio::test]
async fn the_fleet_is_counted_in_one_request() {
    let api = Api::new(&Script::default());
    let mut disabled = device("sn-1");
    disabled.disable(None, NOW);
    let mut reserved = device("sn-2");
    reserved.reserve(&attempt("sn-2", 1, &csr("sn-2"), NOW.before(std::time::Duration::from_secs(3_600))));
    for device in [disabled, reserved, device("sn-3")] {
        assert!(api.registry.add(&device, &origin()).await.unwrap());
    }
    let answer = api.get("/statistics/fleet?expiringUntil=2027-03-01T00:00:00Z").await;
    answer.is("Fleet");
    let fleet = &answer.body;
    assert_eq!((&fleet["devices"], &fleet["disabled"], &fleet["staleReservations"]), (&json!(3), &json!(1), &json!(1)));
    assert_eq!((&fleet["states"]["registered"], &fleet["connected"]), (&json!(2), &json!(0)));
    assert_eq!(api.get("/statistics/fleet?expiringUntil=soon").await.status, 400);
}

#[tokio::test]
async fn a_device_that_asked_and_is_not_registered_is_shown() {
    let api = Api::new(&Script::default());
    for (device, source, at) in
        [("sn-1", "192.0.2.1", NOW), ("sn-2", "192.0.2.2", later(60)), ("sn-1", "192.0.2.3", NOW)]
    {
        let (device, door, source) = (id(device), "vend".to_owned(), Some(source.to_owned()));
        api.unknown.lock().unwrap().note(UnknownAttempt { device, door, source, at });
    }
    let answer = api.get("/statistics/unknown-devices").await;
    answer.is("UnknownDevices");
    let ids: Vec<_> = answer.body["devices"].as_array().unwrap().iter().map(|it| it["deviceId"].clone()).collect();
    assert_eq!((ids, &answer.body["attemptsLastDay"]), (vec![json!("sn-2"), json!("sn-1")], &json!(3)));
    let one = api.get("/statistics/unknown-devices?device=sn-1").await.body;
    assert_eq!((&one["devices"][0]["attempts"], &one["devices"][0]["source"]), (&json!(2), &json!("192.0.2.3")));
    let none = api.get("/statistics/unknown-devices?device=sn-9&top=5").await.body;
    assert_eq!((&none["devices"], &none["count"]), (&json!([]), &json!(2)));
    for wrong in ["device=no%20id", "top=0", "limit=5"] {
        assert_eq!(api.get(&format!("/statistics/unknown-devices?{wrong}")).await.status, 400, "{wrong}");
    }
}
