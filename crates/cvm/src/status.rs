//! `cvm status`: the fleet at a glance.

use clap::Args;
use cvm_aws::{Clients, DynamoDbRegistry};
use cvm_interchange::{FleetDocument, UnknownDeviceTold, UnknownDevicesDocument};
use cvm_provisioning::{
    AuditTrail as _, CertificateIndex as _, DeviceStore as _, FleetMoment, FleetSummary, Presences as _,
    RecentActivity, RegistryError, State,
};
use serde::Serialize;

use crate::arguments::TimeToLive;
use crate::audit::{AuditError, TrailArguments};
use crate::device::DeviceError;
use crate::error::CommandError;
use crate::facts::Facts;
use crate::output::{Output, count};
use crate::registry::{RegistryArguments, Where, now};
use crate::unknown::{self, Unknown as _};

/// Show the fleet at a glance: states, last hour's vends, refusals, and what needs somebody
///
/// A server counts by itself and answers at once. A table is read as a whole; name its audit trail to see what happened of
/// late. A server does not count deleted devices that are still being cleaned up after.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    registry: RegistryArguments,
    #[command(flatten)]
    trail: TrailArguments,
    /// Count certificates that end within this time
    #[arg(long, value_name = "TIME", default_value = "30d")]
    expiring: TimeToLive,
}

const EXAMPLES: &str = "\
Examples:
  cvm status
  cvm status --expiring 90d
  cvm status --output json | jq .states.quarantined
  cvm status --server https://cvm.example.com --server-ca ca.pem \\
      --operator-token-file screen.token";

/// What is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(flatten)]
    fleet: FleetDocument,
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown_devices: Option<UnknownDevicesDocument>,
}

/// The most unsettled devices that are counted one by one.
const UNSETTLED: u16 = 1_000;
/// Devices that are not registered and that are shown.
const UNKNOWN: u16 = 5;

/// Runs `cvm status`.
pub(crate) async fn run(arguments: StatusArguments, output: &Output) -> Result<(), CommandError> {
    let StatusArguments { registry, trail, expiring } = arguments;
    let now = now();
    let moment = FleetMoment { now, expiring_until: now.after(expiring.duration()) };
    let status = match registry.place(output).map_err(DeviceError::from)? {
        Where::Server(server) => {
            trail.is_not_named()?;
            let fleet = server.fleet(moment.expiring_until).await.map_err(DeviceError::from)?;
            Status { fleet, unknown_devices: server.unknown(None, UNKNOWN).await? }
        }
        Where::Table(name) => {
            let clients = Clients::from_environment().await;
            let recently = match trail.open(&clients) {
                Ok(trail) => Some(trail.recently(now).await.map_err(AuditError::from)?),
                Err(AuditError::NoTable) => None,
                Err(error) => return Err(error.into()),
            };
            let registry = DynamoDbRegistry::new(clients.dynamodb, name);
            let fleet = of_table(&registry, moment, recently).await.map_err(DeviceError::from)?;
            Status { fleet, unknown_devices: None }
        }
    };
    output.json(&status)?;
    for line in status.lines() {
        output.say(line)?;
    }
    if status.fleet.recently.is_none() {
        output
            .note("what happened is in the audit trail: `export CVM_AUDIT_TABLE=` the stack's output AuditTableName")?;
    }
    if status.fleet.states.get(State::Quarantined.name()).is_some_and(|count| *count > 0) {
        output.note("somebody has to decide: `cvm device list --state quarantined`")?;
    }
    if let Some(sweep) = status.unknown_devices.as_ref().and_then(unknown::sweep) {
        output.note(sweep)?;
    }
    Ok(())
}

async fn of_table(
    registry: &DynamoDbRegistry,
    moment: FleetMoment,
    recently: Option<RecentActivity>,
) -> Result<FleetDocument, RegistryError> {
    let summary = registry.summarize(moment).await?;
    // Deleted devices are among them.
    let unsettled = registry.unsettled(UNSETTLED).await?.len() as u64;
    let connected = registry.count_connected().await?;
    Ok(FleetDocument::new(&FleetSummary { unsettled, ..summary }, Some(connected), recently))
}

impl Status {
    /// One fact a line.
    fn lines(&self) -> Vec<String> {
        const UNKNOWN: &str = "unknown: this server does not hear of connections";
        let Self { fleet, unknown_devices } = self;
        let or_unknown = |count: Option<u64>| count.map_or_else(|| UNKNOWN.to_owned(), |count| count.to_string());
        let mut facts = Facts::default();
        facts.add("devices", fleet.devices);
        for state in State::ALL {
            facts.add(&format!("  {}", state.name()), fleet.states.get(state.name()).copied().unwrap_or_default());
        }
        facts.add("disabled", fleet.disabled);
        facts.add("connected", or_unknown(fleet.connected));
        facts.add("certificates", fleet.certificates);
        facts.add("  expiring", fleet.certificates_expiring);
        facts.add("  expired", fleet.certificates_expired);
        facts.add("  never used", or_unknown(fleet.certificates_never_used));
        facts
            .add("stale", format_args!("{} that nobody came back for", count(fleet.stale_reservations, "reservation")));
        let more = if fleet.unsettled == u64::from(UNSETTLED) { " or more" } else { "" };
        let devices = count(fleet.unsettled, "device");
        facts.add("unsettled", format_args!("{devices}{more} that the reconciler will look at"));
        if let Some(recently) = &fleet.recently {
            facts.add("last hour", format_args!("{} provisioned", recently.provisioned_last_hour));
            facts.add("last day", format_args!("{} provisioned", recently.provisioned_last_day));
            for (reason, count) in &recently.refused_last_day {
                facts.add("  refused", format_args!("{count} {reason}"));
            }
        }
        if let Some(unknown) = unknown_devices {
            let requests = count(unknown.attempts_last_day, "request");
            let devices = count(unknown.count, "device");
            facts.add("unregistered", format_args!("{requests} in the last day; {devices}"));
            for UnknownDeviceTold { device_id, attempts, last_at, source, .. } in &unknown.devices {
                let source = source.as_deref().map(|source| format!(", {source}")).unwrap_or_default();
                facts.add("  asked", format_args!("{device_id}: {}, last {last_at}{source}", count(*attempts, "time")));
            }
        }
        facts.0
    }
}

#[cfg(test)]
mod tests {
    use cvm_provisioning::Changes as _;
    use cvm_testkit::MemoryRegistry;
    use cvm_testkit::fixture::{NOW, attempt, csr, device, later, origin};

    use super::*;

    #[tokio::test]
    async fn everything_is_counted_where_it_belongs() {
        let registry = MemoryRegistry::default();
        let mut disabled = device("sn-1");
        disabled.disable(None, NOW);
        let mut stale = device("sn-2");
        stale.reserve(&attempt("sn-2", 1, &csr("sn-2"), NOW));
        for device in [disabled, stale, device("sn-3")] {
            assert!(registry.add(&device, &origin()).await.unwrap());
        }
        let moment = FleetMoment { now: later(60), expiring_until: later(120) };
        let summary = registry.summarize(moment).await.unwrap();
        let fleet = FleetDocument::new(&summary, None, None);
        assert_eq!((fleet.devices, fleet.enabled, fleet.disabled, fleet.stale_reservations), (3, 2, 1, 1));
        assert_eq!((fleet.states["registered"], fleet.states["reserved"], fleet.unsettled), (2, 1, 1));
        let status = Status { fleet, unknown_devices: None };
        assert_eq!(status.lines()[0], "devices       3");
        let connected = status.lines().into_iter().find(|line| line.starts_with("connected")).unwrap();
        assert!(connected.contains("unknown") && !connected.contains('0'), "{connected}");
    }
}
