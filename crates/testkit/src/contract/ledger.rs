//! The contract of the ledger of one's own certificates.

use cvm_provisioning::{CertificateId, CertificateLedger, LedgerEntry, Standing, ThingName, Timestamp};

use crate::fixture::{NOW, later};

/// Runs the contract of a ledger over an empty one.
pub async fn ledger<L: CertificateLedger>(ledger: &L) {
    let thing = |name: &str| ThingName::try_from(name.to_owned()).expect("a name");
    let entry = |number: u64| LedgerEntry {
        id: CertificateId::of(&number.to_be_bytes()),
        issuer: ["one", "other"][number as usize % 2].to_owned(),
        serial: format!("{number:x}"),
        pem: format!("certificate {number}"),
        thing: thing(["sn-1", "sn-2", "sn-3"][number as usize % 3]),
        not_after: later(1_000 * number),
        standing: Standing::Active,
        since: NOW,
    };
    let all: Vec<_> = (0..9).map(entry).collect();
    for entry in &all {
        assert_eq!(ledger.entry(&entry.id).await.expect("the store answers"), None);
        ledger.enter(entry).await.expect("the store answers");
        ledger.enter(&LedgerEntry { pem: "other".to_owned(), ..entry.clone() }).await.expect("the store answers");
        assert_eq!(ledger.entry(&entry.id).await.expect("the store answers").as_ref(), Some(entry));
    }
    for (issuer, serial, expected) in
        [("one", "4", Some(4)), ("other", "4", None), ("other", "7", Some(7)), ("one", "", None)]
    {
        let found = ledger.entry_of_serial(issuer, serial).await.expect("the store answers");
        assert_eq!(found.as_ref(), expected.map(|number: usize| &all[number]), "{serial} of {issuer}");
    }
    let mut of_thing = ledger.entries_of(&thing("sn-2")).await.expect("the store answers");
    of_thing.sort_by_key(|entry| entry.not_after);
    assert_eq!(of_thing, [all[1].clone(), all[4].clone(), all[7].clone()]);

    // On hold and back, then gone for good; the first word of the same counts.
    let set = async |number: usize, standing, now: Timestamp| {
        ledger.set_standing(&all[number].id, standing, now).await.expect("the store answers");
        let there = ledger.entry(&all[number].id).await.expect("the store answers").expect("it is there");
        (there.standing, there.since)
    };
    assert_eq!(set(4, Standing::Inactive, later(1)).await, (Standing::Inactive, later(1)));
    assert_eq!(set(4, Standing::Inactive, later(2)).await, (Standing::Inactive, later(1)));
    assert_eq!(set(4, Standing::Active, later(3)).await, (Standing::Active, later(3)));
    assert_eq!(set(4, Standing::Revoked, later(4)).await, (Standing::Revoked, later(4)));
    assert_eq!(set(4, Standing::Active, later(5)).await, (Standing::Revoked, later(4)));
    assert_eq!(set(6, Standing::Inactive, later(6)).await, (Standing::Inactive, later(6)));
    assert_eq!(set(7, Standing::Revoked, later(7)).await, (Standing::Revoked, later(7)));
    ledger.set_standing(&CertificateId::of(b"nobody"), Standing::Revoked, NOW).await.expect("the store answers");

    for (issuer, ends_after, expected) in
        [("one", NOW, &[4, 6][..]), ("one", later(4_000), &[6]), ("other", NOW, &[7]), ("third", NOW, &[])]
    {
        let mut found = ledger.without_power(issuer, ends_after).await.expect("the store answers");
        found.sort_by_key(|entry| entry.not_after);
        let found: Vec<_> = found.iter().map(|entry| entry.id).collect();
        let expected: Vec<_> = expected.iter().map(|number| all[*number].id).collect();
        assert_eq!(found, expected, "{issuer} after {ends_after}");
    }
}
