//! The registry on MySQL or MariaDB: the same contract and scenarios as on SQLite, by several servers at once.
//!
//! The tests start a MariaDB of their own (Debian: mariadb-server), or use the databases `cvm_0` to `cvm_9` of the server
//! that `CVM_TEST_MYSQL` names, such as `mysql://USER:PASSWORD@HOST:3306`; those have to be empty.

#![expect(clippy::large_futures, clippy::unwrap_used, reason = "a panic is a failed test")]

use std::net::TcpListener;

use cvm_provisioning::{
    CertificateId, CertificateLedger as _, Changes as _, DeviceStore as _, RefusedKeys, VendAtOnce, Vending as _,
};
use cvm_sql::{OpenError, SqlJobs, SqlRegistry};
use cvm_testkit::fixture::{NOW, csr, device, id, later, origin, request, templates};
use cvm_testkit::{Effect, Fault, MemoryAudit, contract, scenario};

use self::mariadb::MariaDb;

mod history;
mod ledger;
mod mariadb;
mod own_ca;
mod restarts;
mod unknown;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_registry_on_mysql_keeps_the_contract() {
    let server = MariaDb::start();
    contract::registry(&server.registry(0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_trail_on_mysql_keeps_the_contract() {
    let server = MariaDb::start();
    contract::audit_trail(&server.registry(1)).await;
    contract::ledger(&server.registry(1)).await;
    contract::job_store(&SqlJobs::new(server.registry(1), "folder")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_devices_are_kept_within_bounds_until_they_are_registered() {
    let server = MariaDb::start();
    let (one, other) = (server.registry(9), server.registry(9));
    unknown::are_kept_within_bounds_until_they_are_registered([&one, &other]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_of_a_device_is_the_part_of_the_trail_that_names_it() {
    let server = MariaDb::start();
    history::is_the_part_of_the_trail_that_names_the_device(&server.registry(7), || {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_knows_what_a_device_was_given_whatever_becomes_of_it() {
    let server = MariaDb::start();
    ledger::knows_what_a_device_was_given(&server.registry(8), || {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_07_fifty_callers_at_once_get_one_certificate() {
    let server = MariaDb::start();
    let registry = server.registry(2);
    contract::fifty_reservations_at_once(&registry).await;
    scenario::vend::fifty_callers_with_one_key(registry.clone()).await;
    scenario::vend::fifty_callers_with_fifty_keys(registry).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_08_a_key_is_one_devices() {
    let server = MariaDb::start();
    contract::a_key_is_one_devices(&server.registry(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_03_a_guesser_keeps_nobody_out() {
    let server = MariaDb::start();
    scenario::vend::a_guesser_keeps_nobody_out(server.registry(2), 2).await;
}

/// InnoDB shows a commit before its log is on the disk: whoever gives a certificate again has waited for a later commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_33_a_certificate_is_recorded_when_a_later_commit_is_on_the_disk() {
    let server = MariaDb::start();
    let registry = server.registry(7);
    let (name, key) = (id("sn-recorded"), csr("sn-recorded"));
    assert!(registry.add(&device("sn-recorded"), &origin()).await.unwrap());
    let vend = VendAtOnce {
        registry: registry.clone(),
        authority: own_ca::own_ca(&registry).await,
        audit: MemoryAudit::default(),
        templates: templates(),
        refused_keys: RefusedKeys::default(),
    };
    let vended = vend.vend(request("sn-recorded", 1, Some(&key), NOW)).await.unwrap();
    let commits = || server.query("SELECT value FROM cvm_7.meta WHERE name = 'shown'");
    assert_eq!(commits().await, [""; 0], "a fresh one is answered when its own commit is");
    let again = vend.vend(request("sn-recorded", 2, Some(&key), NOW)).await.unwrap();
    assert_eq!((again.credential.certificate, again.replayed), (vended.credential.certificate, true));
    assert_eq!(commits().await, ["1"]);
    assert!(registry.is_recorded(&name, &vended.credential.certificate).await.unwrap());
    assert!(!registry.is_recorded(&name, &CertificateId::of(b"lost")).await.unwrap());
    assert!(!registry.is_recorded(&id("sn-lost"), &vended.credential.certificate).await.unwrap());
    assert_eq!(commits().await, ["4"]);
}

/// The whole matrix runs over SQLite, by the same statements.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_33_a_vend_that_an_operator_cuts_off_ends_without_power() {
    let server = MariaDb::start();
    let registry = server.registry(3);
    scenario::vend::disabled_at_every_call(|| registry.clone()).await;
    scenario::vend::a_sleeper_harms_nobody(|| registry.clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_11_a_claim_counts_and_blocks_nobody_and_a_clone_claims_nothing() {
    let server = MariaDb::start();
    let registry = server.registry(4);
    scenario::claims::a_clone_claims_nothing(registry.clone()).await;
    scenario::claims::the_first_to_connect_stays(registry.clone()).await;
    scenario::reconcile::fault_matrix(|| registry.clone(), &[Fault::Error(Effect::After)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_start_at_once_make_one_schema_and_share_one_registry() {
    let server = MariaDb::start();
    let address = server.address(5);
    let opened: Vec<_> = (0..4)
        .map(|_| {
            let address = address.clone();
            std::thread::spawn(move || SqlRegistry::on_mysql(&address).unwrap())
        })
        .collect();
    let servers: Vec<_> = opened.into_iter().map(|opened| opened.join().unwrap()).collect();
    contract::one_reservation_by_many_servers(&servers).await;
    assert!(matches!(servers[0].verify_trail(&[]).await.unwrap(), cvm_sql::Verified::Whole { .. }));

    // Of servers that remove old entries at once, each entry is removed and counted by one.
    let all = later(1_000_000);
    let trims: Vec<_> = servers.iter().map(|server| server.trim_trail(all)).collect();
    let removed: u64 = futures_util::future::try_join_all(trims).await.unwrap().into_iter().sum();
    assert!(removed > 0);
    let verified = servers[0].verify_trail(&[]).await.unwrap();
    assert!(
        matches!(verified, cvm_sql::Verified::Whole { entries: 0, removed: counted, .. } if counted == removed),
        "{verified:?}"
    );
}

/// Inside an executor, as the server opens it.
#[tokio::test]
async fn a_database_that_does_not_open_says_what_to_do() {
    let server = MariaDb::start();
    let address = server.address(0);
    let (user, place) = address.strip_prefix("mysql://").unwrap().split_once('@').unwrap();
    let wrong = format!("mysql://{}:marked@{place}", user.split(':').next().unwrap());
    let denied = SqlRegistry::on_mysql(&wrong).unwrap_err();
    assert!(matches!(denied, OpenError::Denied { .. }), "{denied:?}");
    assert!(denied.to_string().contains("correct the user or the password"), "{denied}");
    assert!(!format!("{denied:?}").contains("marked"), "a password is shown: {denied:?}");

    let missing = SqlRegistry::on_mysql(&format!("{address}_that_is_not")).unwrap_err();
    assert!(matches!(missing, OpenError::NoDatabase { .. }), "{missing:?}");
    assert!(missing.to_string().contains("create it"), "{missing}");

    // Given back at once: nobody listens at it.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = SqlRegistry::on_mysql(&format!("mysql://cvm:marked@{free}/cvm_0")).unwrap_err();
    assert!(matches!(silent, OpenError::Unreachable { .. }), "{silent:?}");
    assert!(silent.to_string().contains(&format!("no database answers at {free}; start it")), "{silent}");

    let opened = SqlRegistry::on_mysql("mysql://cvm:marked@127.0.0.1:port/cvm_0").unwrap_err();
    assert!(matches!(opened, OpenError::Address { .. }), "{opened:?}");
    assert!(!format!("{opened:?}").contains("marked"), "a password is shown: {opened:?}");
}

#[tokio::test]
async fn threat_33_a_schema_that_is_cut_off_after_any_statement_is_finished_at_the_next_start() {
    let server = MariaDb::start();
    server.registry(0);
    let whole = schema(&server, 0).await;
    let mut statements = 0;
    loop {
        statements += 1;
        server.query("DROP DATABASE cvm_6").await;
        server.query("CREATE DATABASE cvm_6").await;
        let cut_off = SqlRegistry::on_mysql(&server.address_cut_after(6, statements));
        let registry = server.registry(6);
        assert_eq!(schema(&server, 6).await, whole, "after {statements} statements");
        assert!(registry.add(&device("sn-1"), &origin()).await.unwrap());
        if cut_off.is_ok() {
            contract::registry(&registry).await;
            contract::ledger(&registry).await;
            break;
        }
    }
    assert!(statements > 2 * 20, "{statements} is less than the statements and their notes");
}

#[tokio::test]
async fn a_ledger_of_the_seventh_version_is_the_same_after_the_upgrade() {
    let server = MariaDb::start();
    server.query("DROP DATABASE cvm_9").await;
    server.query("CREATE DATABASE cvm_9").await;
    contract::ledger(&server.registry(9)).await;
    let all = async || {
        let registry = server.registry(9);
        let mut all = Vec::new();
        for thing in ["sn-1", "sn-2", "sn-3"] {
            let entries = registry.entries_of(&thing.to_owned().try_into().unwrap()).await.unwrap();
            for entry in entries {
                assert_eq!(registry.entry(&entry.id).await.unwrap().as_ref(), Some(&entry));
                all.push(entry);
            }
        }
        all.sort_by_key(|entry| entry.id);
        all
    };
    let (before, whole) = (all().await, schema(&server, 9).await);
    assert_eq!(before.len(), 9);
    for statement in [
        "certificates ADD COLUMN record MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        "certificates DROP COLUMN sequence, ADD PRIMARY KEY (id), DROP COLUMN pem, DROP COLUMN standing, \
         DROP COLUMN since, DROP COLUMN given, DROP COLUMN earlier, DROP COLUMN is_linked, DROP INDEX certificates_by_id",
        "devices DROP COLUMN last_certificate, DROP COLUMN credential",
        "entries DROP COLUMN rule",
        "chains DROP COLUMN removed, DROP COLUMN removed_hash",
    ] {
        server.query(&format!("ALTER TABLE cvm_9.{statement}")).await;
        let record = "UPDATE cvm_9.certificates SET record = JSON_OBJECT('certificateId', id, 'issuer', issuer, \
                      'serial', serial, 'certificatePem', pem, 'thingName', thing, 'notAfter', not_after, \
                      'standing', standing, 'since', since)";
        if statement.contains("ADD COLUMN record") {
            server.query(record).await;
        }
    }
    for table in ["device_keys", "unknown_devices", "unknown_hours"] {
        server.query(&format!("DROP TABLE cvm_9.{table}")).await;
    }
    server.query("DELETE FROM cvm_9.meta WHERE name IN ('unknown-devices', 'trail-begins')").await;
    server.query("UPDATE cvm_9.meta SET value = 7 WHERE name = 'schema'").await;
    assert_eq!(all().await, before);
    assert_eq!(schema(&server, 9).await, whole);
}

/// The columns and the indexes of a database, and how far its schema is.
async fn schema(server: &MariaDb, database: usize) -> Vec<String> {
    let database = format!("cvm_{database}");
    let columns = "SELECT CONCAT_WS(' ', table_name, column_name, column_type, collation_name, is_nullable) FROM \
                   information_schema.columns";
    let indexes = "SELECT CONCAT_WS(' ', table_name, index_name, seq_in_index, column_name, non_unique) FROM \
                   information_schema.statistics";
    // The other rows change with the devices.
    let progress = "SELECT CONCAT_WS(' ', name, value) FROM";
    let progress = format!("{progress} {database}.meta WHERE name IN ('schema', 'statements') ORDER BY 1");
    let mut found = server.query(&progress).await;
    for statement in [columns, indexes] {
        found.extend(server.query(&format!("{statement} WHERE table_schema = '{database}' ORDER BY 1")).await);
    }
    found
}
