//! `cvm audit`: what happened, to a device or to all.

use std::time::Duration;

use clap::Args;
use cvm_aws::{Clients, DynamoDbAuditTrail};
use cvm_interchange::AuditDocument;
use cvm_provisioning::{AuditEntry, AuditQuery, AuditTrail, DeviceId, RegistryError, Timestamp};

use crate::arguments::TimeToLive;
use crate::error::CommandError;
use crate::output::{Output, printable};
use crate::registry::{self, now};
use crate::table::Table;

/// Show what happened to a device, or to all devices, the latest first
///
/// The trail has every change of a device, by whichever door or operator, moments after it was made. What changes
/// nothing, such as a refusal of a device that is not registered, is in the functions' logs alone.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AuditArguments {
    #[command(flatten)]
    trail: TrailArguments,
    /// The device's id; without it, all devices
    device: Option<DeviceId>,
    /// Only what happened within this time; for all devices 24h unless told otherwise
    #[arg(long, value_name = "TIME")]
    within: Option<TimeToLive>,
    /// Stop after so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
}

const EXAMPLES: &str = "\
Examples:
  export CVM_AUDIT_TABLE=cvm-audit
  cvm audit sn-0001
  cvm audit --within 1h
  cvm audit --within 7d --limit 1000 --output json | jq 'select(.reason)'";

/// Where the audit trail is.
#[derive(Args, Debug)]
pub(crate) struct TrailArguments {
    /// The DynamoDB table of the audit trail, output AuditTableName of the stack
    #[arg(long, env = "CVM_AUDIT_TABLE", help_heading = "Common options")]
    audit_table: Option<String>,
}

impl TrailArguments {
    /// The trail in this table.
    pub(crate) fn open(self, clients: &Clients) -> Result<DynamoDbAuditTrail, AuditError> {
        let table = self.audit_table.filter(|table| !table.is_empty()).ok_or(AuditError::NoTable)?;
        // Nothing is written here, so how long it would be kept does not matter.
        Ok(DynamoDbAuditTrail::new(clients.dynamodb.clone(), table, Duration::ZERO))
    }
}

/// Why the trail was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AuditError {
    #[error("there is no audit trail to read")]
    NoTable,
    #[error("the audit trail cannot be read")]
    Registry(#[from] RegistryError),
}

impl AuditError {
    /// The stable word for it in JSON.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::NoTable => "usage",
            Self::Registry(_) => "registry",
        }
    }

    /// What to do next.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::NoTable => {
                "give --audit-table, or `export CVM_AUDIT_TABLE=` the stack's output AuditTableName".to_owned()
            }
            Self::Registry(error) => registry::advice(error).to_owned(),
        }
    }
}

/// Runs `cvm audit`.
pub(crate) async fn run(arguments: AuditArguments, output: &Output) -> Result<(), CommandError> {
    let trail = arguments.trail.open(&Clients::from_environment().await)?;
    let now = now();
    let since = match (arguments.within, &arguments.device) {
        (Some(time), _) => now.before(time.duration()),
        (None, Some(_)) => Timestamp::from_seconds(0),
        (None, None) => now.before(Duration::from_secs(24 * 60 * 60)),
    };
    // What happened in this very second is wanted, too.
    let query = AuditQuery { device: arguments.device, since, until: now.after(Duration::from_secs(60)) };
    let mut table = Table::new(["TIME", "DEVICE", "WHAT", "WHY", "DOOR", "WHO", "KEY"]);
    let mut listed = 0;
    let mut after = None;
    while listed < arguments.limit {
        let page = trail.entries(&query, after.as_deref(), PAGE).await.map_err(AuditError::Registry)?;
        let entries = &page.entries[..page.entries.len().min(arguments.limit - listed)];
        let rows: Vec<_> = entries.iter().map(row).collect();
        table.fit(&rows);
        if listed == 0 && !rows.is_empty() {
            output.headline(&table.header())?;
        }
        for (entry, row) in entries.iter().zip(&rows) {
            output.json_line(&AuditDocument::from(entry))?;
            output.say(table.line(row))?;
        }
        listed += entries.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if listed == 0 {
        output.note("nothing happened; a change is in the trail moments after it was made")?;
    }
    Ok(())
}

/// Entries read at once.
const PAGE: u16 = 200;
/// Digits of a fingerprint that tell it from others in a table.
const SHORT: usize = 12;

fn row(entry: &AuditEntry) -> [String; 7] {
    let or_dash = |text: Option<&str>| printable(text.unwrap_or("-")).replace('\n', " ");
    let device = entry.module.as_ref().map(|module| format!("{}/{module}", entry.device));
    let why = entry.reason.clone().or_else(|| (!entry.changed.is_empty()).then(|| entry.changed.join(", ")));
    [
        entry.at.to_string(),
        device.unwrap_or_else(|| entry.device.to_string()),
        entry.action.clone(),
        or_dash(why.as_deref()),
        or_dash(entry.door.as_deref()),
        or_dash(entry.actor.as_deref().or(entry.source.as_deref())),
        entry.key.map_or_else(|| "-".to_owned(), |key| key.to_string()[..SHORT].to_owned()),
    ]
}
