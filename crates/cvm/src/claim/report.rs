use std::fmt;

use clap::Args;
use cvm_provisioning::{ClaimStore, Device, DeviceFilter, DeviceStore, GroupCredential, State};
use serde::Serialize;

use super::ClaimError;
use super::name::ClaimName;
use crate::error::CommandError;
use crate::output::{Output, count};
use crate::table::{Table, minute};

/// List the devices that were reserved with a claim
///
/// With `--output json` each device is one line of JSON (NDJSON). A device whose certificate was never used may be one
/// that does not exist; one that was first used after a leak may be anybody's.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ReportArguments {
    /// The claim: the id of its certificate, or the first digits of it
    #[arg(value_name = "ID")]
    claim: ClaimName,
}

const EXAMPLES: &str = "\
Examples:
  cvm claim report e3b0c44298fc
  cvm claim report e3b0c44298fc --output json | jq -r .deviceId";

/// Items read at once: well below the megabyte that DynamoDB's Scan returns at most.
const PAGE: u16 = 200;

pub(super) async fn run(
    arguments: &ReportArguments,
    registry: &(impl ClaimStore + DeviceStore),
    output: &Output,
) -> Result<(), CommandError> {
    let claim = GroupCredential::Claim(arguments.claim.id(registry).await?);
    let mut table = Table::new(["DEVICE", "STATE", "RESERVED UNTIL", "CONFIRMED", "FIRST USED"], output.width());
    let mut summary = Summary::default();
    let mut after = None;
    loop {
        let page = registry.list(&DeviceFilter::default(), after.as_ref(), PAGE).await.map_err(ClaimError::from)?;
        let enrolled = page.devices.iter().filter(|device| device.enrolled_with(claim));
        let views: Vec<EnrolledView> = enrolled.map(EnrolledView::from).collect();
        let rows: Vec<_> = views.iter().map(EnrolledView::row).collect();
        table.fit(&rows);
        if summary.devices == 0 && !rows.is_empty() {
            output.headline(&table.header())?;
        }
        for (view, row) in views.iter().zip(&rows) {
            output.json_line(view)?;
            output.say(table.line(row))?;
            summary.count(view);
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    output.note(summary)?;
    Ok(())
}

/// A device in a report. The certificate is the one that it awaits, or else the one that it has.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EnrolledView {
    device_id: String,
    state: &'static str,
    certificate_id: Option<String>,
    reserved_until: Option<String>,
    confirmed_at: Option<String>,
    used_at: Option<String>,
}

impl From<&Device> for EnrolledView {
    fn from(device: &Device) -> Self {
        let certificate = device.indexed_certificate();
        let credential = device.credential.as_ref().filter(|own| Some(own.certificate) == certificate);
        Self {
            device_id: device.id.to_string(),
            state: device.state.name(),
            certificate_id: certificate.map(|id| id.to_string()),
            reserved_until: device.reservation.as_ref().map(|reservation| reservation.expires_at.to_string()),
            confirmed_at: credential.map(|credential| credential.issued_at.to_string()),
            used_at: credential.and_then(|credential| credential.used_at).map(|at| at.to_string()),
        }
    }
}

impl EnrolledView {
    fn row(&self) -> [String; 5] {
        let or_dash = |time: &Option<String>| time.as_ref().map_or_else(|| "-".to_owned(), minute);
        [
            self.device_id.clone(),
            self.state.to_owned(),
            or_dash(&self.reserved_until),
            or_dash(&self.confirmed_at),
            or_dash(&self.used_at),
        ]
    }
}

/// What all of them come to.
#[derive(Debug, Default)]
struct Summary {
    devices: usize,
    used: usize,
    states: [usize; State::ALL.len()],
}

impl Summary {
    fn count(&mut self, view: &EnrolledView) {
        self.devices += 1;
        self.used += usize::from(view.used_at.is_some());
        for (count, state) in self.states.iter_mut().zip(State::ALL) {
            *count += usize::from(state.name() == view.state);
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} enrolled with this claim", count(self.devices as u64, "device"))?;
        for (count, state) in self.states.iter().zip(State::ALL).filter(|(count, _)| **count > 0) {
            write!(f, ", {count} {}", state.name())?;
        }
        if self.devices > 0 { write!(f, "; {} connected with the certificate", self.used) } else { Ok(()) }
    }
}
