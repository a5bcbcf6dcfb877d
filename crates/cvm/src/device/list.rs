use std::cmp::Reverse;

use clap::{Args, ValueEnum};
use cvm_interchange::DeviceDocument;
use cvm_provisioning::{DeviceFilter, Timestamp};
use serde_json::value::{RawValue, to_raw_value};

use super::filter::FilterArguments;
use super::registry::{DeviceRegistry, PAGE};
use super::view::{DeviceView, kind};
use crate::error::CommandError;
use crate::output::{Output, printable};
use crate::table::{Table, day, minute};

/// List devices, in no order or with --sort
///
/// With `--output json` each device is one line of JSON (NDJSON), of the same shape as `cvm device show` has it.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ListArguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// Sort the list; all devices that match are read before the first is shown
    #[arg(long, value_enum, value_name = "KEY")]
    sort: Option<SortKey>,
    /// Sort the other way round
    #[arg(long, requires = "sort")]
    reverse: bool,
    /// Stop after this many devices
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

const EXAMPLES: &str = "\
Examples:
  cvm device list
  cvm device list --state quarantined
  cvm device list --status disabled --limit 20
  cvm device list --group berlin --changed-within 24h
  cvm device list --prefix sn-00 --refused-within 1h --sort refused
  cvm device list --expires-within 30d --sort expires
  cvm device list --output json | jq -r .deviceId";

/// What a list is sorted by. Devices without it come last.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum SortKey {
    /// By id
    Id,
    /// By state, then by id
    State,
    /// The latest change first
    Changed,
    /// The certificate that expires first comes first
    Expires,
    /// The latest refusal first
    Refused,
}

/// What a device is compared by: whether it has no such key, the key, and its id.
type Rank = (bool, (i64, String), String);

impl SortKey {
    fn rank(self, device: &DeviceDocument) -> Rank {
        let told = &device.cvm;
        let earliest =
            |time: Option<Timestamp>| (time.is_none(), (time.map_or(0, |time| time.seconds()), String::new()));
        let latest =
            |time: Option<Timestamp>| (time.is_none(), (time.map_or(0, |time| -time.seconds()), String::new()));
        let (is_last, key) = match self {
            Self::Id => (false, (0, String::new())),
            Self::State => (false, (0, told.state.clone())),
            Self::Changed => latest(Some(told.updated_at.0)),
            Self::Expires => earliest(told.certificate.as_ref().map(|certificate| certificate.not_after.0)),
            Self::Refused => latest(told.last_refusal.as_ref().map(|refusal| refusal.at.0)),
        };
        (is_last, key, device.device_id.to_string())
    }
}

/// A device as it is listed.
struct Row {
    cells: [String; 6],
    /// `None` where the list is text.
    json: Option<Box<RawValue>>,
}

impl Row {
    fn of(device: &DeviceDocument, output: &Output) -> Result<Self, CommandError> {
        let json = output.is_json().then(|| to_raw_value(&DeviceView::from(device))).transpose();
        Ok(Self { cells: cells(device), json: json.map_err(std::io::Error::from)? })
    }
}

pub(super) async fn run(
    arguments: &ListArguments,
    registry: &impl DeviceRegistry,
    output: &Output,
) -> Result<(), CommandError> {
    let mut lines = Lines::new(output);
    let mut left = arguments.limit.unwrap_or(usize::MAX);
    let mut sorted = Vec::new();
    let mut after: Option<String> = None;
    let filter = arguments.filter.filter();
    while left > 0 {
        let page = registry.list(&filter, after.as_deref(), PAGE).await?;
        match arguments.sort {
            Some(key) => {
                for device in &page.devices {
                    sorted.push((key.rank(device), Row::of(device, output)?));
                }
                // Of a long list the beginning is kept alone.
                if sorted.len() / 2 > left {
                    sort(&mut sorted, arguments.reverse);
                    sorted.truncate(left);
                }
            }
            None => {
                let rows: Result<Vec<_>, _> =
                    page.devices.iter().take(left).map(|device| Row::of(device, output)).collect();
                left -= page.devices.len().min(left);
                lines.write(&rows?)?;
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    sort(&mut sorted, arguments.reverse);
    let rows: Vec<Row> = sorted.into_iter().take(left).map(|(_, row)| row).collect();
    lines.write(&rows)?;
    if lines.written == 0 {
        match filter == DeviceFilter::default() {
            true => output.note("no device is registered; `cvm device add ID` registers one")?,
            false => output.note("no device matches; `cvm device list` without filters lists all")?,
        }
    }
    Ok(())
}

fn sort(rows: &mut [(Rank, Row)], reverse: bool) {
    match reverse {
        false => rows.sort_by(|(one, _), (other, _)| one.cmp(other)),
        // What has no such key stays at the end.
        true => rows.sort_by_key(|((is_last, key, id), _)| (*is_last, Reverse((key.clone(), id.clone())))),
    }
}

/// The list as it is written, page by page.
struct Lines<'a> {
    output: &'a Output,
    table: Table<6>,
    written: usize,
}

impl<'a> Lines<'a> {
    fn new(output: &'a Output) -> Self {
        let table = Table::new(["DEVICE", "STATE", "STATUS", "PROOF", "NOT AFTER", "CHANGED"], output.width());
        Self { output, table, written: 0 }
    }

    fn write(&mut self, rows: &[Row]) -> std::io::Result<()> {
        self.table.fit(rows.iter().map(|row| &row.cells));
        if self.written == 0 && !rows.is_empty() {
            self.output.headline(&self.table.header())?;
        }
        for row in rows {
            self.output.json_line(&row.json)?;
            self.output.say(self.table.line(&row.cells))?;
        }
        self.written += rows.len();
        Ok(())
    }
}

fn cells(device: &DeviceDocument) -> [String; 6] {
    let not_after = device.cvm.certificate.as_ref().map(|certificate| day(&certificate.not_after));
    let cells = [
        device.device_id.to_string(),
        device.cvm.state.clone(),
        device.status.clone(),
        kind(device).to_owned(),
        not_after.unwrap_or_else(|| "-".to_owned()),
        minute(&device.cvm.updated_at),
    ];
    cells.map(|cell| printable(&cell).replace('\n', " "))
}
