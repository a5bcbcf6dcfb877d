//! The device registry, for the commands that work on it.

use clap::Args;
use cvm_provisioning::{Actor, AttemptId, Door, Origin, RegistryError, Timestamp};
use time::OffsetDateTime;

use crate::output::Output;
use crate::registry_api::{ApiError, RegistryApi, ServerArguments};

/// Where the registry is.
#[derive(Args, Debug)]
pub(crate) struct TableArguments {
    /// The DynamoDB table of the registry, output TableName of the stack; region, credentials and endpoint are those
    /// of the AWS environment (AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL, ...)
    #[arg(long, global = true, env = "CVM_TABLE", help_heading = "Common options")]
    table: Option<String>,
}

impl TableArguments {
    /// The table's name.
    pub(crate) fn name(self) -> Result<String, NoTable> {
        self.table.filter(|table| !table.is_empty()).ok_or(NoTable)
    }
}

/// No table was named.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("there is no table to work on")]
pub(crate) struct NoTable;

impl NoTable {
    /// What to do next.
    pub(crate) const ADVICE: &str = "give --table, or `export CVM_TABLE=` the stack's output TableName";
}

/// Which registry is worked on.
#[derive(Args, Debug)]
pub(crate) struct RegistryArguments {
    #[command(flatten)]
    table: TableArguments,
    #[command(flatten)]
    server: ServerArguments,
}

/// Where the registry is.
pub(crate) enum Where<'a> {
    /// In this DynamoDB table.
    Table(String),
    /// At a server of one's own.
    Server(Box<RegistryApi<'a>>),
}

impl RegistryArguments {
    /// The one that is named: never one of two, because it would be changed by mistake some day.
    pub(crate) fn place(self, output: &Output) -> Result<Where<'_>, PlaceError> {
        match (self.table.name(), self.server.open(output)?) {
            (Ok(_), Some(_)) => Err(WhichRegistry::Two.into()),
            (Ok(table), None) => Ok(Where::Table(table)),
            (Err(NoTable), Some(server)) => Ok(Where::Server(Box::new(server))),
            (Err(NoTable), None) => Err(WhichRegistry::None.into()),
        }
    }
}

/// It is not clear which registry is meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum WhichRegistry {
    #[error("there is no registry to work on")]
    None,
    #[error("a table and a server are named, and only one of them can be meant")]
    Two,
}

impl WhichRegistry {
    /// What to do next.
    pub(crate) const fn advice(self) -> &'static str {
        match self {
            Self::None => {
                "give --table, or `export CVM_TABLE=` the stack's output TableName; with `cvm serve`, give --server and \
                 --operator-token-file"
            }
            Self::Two => "leave one out: --table (`unset CVM_TABLE`) or --server (`unset CVM_SERVER`)",
        }
    }
}

/// Why no registry can be worked on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Which(#[from] WhichRegistry),
}

/// Lost races before a change is given up: doors write to an item a few times, then leave it alone.
pub(crate) const TRIES: usize = 5;

/// What to do about a registry that did not do what it was asked.
pub(crate) const fn advice(error: &RegistryError) -> &'static str {
    match error {
        RegistryError::Corrupt { .. } => "use the cvm that wrote the item, or a newer one",
        RegistryError::Throttled { .. } => "run this again in a minute",
        _ => {
            "check the name of the table, AWS_REGION and your credentials; with single sign-on, first run \
             `eval \"$(aws configure export-credentials --format env)\"`"
        }
    }
}

/// Who makes a change, as far as this machine knows: the audit has it beside the change.
pub(crate) fn origin() -> Origin {
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let user = variable("USER").or_else(|| variable("LOGNAME")).or_else(|| variable("USERNAME"));
    let host = std::fs::read_to_string("/etc/hostname").ok().map(|name| name.trim().to_owned());
    let host = variable("HOSTNAME").or(host).unwrap_or_else(|| "localhost".to_owned());
    let request_id = AttemptId::random().map(|id| id.to_string()).unwrap_or_default();
    let actor = Actor::new(&format!("{}@{host}", user.as_deref().unwrap_or("somebody")));
    Origin { actor, ..Origin::new(Door::Command, request_id) }
}

pub(crate) fn now() -> Timestamp {
    OffsetDateTime::now_utc().into()
}
