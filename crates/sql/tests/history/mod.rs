//! What happened to a device is found by the device, however it came into the trail.

use cvm_provisioning::{
    AuditEntry, AuditQuery, AuditTrail as _, Changes as _, Device, DeviceStore as _, GenerationId, Timestamp,
};
use cvm_sql::SqlRegistry;
use cvm_testkit::fixture::{NOW, device, id, later, origin};

const DEVICES: [&str; 3] = ["sn-1", "sn-2", "sn-3"];

/// Devices that are changed in turn, deleted and registered again, with entries between theirs that are no change of them.
/// `upgrade` makes of what is there what an earlier version has written.
pub(super) async fn is_the_part_of_the_trail_that_names_the_device(registry: &SqlRegistry, upgrade: impl FnOnce()) {
    for time in 0..3 {
        change(registry, time * 100).await;
    }
    upgrade();
    for time in 3..6 {
        change(registry, time * 100).await;
    }
    let all = AuditQuery { device: None, since: NOW, until: later(100_000) };
    let trail = read(registry, &all, 100).await;
    assert!(trail.len() > 100, "{}", trail.len());
    for name in DEVICES.into_iter().chain(["sn-0"]) {
        for (since, until, limit) in
            [(0, 100_000, 1), (0, 100_000, 3), (0, 100_000, 1_000), (105, 310, 2), (203, 204, 7)]
        {
            let query = AuditQuery { device: Some(id(name)), since: later(since), until: later(until) };
            let is_asked_for = |at: Timestamp| query.since <= at && at < query.until;
            let expected: Vec<_> =
                trail.iter().filter(|entry| entry.device == id(name) && is_asked_for(entry.at)).cloned().collect();
            assert_eq!(read(registry, &query, limit).await, expected, "{query:?} by {limit}");
        }
    }
    // Where a page ends is what somebody sends, who may look for what is another device's.
    let query = AuditQuery { device: Some(id("sn-1")), since: NOW, until: later(100_000) };
    for sequence in 0..trail.len() {
        let page = registry.entries(&query, Some(&format!("{sequence}#{sequence}")), 10).await.unwrap();
        assert!(page.entries.iter().all(|entry| entry.device == id("sn-1")));
    }
}

/// The life of the devices, from `begin` seconds on: each is registered where it is not, and deleted every second time.
async fn change(registry: &SqlRegistry, begin: u64) {
    let by = origin();
    for (place, name) in (1..).zip(DEVICES) {
        if registry.find(&id(name)).await.unwrap().is_none() {
            let added = Device {
                generation: GenerationId::new((begin + place).into()),
                updated_at: later(begin),
                ..device(name)
            };
            assert!(registry.add(&added, &by).await.unwrap());
        }
    }
    for step in 1..5 {
        for name in DEVICES {
            let before = registry.find(&id(name)).await.unwrap().unwrap();
            let mut after = before.clone();
            if step % 2 == 1 {
                after.disable(None, later(begin + step));
            } else {
                after.enable(None, later(begin + step));
            }
            assert!(registry.replace(&after, before.version, &by).await.unwrap());
        }
        registry.append(&[stranger("sn-1", begin + step), stranger("sn-0", begin + step)]).await.unwrap();
    }
    if begin.is_multiple_of(200) {
        for name in &DEVICES[1..] {
            let last = registry.find(&id(name)).await.unwrap().unwrap();
            let version = last.version;
            assert!(registry.remove(&last.bury(later(begin + 6)), version, &by).await.unwrap());
        }
    }
}

/// An entry that comes with no change of the device.
fn stranger(name: &str, at: u64) -> AuditEntry {
    AuditEntry {
        id: format!("stranger-{name}-{at}"),
        at: later(at),
        device: id(name),
        generation: None,
        module: None,
        action: "refused".to_owned(),
        reason: None,
        key: None,
        certificate: None,
        thing: None,
        changed: Vec::new(),
        count: 1,
        door: None,
        request_id: None,
        source: None,
        actor: None,
    }
}

async fn read(registry: &SqlRegistry, query: &AuditQuery, limit: u16) -> Vec<AuditEntry> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = registry.entries(query, after.as_deref(), limit).await.unwrap();
        assert!(page.entries.len() <= limit.into());
        found.extend(page.entries);
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}
