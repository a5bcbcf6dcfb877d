//! The device registry, for the commands that work on it.

use clap::Args;
use cvm_provisioning::{RegistryError, Timestamp};
use time::OffsetDateTime;

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

pub(crate) fn now() -> Timestamp {
    OffsetDateTime::now_utc().into()
}
