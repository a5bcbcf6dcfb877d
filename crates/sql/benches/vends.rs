//! What a vend takes over SQLite, by many callers at once, beside so many devices: a reservation and its commit, as with AWS
//! IoT; and the vend at once with a CA of our own, which looks, really signs and enrols, as the server does it.
//!
//!     cargo bench -p cvm-sql --bench vends                         # 100,000 devices
//!     cargo bench -p cvm-sql --bench vends -- 10000000
//!
//! It prints how many a second, how long one took, the most memory that the process had, and what the database has grown to.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that fails is seen at once")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cvm_provisioning::{
    Audit, AuditRecord, Beside, CertificateId, Changes as _, Credential, Csr, RefusedKeys, Reserve, VendAtOnce,
    Vending as _,
};
use cvm_sql::SqlRegistry;
use cvm_testkit::MemoryPlatform;
use cvm_testkit::fixture::{NOW, attempt, csr, device, origin, request, templates};

use self::own_ca::own_ca;

#[path = "../tests/own_ca/mod.rs"]
mod own_ca;

const DEVICES: usize = 100_000;
const DEVICES_OF_A_TEST: usize = 100;
/// Devices that are registered as operators do it, at most; further ones are copies of them.
const REGISTERED: usize = 1_000_000;
/// Vends of each way, at most.
const VENDS: usize = 50_000;
const CALLERS: usize = 64;

#[tokio::main]
async fn main() {
    // Cargo itself gives `--bench`, and "cargo test" does not.
    let all = if std::env::args().any(|argument| argument == "--bench") { DEVICES } else { DEVICES_OF_A_TEST };
    let devices = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(all).max(2);
    let folder = tempfile::tempdir().unwrap();
    let registry = SqlRegistry::in_folder(folder.path()).unwrap();
    let filled = each(devices.min(REGISTERED), {
        let registry = registry.clone();
        move |number| {
            let registry = registry.clone();
            async move { assert!(registry.add(&device(&name(number)), &origin()).await.unwrap()) }
        }
    })
    .await;
    tell("register", &filled);
    copy(&folder.path().join("registry.sqlite"), devices);
    // Devices from all over the registry, and others for each way.
    let vends = VENDS.min(devices / 2);
    let step = devices / vends;
    // Devices make their keys themselves, so that is not measured.
    let keys: Arc<Vec<Csr>> = Arc::new((0..vends).map(|_| csr("bench")).collect());
    let credential = Arc::new(credential(&keys[0]).await);
    let reserved = each(vends, {
        let (registry, keys) = (registry.clone(), Arc::clone(&keys));
        move |number| {
            let (registry, keys) = (registry.clone(), Arc::clone(&keys));
            let key = *keys[number].key().fingerprint();
            let certificate = CertificateId::of(name(number).as_bytes());
            let credential = Credential { key, certificate, ..Credential::clone(&credential) };
            async move {
                let attempt = attempt(&name(number * step), number as u128 + 1, &keys[number], NOW);
                let Reserve::Held(held) = registry.reserve(&attempt).await.unwrap() else { panic!("it is free") };
                registry.commit(&held, &attempt, &credential, &Beside::NOTHING).await.unwrap().unwrap();
            }
        }
    })
    .await;
    tell("reserve and commit", &reserved);
    let vend = Arc::new(VendAtOnce {
        registry: registry.clone(),
        authority: own_ca(&registry).await,
        audit: NoLog,
        templates: templates(),
        refused_keys: RefusedKeys::default(),
    });
    let keys: Arc<Vec<Csr>> = Arc::new((0..vends).map(|_| csr("bench")).collect());
    let vended = each(vends, move |number| {
        let (vend, keys) = (Arc::clone(&vend), Arc::clone(&keys));
        async move {
            let request = request(&name(number * step + 1), number as u128 + 1, Some(&keys[number]), NOW);
            assert!(!vend.vend(request).await.unwrap().replayed);
        }
    })
    .await;
    tell("vend at once", &vended);
    if let Some(peak) = peak_memory() {
        println!("{:>18}: {peak} at most", "memory");
    }
    let size: u64 = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    println!("{:>18}: {} MB for {devices} devices", "database", size / 1_000_000);
}

/// The trail is in the database; what the server says beside it is not measured.
struct NoLog;

impl Audit for NoLog {
    fn record(&self, _record: &AuditRecord<'_>) {}
}

/// The most memory that this process had in the machine, where the system says so (Linux, "VmHWM").
fn peak_memory() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(peak.trim().to_owned())
}

/// Makes more devices of the first one, each with its entry in the trail, so that ten million take minutes.
fn copy(database: &Path, devices: usize) {
    let database = rusqlite::Connection::open(database).unwrap();
    let first = name(0);
    for begin in (REGISTERED..devices).step_by(REGISTERED) {
        let end = (begin + REGISTERED).min(devices);
        let names = format!(
            "WITH RECURSIVE numbers (number) AS (SELECT {begin} UNION ALL SELECT number + 1 FROM numbers \
             WHERE number + 1 < {end}), names (name) AS (SELECT printf('SN-%08d', number * 7919 % 100000000) FROM numbers)"
        );
        database
            .execute_batch(&format!(
                "PRAGMA cache_size = -1000000; BEGIN; \
                 {names} INSERT INTO entries (chain, id, device, moment, document, hash, is_linked) \
                 SELECT chain, id, name, moment, replace(document, '{first}', name), hash, 1 \
                 FROM (SELECT name FROM names ORDER BY name), (SELECT * FROM entries WHERE device = '{first}' LIMIT 1); \
                 INSERT INTO devices (id, version, state, enabled, updated_at, record, last_entry) \
                 SELECT device, version, state, enabled, updated_at, replace(record, '{first}', device), sequence \
                 FROM (SELECT device, sequence FROM entries ORDER BY sequence DESC LIMIT {end} - {begin}), \
                 (SELECT * FROM devices WHERE id = '{first}') ORDER BY device; \
                 COMMIT; PRAGMA wal_checkpoint(TRUNCATE)"
            ))
            .unwrap();
    }
}

fn name(number: usize) -> String {
    // Serial numbers do not come in their order.
    format!("SN-{:08}", number.wrapping_mul(7_919) % 100_000_000)
}

async fn credential(csr: &Csr) -> Credential {
    let issued = MemoryPlatform::default().issue(csr).await.unwrap();
    Credential {
        certificate: *issued.certificate.id(),
        certificate_name: issued.name,
        pem: issued.certificate.pem().to_owned(),
        key: *csr.key().fingerprint(),
        key_made_here: false,
        not_after: issued.certificate.not_after().into(),
        issued_at: NOW,
        used_at: None,
        group: None,
        thing: "bench".to_owned().try_into().unwrap(),
        configuration: Default::default(),
    }
}

struct Measured {
    elapsed: Duration,
    each: Vec<Duration>,
}

fn tell(what: &str, measured: &Measured) {
    let Measured { elapsed, each } = measured;
    let part = |part: usize| each[(each.len() - 1) * part / 1_000].as_secs_f64() * 1_000.0;
    let rate = each.len() as f64 / elapsed.as_secs_f64();
    println!(
        "{what:>18}: {} in {:.1} s, {rate:.0} a second, p50 {:.2} ms, p99 {:.2} ms",
        each.len(),
        elapsed.as_secs_f64(),
        part(500),
        part(990)
    );
}

/// Does something for each number below `count`, by [`CALLERS`] at once.
async fn each<F>(count: usize, work: impl Fn(usize) -> F + Clone + Send + 'static) -> Measured
where
    F: Future<Output = ()> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (next, work) = (Arc::clone(&next), work.clone());
            tokio::spawn(async move {
                let mut took = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return took;
                    }
                    let began = Instant::now();
                    work(number).await;
                    took.push(began.elapsed());
                }
            })
        })
        .collect();
    let mut each = Vec::with_capacity(count);
    for caller in callers {
        each.extend(caller.await.unwrap());
    }
    each.sort_unstable();
    Measured { elapsed: began.elapsed(), each }
}
