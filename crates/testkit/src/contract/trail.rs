//! The contract of the audit trail.

use cvm_provisioning::{
    AuditEntry, AuditQuery, AuditTrail, CertificateId, GenerationId, KeyFingerprint, NoticeKind, RecentActivity,
    ThingName, Timestamp,
};

use super::LEAF;
use crate::fixture::{NOW, id, later};

/// Runs the contract of an audit trail over an empty one.
pub async fn audit_trail<T: AuditTrail>(trail: &T) {
    let entry = |number: u64, device: &str, at: Timestamp| AuditEntry {
        id: format!("{number:04}"),
        at,
        device: id(device),
        generation: Some(GenerationId::new(7)),
        module: (number == 3).then(|| "module".parse().expect("a module")),
        action: "refused".to_owned(),
        reason: Some("wrong-proof".to_owned()),
        key: Some(KeyFingerprint::of(b"key")),
        certificate: Some(CertificateId::of(LEAF)),
        thing: ThingName::try_from(device.to_owned()).ok(),
        changed: vec!["group".to_owned()],
        count: number as u32 + 1,
        door: Some("vend".to_owned()),
        request_id: Some("request".to_owned()),
        source: Some("192.0.2.1".to_owned()),
        actor: Some("anna".to_owned()),
    };
    // Two devices, three hours, and several entries in one second.
    let all: Vec<_> =
        (0..60).map(|number| entry(number, ["sn-1", "sn-2"][number as usize % 2], later(number / 7 * 1_200))).collect();
    trail.append(&all).await.expect("the store answers");
    trail.append(&all[..30]).await.expect("the store answers");
    for (device, since, until) in [
        (None, NOW, later(100_000)),
        (Some("sn-1"), NOW, later(100_000)),
        (None, later(1_200), later(3_600)),
        (Some("sn-2"), later(1_201), later(3_601)),
        (Some("sn-3"), NOW, later(100_000)),
    ] {
        let query = AuditQuery { device: device.map(id), since, until };
        let mut expected: Vec<_> = all.iter().filter(|entry| since <= entry.at && entry.at < until).collect();
        expected.retain(|entry| device.is_none_or(|device| entry.device == id(device)));
        expected.reverse();
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = trail.entries(&query, after.as_deref(), 4).await.expect("the store answers");
            assert!(page.entries.len() <= 4);
            found.extend(page.entries);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{query:?}");
    }
    let provisioned = |number, at| AuditEntry {
        action: NoticeKind::Provisioned.name().to_owned(),
        reason: None,
        ..entry(number, "sn-1", at)
    };
    // One just now, one in this day, one before it, and a quarantine, each as often as its count says.
    let now = later(200_000);
    let before = |seconds| Timestamp::from_seconds(now.seconds() - seconds);
    let quarantined = AuditEntry {
        action: NoticeKind::Quarantined.name().to_owned(),
        reason: Some("cloned".to_owned()),
        ..entry(103, "sn-2", before(60))
    };
    let more = [provisioned(100, now), provisioned(101, before(4_000)), provisioned(102, before(90_000)), quarantined];
    trail.append(&more).await.expect("the store answers");
    let expected = RecentActivity {
        provisioned_last_hour: 101,
        provisioned_last_day: 101 + 102,
        refused_last_day: [("cloned".to_owned(), 104)].into(),
    };
    assert_eq!(trail.recently(now).await.expect("the store answers"), expected);
    // An entry may stand for many refusals.
    let refused = [("wrong-proof".to_owned(), (1..=60).sum())].into();
    let expected = RecentActivity { refused_last_day: refused, ..RecentActivity::default() };
    assert_eq!(trail.recently(later(20_000)).await.expect("the store answers"), expected);
}
