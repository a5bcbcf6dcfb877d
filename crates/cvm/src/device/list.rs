use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use cvm_provisioning::{Device, DeviceStore, State, Status};

use super::DeviceError;
use super::view::{DeviceView, kind};
use crate::error::CommandError;
use crate::output::Output;
use crate::table::Table;

/// List devices, in no order
///
/// With `--output json` each device is one line of JSON (NDJSON), of the same shape as `cvm device show` has it.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ListArguments {
    /// Only devices in this state
    #[arg(long, value_parser = PossibleValuesParser::new(State::ALL.map(|state| state.name())))]
    state: Option<String>,
    /// Only devices of this status
    #[arg(long, value_enum)]
    status: Option<StatusName>,
    /// Stop after so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

const EXAMPLES: &str = "\
Examples:
  cvm device list
  cvm device list --state quarantined
  cvm device list --status disabled --limit 20
  cvm device list --output json | jq -r .deviceId";

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum StatusName {
    Enabled,
    Disabled,
}

/// Items read at once: well below the megabyte that DynamoDB's Scan returns at most.
const PAGE: u16 = 200;

pub(super) async fn run(
    arguments: &ListArguments,
    registry: &impl DeviceStore,
    output: &Output,
) -> Result<(), CommandError> {
    let mut table = Table::new(["DEVICE", "STATE", "STATUS", "PROOF", "NOT AFTER", "CHANGED"]);
    let mut left = arguments.limit.unwrap_or(usize::MAX);
    let mut listed = 0_usize;
    let mut after = None;
    while left > 0 {
        let page = registry.list(after.as_ref(), PAGE).await.map_err(DeviceError::Registry)?;
        let devices: Vec<&Device> = page.devices.iter().filter(|device| arguments.wants(device)).take(left).collect();
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
        output.note("no such device; `cvm device add ID` registers one")?;
    }
    Ok(())
}

impl ListArguments {
    fn wants(&self, device: &Device) -> bool {
        let status = match device.status {
            Status::Enabled => StatusName::Enabled,
            Status::Disabled { .. } => StatusName::Disabled,
        };
        self.state.as_deref().is_none_or(|state| state == device.state.name())
            && self.status.is_none_or(|wanted| wanted == status)
    }
}

fn row(device: &Device) -> [String; 6] {
    let status = match device.status {
        Status::Enabled => "enabled",
        Status::Disabled { .. } => "disabled",
    };
    let not_after = device.credential.as_ref().map(|credential| credential.not_after.to_string());
    [
        device.id.to_string(),
        device.state.name().to_owned(),
        status.to_owned(),
        kind(&device.attestation).to_owned(),
        not_after.unwrap_or_else(|| "-".to_owned()),
        device.updated_at.to_string(),
    ]
}
