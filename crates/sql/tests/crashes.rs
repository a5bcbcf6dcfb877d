//! SQLite when the process, or the disk under it, comes to a sudden end.
//!
//! The process that dies is this test program itself, started once more for [`storm`] alone.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fs::{self, File, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cvm_provisioning::{
    Attempt, CertificateId, Changes as _, DeviceStore as _, RefusedKeys, RegistryError, State, Vend,
};
use cvm_sql::{OpenError, SqlRegistry, Verified};
use cvm_testkit::fixture::{NOW, csr, device, id, origin, request, templates};
use cvm_testkit::{MemoryAudit, MemoryPlatform};
use tokio::sync::Mutex;

const FOLDER: &str = "CVM_STORM_FOLDER";
const ROUND: &str = "CVM_STORM_ROUND";
/// Times that the process is killed.
const ROUNDS: u64 = 60;
/// Devices that ask at once.
const CALLERS: usize = 16;

/// A process that is about to be another program still has the files of this one, and their locks: no test starts one while
/// another test opens a registry.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

fn vend(registry: &SqlRegistry) -> Vend<SqlRegistry, MemoryPlatform, MemoryAudit> {
    Vend {
        registry: registry.clone(),
        platform: MemoryPlatform::default(),
        audit: MemoryAudit::default(),
        templates: templates(),
        refused_keys: RefusedKeys::default(),
    }
}

/// Not a test: vends to devices that nobody had before, until it is killed, and says what it handed out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is started by the others, and killed"]
async fn storm() {
    let (Some(folder), Ok(round)) = (std::env::var_os(FOLDER), std::env::var(ROUND)) else { return };
    let registry = SqlRegistry::in_folder(Path::new(&folder)).unwrap();
    let vend = Arc::new(vend(&registry));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (registry, vend, round) = (registry.clone(), Arc::clone(&vend), round.clone());
            tokio::spawn(async move {
                for number in 0_u128.. {
                    let name = format!("sn-{round}-{caller}-{number}");
                    // A disk that is full refuses, and it goes on.
                    let Ok(true) = registry.add(&device(&name), &origin()).await else {
                        std::io::stdout().write_all(b"refused\n").unwrap();
                        continue;
                    };
                    let Ok(vended) = vend.vend(request(&name, number + 1, Some(&csr(&name)), NOW)).await else {
                        continue;
                    };
                    // One write, so that no line is cut in two.
                    let line = format!("handed-out {name} {}\n", vended.credential.certificate);
                    std::io::stdout().write_all(line.as_bytes()).unwrap();
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
}

/// Not a test: opens the registry, and says why it cannot.
#[test]
#[ignore = "it is started by the others, as a user who may not"]
fn opens() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let Err(error) = SqlRegistry::in_folder(Path::new(&folder)) else { return println!("opened") };
    println!("refused: {error}: {}", error.source().unwrap());
}

/// Not a test: writes until it is refused, reads all the same, and goes on when it may.
#[tokio::test]
#[ignore = "it is started by another, on a disk that is full for a while"]
async fn lives_on() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let registry = SqlRegistry::in_folder(Path::new(&folder)).unwrap();
    let mut written = 0;
    let error = loop {
        match registry.add(&device(&format!("sn-{written}")), &origin()).await {
            Ok(added) => assert!(added),
            Err(error) => break error,
        }
        written += 1;
    };
    assert!(matches!(error, RegistryError::Unavailable { .. }), "{error:?}");
    for number in 0..written {
        assert!(registry.find(&id(&format!("sn-{number}"))).await.unwrap().is_some(), "it is read all the same");
    }
    assert!(registry.find(&id(&format!("sn-{written}"))).await.unwrap().is_none(), "what was refused is not there");
    std::io::stdout().write_all(b"full\n").unwrap();
    while registry.add(&device("after"), &origin()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let total = registry.count().await.unwrap().total;
    assert_eq!(total, written + 1);
    let trail = registry.verify_trail(&[]).await.unwrap();
    assert!(matches!(trail, Verified::Whole { entries, .. } if entries == total), "{trail:?}");
    println!("went on");
}

/// A storm in a process of its own.
fn start(folder: &Path, round: u64, limit_blocks: Option<u64>) -> Child {
    let mut command = again("storm", folder, limit_blocks);
    command.env(ROUND, round.to_string()).spawn().unwrap()
}

/// This program once more, for one of those that are not tests.
fn again(test: &str, folder: &Path, limit_blocks: Option<u64>) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut command = match limit_blocks {
        None => Command::new(program),
        // Files may have so many blocks of 512 bytes; more is an error and no signal.
        Some(blocks) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("trap '' XFSZ; ulimit -S -f {blocks}; exec \"$0\" \"$@\"")]).arg(program);
            shell
        }
    };
    command.args([test, "--exact", "--ignored", "--nocapture"]).env(FOLDER, folder);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// Reads what it says until it has said this word so often, and kills it then and there; what it said until its end
/// counts.
fn kill_after(mut child: Child, word: &str, times: u64) -> BTreeMap<String, CertificateId> {
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    let mut seen = 0;
    while seen < times && said.read_line(&mut text).unwrap() > 0 {
        seen += u64::from(text.lines().last().unwrap_or_default().starts_with(word));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    said.read_to_string(&mut text).unwrap();
    assert_eq!(seen, times, "it came to an end by itself");
    handed_out(&text)
}

fn handed_out(text: &str) -> BTreeMap<String, CertificateId> {
    let words = text.lines().filter_map(|line| line.strip_prefix("handed-out ")?.split_once(' '));
    words.map(|(name, certificate)| (name.to_owned(), certificate.parse().unwrap())).collect()
}

/// What was handed out is recorded, and the trail is whole.
async fn is_recorded(registry: &SqlRegistry, given: &BTreeMap<String, CertificateId>) {
    for (name, certificate) in given {
        let stored = registry.find(&id(name)).await.unwrap().unwrap();
        assert_eq!(stored.state, State::Provisioned, "{name}");
        assert_eq!(stored.credential.unwrap().certificate, *certificate, "{name}");
    }
    let trail = registry.verify_trail(&[]).await.unwrap();
    assert!(matches!(trail, Verified::Whole { .. }), "{trail:?}");
}

/// What is kept of the devices beside them is what they come to: their numbers, and the lists of what happened to them.
fn everything_hangs_together(database: &Path) {
    let database = rusqlite::Connection::open(database).unwrap();
    let one = |statement: &str| database.query_row(statement, [], |row| row.get::<_, i64>(0)).unwrap();
    let counted = "SELECT state, enabled, COUNT(*) FROM devices GROUP BY state, enabled";
    let kept = "SELECT state, enabled, devices FROM device_counts WHERE devices <> 0";
    for (these, those) in [(counted, kept), (kept, counted)] {
        assert_eq!(one(&format!("SELECT COUNT(*) FROM ({these} EXCEPT {those})")), 0, "{these}");
    }
    let listed = "WITH RECURSIVE listed (device, sequence) AS (SELECT id, last_entry FROM devices UNION ALL \
                  SELECT entries.device, earlier FROM entries JOIN listed USING (device, sequence) \
                  WHERE earlier IS NOT NULL) SELECT COUNT(*) FROM listed JOIN entries USING (device, sequence)";
    assert_eq!(one(listed), one("SELECT COUNT(*) FROM entries"), "each entry is in the list of its device, once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_33_whenever_it_is_killed_nothing_was_handed_out_that_is_not_recorded() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let mut all = BTreeMap::new();
    let mut unfinished = 0;
    for round in 0..ROUNDS {
        // Always the same numbers, and no two of them alike.
        let lines = 1 + round * 7 % 31;
        all.extend(kill_after(start(folder.path(), round, None), "handed-out", lines));
        let registry = SqlRegistry::in_folder(folder.path()).unwrap();
        is_recorded(&registry, &all).await;
        // Whoever got no answer asks again, when the lease of the attempt that died has run out, and gets one.
        let retries = vend(&registry);
        let mut after = None;
        loop {
            let page = registry.list(&Default::default(), after.as_ref(), 500).await.unwrap();
            for open in page.devices.iter().filter(|device| device.state != State::Provisioned) {
                unfinished += 1;
                let name = open.id.as_str();
                let again = request(name, 1_000_000, Some(&csr(name)), NOW.after(Attempt::LEASE));
                let vended = retries.vend(again).await.unwrap();
                all.insert(name.to_owned(), vended.credential.certificate);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        is_recorded(&registry, &all).await;
    }
    everything_hangs_together(&folder.path().join("registry.sqlite"));
    assert!(unfinished > ROUNDS as usize, "{unfinished} attempts were cut off, which is none of the moments meant");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_35_a_page_that_was_torn_costs_what_was_not_answered_and_no_more() {
    let _alone = ONE_AT_A_TIME.lock().await;
    for torn in [1_u64, 100, 4_000, 9_000] {
        let folder = tempfile::tempdir().unwrap();
        let given = kill_after(start(folder.path(), 0, None), "handed-out", 40);
        let mut log = File::options().read(true).write(true).open(folder.path().join("registry.sqlite-wal")).unwrap();
        let length = log.metadata().unwrap().len();
        log.seek(SeekFrom::Start(length.saturating_sub(torn))).unwrap();
        log.write_all(&vec![0xa5; usize::try_from(torn.min(length)).unwrap()]).unwrap();
        drop(log);
        // The disk has lost what it said was written, so that the last answers may be lost; what is there is whole.
        let registry = SqlRegistry::in_folder(folder.path()).unwrap();
        let trail = registry.verify_trail(&[]).await.unwrap();
        assert!(matches!(trail, Verified::Whole { entries, .. } if entries > 0), "{torn}: {trail:?}");
        let mut kept = 0;
        for name in given.keys() {
            let stored = registry.find(&id(name)).await.unwrap();
            kept += usize::from(stored.is_some_and(|device| device.credential.is_some()));
        }
        assert!(kept > 0, "{torn}: all was lost");
        assert!(registry.add(&device("after"), &origin()).await.unwrap());
    }
}

#[test]
fn threat_35_a_file_that_is_no_database_is_refused_and_left_alone() {
    let _alone = ONE_AT_A_TIME.blocking_lock();
    let folder = tempfile::tempdir().unwrap();
    drop(SqlRegistry::in_folder(folder.path()).unwrap());
    let path = folder.path().join("registry.sqlite");
    let mut torn = fs::read(&path).unwrap();
    torn[..100].fill(0xa5);
    fs::write(&path, &torn).unwrap();
    let opened = SqlRegistry::in_folder(folder.path()).unwrap_err();
    assert!(matches!(opened, OpenError::Damaged { .. }), "{opened:?}");
    assert!(opened.to_string().ends_with("put its backup in its place"), "{opened}");
    assert_eq!(fs::read(&path).unwrap(), torn);

    fs::remove_file(&path).unwrap();
    let looked = SqlRegistry::look_into(folder.path()).unwrap_err();
    assert!(matches!(looked, OpenError::Missing { .. }), "{looked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_35_a_bit_that_flips_at_the_head_of_a_page_is_seen_before_anything_is_served_or_nobody_reads_it() {
    const PAGE: usize = 4_096;
    let _alone = ONE_AT_A_TIME.lock().await;
    let folder = tempfile::tempdir().unwrap();
    kill_after(start(folder.path(), 0, None), "handed-out", 100);
    SqlRegistry::in_folder(folder.path()).unwrap().check_pages().unwrap();
    let path = folder.path().join("registry.sqlite");
    let (whole, content) = (fs::read(&path).unwrap(), content(&path));
    assert!(whole.len() > 40 * PAGE, "{} pages", whole.len() / PAGE);
    let mut seen = 0;
    for page in 0..whole.len() / PAGE {
        // What kind of page it is, or where the next one is; the first page has the header of the file before that.
        let place = page * PAGE + if page == 0 { 100 } else { 0 };
        let mut flipped = whole.clone();
        flipped[place] ^= 1 << (page % 8);
        fs::write(&path, &flipped).unwrap();
        match SqlRegistry::in_folder(folder.path()).and_then(|registry| registry.check_pages()) {
            Err(OpenError::Damaged { .. }) => seen += 1,
            Err(error) => panic!("page {page}: {error:?}"),
            // One that is free, or the last one of a long value.
            Ok(()) => assert_eq!(self::content(&path), content, "page {page}"),
        }
    }
    assert!(seen * 10 > whole.len() / PAGE * 8, "{seen} of {} pages", whole.len() / PAGE);
    fs::write(&path, &whole).unwrap();
    SqlRegistry::in_folder(folder.path()).unwrap().check_pages().unwrap();
}

/// Devices, certificates and what happened.
fn content(path: &Path) -> Vec<String> {
    let file = rusqlite::Connection::open(path).unwrap();
    let mut rows = Vec::new();
    for (table, column) in
        [("devices", "record"), ("certificates", "id || pem || standing"), ("entries", "document || hash")]
    {
        let mut statement = file.prepare(&format!("SELECT {column} FROM {table} ORDER BY rowid")).unwrap();
        rows.extend(statement.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap));
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_34_a_disk_that_is_full_refuses_and_loses_nothing() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let folder = tempfile::tempdir().unwrap();
    // Two megabytes for each file: the log of the database runs into it before it is worked in.
    let given = kill_after(start(folder.path(), 0, Some(4_000)), "refused", 100);
    let log = fs::metadata(folder.path().join("registry.sqlite-wal")).unwrap().len();
    assert!((1_900_000..=4_000 * 512).contains(&log), "the log ran into the limit: {log}");
    assert!(!given.is_empty());
    let registry = SqlRegistry::in_folder(folder.path()).unwrap();
    is_recorded(&registry, &given).await;
    assert!(registry.add(&device("after"), &origin()).await.unwrap());
}

#[test]
fn threat_34_a_folder_that_cannot_be_written_is_refused_and_opens_when_it_can() {
    let _alone = ONE_AT_A_TIME.blocking_lock();
    /// Root may write anywhere, and nobody may not.
    const NOBODY: u32 = 65_534;
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("registry");
    let is_root = fs::metadata(outer.path()).unwrap().uid() == 0;
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    mode(outer.path(), 0o755);
    let opens = |limit_blocks| {
        let mut command = again("opens", &folder, limit_blocks);
        if is_root {
            command.uid(NOBODY);
        }
        let said = String::from_utf8(command.output()?.stdout).unwrap();
        Ok::<_, std::io::Error>(said.lines().find(|line| line.contains("opened")).map(str::to_owned))
    };
    drop(SqlRegistry::in_folder(&folder).unwrap());
    let database = folder.join("registry.sqlite");
    for path in [&folder, &folder.join("registry.lock"), &database] {
        chown(path, is_root.then_some(NOBODY), None).unwrap();
    }
    if !matches!(opens(None), Ok(Some(said)) if said == "opened") {
        return println!("skipped: who is not root cannot run this program here");
    }
    let advice = "see that it belongs to whoever runs this, and that its disk has room and is mounted for writing";
    let is_refused = |path: &Path, limit_blocks| {
        let said = opens(limit_blocks).unwrap().unwrap();
        let expected = format!("refused: {} cannot be opened for writing; {advice}: ", path.display());
        assert!(said.starts_with(&expected), "{said}");
    };
    mode(&folder.join("registry.lock"), 0o444);
    is_refused(&folder.join("registry.lock"), None);
    mode(&folder.join("registry.lock"), 0o644);
    mode(&database, 0o444);
    is_refused(&database, None);
    mode(&database, 0o644);
    mode(&folder, 0o555);
    is_refused(&database, None);
    mode(&folder, 0o755);
    // A disk without any room.
    is_refused(&database, Some(0));
    assert_eq!(opens(None).unwrap().unwrap(), "opened");
}

#[test]
fn threat_34_a_store_whose_disk_is_full_is_read_and_goes_on_when_there_is_room() {
    let _alone = ONE_AT_A_TIME.blocking_lock();
    let folder = tempfile::tempdir().unwrap();
    let mut child = again("lives_on", folder.path(), Some(1_000)).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line == "full"), "it was never full, or came to an end");
    let room = Command::new("prlimit").args(["--pid", &child.id().to_string(), "--fsize=unlimited:"]).status();
    match room {
        Ok(status) => assert!(status.success(), "{status}"),
        Err(error) => {
            child.kill().unwrap();
            child.wait().unwrap();
            return println!("skipped: prlimit (util-linux) is not there: {error}");
        }
    }
    assert!(said.any(|line| line == "went on"), "it did not go on");
    assert!(child.wait().unwrap().success());
}
