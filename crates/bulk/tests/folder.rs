//! The files of jobs in a folder: the contract, no way out of it, and nothing that is half there.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use cvm_bulk::{FolderObjects, JobId, ObjectError, ObjectPath, Objects};
use cvm_provisioning::AttemptId;
use cvm_testkit::contract;
use tempfile::TempDir;

struct World {
    folder: TempDir,
    objects: FolderObjects,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("jobs")).unwrap();
        let objects = FolderObjects::open(folder.path().join("jobs")).unwrap();
        Self { folder, objects }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("jobs").join(name)
    }

    /// What is under way.
    fn begun(&self) -> Vec<String> {
        let names = fs::read_dir(self.path(".cvm")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "id").collect()
    }

    /// Whether nothing can be done with the object, and why.
    async fn refuses(&self, key: &str) -> ObjectError {
        let (object, mut file) = (object(key), tempfile::tempfile().unwrap());
        let refusal = self.objects.fetch(&object, None, &mut file).await.unwrap_err();
        assert_eq!(file.metadata().unwrap().len(), 0, "{key}");
        assert!(self.objects.get(&object).await.is_err(), "{key}");
        refusal
    }

    async fn refuses_to_write(&self, key: &str) {
        let object = object(key);
        assert!(refused(&self.objects.put(&object, b"x".to_vec()).await), "{key}");
        assert!(refused(&self.objects.put_new(&object, b"x".to_vec()).await), "{key}");
        assert!(refused(&self.objects.begin(&object, job()).await), "{key}");
        assert_eq!(self.begun(), [""; 0], "{key}: nothing is left");
    }
}

fn object(key: &str) -> ObjectPath {
    ObjectPath { bucket: None, key: key.to_owned() }
}

fn job() -> JobId {
    AttemptId::new(7).into()
}

fn refused<T>(result: &Result<T, ObjectError>) -> bool {
    matches!(result, Err(ObjectError::Refused { .. }))
}

fn is_private(path: &Path) -> bool {
    fs::metadata(path).unwrap().mode() & 0o077 == 0
}

#[tokio::test]
async fn the_files_of_a_folder_keep_the_contract_for_nobody_else_to_read() {
    let world = World::new();
    for folder in [".", "deep/in/it"] {
        contract::objects(&world.objects, &folder.parse().unwrap()).await;
    }
    assert_eq!(world.begun(), [""; 0], "nothing is left of what was under way");
    for name in [".cvm", "monday", "monday/a.txt", "tuesday/large.txt", "empty.txt", "deep/in/it/monday/a.txt"] {
        assert!(is_private(&world.path(name)), "{name}");
    }
}

#[tokio::test]
async fn threat_59_no_path_leads_out_of_the_folder() {
    let world = World::new();
    fs::write(world.folder.path().join("secret"), "secret").unwrap();
    let absolute = world.folder.path().join("secret").display().to_string();
    fs::create_dir(world.path("a")).unwrap();
    for key in [
        "",
        ".",
        "..",
        "../secret",
        "a/../../secret",
        "./a",
        "a/./b",
        "/",
        "//",
        "a//b",
        "a/",
        &absolute,
        ".cvm/id",
        ".cvm",
        "a/.hidden",
        "a\u{0}b",
        "a\nb",
        "a\u{1b}[2J",
        "a\\b",
        "\u{e4}",
        &"a".repeat(256),
    ] {
        assert!(matches!(world.refuses(key).await, ObjectError::Refused { .. }), "{key:?}");
        world.refuses_to_write(key).await;
    }
    let elsewhere = ObjectPath { bucket: Some("fleet".to_owned()), key: "a".to_owned() };
    assert!(refused(&world.objects.get(&elsewhere).await));
    for upload in ["", "..", "../a", "a/b", "id", ".", "\u{0}"] {
        assert!(refused(&world.objects.part(&object("b"), upload, 1, b"x".to_vec()).await), "{upload:?}");
        assert!(refused(&world.objects.complete(&object("b"), upload, &[], job()).await), "{upload:?}");
        assert!(refused(&world.objects.abort(&object("b"), upload).await), "{upload:?}");
    }
    let upload = world.objects.begin(&object("b"), job()).await.unwrap();
    for tag in ["", "/../../../secret", "../id"] {
        assert!(refused(&world.objects.complete(&object("b"), &upload, &[tag.to_owned()], job()).await), "{tag:?}");
    }
    world.objects.abort(&object("b"), &upload).await.unwrap();
    let names = fs::read_dir(world.folder.path()).unwrap().count();
    assert_eq!((names, fs::read_dir(world.path("")).unwrap().count()), (2, 2), "nothing was made");
}

#[tokio::test]
async fn threat_59_links_are_refused_wherever_they_lead() {
    let world = World::new();
    let outside = world.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    fs::create_dir(world.path("a")).unwrap();
    fs::write(world.path("a/inside"), "inside").unwrap();
    symlink(&outside, world.path("folder")).unwrap();
    symlink(world.path("a"), world.path("own")).unwrap();
    symlink(outside.join("secret"), world.path("file")).unwrap();
    symlink("a/inside", world.path("near")).unwrap();
    symlink("nowhere", world.path("broken")).unwrap();
    for key in ["folder/secret", "own/inside", "file", "near", "broken"] {
        assert!(matches!(world.refuses(key).await, ObjectError::Refused { .. }), "{key}");
    }
    for key in ["folder/secret", "folder/new", "own/new"] {
        world.refuses_to_write(key).await;
    }
    // A link is not written through: what is put there takes its place.
    world.objects.put(&object("file"), b"new".to_vec()).await.unwrap();
    assert!(!world.objects.put_new(&object("broken"), b"new".to_vec()).await.unwrap());
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "secret");
    assert_eq!(fs::read_to_string(world.path("a/inside")).unwrap(), "inside");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert!(!world.path("nowhere").exists());
}

#[tokio::test]
async fn what_is_no_regular_file_is_refused_and_waits_for_nobody() {
    let world = World::new();
    let made = std::process::Command::new("mkfifo").arg(world.path("pipe")).status().unwrap();
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(world.path("socket")).unwrap();
    fs::create_dir(world.path("folder")).unwrap();
    for key in ["pipe", "socket", "folder", "pipe/a"] {
        let refusal = world.refuses(key).await;
        assert!(matches!(refusal, ObjectError::Refused { .. }), "{key}: {refusal:?}");
    }
    assert!(refused(&world.objects.put(&object("folder"), b"x".to_vec()).await));
    assert!(refused(&world.objects.begin(&object("pipe"), job()).await));
    assert_eq!(world.begun(), [""; 0]);
}

#[tokio::test]
async fn threat_41_an_upload_that_is_cut_off_anywhere_is_completed() {
    let world = World::new();
    let whole = object("devices.txt");
    let (mut upload, mut tags) = (String::new(), Vec::new());
    // It was put together, and the machine stopped while its parts were removed.
    for kept in 0..=2 {
        upload = world.objects.begin(&whole, job()).await.unwrap();
        tags.clear();
        for (bytes, number) in [b"one\n", b"two\n"].iter().zip(1..) {
            tags.push(world.objects.part(&whole, &upload, number, bytes.to_vec()).await.unwrap());
        }
        fs::write(world.path("devices.txt"), "one\ntwo\n").unwrap();
        for part in fs::read_dir(world.path(".cvm").join(&upload)).unwrap().skip(kept) {
            fs::remove_file(part.unwrap().path()).unwrap();
        }
        world.objects.complete(&whole, &upload, &tags, job()).await.unwrap();
        assert_eq!(world.begun(), [""; 0], "{kept}");
        assert_eq!(fs::read_to_string(world.path("devices.txt")).unwrap(), "one\ntwo\n");
    }
    // What was not made of these parts is nobody's to call complete.
    for other in ["one\n", "one\ntwo\nmore", "one\ntwO\n"] {
        fs::write(world.path("devices.txt"), other).unwrap();
        assert!(refused(&world.objects.complete(&whole, &upload, &tags, job()).await), "{other}");
    }
}

#[tokio::test]
async fn a_folder_is_known_again_and_another_one_in_its_place_is_not() {
    let world = World::new();
    let again = FolderObjects::open(world.path("")).unwrap();
    assert_eq!(again.id(), world.objects.id());
    world.objects.put(&object("a"), b"a".to_vec()).await.unwrap();
    // Such as one that is not mounted any more.
    fs::rename(world.path(""), world.folder.path().join("away")).unwrap();
    fs::create_dir(world.path("")).unwrap();
    for _ in 0..2 {
        assert!(matches!(world.objects.get(&object("a")).await, Err(ObjectError::Unavailable { .. })));
        let other = FolderObjects::open(world.path("")).unwrap();
        assert_ne!(other.id(), world.objects.id());
    }
    fs::remove_dir_all(world.path("")).unwrap();
    assert!(matches!(world.objects.get(&object("a")).await, Err(ObjectError::Unavailable { .. })));
    fs::rename(world.folder.path().join("away"), world.path("")).unwrap();
    assert_eq!(world.objects.get(&object("a")).await.unwrap().unwrap(), b"a");
}

#[tokio::test]
async fn what_was_begun_long_ago_is_removed_at_the_next_start() {
    let world = World::new();
    let upload = world.objects.begin(&object("a"), job()).await.unwrap();
    world.objects.part(&object("a"), &upload, 1, b"a".to_vec()).await.unwrap();
    fs::write(world.path(".cvm/half"), "a token").unwrap();
    FolderObjects::open(world.path("")).unwrap();
    assert_eq!(world.begun().len(), 2, "another server may be at it");
    for name in ["half", &upload] {
        let path = world.path(".cvm").join(name);
        let yesterday = std::time::SystemTime::now() - std::time::Duration::from_secs(25 * 60 * 60);
        fs::File::open(path).unwrap().set_modified(yesterday).unwrap();
    }
    let id = FolderObjects::open(world.path("")).unwrap().id().to_owned();
    assert_eq!((world.begun(), id.as_str()), (Vec::new(), world.objects.id()));
}
