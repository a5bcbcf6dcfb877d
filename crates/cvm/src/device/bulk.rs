//! A change of many devices: which ones, a preview, and a report of each.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use clap::Args;
use cvm_interchange::DeviceDocument;
use cvm_provisioning::{DeviceId, ETag};
use futures_util::{StreamExt as _, stream};
use serde_json::json;

use super::filter::FilterArguments;
use super::registry::{Change, DeviceRegistry, PAGE};
use super::{DeviceError, view};
use crate::device_list::{BadLine, Devices};
use crate::error::{CommandError, with_causes};
use crate::output::{Output, count};
use crate::progress::{Progress, Standing};
use crate::table::Table;

/// Devices that are changed at once.
const AT_ONCE: usize = 8;
/// Devices that a question names.
const NAMED: usize = 5;

/// The devices that a command changes: by id, from a file, or by filters.
#[derive(Args, Debug)]
pub(super) struct Targets {
    /// The device's id; repeatable
    #[arg(value_name = "ID")]
    ids: Vec<DeviceId>,
    /// Change the devices in this file, one id a line, `-` for stdin; empty lines and those that begin with # do not count
    #[arg(long, value_name = "FILE", conflicts_with = "ids")]
    file: Option<PathBuf>,
    /// Show the devices as they are, and change none
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before the devices of a file or a filter are changed
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    filter: FilterArguments,
}

/// What is done with each device.
#[derive(Clone, Debug)]
pub(super) enum Action {
    Change(Change),
    Delete,
}

/// A device that was chosen.
struct Target {
    id: DeviceId,
    /// Its state when it was chosen; `None` where the registry was not asked.
    found: Option<DeviceDocument>,
}

impl Targets {
    /// The one device that the command line names, if it names one and nothing else.
    pub(super) fn single(&self) -> Option<&DeviceId> {
        match self.ids.as_slice() {
            [id] if !self.dry_run && self.filter.is_empty() => Some(id),
            _ => None,
        }
    }

    /// Does this with each of the devices, and reports what became of each.
    pub(super) async fn run(
        &self,
        action: &Action,
        registry: &impl DeviceRegistry,
        output: &Output,
    ) -> Result<(), CommandError> {
        let chosen = self.choose(registry).await?;
        if chosen.is_empty() {
            output.note("no device matches; nothing was done")?;
            return Ok(());
        }
        if self.dry_run {
            return preview(chosen, action, registry, output).await;
        }
        self.confirm(&chosen, action, output)?;
        apply(chosen, action, registry, output).await
    }

    async fn choose(&self, registry: &impl DeviceRegistry) -> Result<Vec<Target>, DeviceError> {
        let by_name = !self.ids.is_empty() || self.file.is_some();
        match (by_name, self.filter.is_empty()) {
            (true, true) => {}
            (false, false) => return self.matching(registry).await,
            (false, true) => return Err(BulkError::NoTargets.into()),
            (true, false) => return Err(BulkError::TwoTargets.into()),
        }
        let listed = match &self.file {
            Some(path) => {
                let list = Devices::open(path)?.map(|line| line.map(|listed| listed.id));
                list.collect::<Result<Vec<_>, _>>().map_err(BulkError::Line)?
            }
            None => self.ids.clone(),
        };
        let mut seen = BTreeSet::new();
        let first = listed.into_iter().filter(|id| seen.insert(id.clone()));
        Ok(first.map(|id| Target { id, found: None }).collect())
    }

    /// The devices that the filters let through: all of them, before the first one is changed.
    async fn matching(&self, registry: &impl DeviceRegistry) -> Result<Vec<Target>, DeviceError> {
        let (filter, mut after, mut chosen) = (self.filter.filter(), None::<String>, Vec::new());
        loop {
            let page = registry.list(&filter, after.as_deref(), PAGE).await?;
            chosen.extend(
                page.devices.into_iter().map(|found| Target { id: found.device_id.clone(), found: Some(found) }),
            );
            after = page.next;
            if after.is_none() {
                return Ok(chosen);
            }
        }
    }

    /// Asks whether to go on. Devices that the command line names are not asked about.
    fn confirm(&self, chosen: &[Target], action: &Action, output: &Output) -> Result<(), CommandError> {
        if self.yes || !self.ids.is_empty() {
            return Ok(());
        }
        let question = question(chosen, action);
        let is_piped = self.file.as_deref() == Some(Path::new("-")) || !io::stdin().is_terminal();
        if is_piped || !output.redraw(format_args!("{question} [y/N] "))? {
            return Err(DeviceError::from(BulkError::NotConfirmed { question }).into());
        }
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(DeviceError::from(BulkError::Declined).into()),
        }
    }
}

fn question(chosen: &[Target], action: &Action) -> String {
    let names: Vec<&str> = chosen.iter().take(NAMED).map(|target| target.id.as_str()).collect();
    let more = if chosen.len() > NAMED { ", …" } else { "" };
    format!("{} {} ({}{more})?", action.verb(), count(chosen.len() as u64, "device"), names.join(", "))
}

/// Shows the devices as they are.
async fn preview(
    chosen: Vec<Target>,
    action: &Action,
    registry: &impl DeviceRegistry,
    output: &Output,
) -> Result<(), CommandError> {
    let all = chosen.len();
    let mut found = stream::iter(chosen)
        .map(async |target| match target.found {
            Some(found) => (target.id, Ok(found)),
            None => {
                let found = registry.find(&target.id).await;
                (target.id, found)
            }
        })
        .buffered(AT_ONCE);
    let mut table = Table::new(["DEVICE", "STATE", "STATUS", "PROOF"], output.width());
    let (mut lines, mut failed) = (0_usize, 0_usize);
    while let Some((id, device)) = found.next().await {
        let cells = match device {
            Ok(device) => {
                output.json_line(&json!({
                    "deviceId": id, "outcome": "unchanged", "state": device.cvm.state, "status": device.status,
                }))?;
                [id.to_string(), device.cvm.state.clone(), device.status.clone(), view::kind(&device).to_owned()]
            }
            Err(error) if is_about_one_device(&error) => {
                failed += 1;
                output.json_line(&failure(&id, &error))?;
                [id.to_string(), error.code().to_owned(), "-".to_owned(), "-".to_owned()]
            }
            Err(error) => return Err(error.into()),
        };
        table.fit([&cells]);
        if lines == 0 {
            output.headline(&table.header())?;
        }
        lines += 1;
        output.say(table.line(&cells))?;
    }
    let devices = count(all as u64, "device");
    output.note(format_args!("nothing was changed; without --dry-run: {} {devices}", action.verb()))?;
    match failed {
        0 => Ok(()),
        failed => Err(DeviceError::from(BulkError::Failed { failed, all }).into()),
    }
}

async fn apply(
    chosen: Vec<Target>,
    action: &Action,
    registry: &impl DeviceRegistry,
    output: &Output,
) -> Result<(), CommandError> {
    let (all, mut done, mut failed) = (chosen.len(), 0_usize, 0_usize);
    let mut progress = Progress::start(output);
    let mut results = stream::iter(chosen)
        .map(async |Target { id, found }| {
            let changed = action.apply(registry, &id, found.and_then(|found| found.tag()).as_ref()).await;
            (id, changed)
        })
        .buffered(AT_ONCE);
    while let Some((id, changed)) = results.next().await {
        match changed {
            Ok(device) => {
                done += 1;
                let (state, status) = device.map(|device| (device.cvm.state, device.status)).unzip();
                output.json_line(&json!({
                    "deviceId": id, "outcome": action.outcome(), "state": state, "status": status,
                }))?;
                output.done(format_args!("{id} {}", action.outcome()))?;
            }
            Err(error) if is_about_one_device(&error) => {
                failed += 1;
                output.json_line(&failure(&id, &error))?;
                output.failed(with_causes(&error))?;
            }
            Err(error) => return Err(DeviceError::from(BulkError::Stopped { done, all, source: error.into() }).into()),
        }
        // On a terminal the lines themselves tell how far it has come.
        if output.width().is_none() {
            let standing = Standing { done: (done + failed) as u64, part: Some((done + failed) as f64 / all as f64) };
            progress.tell(standing)?;
        }
    }
    drop(progress);
    output.say(format_args!("{} {}, {failed} failed", count(done as u64, "device"), action.outcome()))?;
    match failed {
        0 => Ok(()),
        failed => Err(DeviceError::from(BulkError::Failed { failed, all }).into()),
    }
}

/// Whether the next device may fare better.
const fn is_about_one_device(error: &DeviceError) -> bool {
    matches!(error, DeviceError::NotFound { .. } | DeviceError::Operation { .. })
}

fn failure(id: &DeviceId, error: &DeviceError) -> serde_json::Value {
    json!({
        "deviceId": id, "outcome": "failed", "error": { "code": error.code(), "message": with_causes(error) },
    })
}

impl Action {
    const fn verb(&self) -> &'static str {
        match self {
            Self::Change(Change::Approve(_)) => "approve",
            Self::Change(Change::Disable(_)) => "disable",
            Self::Change(Change::Enable) => "enable",
            Self::Change(Change::Renew) => "renew",
            Self::Change(Change::Revoke(_)) => "revoke",
            Self::Delete => "delete",
        }
    }

    /// What has become of a device with which it was done.
    const fn outcome(&self) -> &'static str {
        match self {
            Self::Change(Change::Approve(_)) => "approved",
            Self::Change(Change::Disable(_)) => "disabled",
            Self::Change(Change::Enable) => "enabled",
            Self::Change(Change::Renew) => "may renew",
            Self::Change(Change::Revoke(_)) => "revoked",
            Self::Delete => "deleted",
        }
    }

    /// Does it, and returns the device if there is one afterwards. What takes access away is done whatever the device has
    /// become since it was chosen, and can be repeated; the others only if it is still the same.
    async fn apply(
        &self,
        registry: &impl DeviceRegistry,
        id: &DeviceId,
        seen: Option<&ETag>,
    ) -> Result<Option<DeviceDocument>, DeviceError> {
        match self {
            Self::Change(change @ (Change::Disable(_) | Change::Enable | Change::Revoke(_))) => {
                registry.change(id, change, None).await.map(Some)
            }
            Self::Change(change @ (Change::Approve(_) | Change::Renew)) => {
                registry.change(id, change, seen).await.map(Some)
            }
            Self::Delete => registry.delete(id, seen).await.map(|()| None),
        }
    }
}

/// Why not all of many devices were changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum BulkError {
    #[error("not confirmed; nothing was done")]
    Declined,
    #[error("{failed} of {} failed", count(*all as u64, "device"))]
    Failed { failed: usize, all: usize },
    #[error("the list of devices cannot be used, and nothing was done")]
    Line(#[source] BadLine),
    #[error("no device is named")]
    NoTargets,
    #[error("{question} This needs a confirmation, and there is no terminal to ask on")]
    NotConfirmed { question: String },
    #[error("stopped after {done} of {}", count(*all as u64, "device"))]
    Stopped { done: usize, all: usize, source: Box<DeviceError> },
    #[error("devices are named, and filters are given")]
    TwoTargets,
}

impl BulkError {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Declined => "declined",
            Self::Failed { .. } => "devices-failed",
            Self::Line(_) => "file",
            Self::NoTargets | Self::NotConfirmed { .. } | Self::TwoTargets => "usage",
            Self::Stopped { source, .. } => source.code(),
        }
    }

    pub(super) fn advice(&self) -> String {
        match self {
            Self::Declined => "answer y, or give --yes".to_owned(),
            Self::Failed { .. } => {
                "the report says why, device by device; run it again for those that failed".to_owned()
            }
            Self::Line(_) => "correct the line, then run the same command again".to_owned(),
            Self::NoTargets => "give the ids of devices, --file, or a filter such as --group".to_owned(),
            Self::NotConfirmed { .. } => "look at them with --dry-run, then give --yes".to_owned(),
            Self::Stopped { source, .. } => format!("{}; then run the same command again", source.advice()),
            Self::TwoTargets => "give either the devices, or filters".to_owned(),
        }
    }

    pub(super) const fn is_usage(&self) -> bool {
        matches!(self, Self::NoTargets | Self::NotConfirmed { .. } | Self::TwoTargets)
    }
}
