use std::fs;
use std::path::Path;
use std::time::Duration;

use cvm_provisioning::{CertificateId, Timestamp};
use tempfile::TempDir;

use super::*;

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const WEEK_THEN_TEN_YEARS: Rotation = Rotation {
    overlap: Duration::from_secs(7 * 24 * 60 * 60),
    validity: Duration::from_secs(10 * 365 * 24 * 60 * 60),
    kms_key: None,
};

struct Bench {
    data: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { data: tempfile::tempdir().unwrap() }
    }

    fn folder(&self) -> CaFolder {
        CaFolder::of_data(self.data.path())
    }

    async fn open(&self, now: Timestamp) -> Result<OwnAuthority, OwnCaError> {
        OwnAuthority::open(self.folder(), PassphraseArguments::default(), now).await
    }

    async fn rotate(&self, now: Timestamp) -> Result<CertificateId, OwnCaError> {
        let root = Root::open(&self.folder(), self.folder().root_key()?, None).await?;
        let made = rotate(&self.folder(), root.authority().unwrap(), None, WEEK_THEN_TEN_YEARS, now).await?;
        Ok(*made.certificate.id())
    }
}

fn issuing(own: &OwnAuthority) -> CertificateId {
    *own.authorities.load().current().certificate().id()
}

fn certificates(path: &Path) -> usize {
    fs::read_to_string(path).unwrap().matches("BEGIN CERTIFICATE").count()
}

#[tokio::test]
async fn threat_55_the_next_ca_is_published_at_once_and_issues_after_the_overlap() {
    let bench = Bench::new();
    let mut own = bench.open(NOW).await.unwrap();
    let first = issuing(&own);
    assert!(!own.refresh(NOW).await.unwrap(), "nothing is new");
    let next = bench.rotate(NOW.after(DAY)).await.unwrap();
    assert_eq!(certificates(&bench.folder().bundle_path()), 3, "the one that issues, the next and the root");

    assert!(own.refresh(NOW.after(DAY)).await.unwrap(), "a server that runs notices");
    assert_eq!((issuing(&own), own.authorities.load().iter().count()), (first, 2));
    assert!(!own.refresh(NOW.after(7 * DAY)).await.unwrap());
    assert!(own.refresh(NOW.after(8 * DAY)).await.unwrap(), "nobody has touched the folder, but it is time");
    assert_eq!((issuing(&own), own.authorities.load().iter().count()), (next, 2));
    assert_eq!(issuing(&bench.open(NOW.after(7 * DAY)).await.unwrap()), first, "a start in between finds the same");
    assert_eq!(issuing(&bench.open(NOW.after(8 * DAY)).await.unwrap()), next);

    let end = NOW.after(10 * YEAR);
    assert!(own.refresh(end).await.unwrap(), "the first one has ended");
    assert_eq!(own.authorities.load().iter().count(), 1);
    own.publish(end).unwrap();
    assert_eq!(certificates(&bench.folder().bundle_path()), 2);
}

#[tokio::test]
async fn one_rotation_waits_at_a_time_and_a_ca_that_is_needed_now_issues_now() {
    let bench = Bench::new();
    bench.open(NOW).await.unwrap();
    bench.rotate(NOW).await.unwrap();
    let error = bench.rotate(NOW.after(DAY)).await.unwrap_err();
    assert!(matches!(error, OwnCaError::Pending { from } if from == NOW.after(7 * DAY)), "{error}");

    let late = NOW.after(11 * YEAR);
    assert!(matches!(bench.open(late).await, Err(OwnCaError::Ended { .. })));
    let third = bench.rotate(late).await.unwrap();
    let own = bench.open(late).await.unwrap();
    assert_eq!(issuing(&own), third);
    let end = Timestamp::from(own.authorities.load().current().certificate().not_after());
    assert_eq!(end, own.root.certificate().not_after().into(), "it does not outlive the root");
}

#[tokio::test]
async fn what_an_interrupted_rotation_has_left_is_no_ca_and_its_number_is_not_used_again() {
    let bench = Bench::new();
    let mut own = bench.open(NOW).await.unwrap();
    fs::write(bench.folder().path().join("issuing-2.key"), "cut off").unwrap();
    fs::write(bench.folder().path().join("issuing-07.pem"), "somebody's copy").unwrap();
    own.refresh(NOW).await.unwrap();
    assert_eq!(own.authorities.load().iter().count(), 1);
    bench.rotate(NOW).await.unwrap();
    let numbers: Vec<u32> = bench.folder().issuing().unwrap().iter().map(|ca| ca.number).collect();
    assert_eq!(numbers, [1, 3]);
}

#[tokio::test]
async fn a_rotation_removes_what_a_killed_one_left_long_ago() {
    let bench = Bench::new();
    bench.open(NOW).await.unwrap();
    let folder = bench.folder().path().to_owned();
    let long_ago = std::time::SystemTime::now() - DAY;
    let left = ["issuing-2.key", "issuing-2.from", ".tmpAb12Cd"].map(|name| folder.join(name));
    for path in &left {
        fs::write(path, "cut off").unwrap();
        fs::File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
    }
    // Another rotation may be at it.
    let fresh = ["issuing-3.key", ".tmpEf34Gh"].map(|name| folder.join(name));
    fresh.iter().for_each(|path| fs::write(path, "new").unwrap());
    // Somebody has the certificate that belongs to it.
    bench.rotate(NOW).await.unwrap();
    assert!(left.iter().all(|path| !path.exists()) && fresh.iter().all(|path| path.exists()));
    let (certificate, key) = (folder.join("issuing-4.pem"), folder.join("issuing-4.key"));
    assert!(certificate.exists());
    fs::File::options().write(true).open(&key).unwrap().set_modified(long_ago).unwrap();
    bench.rotate(NOW.after(8 * DAY)).await.unwrap();
    assert!(key.exists(), "a key with its certificate stays");
}

/// Issues a server's certificate with these names into this folder.
async fn issue_server(bench: &Bench, out: &Path, names: &[&str]) -> Result<bool, OwnCaError> {
    let request = ServerRequest {
        names: names.iter().map(|name| name.parse().unwrap()).collect(),
        validity: YEAR,
        renew_before: DAY,
    };
    let issued = ServerFiles::new(out).issue(&bench.folder(), &PassphraseArguments::default(), &request, NOW).await;
    Ok(issued?.is_new)
}

#[tokio::test]
async fn a_server_s_certificate_is_not_replaced_by_one_without_its_names() {
    let bench = Bench::new();
    bench.open(NOW).await.unwrap();
    let out = bench.data.path().join("out");
    assert!(issue_server(&bench, &out, &["broker.example.com", "192.0.2.1"]).await.unwrap());
    let before = fs::read(out.join("server.pem")).unwrap();
    for names in [&["localhost"][..], &["broker.example.com"], &["localhost", "192.0.2.1"]] {
        let error = issue_server(&bench, &out, names).await.unwrap_err();
        assert!(matches!(error, OwnCaError::OtherNames { .. }), "{names:?}: {error}");
        assert!(error.advice().contains("broker.example.com 192.0.2.1"), "{}", error.advice());
    }
    assert_eq!(fs::read(out.join("server.pem")).unwrap(), before);
    assert!(issue_server(&bench, &out, &["192.0.2.1", "localhost", "broker.example.com"]).await.unwrap());
    fs::remove_file(out.join("server.pem")).unwrap();
    assert!(issue_server(&bench, &out, &["localhost"]).await.unwrap(), "the advice works");
}

#[tokio::test]
async fn a_server_key_that_cannot_be_used_is_named_and_replaced_once_it_is_removed() {
    let bench = Bench::new();
    bench.open(NOW).await.unwrap();
    let out = bench.data.path().join("out");
    issue_server(&bench, &out, &["localhost"]).await.unwrap();
    let key = out.join("server.key");
    for text in ["", "no key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAQID\n-----END ENCRYPTED PRIVATE KEY-----\n"] {
        fs::write(&key, text).unwrap();
        let error = issue_server(&bench, &out, &["localhost"]).await.unwrap_err();
        assert!(error.advice().contains(&format!("`rm {}`", key.display())), "{text:?}: {}", error.advice());
        assert!(!error.advice().contains("passphrase-file"), "{text:?}: {}", error.advice());
    }
    fs::remove_file(&key).unwrap();
    assert!(issue_server(&bench, &out, &["localhost"]).await.unwrap(), "the advice works");
}

#[tokio::test]
async fn a_killed_issue_leaves_no_temporary_files_after_the_next_one() {
    let bench = Bench::new();
    bench.open(NOW).await.unwrap();
    let out = bench.data.path().join("out");
    fs::create_dir(&out).unwrap();
    for name in ["server.key", "server.pem"] {
        cvm_authority::temporary_file(&out.join(name)).unwrap().keep().unwrap();
    }
    issue_server(&bench, &out, &["localhost"]).await.unwrap();
    let mut names: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["server.key", "server.pem"]);
}

#[tokio::test]
async fn threat_38_no_ca_is_made_under_a_wrong_clock() {
    let bench = Bench::new();
    let in_2001 = Timestamp::from_seconds(1_000_000_000);
    assert!(matches!(bench.open(in_2001).await, Err(OwnCaError::Clock(_))));
    assert!(!bench.folder().root_key_path().exists());
    bench.open(NOW).await.unwrap();
    assert!(matches!(bench.rotate(in_2001).await, Err(OwnCaError::Clock(_))));
}

#[tokio::test]
async fn threat_38_a_list_of_the_root_from_the_future_is_made_again() {
    let bench = Bench::new();
    let own = bench.open(NOW).await.unwrap();
    // The clock was ahead for a while.
    root_list(&own.folder, &own.root, NOW.after(30 * DAY)).await.unwrap().unwrap();
    root_list(&own.folder, &own.root, NOW).await.unwrap().unwrap();
    let [facts] = <[ListFacts; 1]>::try_from(read_lists(&own.folder.root_list_path()).unwrap()).unwrap();
    assert!(facts.this_update <= NOW, "{facts:?}");
    let ahead = u64::try_from(NOW.after(30 * DAY).seconds()).unwrap();
    assert_eq!(facts.number, ahead + 1, "numbers never go back");
}

#[tokio::test]
async fn a_root_whose_key_is_elsewhere_keeps_its_list_and_makes_no_new_one() {
    let bench = Bench::new();
    let mut own = bench.open(NOW).await.unwrap();
    let list = root_list(&own.folder, &own.root, NOW).await.unwrap().unwrap();
    assert_eq!(root_list(&own.folder, &own.root, NOW).await.unwrap().unwrap(), list, "it is of today");

    let (there, elsewhere) = (bench.folder().root_key_path(), bench.data.path().join("root.key"));
    fs::rename(&there, &elsewhere).unwrap();
    let later = NOW.after(30 * DAY);
    assert!(own.refresh(later).await.unwrap() && own.root.authority().is_none());
    let own = bench.open(later).await.unwrap();
    assert!(!there.exists(), "no other key was made for the root");
    assert_eq!(root_list(&own.folder, &own.root, later).await.unwrap().unwrap(), list);

    fs::rename(&elsewhere, &there).unwrap();
    let own = bench.open(later).await.unwrap();
    assert_ne!(root_list(&own.folder, &own.root, later).await.unwrap().unwrap(), list);
    let [facts] = <[ListFacts; 1]>::try_from(read_lists(&own.folder.root_list_path()).unwrap()).unwrap();
    assert_eq!((facts.number, facts.entries), (u64::try_from(later.seconds()).unwrap(), 0));
}

#[tokio::test]
async fn threat_54_a_ca_without_what_it_needs_does_not_open_and_nothing_is_made_in_its_place() {
    let bench = Bench::new();
    bench.open(NOW).await.unwrap();
    for missing in ["issuing.key", "root.pem"] {
        let (path, aside) = (bench.folder().path().join(missing), bench.data.path().join("aside"));
        fs::rename(&path, &aside).unwrap();
        let error = bench.open(NOW).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, OwnCaError::NoKey { .. } | OwnCaError::NoCa { .. }), "{missing}: {error}");
        assert!(!path.exists(), "{missing}");
        fs::rename(&aside, &path).unwrap();
    }
    fs::write(bench.folder().path().join("issuing.from"), "tomorrow").unwrap();
    assert!(matches!(bench.open(NOW).await, Err(OwnCaError::Moment { .. })));
}
