//! Devices that are put back by an import that was cut off: what was done may have been done already.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::convert::Infallible;

use cvm_bulk::{FailedLine, Import, ImportFiles, ImportStanding, KeptTokens};
use cvm_interchange::{Format, IdentityLine, ImportReader, Options};
use cvm_provisioning::{Changes as _, Device, DeviceStore as _, Operations};
use cvm_testkit::MemoryRegistry;
use cvm_testkit::fixture::{NOW, device, origin};

#[derive(Default)]
struct Files {
    failed: Vec<FailedLine>,
}

impl ImportFiles for Files {
    type Error = Infallible;

    async fn keep_tokens(&mut self, _lines: &str) -> Result<(), Infallible> {
        Ok(())
    }

    fn fail(&mut self, line: FailedLine) -> Result<(), Infallible> {
        self.failed.push(line);
        Ok(())
    }
}

/// Has these devices put back into the registry once more, and returns how many were created, left and refused.
async fn again(registry: &MemoryRegistry, devices: &[&Device]) -> (u64, u64, u64) {
    let lines = devices.iter().map(|device| serde_json::to_string(&IdentityLine::of(device, true)).unwrap());
    let text = lines.collect::<Vec<_>>().join("\n");
    let options = Options { restore: true, ..Options::default() };
    let mut reader = ImportReader::new(text.as_bytes(), Format::Json, options).unwrap();
    let operations = Operations { registry: registry.clone() };
    let import = Import { operations: &operations, by: &origin(), clock: || NOW, dry_run: false };
    let (mut files, mut standing, kept) = (Files::default(), ImportStanding::default(), KeptTokens::default());
    import.advance(&mut reader, 100, Some(&kept), &mut files, &mut standing).await.unwrap();
    assert_eq!(files.failed.len() as u64, standing.summary.failed);
    (standing.summary.created, standing.summary.unchanged, standing.summary.failed)
}

#[tokio::test]
async fn a_line_whose_id_another_device_has_is_refused_the_second_time_too() {
    let registry = MemoryRegistry::default();
    let (lost, done) = (device("sn-lost"), device("sn-done"));
    let taken = Device { parameters: [("Site".to_owned(), "berlin".to_owned())].into(), ..device("sn-taken") };
    assert!(registry.add(&done, &origin()).await.unwrap());
    assert!(registry.add(&device("sn-taken"), &origin()).await.unwrap());
    assert_eq!(again(&registry, &[&lost, &done, &taken]).await, (1, 1, 1));
    assert_eq!(again(&registry, &[&lost, &done, &taken]).await, (0, 2, 1));
    assert_eq!(registry.find(&taken.id).await.unwrap(), Some(device("sn-taken")), "it is left as it is");
}
