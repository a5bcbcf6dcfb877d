//! The registry on SQLite: the contract, the scenarios, and what only a database in a folder can come to.

#![expect(clippy::large_futures, clippy::unwrap_used, reason = "a panic is a failed test")]

use cvm_bulk::{ExportFormat, ExportRequest, ExportStanding, Folder, Job, JobStatus, JobStore as _, Work};
use cvm_provisioning::{
    Actor, AttemptId, AuditPage, AuditQuery, AuditTrail as _, Beside, CertificateAuthority as _, CertificateId,
    CertificateLedger as _, Changes as _, Credential, Denial, Device, DeviceFilter, DeviceStore as _, LedgerEntry, Put,
    Refusal, Reserve, Standing, ThingName,
};
use cvm_sql::{OpenError, SqlJobs, SqlRegistry, Verified};
use cvm_testkit::fixture::{NOW, csr, device, later, origin};
use cvm_testkit::{Fault, contract, scenario};
use tempfile::TempDir;

mod history;
mod ledger;
mod own_ca;
mod restore;
mod trail;
mod unknown;

fn registry() -> (TempDir, SqlRegistry) {
    let folder = tempfile::tempdir().unwrap();
    let registry = SqlRegistry::in_folder(folder.path()).unwrap();
    (folder, registry)
}

/// The first version in which a checkpoint beside the writer cannot corrupt the database (sqlite.org, "Write-Ahead Logging",
/// "The WAL-Reset Bug").
const OLDEST_SQLITE: i32 = 3_051_003;

#[test]
fn the_bundled_sqlite_can_make_checkpoints_beside_the_writer() {
    let version = rusqlite::Connection::open_in_memory()
        .unwrap()
        .query_row("SELECT sqlite_version()", [], |row| row.get::<_, String>(0));
    assert_eq!(version.unwrap(), rusqlite::version());
    assert!(rusqlite::version_number() >= OLDEST_SQLITE, "SQLite {} is too old", rusqlite::version());
}

#[tokio::test]
async fn the_registry_on_sqlite_keeps_the_contract() {
    let (_folder, registry) = registry();
    contract::registry(&registry).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_08_a_key_is_one_devices() {
    contract::a_key_is_one_devices(&registry().1).await;
}

#[tokio::test]
async fn threat_08_a_key_that_a_device_had_before_keys_were_compared_is_that_devices() {
    for in_ledger in [true, false] {
        let (folder, registry) = registry();
        let key = csr("sn-1");
        let attempt = |name, number| cvm_testkit::fixture::attempt(name, number, &key, NOW);
        for name in ["sn-1", "sn-2"] {
            assert!(registry.add(&device(name), &origin()).await.unwrap());
        }
        let platform = own_ca::own_ca(&registry).await;
        let thing = "sn-1".to_owned().try_into().unwrap();
        let (issued, entry) = platform.certify(&key, &thing).await.unwrap();
        let credential = Credential { key: *key.key().fingerprint(), ..Credential::of(&issued, thing, NOW) };
        if in_ledger {
            let enrolled = registry.enrol(&device("sn-1"), &attempt("sn-1", 1), &credential, &entry).await;
            assert_eq!(enrolled.unwrap(), Put::Done);
        } else {
            let Reserve::Held(held) = registry.reserve(&attempt("sn-1", 1)).await.unwrap() else { panic!() };
            registry.commit(&held, &attempt("sn-1", 1), &credential, &Beside::NOTHING).await.unwrap().unwrap();
        }
        drop((platform, registry));
        let file = rusqlite::Connection::open(folder.path().join("registry.sqlite")).unwrap();
        file.execute_batch(
            "DROP TABLE device_keys; DROP TABLE unknown_devices; DROP TABLE unknown_hours; \
             ALTER TABLE entries DROP COLUMN rule; ALTER TABLE chains DROP COLUMN removed; \
             ALTER TABLE chains DROP COLUMN removed_hash; UPDATE meta SET value = 8 WHERE name = 'schema'",
        )
        .unwrap();
        drop(file);
        let registry = SqlRegistry::in_folder(folder.path()).unwrap();
        let second = registry.reserve(&attempt("sn-2", 2)).await.unwrap();
        assert!(matches!(second, Reserve::KeyInUse { owner, .. } if owner.as_str() == "sn-1"), "{in_ledger}");
    }
}

#[tokio::test]
async fn the_contract_is_kept_where_refusals_are_counted_later() {
    let (_folder, registry) = registry();
    let registry = registry.counting_later();
    assert!(registry.add(&device("sn-1"), &origin()).await.unwrap());
    let attempt = cvm_testkit::fixture::attempt("sn-1", 1, &csr("sn-1"), NOW);
    for _ in 0..3 {
        let refusal = Refusal::new(Denial::WrongProof, None, &attempt);
        registry.refuse(&attempt.device, None, &refusal, &origin()).await.unwrap();
    }
    // What is written later is written behind it.
    assert!(registry.add(&device("sn-2"), &origin()).await.unwrap());
    let counted = registry.find(&attempt.device).await.unwrap().unwrap();
    assert_eq!((counted.wrong_proofs, counted.version), (3, 1));
}

#[tokio::test]
async fn the_ledger_on_sqlite_keeps_the_contract() {
    contract::ledger(&registry().1).await;
}

#[tokio::test]
async fn the_ledger_knows_what_a_device_was_given_whatever_becomes_of_it() {
    let (folder, registry) = registry();
    let upgrade = || {
        let file = rusqlite::Connection::open(folder.path().join("registry.sqlite")).unwrap();
        file.execute_batch(
            "UPDATE devices SET record = json_set(record, '$.credential', json((SELECT json_patch(given, json_object( \
             'certificateId', id, 'certificateArn', id, 'certificatePem', pem, 'notAfter', not_after, 'thingName', thing, \
             'configuration', json('{}'))) FROM certificates WHERE sequence = devices.credential))) \
             WHERE credential IS NOT NULL; \
             UPDATE devices SET credential = NULL, last_certificate = NULL; \
             UPDATE certificates SET given = NULL, is_linked = 0, earlier = NULL",
        )
        .unwrap();
    };
    ledger::knows_what_a_device_was_given(&registry, upgrade).await;
}

#[tokio::test]
async fn a_restored_device_has_a_certificate_of_its_own_that_can_be_revoked() {
    restore::enters_what_can_be_revoked_and_refuses_what_is_not_the_devices(&registry().1).await;
}

#[tokio::test]
async fn a_restore_is_told_when_it_is_done() {
    restore::is_told_when_it_is_done(&registry().1).await;
}

#[tokio::test]
async fn unknown_devices_are_kept_within_bounds_until_they_are_registered() {
    let (_folder, registry) = registry();
    unknown::are_kept_within_bounds_until_they_are_registered([&registry, &registry]).await;
}

#[tokio::test]
async fn the_jobs_on_sqlite_keep_the_contract() {
    contract::job_store(&SqlJobs::new(registry().1, "folder")).await;
}

#[tokio::test]
async fn a_job_is_gone_on_with_where_its_files_are_and_forgotten_a_month_after_its_end() {
    let (_folder, registry) = registry();
    let (here, there) = (SqlJobs::new(registry.clone(), "here"), SqlJobs::new(registry, "there"));
    let output = "devices".parse::<Folder>().unwrap();
    let made = |number, now| {
        let request = ExportRequest {
            output: output.object("all.txt").unwrap(),
            format: ExportFormat::Csv,
            digests: false,
            filter: DeviceFilter::default(),
        };
        let work = Work::Export { request, standing: ExportStanding::default() };
        Job::new(AttemptId::new(number).into(), work, Actor::new("anna").unwrap(), now)
    };
    let (late, early) = (made(1, later(5)), made(2, NOW));
    for job in [&late, &early] {
        here.create(job).await.unwrap();
    }
    assert_eq!(here.open().await.unwrap(), [early.clone(), late.clone()], "the oldest first");
    assert_eq!(there.open().await.unwrap(), []);
    assert_eq!(there.find(late.id).await.unwrap(), Some(late.clone()), "everybody can look");
    let mut ended = early.clone();
    ended.version = 2;
    ended.end(JobStatus::Cancelled, later(9));
    assert!(there.replace(&ended, 1).await.unwrap(), "and end it");
    assert_eq!(here.open().await.unwrap(), [late]);
    let month = Job::KEPT.as_secs();
    there.create(&made(3, later(9 + month))).await.unwrap();
    assert_eq!(here.find(ended.id).await.unwrap(), Some(ended.clone()));
    there.create(&made(4, later(10 + month))).await.unwrap();
    assert_eq!(here.find(ended.id).await.unwrap(), None);
    assert_eq!(here.list().await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_decision_waits_until_it_is_enforced() {
    let (_folder, registry) = registry();
    let made = device("sn-1");
    assert!(registry.add(&made, &origin()).await.unwrap());
    assert_eq!(registry.decisions(10).await.unwrap(), []);
    let mut disabled = made.clone();
    disabled.disable(None, later(1));
    assert!(registry.replace(&disabled, made.version, &origin()).await.unwrap());
    assert!(registry.remove(&disabled.clone().bury(later(2)), disabled.version, &origin()).await.unwrap());
    let waiting = registry.decisions(10).await.unwrap();
    let told: Vec<_> = waiting.iter().map(|decision| (decision.device.as_str(), decision.deleted)).collect();
    assert_eq!(told, [("sn-1", false), ("sn-1", true)]);
    registry.enforced(&waiting[0]).await.unwrap();
    assert_eq!(registry.decisions(10).await.unwrap(), waiting[1..]);
}

#[tokio::test]
async fn the_audit_trail_on_sqlite_keeps_the_contract() {
    let (_folder, registry) = registry();
    contract::audit_trail(&registry).await;
}

#[tokio::test]
async fn the_history_of_a_device_is_the_part_of_the_trail_that_names_it() {
    let (folder, registry) = registry();
    let upgrade = || {
        let file = rusqlite::Connection::open(folder.path().join("registry.sqlite")).unwrap();
        let lists_are_new = "UPDATE entries SET is_linked = 0, earlier = NULL; UPDATE devices SET last_entry = NULL";
        file.execute_batch(lists_are_new).unwrap();
        trail::hash_by_first_rule(&file);
    };
    history::is_the_part_of_the_trail_that_names_the_device(&registry, upgrade).await;
    let verified = registry.verify_trail(&[]).await.unwrap();
    assert!(
        matches!(verified, Verified::Whole { entries, by_first_rule, .. } if by_first_rule > 0 && by_first_rule < entries)
    );
}

#[tokio::test]
async fn a_history_is_read_to_its_end_however_much_of_it_is_not_asked_for() {
    let (folder, registry) = registry();
    let mut there = device("sn-1");
    assert!(registry.add(&there, &origin()).await.unwrap());
    for second in 1..1_200 {
        let version = there.version;
        let change = [Device::enable, Device::disable][second % 2];
        change(&mut there, None, later(second as u64));
        assert!(registry.replace(&there, version, &origin()).await.unwrap());
    }
    let mut query = AuditQuery { device: Some(there.id.clone()), since: NOW, until: later(10) };
    let page = registry.entries(&query, None, 100).await.unwrap();
    assert_eq!((page.entries.len(), page.next.is_some()), (0, true), "so much for one page");
    let rest = registry.entries(&query, page.next.as_deref(), 100).await.unwrap();
    assert_eq!((rest.entries.len(), rest.next), (10, None));
    // The same of entries that are in no list.
    let file = rusqlite::Connection::open(folder.path().join("registry.sqlite")).unwrap();
    file.execute_batch("UPDATE entries SET is_linked = 0, earlier = NULL; UPDATE devices SET last_entry = NULL")
        .unwrap();
    let page = registry.entries(&query, None, 100).await.unwrap();
    assert_eq!((page.entries.len(), page.next.is_some()), (0, true));
    assert_eq!(registry.entries(&query, page.next.as_deref(), 100).await.unwrap(), AuditPage { next: None, ..rest });
    query.until = later(10_000);
    assert_eq!(registry.entries(&query, None, 1_000).await.unwrap().entries.len(), 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_07_fifty_callers_at_once_get_one_certificate() {
    contract::fifty_reservations_at_once(&registry().1).await;
    scenario::vend::fifty_callers_with_one_key(registry().1).await;
    scenario::vend::fifty_callers_with_fifty_keys(registry().1).await;
}

#[tokio::test]
async fn threat_33_a_vend_that_fails_anywhere_ends_with_one_certificate_that_works() {
    let (_folder, registry) = registry();
    scenario::vend::fault_matrix(|| registry.clone()).await;
}

#[tokio::test]
async fn threat_03_a_guesser_keeps_nobody_out() {
    scenario::vend::a_guesser_keeps_nobody_out(registry().1, 5).await;
}

#[tokio::test]
async fn an_expired_certificate_is_renewed_and_never_given_again() {
    let (_folder, registry) = registry();
    Box::pin(scenario::renewal::an_expired_certificate_is_renewed_and_never_given_again(|| registry.clone())).await;
    Box::pin(scenario::renewal::an_expired_certificate_lets_no_clone_in(registry.clone())).await;
    Box::pin(scenario::renewal::an_expired_certificate_proves_its_device_within_its_grace(|| registry.clone())).await;
}

#[tokio::test]
async fn threat_06_a_renewal_that_fails_anywhere_never_leaves_a_device_without_a_certificate() {
    let (_folder, registry) = registry();
    Box::pin(scenario::renewal::fault_matrix(|| registry.clone(), &[Fault::Throttle])).await;
    Box::pin(scenario::renewal::a_renewal_that_died_leaves_what_was(|| registry.clone())).await;
    Box::pin(scenario::renewal::the_old_certificate_ends_with_its_grace(registry)).await;
}

#[tokio::test]
async fn what_an_operator_decides_holds_whatever_devices_do() {
    let (_folder, registry) = registry();
    scenario::lifecycle::a_decision_in_the_middle_of_a_vend(|| registry.clone()).await;
    scenario::lifecycle::a_decision_in_the_middle_of_a_first_connection(|| registry.clone()).await;
    scenario::lifecycle::a_device_registered_again_is_another(|| registry.clone()).await;
    scenario::lifecycle::a_revocation_is_enforced_however_it_fails(|| registry.clone()).await;
}

#[tokio::test]
async fn threat_11_a_claim_counts_and_blocks_nobody_and_a_clone_claims_nothing() {
    let (_folder, registry) = registry();
    scenario::claims::fault_matrix(|| registry.clone()).await;
    scenario::claims::a_clone_claims_nothing(registry.clone()).await;
    scenario::claims::the_first_to_connect_stays(registry).await;
}

#[tokio::test]
async fn threat_45_the_reconciler_removes_what_attempts_left_and_nothing_else() {
    let (_folder, registry) = registry();
    scenario::reconcile::fault_matrix(|| registry.clone(), &[Fault::Throttle]).await;
    scenario::reconcile::a_reservation_is_confirmed_or_released(|| registry.clone()).await;
}

#[tokio::test]
async fn threat_39_a_second_server_on_one_folder_is_refused() {
    let (folder, registry) = registry();
    let second = SqlRegistry::in_folder(folder.path());
    assert!(matches!(second, Err(OpenError::InUse { .. })), "{second:?}");
    drop(registry);
    SqlRegistry::in_folder(folder.path()).unwrap();
}

#[tokio::test]
async fn a_database_of_a_later_version_is_refused_and_left_alone() {
    let (folder, registry) = registry();
    drop(registry);
    let change = |by: i64| {
        let file = rusqlite::Connection::open(folder.path().join("registry.sqlite")).unwrap();
        file.execute("UPDATE meta SET value = value + ?1 WHERE name = 'schema'", [by]).unwrap();
    };
    change(1_000);
    let opened = SqlRegistry::in_folder(folder.path());
    assert!(matches!(opened, Err(OpenError::Newer { found: 1_000.., .. })), "{opened:?}");
    change(-1_000);
    SqlRegistry::in_folder(folder.path()).unwrap();
}

#[test]
fn a_page_of_a_list_is_read_in_the_order_of_an_index_and_never_sorted() {
    let (folder, registry) = registry();
    drop(registry);
    let file = rusqlite::Connection::open(folder.path().join("registry.sqlite")).unwrap();
    let rare = "state = ? AND state NOT IN ('registered', 'provisioned') AND";
    let usual = ["", "state = ? AND", "state = ? AND enabled = ? AND", "device_group = ? AND", "template = ? AND"];
    for conditions in usual.into_iter().chain([rare]) {
        let explained = format!(
            "EXPLAIN QUERY PLAN SELECT devices.record, certificates.given FROM devices LEFT JOIN certificates \
                     ON certificates.sequence = devices.credential WHERE {conditions} devices.id > ? \
                     ORDER BY devices.id LIMIT ?"
        );
        let mut statement = file.prepare(&explained).unwrap();
        let mut rows = statement.raw_query();
        let mut steps = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            steps.push(row.get::<_, String>("detail").unwrap());
        }
        assert!(!steps.is_empty(), "{conditions}");
        assert!(!steps.iter().any(|step| step.contains("TEMP B-TREE")), "{conditions}: {steps:?}");
        let is_walk = !steps.iter().any(|step| step.contains("devices_in_rare_state"));
        assert_eq!(is_walk, conditions != rare, "{conditions}: {steps:?}");
    }
}

#[tokio::test]
async fn the_few_devices_that_a_list_is_for_are_found_among_many_with_a_bound_on_each_page() {
    const MANY: u64 = 50_000;
    let (folder, registry) = registry();
    assert!(registry.add(&device("sn-"), &origin()).await.unwrap());
    let file = rusqlite::Connection::open(folder.path().join("registry.sqlite")).unwrap();
    let copies = "WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < ?1) \
                  INSERT INTO devices (id, version, state, enabled, updated_at, record) \
                  SELECT printf('sn-%06d', number), version, state, number NOT IN (7, 20000, 20001, ?1), updated_at, \
                  replace(record, '\"sn-\"', printf('\"sn-%06d\"', number)) FROM numbers, devices";
    file.execute(copies, [MANY.cast_signed()]).unwrap();
    let counts = registry.count().await.unwrap();
    assert_eq!((counts.total, counts.enabled), (MANY + 1, MANY - 3));
    let filter = DeviceFilter { enabled: Some(false), ..DeviceFilter::default() };
    let (mut found, mut pages, mut after) = (Vec::new(), 0, None);
    while pages == 0 || after.is_some() {
        let page = registry.list(&filter, after.as_ref(), 2).await.unwrap();
        found.extend(page.devices.into_iter().map(|device| device.id.to_string()));
        (pages, after) = (pages + 1, page.next);
    }
    assert_eq!(found, ["sn-000007", "sn-020000", "sn-020001", "sn-050000"]);
    assert_eq!(pages, 3, "none looks at more than 20,001 devices");
}

#[tokio::test]
async fn threat_65_a_database_of_the_first_version_has_its_certificates_found_by_their_numbers() {
    let (folder, registry) = registry();
    let entry = LedgerEntry {
        id: CertificateId::of(b"certificate"),
        issuer: "issuer".to_owned(),
        serial: "c0ffee".to_owned(),
        pem: "certificate".to_owned(),
        thing: ThingName::try_from("sn-1".to_owned()).unwrap(),
        not_after: NOW,
        standing: Standing::Active,
        since: NOW,
    };
    registry.enter(&entry).await.unwrap();
    drop(registry);
    let file = rusqlite::Connection::open(folder.path().join("registry.sqlite")).unwrap();
    file.execute_batch(
        "CREATE TABLE first (id TEXT NOT NULL PRIMARY KEY, issuer TEXT NOT NULL, thing TEXT NOT NULL, \
         powerless INTEGER NOT NULL, not_after INTEGER NOT NULL, record TEXT NOT NULL) STRICT; \
         INSERT INTO first SELECT id, issuer, thing, powerless, not_after, json_object('certificateId', id, \
         'issuer', issuer, 'serial', serial, 'certificatePem', pem, 'thingName', thing, 'notAfter', not_after, \
         'standing', standing, 'since', since) FROM certificates; \
         DROP TABLE certificates; ALTER TABLE first RENAME TO certificates; \
         CREATE INDEX certificates_by_thing ON certificates (thing); \
         CREATE INDEX certificates_by_power ON certificates (powerless, issuer, not_after); \
         ALTER TABLE devices DROP COLUMN last_certificate; ALTER TABLE devices DROP COLUMN credential; \
         DROP INDEX devices_by_succession; ALTER TABLE devices DROP COLUMN succession_ends; \
         CREATE INDEX entries_by_chain ON entries (chain); DROP TABLE jobs; DROP TABLE device_keys; \
         DROP TABLE unknown_devices; DROP TABLE unknown_hours; \
         DROP INDEX devices_in_rare_state; CREATE INDEX devices_by_state ON devices (state, enabled); \
         DROP TRIGGER device_added; DROP TRIGGER device_deleted; DROP TRIGGER device_changed; DROP TABLE device_counts; \
         DROP INDEX entries_by_device; CREATE INDEX entries_by_device ON entries (device, moment); \
         ALTER TABLE devices DROP COLUMN last_entry; \
         ALTER TABLE entries DROP COLUMN earlier; ALTER TABLE entries DROP COLUMN is_linked; \
         ALTER TABLE entries DROP COLUMN rule; ALTER TABLE chains DROP COLUMN removed; \
         ALTER TABLE chains DROP COLUMN removed_hash; \
         UPDATE meta SET value = 1 WHERE name = 'schema'",
    )
    .unwrap();
    drop(file);
    let registry = SqlRegistry::in_folder(folder.path()).unwrap();
    assert_eq!(registry.entry_of_serial("issuer", "c0ffee").await.unwrap(), Some(entry));
    assert_eq!(registry.entry_of_serial("other", "c0ffee").await.unwrap(), None);
}

#[tokio::test]
async fn what_happened_is_written_with_every_change() {
    let (_folder, registry) = registry();
    let made = device("sn-1");
    assert!(registry.add(&made, &origin()).await.unwrap());
    assert!(!registry.add(&made, &origin()).await.unwrap());
    let mut disabled = made.clone();
    disabled.disable(None, later(1));
    assert!(registry.replace(&disabled, made.version, &origin()).await.unwrap());
    assert!(registry.remove(&disabled.clone().bury(later(2)), disabled.version, &origin()).await.unwrap());
    let query = AuditQuery { device: None, since: NOW, until: later(10) };
    let page = registry.entries(&query, None, 10).await.unwrap();
    let actions: Vec<_> = page.entries.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["deleted", "disabled", "created"]);
    assert!(page.entries.iter().all(|entry| entry.door.as_deref() == Some("cvm")));
}
