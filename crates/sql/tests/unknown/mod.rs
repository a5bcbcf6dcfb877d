//! Devices that asked and are not registered.

use cvm_provisioning::{
    Changes as _, Timestamp, UnknownAttempt, UnknownCount, UnknownDeviceStore as _, UnknownDevices,
};
use cvm_sql::SqlRegistry;
use cvm_testkit::fixture::{NOW, device, id, later, origin};

fn noted(devices: impl Iterator<Item = (String, &'static str)>, at: Timestamp) -> UnknownDevices {
    let mut noted = UnknownDevices::default();
    for (device, source) in devices {
        noted.note(UnknownAttempt {
            device: id(&device),
            door: "vend".to_owned(),
            source: Some(source.to_owned()),
            at,
        });
    }
    noted
}

/// Two servers note the same device, one of them sees a sweep, and an operator registers a device. `registries` are of one
/// database.
pub(crate) async fn are_kept_within_bounds_until_they_are_registered(registries: [&SqlRegistry; 2]) {
    let [one, other] = registries;
    let mistyped =
        |at| noted([("mistyped".to_owned(), "192.0.2.1"), ("added".to_owned(), "192.0.2.1")].into_iter(), at);
    let (first, second) = (mistyped(NOW), mistyped(later(60)));
    let (first, second) = tokio::join!(one.note_unknown(&first, NOW), other.note_unknown(&second, later(60)));
    first.and(second).unwrap();
    let found = one.unknown_devices().await.unwrap();
    let device_found = &found.devices[&id("mistyped")];
    assert_eq!((device_found.attempts, device_found.first_at, device_found.last_at), (2, NOW, later(60)));
    assert_eq!(found.since(NOW).attempts, 4);

    let sweep = noted((0..3_000).map(|number| (format!("sweep-{number}"), "192.0.2.9")), later(61));
    one.note_unknown(&sweep, later(61)).await.unwrap();
    let found = other.unknown_devices().await.unwrap();
    assert_eq!(found.devices.len(), UnknownDevices::MAX_DEVICES);
    assert!(found.devices.contains_key(&id("mistyped")), "a sweep pushes out its own devices");
    assert_eq!(found.since(NOW), UnknownCount { attempts: 3_004, evicted: 2_002 });
    assert_eq!(found.sources()[0].source, "192.0.2.9");

    assert!(one.add(&device("added"), &origin()).await.unwrap());
    assert!(!other.unknown_devices().await.unwrap().devices.contains_key(&id("added")), "it is registered now");

    let much_later = later(UnknownDevices::KEPT.as_secs() + 100_000);
    one.note_unknown(&noted([("late".to_owned(), "192.0.2.1")].into_iter(), much_later), much_later).await.unwrap();
    let found = other.unknown_devices().await.unwrap();
    assert_eq!(found.devices.keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["late"]);
    assert_eq!(found.hours.len(), 1);
}
