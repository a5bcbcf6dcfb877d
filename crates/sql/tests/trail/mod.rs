//! A change of the audit trail is detected, whichever column it is in.

use aws_lc_rs::digest::{SHA256, digest};
use cvm_provisioning::{AuditQuery, AuditTrail as _, Changes as _, Device, DeviceStore as _, Timestamp};
use cvm_sql::{BrokenChain, SqlRegistry, TrailEnd, Verified};
use cvm_testkit::fixture::{NOW, device, id, later, origin};
use data_encoding::HEXLOWER;
use rusqlite::Connection;
use tempfile::TempDir;

/// A trail of ten entries: three devices, each registered, disabled and enabled, and sn-2 deleted.
async fn trail() -> (TempDir, SqlRegistry) {
    let folder = tempfile::tempdir().unwrap();
    let registry = SqlRegistry::in_folder(folder.path()).unwrap();
    for name in ["sn-1", "sn-2", "sn-3"] {
        let mut there = device(name);
        assert!(registry.add(&there, &origin()).await.unwrap());
        for (second, change) in [(1, Device::disable as fn(&mut _, _, _)), (2, Device::enable)] {
            let version = there.version;
            change(&mut there, None, later(second));
            assert!(registry.replace(&there, version, &origin()).await.unwrap());
        }
        if name == "sn-2" {
            let version = there.version;
            assert!(registry.remove(&there.bury(later(3)), version, &origin()).await.unwrap());
        }
    }
    (folder, registry)
}

fn open(folder: &TempDir) -> Connection {
    Connection::open(folder.path().join("registry.sqlite")).unwrap()
}

async fn verify(registry: &SqlRegistry) -> Verified {
    registry.verify_trail(&[]).await.unwrap()
}

/// Makes the hashes those of an earlier version, which covered documents alone.
pub(super) fn hash_by_first_rule(file: &Connection) {
    let mut statement = file.prepare("SELECT sequence, document FROM entries ORDER BY sequence").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    let rows: Vec<(i64, String)> = rows.unwrap().collect::<Result<_, _>>().unwrap();
    let mut hash = "0".repeat(64);
    for (sequence, document) in rows {
        hash = HEXLOWER.encode(digest(&SHA256, format!("{hash}{document}").as_bytes()).as_ref());
        let update = "UPDATE entries SET hash = ?1, rule = 1 WHERE sequence = ?2";
        file.execute(update, (&hash, sequence)).unwrap();
    }
    file.execute("UPDATE chains SET hash = ?1", [hash]).unwrap();
}

/// Statements that change what is shown, and what each of them is found as.
const HIDING: [(&str, BrokenChain); 14] = [
    ("UPDATE entries SET device = 'sn-3' WHERE sequence = 2", BrokenChain::Entry { sequence: 2 }),
    ("UPDATE entries SET earlier = 1 WHERE sequence = 3", BrokenChain::Entry { sequence: 3 }),
    ("UPDATE entries SET earlier = NULL WHERE sequence = 3", BrokenChain::Entry { sequence: 3 }),
    ("UPDATE entries SET id = 'other' WHERE sequence = 4", BrokenChain::Entry { sequence: 4 }),
    ("UPDATE entries SET moment = 0 WHERE sequence = 5", BrokenChain::Entry { sequence: 5 }),
    ("UPDATE entries SET is_linked = 1 WHERE sequence = 7", BrokenChain::Entry { sequence: 7 }),
    ("UPDATE entries SET is_linked = 0 WHERE sequence = 1", BrokenChain::Entry { sequence: 1 }),
    ("UPDATE entries SET rule = 1 WHERE sequence = 6", BrokenChain::Entry { sequence: 6 }),
    ("UPDATE devices SET last_entry = 2 WHERE id = 'sn-1'", BrokenChain::History { sequence: 2 }),
    ("UPDATE devices SET last_entry = 10 WHERE id = 'sn-1'", BrokenChain::Hidden { sequence: 3 }),
    ("UPDATE devices SET last_entry = NULL WHERE id = 'sn-3'", BrokenChain::Hidden { sequence: 10 }),
    ("DELETE FROM devices WHERE id = 'sn-3'", BrokenChain::Hidden { sequence: 10 }),
    (
        "UPDATE chains SET length = 7, hash = (SELECT hash FROM entries WHERE sequence = 7)",
        BrokenChain::End { chain: 0 },
    ),
    ("UPDATE entries SET chain = 7 WHERE sequence = 10", BrokenChain::End { chain: 7 }),
];

#[tokio::test]
async fn threat_60_an_entry_that_is_no_longer_shown_is_detected() {
    for (change, expected) in HIDING {
        let (folder, registry) = trail().await;
        let whole = verify(&registry).await;
        assert!(
            matches!(&whole, Verified::Whole { entries: 10, removed: 0, by_first_rule: 0, ends } if ends.len() == 1),
            "{whole:?}"
        );
        drop(registry);
        assert!(open(&folder).execute(change, []).unwrap() > 0, "{change}");
        let registry = SqlRegistry::in_folder(folder.path()).unwrap();
        let found = verify(&registry).await;
        // sn-1 shows another device's entries instead of its own: one of both is named.
        let is_expected = match expected {
            BrokenChain::Hidden { sequence: 3 } => {
                matches!(found, Verified::Broken(BrokenChain::History { sequence: 10 }))
            }
            expected => found == Verified::Broken(expected),
        };
        assert!(is_expected, "{change}: {found:?}");
    }
}

#[tokio::test]
async fn a_trail_without_its_oldest_entries_is_whole() {
    let (folder, registry) = trail().await;
    let end = |file: &Connection, sequence: u32| {
        let hash = file.query_row("SELECT hash FROM entries WHERE sequence = ?1", [sequence], |row| row.get(0));
        TrailEnd { hash: hash.unwrap(), entries: Some(sequence.into()) }
    };
    let file = open(&folder);
    let [removed, last_removed, first] = [5, 6, 7].map(|sequence| end(&file, sequence));
    assert_eq!(registry.trim_trail(NOW).await.unwrap(), 0, "nothing is older");
    assert_eq!(registry.trim_trail(later(1)).await.unwrap(), 1, "the first later one, and all behind it, stay");
    assert_eq!(registry.trim_trail(later(3)).await.unwrap(), 5);
    let whole = registry.verify_trail(&[last_removed, first]).await.unwrap();
    assert!(matches!(whole, Verified::Whole { entries: 4, removed: 6, .. }), "{whole:?}");
    let unknown = registry.verify_trail(std::slice::from_ref(&removed)).await.unwrap();
    assert_eq!(unknown, Verified::Unexpected(removed));

    // sn-1, of which no entry is left, goes on; sn-3 has all of its entries.
    let mut there = registry.find(&id("sn-1")).await.unwrap().unwrap();
    let version = there.version;
    there.disable(None, later(4));
    assert!(registry.replace(&there, version, &origin()).await.unwrap());
    for (device, entries) in [("sn-1", 1), ("sn-2", 1), ("sn-3", 3)] {
        let query = AuditQuery { device: Some(id(device)), since: NOW, until: later(100) };
        assert_eq!(registry.entries(&query, None, 10).await.unwrap().entries.len(), entries, "{device}");
    }
    for change in [
        "DELETE FROM entries WHERE sequence = 7",
        "DELETE FROM entries WHERE sequence = 8",
        "DELETE FROM entries WHERE sequence = 11",
        "UPDATE chains SET removed = 7",
        "UPDATE chains SET removed_hash = NULL",
        "UPDATE devices SET last_entry = 1 WHERE id = 'sn-3'",
        "UPDATE meta SET value = 8 WHERE name = 'trail-begins'",
    ] {
        let (other_folder, other) = (tempfile::tempdir().unwrap(), open(&folder));
        other.execute("VACUUM INTO ?1", [other_folder.path().join("registry.sqlite").to_str().unwrap()]).unwrap();
        assert!(open(&other_folder).execute(change, []).unwrap() > 0, "{change}");
        let found = verify(&SqlRegistry::in_folder(other_folder.path()).unwrap()).await;
        assert!(matches!(found, Verified::Broken(_)), "{change}: {found:?}");
    }

    assert_eq!(registry.trim_trail(later(100)).await.unwrap(), 5);
    assert!(registry.add(&device("sn-4"), &origin()).await.unwrap());
    assert!(matches!(verify(&registry).await, Verified::Whole { entries: 1, removed: 11, .. }));
}

#[tokio::test]
async fn threat_40_a_trail_that_was_changed_anywhere_is_told() {
    for (tampered, change) in [
        (false, "UPDATE devices SET updated_at = 0"),
        (true, "UPDATE entries SET document = replace(document, 'created', 'deleted') WHERE sequence = 1"),
        (true, "UPDATE entries SET hash = (SELECT hash FROM entries WHERE sequence = 2) WHERE sequence = 3"),
        (true, "DELETE FROM entries WHERE sequence = 1"),
        (true, "DELETE FROM entries WHERE sequence = 3"),
        (true, "DELETE FROM entries WHERE sequence = (SELECT MAX(sequence) FROM entries)"),
        (true, "DELETE FROM entries"),
        (true, "DELETE FROM chains"),
        (true, "UPDATE chains SET length = length - 1"),
        (true, "UPDATE entries SET chain = 7 WHERE sequence = (SELECT MAX(sequence) FROM entries)"),
    ] {
        let (folder, registry) = trail().await;
        drop(registry);
        assert!(open(&folder).execute(change, []).unwrap() > 0, "{change}");
        let registry = SqlRegistry::in_folder(folder.path()).unwrap();
        let seen = verify(&registry).await;
        assert_eq!(matches!(seen, Verified::Broken(_)), tampered, "{change}: {seen:?}");
    }
}

#[tokio::test]
async fn entries_of_an_earlier_version_are_verified_by_its_rule_and_not_after_later_ones() {
    let (folder, registry) = trail().await;
    drop(registry);
    hash_by_first_rule(&open(&folder));
    let registry = SqlRegistry::in_folder(folder.path()).unwrap();
    assert!(registry.add(&device("sn-4"), &origin()).await.unwrap());
    let whole = verify(&registry).await;
    assert!(matches!(whole, Verified::Whole { entries: 11, by_first_rule: 10, .. }), "{whole:?}");
    // Their columns are those of their documents, and lead to each other, all the same.
    drop(registry);
    for change in
        ["UPDATE entries SET device = 'sn-3' WHERE sequence = 2", "UPDATE entries SET earlier = 1 WHERE sequence = 3"]
    {
        let file = open(&folder);
        file.execute_batch(&format!("CREATE TABLE before AS SELECT * FROM entries; {change}")).unwrap();
        let found = verify(&SqlRegistry::in_folder(folder.path()).unwrap()).await;
        assert!(matches!(found, Verified::Broken(BrokenChain::Entry { .. })), "{change}: {found:?}");
        file.execute_batch("DELETE FROM entries; INSERT INTO entries SELECT * FROM before; DROP TABLE before").unwrap();
    }
    // A trail whose end was written again by the first rule does not follow one by the second.
    let file = open(&folder);
    file.execute("UPDATE entries SET rule = 2 WHERE sequence = 10", []).unwrap();
    let found = verify(&SqlRegistry::in_folder(folder.path()).unwrap()).await;
    assert_eq!(found, Verified::Broken(BrokenChain::Entry { sequence: 10 }));
}

#[tokio::test]
async fn threat_60_a_trail_that_was_written_again_does_not_continue_an_end_that_was_kept() {
    let (_folder, registry) = trail().await;
    let ends: Vec<TrailEnd> = registry.trail_ends().await.unwrap().into_values().collect();
    let [kept] = &ends[..] else { panic!("{ends:?}") };
    assert_eq!(kept.entries, Some(10));
    assert_eq!(kept.to_string().parse(), Ok(kept.clone()));
    assert!(registry.add(&device("sn-4"), &origin()).await.unwrap());
    let without_number = TrailEnd { entries: None, ..kept.clone() };
    let expected = [kept.clone(), without_number];
    assert!(matches!(registry.verify_trail(&expected).await.unwrap(), Verified::Whole { entries: 11, .. }));
    let moved = TrailEnd { entries: Some(9), ..kept.clone() };
    assert_eq!(registry.verify_trail(&[kept.clone(), moved.clone()]).await.unwrap(), Verified::Unexpected(moved));
    // A whole trail, and another one.
    let (_other_folder, other) = trail().await;
    assert!(matches!(verify(&other).await, Verified::Whole { .. }));
    let shorter = other.find(&"sn-1".parse().unwrap()).await.unwrap().unwrap();
    let version = shorter.version;
    assert!(other.remove(&shorter.bury(later(9)), version, &origin()).await.unwrap());
    let [end] = <[TrailEnd; 1]>::try_from(other.trail_ends().await.unwrap().into_values().collect::<Vec<_>>()).unwrap();
    assert_eq!(registry.verify_trail(std::slice::from_ref(&end)).await.unwrap(), Verified::Unexpected(end));
    for bad in
        ["", "@1", "12ab", &format!("{}@x", kept.hash), &format!("{}@", kept.hash), &format!("{}g", &kept.hash[1..])]
    {
        assert!(bad.parse::<TrailEnd>().is_err(), "{bad}");
    }
}

#[tokio::test]
async fn a_place_to_go_on_is_read_as_a_whole_and_anything_else_leads_nowhere() {
    let (_folder, registry) = trail().await;
    let all = |device: Option<&str>| AuditQuery {
        device: device.map(|id| id.parse().unwrap()),
        since: Timestamp::from_seconds(0),
        until: later(9),
    };
    for query in [all(None), all(Some("sn-1"))] {
        let next = registry.entries(&query, None, 2).await.unwrap().next.unwrap();
        assert!(registry.is_place(&next), "{next}");
        assert!(!registry.entries(&query, Some(&next), 9).await.unwrap().entries.is_empty());
        for bad in ["12#garbage", "12#", "#12", "12", "+12#1", "12#-1", "12#1#1", "12#1 ", "99999999999999999999#1"] {
            assert!(!registry.is_place(bad), "{bad}");
            let page = registry.entries(&query, Some(bad), 9).await.unwrap();
            assert!(page.entries.is_empty() && page.next.is_none(), "{bad}");
        }
    }
}
