//! What operators are told of what happened.

use cvm_provisioning::{AuditEntry, AuditTrail as _, Timestamp};
use cvm_testkit::Script;
use cvm_testkit::fixture::{NOW, id};
use serde_json::json;

use crate::api::{Answer, Api};

#[tokio::test]
async fn the_trail_is_told_the_latest_first() {
    let api = Api::new(&Script::default());
    let entry = |number: i64| AuditEntry {
        id: format!("entry-{number}"),
        at: Timestamp::from_seconds(NOW.seconds() - number),
        device: id("sn-1"),
        generation: None,
        module: None,
        action: "created".to_owned(),
        reason: None,
        key: None,
        certificate: None,
        thing: None,
        changed: Vec::new(),
        count: 1,
        door: Some("registry".to_owned()),
        request_id: None,
        source: None,
        actor: Some("anna".to_owned()),
    };
    api.trail.append(&[entry(0), entry(60), entry(100_000)]).await.unwrap();
    let told =
        |answer: &Answer| answer.body.as_array().unwrap().iter().map(|entry| entry["id"].clone()).collect::<Vec<_>>();
    assert_eq!(told(&api.get("/audit?device=sn-1").await), ["entry-0", "entry-60"], "of the last day");
    let newest = Answer { body: api.get("/audit").await.body[0].clone(), ..api.get("/audit").await };
    newest.is("AuditEntry");
    let first = api.get("/audit?top=1&since=2027-01-01T00:00:00Z").await;
    let place = first.header("x-ms-continuation").replace('#', "%23");
    let rest = api.get(&format!("/audit?since=2027-01-01T00:00:00Z&continuation={place}")).await;
    assert_eq!((told(&first), told(&rest)), (vec![json!("entry-0")], vec![json!("entry-60"), json!("entry-100000")]));
}

#[tokio::test]
async fn a_continuation_that_is_none_of_the_trails_is_refused() {
    let api = Api::new(&Script::default());
    for bad in ["garbage", "%23", "x%231", "-1%231", "%2B1%231", "1", "1%23%0a"] {
        assert_eq!(api.get(&format!("/audit?continuation={bad}")).await.status, 400, "{bad}");
    }
}
