use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
use axum::Router;
use cvm_aws::{DynamoDbRegistry, TABLE_KEY};
use cvm_http::{Handout, RootCa};
use cvm_provisioning::{DeviceIdFrom, DeviceStore, RefusedKeys, Vend};
use cvm_testkit::fixture::templates;
use cvm_testkit::{LocalDynamoDb, MemoryAudit, MemoryPlatform};
use serde_json::Value;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::net::TcpListener;

pub(crate) const TABLE: &str = "devices";

/// The command with an environment of its own, run in a folder of its own.
pub(crate) struct Cvm {
    folder: TempDir,
    environment: Vec<(&'static str, String)>,
}

/// What a run of the command left.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Cvm {
    /// The command without any registry or API.
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), environment: Vec::new() }
    }

    /// The command on the registry behind this DynamoDB endpoint.
    pub(crate) fn on(endpoint: &str) -> Self {
        Self::new()
            .with("AWS_ENDPOINT_URL", endpoint)
            .with("AWS_REGION", "eu-central-1")
            .with("AWS_ACCESS_KEY_ID", "test")
            .with("AWS_SECRET_ACCESS_KEY", "test")
            .with("CVM_TABLE", TABLE)
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    /// Runs the command with the words of this line.
    pub(crate) fn run(&self, line: &str) -> Run {
        self.run_with(line.split_whitespace(), "")
    }

    /// Runs it with these words and this on stdin.
    pub(crate) fn run_with<'a>(&self, words: impl IntoIterator<Item = &'a str>, stdin: &str) -> Run {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cvm"))
            .args(words)
            .current_dir(self.folder.path())
            .env_clear()
            .env("HOME", self.folder.path())
            .envs(self.environment.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Whoever does not read its stdin may be gone already.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let output = child.wait_with_output().unwrap();
        Run {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Run {
    /// What a run that must succeed printed.
    pub(crate) fn text(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// The same, of a run with `--output json`.
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    /// What a run that must fail complained about.
    pub(crate) fn failure(self) -> String {
        assert_eq!(self.code, 1, "{}{}", self.stdout, self.stderr);
        assert_eq!(self.stdout, "", "what failed has no result");
        self.stderr
    }

    /// The same, of a run that had done something before.
    pub(crate) fn failure_after(self, done: &str) -> String {
        assert!(self.code == 1 && self.stdout.starts_with(done), "{}{}", self.stdout, self.stderr);
        self.stderr
    }
}

pub(crate) fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A DynamoDB with an empty table; its endpoint, and the registry in it. It runs until the test's process ends.
pub(crate) async fn dynamodb() -> (String, DynamoDbRegistry) {
    let endpoint = Box::leak(Box::new(LocalDynamoDb::start())).endpoint();
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("eu-central-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url(endpoint)
        .build();
    let client = Client::from_conf(config);
    client
        .create_table()
        .table_name(TABLE)
        .attribute_definitions(
            AttributeDefinition::builder()
                .attribute_name(TABLE_KEY)
                .attribute_type(ScalarAttributeType::S)
                .build()
                .unwrap(),
        )
        .key_schema(KeySchemaElement::builder().attribute_name(TABLE_KEY).key_type(KeyType::Hash).build().unwrap())
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await
        .unwrap();
    (endpoint.to_owned(), DynamoDbRegistry::new(client, TABLE))
}

/// The vending API over this registry.
pub(crate) fn api<R: DeviceStore + 'static>(registry: R) -> Router {
    let vend = Vend {
        registry,
        platform: MemoryPlatform::default(),
        audit: MemoryAudit::default(),
        templates: templates(),
        refused_keys: RefusedKeys::default(),
    };
    let handout = Handout::new("localhost:18883".parse().unwrap(), RootCa::amazon().unwrap());
    cvm_http::router(std::sync::Arc::new(vend), handout, DeviceIdFrom::default(), || OffsetDateTime::now_utc().into())
}

/// Serves the API; its URL.
pub(crate) async fn serve(api: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, api).await.unwrap() });
    url
}
