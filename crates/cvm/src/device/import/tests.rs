//! Imports that are cut off.

use std::collections::BTreeMap;
use std::fs;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;
use cvm_provisioning::{
    Attestation, Change, Device, DeviceCounts, DeviceFilter, DeviceId, DeviceStore, EnrolmentToken, KeyFingerprint,
    Origin, Page, Put, Refusal, RegistryError, TokenDigest,
};
use cvm_testkit::MemoryRegistry;
use futures_util::FutureExt as _;

use super::*;
use crate::device::Table;
use crate::output::Format as OutputFormat;

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    import: ImportArguments,
}

/// A registry whose owner dies after so many writes, the last of which takes effect or does not.
struct Dying {
    registry: MemoryRegistry,
    left: AtomicUsize,
    takes_effect: bool,
}

impl Dying {
    async fn write(&self, write: impl Future<Output = Result<Put, RegistryError>>) -> Result<Put, RegistryError> {
        let dead = || RegistryError::Unavailable { source: "dead".into() };
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(1) if self.takes_effect => write.await.and(Err(dead())),
            Ok(0 | 1) | Err(_) => Err(dead()),
            Ok(_) => write.await,
        }
    }
}

impl DeviceStore for Dying {
    async fn put(&self, change: &Change) -> Result<Put, RegistryError> {
        self.write(self.registry.put(change)).await
    }

    async fn count_refusal(&self, device: &DeviceId, refusal: &Refusal, by: &Origin) -> Result<(), RegistryError> {
        self.registry.count_refusal(device, refusal, by).await
    }

    async fn find(&self, id: &DeviceId) -> Result<Option<Device>, RegistryError> {
        self.registry.find(id).await
    }

    async fn owner_of(&self, key: &KeyFingerprint) -> Result<Option<DeviceId>, RegistryError> {
        self.registry.owner_of(key).await
    }

    async fn list(&self, filter: &DeviceFilter, after: Option<&DeviceId>, limit: u16) -> Result<Page, RegistryError> {
        self.registry.list(filter, after, limit).await
    }

    async fn count(&self) -> Result<DeviceCounts, RegistryError> {
        self.registry.count().await
    }
}

const ROWS: usize = 2 * BATCH + 100;

/// Imports until the registry dies, then goes on to the end, and returns the tokens by device.
fn cut_off_after(writes: usize, takes_effect: bool, mode: &str) -> (MemoryRegistry, BTreeMap<String, TokenDigest>) {
    let folder = tempfile::tempdir().unwrap();
    let [file, tokens, errors] = ["serials.csv", "tokens.jsonl", "bad.jsonl"].map(|name| folder.path().join(name));
    // Every hundredth row cannot be used.
    let bad = |row: usize| if row.is_multiple_of(100) { "=1\n" } else { "" };
    let rows: String = (0..ROWS).map(|row| format!("{}sn-{row}\n", bad(row))).collect();
    fs::write(&file, format!("serial\n{rows}")).unwrap();
    let arguments = |resume: &[&str]| {
        let given = ["import", file.to_str().unwrap(), "--tokens", tokens.to_str().unwrap()];
        let given = given.into_iter().chain(["--errors", errors.to_str().unwrap(), "--mode", mode]);
        Command::try_parse_from(given.chain(resume.iter().copied())).unwrap().import
    };
    let output = Output::new(OutputFormat::Json);
    let registry = MemoryRegistry::default();
    let dying = Dying { registry: registry.clone(), left: writes.into(), takes_effect };
    let first = import(&arguments(&[]), &Table::new(dying), &output).now_or_never().unwrap();
    assert!(first.is_err(), "{writes}");
    let alive = Table::new(registry.clone());
    let begun_anew = import(&arguments(&[]), &alive, &output).now_or_never().unwrap().unwrap_err();
    assert!(begun_anew.advice().contains("--resume"), "{}", begun_anew.advice());
    // A line of the tokens that the machine had no time to finish.
    let mut torn = OpenOptions::new().append(true).open(&tokens).unwrap();
    torn.write_all(br#"{"line":99999,"tok"#).unwrap();
    let resumed = import(&arguments(&["--resume"]), &alive, &output).now_or_never().unwrap();
    assert_eq!(resumed.unwrap_err().code(), "lines-failed", "{writes}");
    assert!(!folder.path().join("serials.csv.cvm-import").exists());
    let failed = fs::read_to_string(&errors).unwrap();
    let failed: Vec<Value> = failed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(failed.len(), ROWS.div_ceil(100), "{writes}: each line that failed is told once");
    assert!(failed.is_sorted_by_key(|line| line["line"].as_u64()));
    let kept = fs::read_to_string(&tokens).unwrap();
    let kept = kept.lines().map(|line| {
        let value: Value = serde_json::from_str(line).unwrap();
        let token: EnrolmentToken = value["token"].as_str().unwrap().parse().unwrap();
        (value["deviceId"].as_str().unwrap().to_owned(), token.digest())
    });
    let kept: Vec<_> = kept.collect();
    assert_eq!(kept.len(), ROWS, "{writes}: each device has one token");
    (registry, kept.into_iter().collect())
}

#[test]
fn threat_41_an_import_that_is_cut_off_anywhere_goes_on_and_does_nothing_twice() {
    for mode in ["create", "createOrUpdate"] {
        for boundary in [1, BATCH, 2 * BATCH, ROWS] {
            for writes in boundary.saturating_sub(1)..=(boundary + 1).min(ROWS) {
                for takes_effect in [true, false] {
                    if writes == 0 {
                        continue;
                    }
                    let (registry, tokens) = cut_off_after(writes, takes_effect, mode);
                    for (device, token) in tokens {
                        let id = device.parse().unwrap();
                        let stored = registry.find(&id).now_or_never().unwrap().unwrap().unwrap();
                        assert_eq!(stored.version, 1, "{mode} {writes}: written once");
                        let works = matches!(stored.attestation, Attestation::Token { digest, .. } if digest == token);
                        assert!(works, "{mode} {writes} {takes_effect}: the token of {device} is its own");
                    }
                }
            }
        }
    }
}
