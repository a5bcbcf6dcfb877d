//! A DynamoDB in a process of its own: `tools/local-dynamodb`, built when the first test needs it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

/// A DynamoDB without tables, in memory. It ends when this is dropped, or with the test's process.
#[derive(Debug)]
pub struct LocalDynamoDb {
    process: Child,
    endpoint: String,
}

impl LocalDynamoDb {
    /// Starts one on a free port of the loopback interface.
    #[must_use]
    pub fn start() -> Self {
        static PROGRAM: LazyLock<PathBuf> = LazyLock::new(build);
        let process = Command::new(&*PROGRAM).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = process.expect("cargo has built the program");
        let mut endpoint = String::new();
        let stdout = process.stdout.take().expect("it is a pipe");
        BufReader::new(stdout).read_line(&mut endpoint).expect("the program prints its endpoint");
        Self { process, endpoint: endpoint.trim_end().to_owned() }
    }

    /// Its URL.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Drop for LocalDynamoDb {
    fn drop(&mut self) {
        // Fails only if the process has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Builds the program next to the tests, and returns its path.
fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a test is a file");
    // target/PROFILE/deps/TEST
    let target = test.ancestors().nth(3).expect("cargo builds tests into its target directory");
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/local-dynamodb/Cargo.toml");
    // The cargo that runs the tests, and so the same toolchain.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--locked", "--quiet", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(target)
        .status()
        .expect("cargo is installed");
    assert!(built.success(), "tools/local-dynamodb does not compile");
    target.join("debug/local-dynamodb")
}
