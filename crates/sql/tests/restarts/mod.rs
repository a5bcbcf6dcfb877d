//! The database comes to a sudden end and is back again, while devices ask for certificates.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cvm_provisioning::{
    CertificateId, CertificateLedger as _, Changes as _, Csr, DeviceStore as _, RefusedKeys, RegistryError, Standing,
    VendAtOnce, VendError, Vending as _,
};
use cvm_sql::{SqlRegistry, Verified};
use cvm_testkit::MemoryAudit;
use cvm_testkit::fixture::{NOW, csr, device, id, origin, request, templates};
use futures_util::future::join_all;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::mariadb::MariaDb;
use super::own_ca::{OwnCa, own_ca};

/// Devices that ask at once; each asks twice at once, as one does that has given up waiting too early.
const DEVICES: usize = 8;
/// Times that the database is killed.
const RESTARTS: u64 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_33_a_database_that_is_killed_under_load_has_every_certificate_that_was_handed_out() {
    let Some(server) = MariaDb::alone() else {
        return println!("skipped: CVM_TEST_MYSQL names a server, and others may need that");
    };
    let registry = server.registry(0);
    let world = Arc::new(World {
        vend: VendAtOnce {
            registry: registry.clone(),
            authority: own_ca(&registry).await,
            audit: MemoryAudit::default(),
            templates: templates(),
            refused_keys: RefusedKeys::default(),
        },
        over: AtomicBool::new(false),
        attempts: AtomicU64::new(0),
        failures: AtomicU64::new(0),
    });
    let (hand_out, mut handed_out) = unbounded_channel();
    let callers: Vec<_> =
        (0..DEVICES).map(|caller| tokio::spawn(Arc::clone(&world).call(caller, hand_out.clone()))).collect();
    drop(hand_out);
    let mut given = BTreeMap::<String, BTreeSet<CertificateId>>::new();
    for restart in 0..RESTARTS {
        // Always the same numbers, and no two of them alike.
        for _ in 0..30 + restart * 7 % 31 {
            let (name, certificate) = handed_out.recv().await.unwrap();
            given.entry(name).or_default().insert(certificate);
        }
        server.kill();
        tokio::task::block_in_place(|| server.run());
    }
    world.over.store(true, Ordering::SeqCst);
    while let Some((name, certificate)) = handed_out.recv().await {
        given.entry(name).or_default().insert(certificate);
    }
    for caller in callers {
        caller.await.unwrap();
    }
    let failures = world.failures.load(Ordering::SeqCst);
    assert!(failures > RESTARTS, "{failures} requests failed, which is none of the moments meant");
    for (name, certificates) in &given {
        let entries = registry.entries_of(&name.clone().try_into().unwrap()).await.unwrap();
        let [entry] = &entries[..] else { panic!("{name} is in the ledger {} times", entries.len()) };
        assert_eq!((entry.standing, certificates), (Standing::Active, &BTreeSet::from([entry.id])), "{name}");
        let stored = registry.find(&id(name)).await.unwrap().unwrap();
        assert_eq!(stored.credential.unwrap().certificate, entry.id, "{name}");
    }
    let devices = registry.count().await.unwrap().total;
    assert_eq!(devices, given.len() as u64, "everyone was given a certificate in the end");
    let trail = registry.verify_trail(&[]).await.unwrap();
    // Every device was registered and then provisioned.
    assert!(matches!(trail, Verified::Whole { entries, .. } if entries >= 2 * devices), "{trail:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_says_nothing_is_waited_for_only_so_long() {
    /// The documented ten seconds, and a little more.
    const TOO_LONG: Duration = Duration::from_secs(15);
    let Some(server) = MariaDb::alone() else {
        return println!("skipped: CVM_TEST_MYSQL names a server, and others may need that");
    };
    let registry = server.registry(0);
    assert!(registry.add(&device("sn-1"), &origin()).await.unwrap());
    server.silence();
    // More than there are connections: one that was given up does not take the others with it.
    let asked = join_all((0..20).map(|_| async { registry.find(&id("sn-1")).await }));
    let answers = tokio::time::timeout(TOO_LONG, asked).await.expect("each was answered");
    assert!(answers.iter().all(|answer| matches!(answer, Err(RegistryError::Unavailable { .. }))), "{answers:?}");
    server.wake();
    assert!(registry.find(&id("sn-1")).await.unwrap().is_some());
}

struct World {
    vend: VendAtOnce<SqlRegistry, OwnCa, MemoryAudit>,
    over: AtomicBool,
    attempts: AtomicU64,
    failures: AtomicU64,
}

impl World {
    /// One new device after the other, until it is over.
    async fn call(self: Arc<Self>, caller: usize, hand_out: UnboundedSender<(String, CertificateId)>) {
        for number in 0.. {
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            let name = format!("sn-{caller}-{number}");
            // Whoever is told that it is there already has put it there, and was not told.
            while self.vend.registry.add(&device(&name), &origin()).await.is_err() {
                self.wait().await;
            }
            let key = csr(&name);
            let (one, other) = tokio::join!(self.ask(&name, &key), self.ask(&name, &key));
            for certificate in [one, other] {
                hand_out.send((name.clone(), certificate)).unwrap();
            }
        }
    }

    /// Asks until there is an answer.
    async fn ask(&self, name: &str, key: &Csr) -> CertificateId {
        loop {
            let attempt = self.attempts.fetch_add(1, Ordering::SeqCst);
            match self.vend.vend(request(name, attempt.into(), Some(key), NOW)).await {
                Ok(vended) => return vended.credential.certificate,
                Err(VendError::Registry(_)) => self.wait().await,
                Err(error) => panic!("{name}: {error:?}"),
            }
        }
    }

    /// As a device waits before it asks again.
    async fn wait(&self) {
        self.failures.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
