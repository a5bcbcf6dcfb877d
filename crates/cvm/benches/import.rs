//! A Monday's import: `cvm device import` of so many rows into a DynamoDB on this machine, and the export of the same.
//!
//!     cargo bench -p cvm --bench import            # 100,000 rows
//!     cargo bench -p cvm --bench import -- 1000000
//!
//! It prints rows per second, and how much memory the command had at most.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that fails is seen at once")]

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cvm_provisioning::DeviceStore as _;

#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/cvm/support.rs"]
mod support;

const ROWS: usize = 100_000;
const ROWS_OF_A_TEST: usize = 100;

#[tokio::main]
async fn main() {
    // Cargo itself gives `--bench`, and "cargo test" does not.
    let all = if std::env::args().any(|argument| argument == "--bench") { ROWS } else { ROWS_OF_A_TEST };
    let rows = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(all);
    let (endpoint, registry) = support::dynamodb().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut file = BufWriter::new(File::create(path("serials.csv")).unwrap());
    writeln!(file, "serial,group").unwrap();
    for row in 0..rows {
        writeln!(file, "SN-{row:08},batch-{}", row % 100).unwrap();
    }
    file.into_inner().unwrap();
    let cvm = |words: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_cvm"))
            .args(words)
            .current_dir(folder.path())
            .env("AWS_ENDPOINT_URL", &endpoint)
            .env("AWS_REGION", "eu-central-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("CVM_TABLE", support::TABLE)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let import = ["device", "import", "serials.csv", "--tokens", "tokens.jsonl"];
    for (what, words) in [
        ("check", &["device", "import", "serials.csv", "--dry-run"][..]),
        ("import", &import),
        ("export", &["device", "export", "--out", "devices.jsonl"]),
    ] {
        let child = cvm(words);
        let (elapsed, peak) = tokio::task::spawn_blocking(|| measured(child)).await.unwrap();
        let rate = rows as f64 / elapsed.as_secs_f64();
        println!("{what:>7}: {rows} rows, {:.1} s, {rate:.0} rows a second, {peak} MB at most", elapsed.as_secs_f64());
    }
    assert_eq!(registry.count().await.unwrap().total, rows as u64);
    assert_eq!(fs::read_to_string(path("devices.jsonl")).unwrap().lines().count(), rows);
}

/// How long a process takes, and the most memory that it has, in megabytes: Linux keeps the latter (`proc_pid_status`).
fn measured(mut child: Child) -> (Duration, u64) {
    let began = Instant::now();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(peak);
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return (began.elapsed(), peak / 1_000);
        }
        thread::sleep(Duration::from_millis(50));
    }
}
