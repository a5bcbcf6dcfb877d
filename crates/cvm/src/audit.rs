//! `cvm audit`: what happened, to a device or to all.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use cvm_aws::{Clients, DynamoDbAuditTrail};
use cvm_interchange::{AuditDocument, UnknownDevicesDocument};
use cvm_provisioning::{
    AuditEntry, AuditPage, AuditQuery, AuditTrail, DeviceId, Door, NoticeKind, Refusal, RegistryError, Timestamp,
};
use cvm_sql::{BrokenChain, OpenError, SqlRegistry, TrailEnd, Verified};

use crate::arguments::{PointInTime, TimeToLive};
use crate::database::{self, Database, InvalidDatabase, PasswordError};
use crate::error::CommandError;
use crate::output::{Output, count, printable};
use crate::registry::{self, now};
use crate::registry_api::{ApiError, RegistryApi, ServerArguments};
use crate::table::Table;
use crate::unknown::{self, Unknown};

/// Show what happened to a device, or to all devices, the latest first
///
/// The trail has every change of a device, by whichever door or operator, moments after it was made. Devices that asked and
/// are not registered are not in it: a server lists them with --unknown, a stack has them in its functions' logs alone.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct AuditArguments {
    #[command(subcommand)]
    verb: Option<AuditVerb>,
    #[command(flatten)]
    trail: TrailArguments,
    #[command(flatten)]
    folder: FolderArguments,
    #[command(flatten)]
    server: ServerArguments,
    /// The device's id; without it, all devices
    device: Option<DeviceId>,
    /// Only entries of this last time, such as 1h or 7d; for all devices 24h if neither this nor --since is given
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    within: Option<TimeToLive>,
    /// Only entries at this time or later: 2026-01-31T12:00:00Z, or a day, which begins at midnight UTC
    #[arg(long, value_name = "TIME")]
    since: Option<PointInTime>,
    /// Only entries before this time
    #[arg(long, value_name = "TIME")]
    until: Option<PointInTime>,
    /// Only entries whose reason contains this, such as wrong-proof
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only entries of this door, such as vend, est or registry
    #[arg(long, value_name = "DOOR")]
    door: Option<Door>,
    /// Stop after this many entries
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// List devices that asked and are not registered, instead of the trail: mistyped ids, and sweeps
    #[arg(long, conflicts_with_all = ["device", "within", "since", "until", "reason", "door"])]
    unknown: bool,
}

#[derive(Debug, Subcommand)]
enum AuditVerb {
    Verify(VerifyArguments),
}

/// Check that the audit trail of a server is as it was written
///
/// The hash of an entry covers the entry before it, so that a changed, removed or hidden entry is detected. Who can write to
/// the database can write the whole trail again: that is detected only by a comparison with an end of the trail that was kept
/// elsewhere. The command prints the ends, and the server logs them every hour; give them back with --expect.
#[derive(Args, Debug)]
#[command(after_help = VERIFY_EXAMPLES)]
struct VerifyArguments {
    #[command(flatten)]
    folder: FolderArguments,
    /// Where the registry is, as `cvm serve` is told: mysql://USER@HOST:PORT/DATABASE, or `sqlite` in the folder of --data
    #[arg(long, env = "CVM_DATABASE", value_name = "DATABASE", default_value = "sqlite", hide_env_values = true)]
    database: String,
    /// A file with the password of the database, for nobody else to read; the variable CVM_DATABASE_PASSWORD can have it
    /// instead
    #[arg(long, env = "CVM_DATABASE_PASSWORD_FILE", value_name = "FILE")]
    database_password_file: Option<PathBuf>,
    /// An end of the trail at an earlier time, as this command printed it or the server logged it; the trail has to continue
    /// it. Repeatable
    #[arg(long, value_name = "HASH[@N]")]
    expect: Vec<TrailEnd>,
}

impl VerifyArguments {
    fn open(&self) -> Result<SqlRegistry, AuditError> {
        let password = database::password(self.database_password_file.as_deref())?;
        let database = Database::parse(&self.database, password.as_deref().map(String::as_str))?;
        let folder = self.folder.registry();
        match (&database, folder) {
            (Database::Sqlite, None) => Err(AuditError::NoDatabase),
            (_, folder) => Ok(database.look_into(&folder.unwrap_or_default())?),
        }
    }
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  cvm audit verify --data /var/lib/cvm
  cvm audit verify --database mysql://cvm@db.example.com/cvm \\
      --database-password-file database.password";

/// Where a server of one's own is.
#[derive(Args, Debug)]
struct FolderArguments {
    /// The folder of `cvm serve`, which may run meanwhile; takes the place of a table
    #[arg(long, env = "CVM_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
}

impl FolderArguments {
    fn registry(&self) -> Option<PathBuf> {
        self.data.as_ref().map(|data| data.join("registry"))
    }

    fn open(&self) -> Result<Option<SqlRegistry>, AuditError> {
        Ok(self.registry().map(|folder| SqlRegistry::look_into(&folder)).transpose()?)
    }
}

const EXAMPLES: &str = "\
Examples:
  export CVM_AUDIT_TABLE=cvm-audit
  cvm audit sn-0001
  cvm audit sn-0001 --data /var/lib/cvm
  cvm audit sn-0001 --server https://cvm.example.com \\
      --operator-token-file anna.token
  cvm audit --within 1h
  cvm audit --since 2026-01-30 --until 2026-01-31 --reason wrong-proof
  cvm audit --door est --limit 20
  cvm audit --unknown
  cvm audit --within 7d --limit 1000 --output json | jq 'select(.reason)'";

/// Where the audit trail is.
#[derive(Args, Debug)]
pub(crate) struct TrailArguments {
    /// The DynamoDB table of the audit trail, output AuditTableName of the stack
    #[arg(long, env = "CVM_AUDIT_TABLE", help_heading = "Common options")]
    audit_table: Option<String>,
}

impl TrailArguments {
    /// Makes sure that nothing is named here where the trail is somewhere else.
    pub(crate) fn is_not_named(&self) -> Result<(), AuditError> {
        let named = self.audit_table.as_ref().is_some_and(|table| !table.is_empty());
        if named { Err(AuditError::Several) } else { Ok(()) }
    }

    /// The trail in this table.
    pub(crate) fn open(self, clients: &Clients) -> Result<DynamoDbAuditTrail, AuditError> {
        let table = self.audit_table.filter(|table| !table.is_empty()).ok_or(AuditError::NoTable)?;
        // Nothing is written here, so how long it would be kept does not matter.
        Ok(DynamoDbAuditTrail::new(clients.dynamodb.clone(), table, Duration::ZERO))
    }
}

/// The audit trail as it is read, wherever it is kept.
pub(crate) trait Trail {
    /// At most `limit` entries, the latest first.
    async fn page(&self, query: &AuditQuery, after: Option<&str>, limit: u16) -> Result<AuditPage, AuditError>;
}

impl<T: AuditTrail> Trail for T {
    async fn page(&self, query: &AuditQuery, after: Option<&str>, limit: u16) -> Result<AuditPage, AuditError> {
        Ok(self.entries(query, after, limit).await?)
    }
}

impl Trail for RegistryApi<'_> {
    async fn page(&self, query: &AuditQuery, after: Option<&str>, limit: u16) -> Result<AuditPage, AuditError> {
        Ok(self.audit(query, after, limit).await?)
    }
}

/// Why the trail was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AuditError {
    #[error("the audit trail was changed {place}")]
    Changed { place: String },
    #[error(transparent)]
    Database(#[from] InvalidDatabase),
    #[error("there is no audit trail to read")]
    NoTable,
    #[error("there is no database to verify")]
    NoDatabase,
    #[error("--until is not after --since")]
    NoTime,
    #[error("the audit trail does not continue {end}: it was written again, or entries were removed at its end")]
    NotContinued { end: TrailEnd },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("the audit trail cannot be read")]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Server(#[from] ApiError),
    #[error("devices that are not registered are not in the tables of a stack")]
    UnknownElsewhere,
    #[error("several audit trails are named, and only one of them can be meant")]
    Several,
}

impl AuditError {
    /// The stable word for it in JSON.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Changed { .. } | Self::NotContinued { .. } => "changed",
            Self::Database(_)
            | Self::NoDatabase
            | Self::NoTable
            | Self::NoTime
            | Self::Several
            | Self::UnknownElsewhere => "usage",
            Self::Password(_) => "file",
            Self::Open(_) | Self::Registry(_) => "registry",
            Self::Server(error) => error.code(),
        }
    }

    /// What to do next.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Changed { .. } => {
                "do not trust it from there on; compare it with a copy, and find out who could write to it".to_owned()
            }
            Self::NotContinued { .. } => {
                "check that the end is of this trail, and not older than --audit-retention of `cvm serve`; if so, do not \
                 trust the trail: compare it with a backup, and find out who could write to the database"
                    .to_owned()
            }
            Self::Database(_) => "give --database as `cvm serve` is told it".to_owned(),
            Self::Open(error) => database::advice(error),
            Self::Password(PasswordError::File(error)) => error.advice(),
            Self::Password(PasswordError::Two) => {
                "leave out --database-password-file, or unset the variable".to_owned()
            }
            Self::NoDatabase => {
                "run this on the server's machine with --data, its folder, or give --database mysql://...: the database \
                 itself is read, not the server of --server"
                    .to_owned()
            }
            Self::NoTime => "give a --since that is before --until".to_owned(),
            Self::NoTable => {
                "give --audit-table, or `export CVM_AUDIT_TABLE=` the stack's output AuditTableName; with `cvm serve`, \
                 give --server and --operator-token-file, or on its machine --data"
                    .to_owned()
            }
            Self::UnknownElsewhere => {
                "look into the logs of the functions: docs/operations.md, \"Devices that are not registered\""
                    .to_owned()
            }
            Self::Registry(error) => registry::advice(error).to_owned(),
            Self::Server(error) => error.advice(),
            Self::Several => {
                "leave all but one out: --audit-table (`unset CVM_AUDIT_TABLE`), --data (`unset CVM_DATA`), --server \
                 (`unset CVM_SERVER`)"
                    .to_owned()
            }
        }
    }

    /// Whether the command could never have worked.
    pub(crate) const fn is_usage(&self) -> bool {
        match self {
            Self::Database(_)
            | Self::NoDatabase
            | Self::NoTable
            | Self::NoTime
            | Self::Password(PasswordError::Two)
            | Self::Several
            | Self::UnknownElsewhere => true,
            Self::Server(error) => error.is_usage(),
            _ => false,
        }
    }
}

/// Runs `cvm audit`.
pub(crate) async fn run(arguments: AuditArguments, output: &Output) -> Result<(), CommandError> {
    if let Some(AuditVerb::Verify(arguments)) = &arguments.verb {
        return verify(&arguments.open()?, &arguments.expect, output).await;
    }
    if let Some(server) = arguments.server.open(output).map_err(AuditError::from)? {
        arguments.trail.is_not_named()?;
        return match arguments.folder.data {
            Some(_) => Err(AuditError::Several.into()),
            None => Box::pin(show(arguments, &server, output)).await,
        };
    }
    match arguments.folder.open()? {
        Some(own) => show(arguments, &own, output).await,
        None => {
            let trail = TrailArguments { audit_table: arguments.trail.audit_table.clone() };
            show(arguments, &trail.open(&Clients::from_environment().await)?, output).await
        }
    }
}

async fn verify(trail: &SqlRegistry, expected: &[TrailEnd], output: &Output) -> Result<(), CommandError> {
    let place = match trail.verify_trail(expected).await.map_err(AuditError::from)? {
        Verified::Whole { entries, removed, by_first_rule, ends } => {
            let ends: Vec<_> = ends.iter().map(ToString::to_string).collect();
            output.json(&serde_json::json!({
                "entries": entries, "removed": removed, "byFirstRule": by_first_rule, "ends": ends,
            }))?;
            output.done(format_args!("{} verified: the trail is as it was written", count(entries, "entry")))?;
            if removed > 0 {
                let removed = count(removed, "older entry");
                output.note(format_args!("{removed} removed, as --audit-retention of `cvm serve` does"))?;
            }
            for end in ends {
                output.say(end)?;
            }
            if by_first_rule > 0 {
                output.note(format_args!(
                    "the trail begins with {} of an earlier version, whose hashes cover their documents alone",
                    count(by_first_rule, "entry")
                ))?;
            }
            return Ok(());
        }
        Verified::Unexpected(end) => return Err(AuditError::NotContinued { end }.into()),
        Verified::Broken(BrokenChain::Entry { sequence }) => format!("at entry {sequence}, or right before it"),
        Verified::Broken(BrokenChain::End { chain }) => {
            format!("at the end of chain {chain}, where entries are missing or were added")
        }
        Verified::Broken(BrokenChain::Hidden { sequence }) => {
            format!("so that the history of its device does not show entry {sequence}")
        }
        Verified::Broken(BrokenChain::History { sequence }) => {
            format!("in a device, whose history begins at entry {sequence}, which is not its last one")
        }
    };
    Err(AuditError::Changed { place }.into())
}

async fn show(arguments: AuditArguments, trail: &(impl Trail + Unknown), output: &Output) -> Result<(), CommandError> {
    if arguments.unknown {
        return unknown::list(
            trail,
            u16::try_from(arguments.limit).unwrap_or(MAX_UNKNOWN).clamp(1, MAX_UNKNOWN),
            output,
        )
        .await;
    }
    let now = now();
    // What happened in this very second is wanted, too.
    let until = arguments.until.map_or_else(|| now.after(Duration::from_secs(60)), PointInTime::timestamp);
    let since = match (arguments.within, arguments.since, &arguments.device) {
        (Some(time), ..) => now.before(time.duration()),
        (None, Some(since), _) => since.timestamp(),
        (None, None, Some(_)) => Timestamp::from_seconds(0),
        (None, None, None) => now.min(until).before(Duration::from_secs(24 * 60 * 60)),
    };
    if until <= since {
        return Err(AuditError::NoTime.into());
    }
    let query = AuditQuery { device: arguments.device.clone(), since, until };
    let page_size = if arguments.reason.is_some() || arguments.door.is_some() { SEARCHED } else { PAGE };
    let mut table = Table::new(["TIME", "DEVICE", "WHAT", "DOOR", "WHO", "WHY"], output.width()).keyed_by(1);
    let (mut listed, mut is_counting, mut is_cut) = (0, false, false);
    let mut after: Option<String> = None;
    while listed < arguments.limit {
        let page = trail.page(&query, after.as_deref(), page_size).await?;
        let mut entries: Vec<&AuditEntry> = page.entries.iter().filter(|entry| arguments.admits(entry)).collect();
        let room = arguments.limit - listed;
        is_cut = entries.len() > room || (entries.len() == room && page.next.is_some());
        entries.truncate(room);
        let rows: Vec<_> = entries.iter().map(|entry| row(entry)).collect();
        table.fit(&rows);
        if listed == 0 && !rows.is_empty() {
            output.headline(&table.header())?;
        }
        for (entry, row) in entries.iter().zip(&rows) {
            output.json_line(&AuditDocument::from(*entry))?;
            output.say(table.line(row))?;
            is_counting |= entry.action == NoticeKind::Refused.name() && now < entry.at.after(Refusal::INTERVAL);
        }
        listed += entries.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if is_cut {
        let text = "these are the latest; earlier entries may match, too: give a higher --limit, or --until";
        output.note(text)?;
    }
    if is_counting {
        output.note(
            "refusals of a device for one reason within an hour are one entry, and a later entry counts them; `cvm device \
             show ID` has the count of wrong proofs now",
        )?;
    }
    if listed == 0 {
        output.note("no entry matches; a change is in the trail moments after it was made")?;
    }
    match &query.device {
        Some(device) if listed == 0 => {
            let found = trail.unknown(Some(device), 1).await?;
            if let Some(asked) = found.and_then(|found| found.devices.into_iter().next()) {
                output.note(unknown::sentence(&asked))?;
            }
        }
        Some(_) => {}
        None => {
            let found = trail.unknown(None, 1).await?.filter(|found| found.attempts_last_day > 0);
            if let Some(UnknownDevicesDocument { attempts_last_day, .. }) = found {
                let text =
                    "requests of devices that are not registered in the last day; `cvm audit --unknown` lists them";
                output.note(format_args!("{attempts_last_day} {text}"))?;
            }
        }
    }
    Ok(())
}

impl AuditArguments {
    /// Whether an entry is one that was asked for.
    fn admits(&self, entry: &AuditEntry) -> bool {
        let contains = |wanted: &String| entry.reason.as_ref().is_some_and(|reason| reason.contains(wanted));
        self.reason.as_ref().is_none_or(contains)
            && self.door.as_ref().is_none_or(|door| entry.door.as_deref() == Some(door.name()))
    }
}

/// The most devices that are listed with --unknown.
const MAX_UNKNOWN: u16 = 1_000;

/// Entries read at once.
const PAGE: u16 = 200;
/// The same, where only some of them are shown.
const SEARCHED: u16 = 1_000;

fn row(entry: &AuditEntry) -> [String; 6] {
    let or_dash = |text: Option<&str>| printable(text.unwrap_or("-")).replace('\n', " ");
    let device = entry.module.as_ref().map(|module| format!("{}/{module}", entry.device));
    let why = entry.reason.clone().or_else(|| (!entry.changed.is_empty()).then(|| entry.changed.join(", ")));
    let times = (entry.count > 1).then(|| count(entry.count.into(), "time"));
    let why = [why, times].into_iter().flatten().collect::<Vec<_>>().join(", ");
    let why = Some(why).filter(|why| !why.is_empty());
    [
        entry.at.to_string(),
        device.unwrap_or_else(|| entry.device.to_string()),
        entry.action.clone(),
        or_dash(entry.door.as_deref()),
        or_dash(entry.actor.as_deref().map(name).or(entry.source.as_deref())),
        or_dash(why.as_deref()),
    ]
}

/// The name of an actor, without the id of the token that a server writes before it.
fn name(actor: &str) -> &str {
    match actor.split_once(':') {
        Some((id, name)) if id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) => name,
        _ => actor,
    }
}

#[cfg(test)]
mod tests {
    use cvm_provisioning::{Denial, RegistryWrite};
    use cvm_testkit::fixture::{attempt, csr, device, later, origin};

    use super::*;

    #[test]
    fn an_entry_that_stands_for_several_refusals_says_how_many() {
        let mut before = device("sn-1");
        for second in 0..6 {
            let attempt = attempt("sn-1", second.into(), &csr("sn-1"), later(second));
            before.refuse(&Refusal::new(Denial::WrongProof, Some(&before), &attempt));
        }
        let mut after = before.clone();
        let attempt = attempt("sn-1", 9, &csr("sn-1"), later(3_600));
        after.refuse(&Refusal::new(Denial::WrongProof, Some(&before), &attempt));
        let write = RegistryWrite::new(Some(before), Some(after), origin()).unwrap();
        let entries = AuditEntry::of(&write);
        assert_eq!(entries.len(), 1);
        assert_eq!(row(&entries[0])[5], "wrong-proof, 6 times");
        let unexplained = AuditEntry { reason: None, ..entries[0].clone() };
        assert_eq!(row(&unexplained)[5], "6 times");
        assert_eq!(row(&AuditEntry { count: 1, ..entries[0].clone() })[5], "wrong-proof");
        assert_eq!(row(&AuditEntry { count: 1, ..unexplained })[5], "-");
    }
}
