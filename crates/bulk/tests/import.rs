//! Imports into a registry, a line at a time.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::convert::Infallible;

use cvm_bulk::{FailedLine, Import, ImportError, ImportFiles, ImportStanding, Summary};
use cvm_interchange::{DefaultProof, Defaults, Format, ImportReader, Options};
use cvm_provisioning::{Changes as _, DeviceStore, ImportMode, Operations, RegistryError};
use cvm_testkit::fixture::{NOW, device, id, origin};
use cvm_testkit::{Fault, Faulty, MemoryRegistry, Script};

#[derive(Default)]
struct Files {
    begun: bool,
    failed: Vec<FailedLine>,
}

impl ImportFiles for Files {
    type Error = Infallible;

    async fn keep_tokens(&mut self, _lines: &str) -> Result<(), Infallible> {
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Infallible> {
        self.begun = true;
        Ok(())
    }

    fn fail(&mut self, line: FailedLine) -> Result<(), Infallible> {
        self.failed.push(line);
        Ok(())
    }
}

/// Imports this text, and returns what became of its lines and what was written beside the registry.
async fn import(
    registry: impl DeviceStore,
    text: &str,
    mode: Option<ImportMode>,
    dry_run: bool,
) -> (Result<Summary, ImportError<Infallible>>, Files) {
    let defaults = Defaults { mode, proof: DefaultProof::Claim, ..Defaults::default() };
    let options = Options { defaults, ..Options::default() };
    let mut reader = ImportReader::new(text.as_bytes(), Format::detect("", text.as_bytes()), options).unwrap();
    let operations = Operations { registry };
    let import = Import { operations: &operations, by: &origin(), clock: || NOW, dry_run };
    let (mut files, mut standing) = (Files::default(), ImportStanding::default());
    let advanced = import.advance(&mut reader, 100, None, &mut files, &mut standing).await;
    (advanced.map(|_| standing.summary), files)
}

#[tokio::test]
async fn a_dry_run_reports_what_the_registry_would_refuse() {
    let registry = MemoryRegistry::default();
    registry.add(&device("sn-1"), &origin()).await.unwrap();
    let table = "serial\nsn-1\nsn-2\n";
    for (mode, refused) in [
        (ImportMode::Create, Some((2, "exists"))),
        (ImportMode::Update, Some((3, "not-found"))),
        (ImportMode::Delete, Some((3, "not-found"))),
        (ImportMode::CreateOrUpdate, None),
    ] {
        let (summary, files) = import(registry.clone(), table, Some(mode), true).await;
        let summary = summary.unwrap();
        let failed: Vec<_> = files.failed.iter().map(|line| (line.line, line.code)).collect();
        assert_eq!(failed, Vec::from_iter(refused), "{mode:?}");
        assert_eq!((summary.checked, summary.failed), (2 - failed.len() as u64, failed.len() as u64), "{mode:?}");
        assert!(!files.begun && registry.count().await.unwrap().total == 1, "{mode:?}: nothing is written");
    }
}

#[tokio::test]
async fn a_registry_that_cannot_be_reached_leaves_nothing_begun() {
    let registry = Faulty { inner: MemoryRegistry::default(), script: Script::fail(1, Fault::Outage) };
    let (summary, files) = import(registry, "serial\nsn-1\n", None, false).await;
    assert!(matches!(summary, Err(ImportError::Registry(RegistryError::Unavailable { .. }))), "{summary:?}");
    assert!(!files.begun);
}

/// The lines that another registry exports of a gateway.
const GATEWAY: &str = concat!(
    r#"{"id":"device","eTag":"ODcw","status":"enabled","authentication":null,"capabilities":{"iotEdge":true}}"#,
    "\n",
    r#"{"id":"device","moduleId":"$edgeAgent","eTag":"ODcw","status":"enabled","authentication":null,"twinETag":"AA=="}"#,
    "\n",
    r#"{"id":"device","moduleId":"$edgeHub","eTag":"ODcw","status":"enabled","authentication":null,"tags":{}}"#,
    "\n",
    r#"{"id":"device","moduleId":"camera","managedBy":"iotEdge","authentication":{"symmetricKey":{"primaryKey":null}}}"#,
    "\n",
);

#[tokio::test(start_paused = true)]
async fn the_modules_of_a_gateway_are_made_after_it() {
    let registry = MemoryRegistry::default();
    // The registry asks for a slower pace when the gateway itself is written.
    let script = Script::fail(3, Fault::Throttle);
    let throttled = Faulty { inner: registry.clone(), script };
    let (summary, files) = import(throttled, GATEWAY, None, false).await;
    assert_eq!((summary.unwrap().created, files.failed), (4, vec![]));
    let gateway = registry.find(&id("device")).await.unwrap().unwrap();
    let modules: Vec<_> = gateway.modules.keys().map(|module| module.as_str()).collect();
    assert_eq!((gateway.hierarchy.edge, modules), (true, vec!["$edgeAgent", "$edgeHub", "camera"]));
}
