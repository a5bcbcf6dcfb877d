use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use cvm_interchange::DeviceDocument;
use cvm_provisioning::{DeviceFilter, GroupName, State, TemplateName};

use super::registry::{DeviceRegistry, PAGE};
use super::view::{DeviceView, kind};
use crate::arguments::TimeToLive;
use crate::error::CommandError;
use crate::output::{Output, printable};
use crate::registry::now;
use crate::table::{Table, day, minute};

/// List devices, in no order
///
/// With `--output json` each device is one line of JSON (NDJSON), of the same shape as `cvm device show` has it.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ListArguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// Stop after so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

const EXAMPLES: &str = "\
Examples:
  cvm device list
  cvm device list --state quarantined
  cvm device list --status disabled --limit 20
  cvm device list --group berlin --changed-within 24h
  cvm device list --output json | jq -r .deviceId";

/// Which devices are meant.
#[derive(Args, Debug)]
pub(super) struct FilterArguments {
    /// Only devices in this state
    #[arg(long, value_parser = PossibleValuesParser::new(State::ALL.map(|state| state.name())))]
    state: Option<String>,
    /// Only devices of this status
    #[arg(long, value_enum)]
    status: Option<StatusName>,
    /// Only devices of this group
    #[arg(long, value_name = "NAME")]
    group: Option<GroupName>,
    /// Only devices whose items name this provisioning template
    #[arg(long, value_name = "NAME")]
    template: Option<TemplateName>,
    /// Only devices that changed in this time, such as 15m, 24h or 7d
    #[arg(long, value_name = "TIME")]
    changed_within: Option<TimeToLive>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum StatusName {
    Enabled,
    Disabled,
}

pub(super) async fn run(
    arguments: &ListArguments,
    registry: &impl DeviceRegistry,
    output: &Output,
) -> Result<(), CommandError> {
    let mut table = Table::new(["DEVICE", "STATE", "STATUS", "PROOF", "NOT AFTER", "CHANGED"], output.width());
    let mut left = arguments.limit.unwrap_or(usize::MAX);
    let mut listed = 0_usize;
    let mut after: Option<String> = None;
    let filter = arguments.filter.filter();
    while left > 0 {
        let page = registry.list(&filter, after.as_deref(), PAGE).await?;
        let devices: Vec<&DeviceDocument> = page.devices.iter().take(left).collect();
        let rows: Vec<_> = devices.iter().map(|device| row(device)).collect();
        table.fit(&rows);
        if listed == 0 && !rows.is_empty() {
            output.headline(&table.header())?;
        }
        for (device, row) in devices.iter().zip(&rows) {
            output.json_line(&DeviceView::from(*device))?;
            output.say(table.line(row))?;
        }
        listed += devices.len();
        left -= devices.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if listed == 0 {
        match filter == DeviceFilter::default() {
            true => output.note("no device is registered; `cvm device add ID` registers one")?,
            false => output.note("no device matches; `cvm device list` without filters lists all")?,
        }
    }
    Ok(())
}

impl FilterArguments {
    pub(super) fn filter(&self) -> DeviceFilter {
        DeviceFilter {
            state: self.state.as_deref().and_then(State::from_name),
            enabled: self.status.map(|status| status == StatusName::Enabled),
            group: self.group.clone(),
            template: self.template.clone(),
            changed_since: self.changed_within.map(|age| now().before(age.duration())),
        }
    }
}

fn row(device: &DeviceDocument) -> [String; 6] {
    let not_after = device.cvm.certificate.as_ref().map(|certificate| day(certificate.not_after));
    let cells = [
        device.device_id.to_string(),
        device.cvm.state.clone(),
        device.status.clone(),
        kind(device).to_owned(),
        not_after.unwrap_or_else(|| "-".to_owned()),
        minute(device.cvm.updated_at),
    ];
    cells.map(|cell| printable(&cell).replace('\n', " "))
}
