//! What operators do to devices and see of them, from the list to the tombstone.

use std::collections::BTreeSet;
use std::time::Duration;

use cvm_provisioning::{
    Attestation, CertificateId, Changes as _, Device, DeviceCounts, DeviceFilter, FleetMoment, FleetSummary,
    GenerationId, KeyFingerprint, Presence, State, Timestamp, UnsettledDevice,
};

use super::cases::Cases;
use super::{LEAF, put, stored};
use crate::fixture::{NOW, device, id, later, origin};
use crate::scenario::Registry;

pub(super) async fn operators_do_not_overwrite_each_other<R: Registry>(registry: &R) {
    let first = device("edited");
    put(registry, &first).await;
    let twin = Device { generation: GenerationId::new(8), ..first.clone() };
    assert!(!registry.add(&twin, &origin()).await.expect("the store answers"), "the id is taken");

    let mut second = first.clone();
    second.disable("lost in the post".parse().ok(), later(1));
    assert!(registry.replace(&second, first.version, &origin()).await.expect("the store answers"));
    assert!(
        !registry.replace(&second, first.version, &origin()).await.expect("the store answers"),
        "that version is gone"
    );
    let foreign = Device { generation: GenerationId::new(8), ..second.clone() };
    assert!(
        !registry.replace(&foreign, second.version, &origin()).await.expect("the store answers"),
        "that is another device"
    );
    assert!(
        !registry.remove(&first.clone().bury(NOW), first.version, &origin()).await.expect("the store answers"),
        "that version is gone"
    );
    assert_eq!(stored(registry, &first).await, second);
    assert!(registry.remove(&second.clone().bury(NOW), second.version, &origin()).await.expect("the store answers"));
    assert_eq!(registry.find(&first.id).await.expect("the store answers"), None);
    assert!(!registry.replace(&second, second.version, &origin()).await.expect("the store answers"), "it is deleted");
    assert_eq!(registry.find(&first.id).await.expect("the store answers"), None);
}

pub(super) async fn a_list_has_every_device_once<R: Registry>(registry: &R) {
    let key = KeyFingerprint::of(b"listed");
    for number in 0..25 {
        let attestation = Attestation::PublicKey { key };
        put(registry, &Device::new(id(&format!("listed-{number}")), GenerationId::new(number), attestation, NOW)).await;
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = registry.list(&DeviceFilter::default(), after.as_ref(), 10).await.expect("the store answers");
        assert!(page.devices.len() <= 10);
        seen.extend(page.devices.into_iter().map(|device| device.id).filter(|id| id.as_str().starts_with("listed-")));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 25);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>().len(), 25);
}

pub(super) async fn a_filter_lets_through_what_it_says<R: Registry>(registry: &R, cases: &Cases) {
    let mut all = Vec::new();
    for (number, device) in cases.devices.iter().enumerate() {
        let group = (number % 2 == 0).then(|| "berlin".parse().expect("a group"));
        let filtered = Device { id: id(&format!("filtered-{number}")), group, ..device.clone() };
        put(registry, &filtered).await;
        all.push(filtered);
    }
    let counted = registry.count().await.expect("the store answers");
    let everything = DeviceFilter::default();
    let filters = [
        everything.clone(),
        DeviceFilter { state: Some(State::Quarantined), ..everything.clone() },
        DeviceFilter { enabled: Some(false), ..everything.clone() },
        DeviceFilter { enabled: Some(true), group: "berlin".parse().ok(), ..everything.clone() },
        DeviceFilter { template: "other".parse().ok(), ..everything.clone() },
        DeviceFilter { changed_since: Some(later(1)), ..everything.clone() },
        DeviceFilter { prefix: Some(id("filtered-1")), ..everything.clone() },
        DeviceFilter { prefix: Some(id("filtered-")), state: Some(State::Provisioned), ..everything.clone() },
        DeviceFilter { refused_since: Some(Timestamp::from_seconds(0)), ..everything.clone() },
        DeviceFilter { refused_since: Some(later(1)), prefix: Some(id("filtered-")), ..everything.clone() },
        DeviceFilter { expires_before: Some(later(100 * 365 * 24 * 60 * 60)), ..everything.clone() },
        DeviceFilter { expires_before: Some(NOW), ..everything.clone() },
    ];
    for filter in filters {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = registry.list(&filter, after.as_ref(), 7).await.expect("the store answers");
            assert!(page.devices.len() <= 7);
            found.extend(page.devices);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert!(found.iter().all(|device| filter.admits(device)), "{filter:?}");
        if filter == everything {
            let mut counts = DeviceCounts::default();
            found.iter().for_each(|device| counts.add(device.state, device.status.enabled));
            assert_eq!(counted, counts);
            for now in [NOW, later(60), later(100_000_000), later(1_000_000_000)] {
                let moment = FleetMoment { now, expiring_until: now.after(Duration::from_secs(500_000_000)) };
                let mut expected = FleetSummary::default();
                found.iter().for_each(|device| expected.add(device, moment));
                assert_eq!(registry.summarize(moment).await.expect("the store answers"), expected, "{moment:?}");
            }
        }
        let mut found: Vec<_> =
            found.into_iter().filter(|device| device.id.as_str().starts_with("filtered-")).collect();
        let mut expected: Vec<_> = all.iter().filter(|device| filter.admits(device)).cloned().collect();
        found.sort_by(|one, other| one.id.cmp(&other.id));
        expected.sort_by(|one, other| one.id.cmp(&other.id));
        assert_eq!(found, expected, "{filter:?}");
    }
}

pub(super) async fn the_later_word_of_the_platform_counts<R: Registry>(registry: &R) {
    let [here, gone] = [id("connected"), id("never-seen")];
    let presence = |connected, order| Presence {
        connected,
        since: later(order),
        order: order * 1_000,
        client_id: "connected".to_owned(),
        certificate: CertificateId::of(LEAF),
    };
    let before = registry.count_connected().await.expect("the store answers");
    for (told, connected, expected) in [(5, true, 5), (5, true, 5), (4, false, 5), (6, false, 6), (7, true, 7)] {
        registry.note_presence(&here, &presence(connected, told)).await.expect("the store answers");
        let known = registry.presences(&[here.clone(), gone.clone()]).await.expect("the store answers");
        assert_eq!(known.len(), 1);
        assert_eq!(known[&here].order, expected * 1_000);
    }
    assert_eq!(registry.count_connected().await.expect("the store answers"), before + 1);
    for _ in 0..2 {
        registry.forget_presence(&here).await.expect("the store answers");
        assert!(registry.presences(std::slice::from_ref(&here)).await.expect("the store answers").is_empty());
    }
}

pub(super) async fn a_tombstone_is_kept_until_it_is_forgotten<R: Registry>(registry: &R) {
    let first = Device { group: "berlin".parse().ok(), ..device("buried") };
    put(registry, &first).await;
    let tombstone = first.clone().bury(later(1));
    let foreign = Device { generation: GenerationId::new(8), ..first.clone() }.bury(later(1));
    assert!(!registry.remove(&foreign, first.version, &origin()).await.expect("the store answers"), "another device");
    assert!(registry.remove(&tombstone, first.version, &origin()).await.expect("the store answers"));
    assert!(!registry.remove(&tombstone, first.version, &origin()).await.expect("the store answers"), "it is gone");
    let find = async || registry.tombstone(&first.id, first.generation).await.expect("the store answers");
    assert_eq!(find().await, Some(tombstone));
    let deleted = UnsettledDevice { id: first.id.clone(), deleted: Some(first.generation) };
    assert!(registry.unsettled(1_000).await.expect("the store answers").contains(&deleted));
    let twin = Device { generation: GenerationId::new(9), ..first.clone() };
    assert!(registry.add(&twin, &origin()).await.expect("the store answers"), "the id is free");
    for _ in 0..2 {
        registry.forget(&first.id, first.generation).await.expect("the store answers");
        assert_eq!(find().await, None);
    }
    assert_eq!(stored(registry, &twin).await, twin);
}
