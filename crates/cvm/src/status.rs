//! `cvm status`: the fleet at a glance.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use cvm_aws::{Clients, DynamoDbRegistry};
use cvm_interchange::DeviceDocument;
use cvm_provisioning::{AuditQuery, CertificateIndex as _, DeviceFilter, NoticeKind, Presences as _, State, Timestamp};
use serde::Serialize;

use crate::arguments::TimeToLive;
use crate::audit::{AuditError, Trail, TrailArguments};
use crate::device::{DeviceError, DeviceRegistry, PAGE, Table};
use crate::error::CommandError;
use crate::facts::Facts;
use crate::output::Output;
use crate::registry::{RegistryArguments, Where, now};

/// Show the fleet at a glance: states, last hour's vends, refusals, and what needs somebody
///
/// It reads the whole registry, and without an audit trail says nothing of what happened. A server has its trail, and says
/// nothing of devices that were deleted and are still being cleaned up after.
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

/// The fleet, counted.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Fleet {
    devices: u64,
    enabled: u64,
    disabled: u64,
    connected: u64,
    states: BTreeMap<&'static str, u64>,
    certificates: u64,
    certificates_expiring: u64,
    certificates_expired: u64,
    certificates_never_used: u64,
    stale_reservations: u64,
    unsettled: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    recently: Option<Recently>,
}

/// What happened, as the audit trail has it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Recently {
    provisioned_last_hour: u64,
    provisioned_last_day: u64,
    refused_last_day: BTreeMap<String, u64>,
}

/// The most unsettled devices that are counted one by one.
const UNSETTLED: u16 = 1_000;
/// The most entries of the trail that are looked at: a day of a fleet in trouble.
const ENTRIES: usize = 100_000;

/// Runs `cvm status`.
pub(crate) async fn run(arguments: StatusArguments, output: &Output) -> Result<(), CommandError> {
    let StatusArguments { registry, trail, expiring } = arguments;
    let (now, expiring) = (now(), expiring.duration());
    let fleet = match registry.place(output).map_err(DeviceError::from)? {
        Where::Server(server) => {
            trail.is_not_named()?;
            let connected = server.count_connected().await.map_err(DeviceError::from)?;
            let fleet = Fleet::of(&*server, now, expiring).await?;
            Fleet { connected, recently: Some(Recently::of(&*server, now).await?), ..fleet }
        }
        Where::Table(name) => {
            let clients = Clients::from_environment().await;
            let recently = match trail.open(&clients) {
                Ok(trail) => Some(Recently::of(&trail, now).await?),
                Err(AuditError::NoTable) => None,
                Err(error) => return Err(error.into()),
            };
            let registry = DynamoDbRegistry::new(clients.dynamodb, name);
            let fleet = Fleet::of(&Table::new(registry.clone()), now, expiring).await?;
            let connected = registry.count_connected().await.map_err(DeviceError::from)?;
            // Deleted devices are among them.
            let unsettled = registry.unsettled(UNSETTLED).await.map_err(DeviceError::from)?.len() as u64;
            Fleet { connected, unsettled, recently, ..fleet }
        }
    };
    output.json(&fleet)?;
    for line in fleet.lines() {
        output.say(line)?;
    }
    if fleet.recently.is_none() {
        output
            .note("what happened is in the audit trail: `export CVM_AUDIT_TABLE=` the stack's output AuditTableName")?;
    }
    if fleet.states.get(State::Quarantined.name()).is_some_and(|count| *count > 0) {
        output.note("somebody has to decide: `cvm device list --state quarantined`")?;
    }
    Ok(())
}

impl Fleet {
    /// The devices, counted.
    async fn of(registry: &impl DeviceRegistry, now: Timestamp, expiring: Duration) -> Result<Self, DeviceError> {
        let states = State::ALL.iter().map(|state| (state.name(), 0)).collect();
        let mut fleet = Self { states, ..Self::default() };
        let mut after: Option<String> = None;
        loop {
            let page = registry.list(&DeviceFilter::default(), after.as_deref(), PAGE).await?;
            page.devices.iter().for_each(|device| fleet.count(device, now, expiring));
            after = page.next;
            if after.is_none() {
                return Ok(fleet);
            }
        }
    }

    fn count(&mut self, device: &DeviceDocument, now: Timestamp, expiring: Duration) {
        let told = &device.cvm;
        let state = State::from_name(&told.state);
        self.devices += 1;
        *self.states.entry(state.map_or("unknown", |state| state.name())).or_default() += 1;
        let enabled = device.status == "enabled";
        self.enabled += u64::from(enabled);
        self.disabled += u64::from(!enabled);
        let reservation = told.reservation.as_ref();
        self.stale_reservations += u64::from(reservation.is_some_and(|held| held.expires_at.0 <= now));
        self.unsettled += u64::from(told.unsettled_since.is_some());
        if let Some(certificate) = told.certificate.as_ref().filter(|_| state != Some(State::Revoked)) {
            let not_after = certificate.not_after.0;
            self.certificates += 1;
            self.certificates_expired += u64::from(not_after <= now);
            self.certificates_expiring += u64::from(now < not_after && not_after <= now.after(expiring));
            self.certificates_never_used += u64::from(certificate.used_at.is_none());
        }
    }

    /// One fact a line.
    fn lines(&self) -> Vec<String> {
        let mut facts = Facts::default();
        facts.add("devices", self.devices);
        for state in State::ALL {
            facts.add(&format!("  {}", state.name()), self.states.get(state.name()).copied().unwrap_or_default());
        }
        facts.add("disabled", self.disabled);
        facts.add("connected", self.connected);
        facts.add("certificates", self.certificates);
        facts.add("  expiring", self.certificates_expiring);
        facts.add("  expired", self.certificates_expired);
        facts.add("  never used", self.certificates_never_used);
        facts.add("stale", format_args!("{} reservations that nobody came back for", self.stale_reservations));
        let more = if self.unsettled == u64::from(UNSETTLED) { "+" } else { "" };
        facts.add("unsettled", format_args!("{}{more} devices that the reconciler will look at", self.unsettled));
        if let Some(recently) = &self.recently {
            facts.add("last hour", format_args!("{} provisioned", recently.provisioned_last_hour));
            facts.add("last day", format_args!("{} provisioned", recently.provisioned_last_day));
            for (reason, count) in &recently.refused_last_day {
                facts.add("  refused", format_args!("{count} {reason}"));
            }
        }
        facts.0
    }
}

impl Recently {
    async fn of(trail: &impl Trail, now: Timestamp) -> Result<Self, AuditError> {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        let query = AuditQuery { device: None, since: now.before(24 * HOUR), until: now.after(HOUR) };
        let mut recently = Self::default();
        let (mut after, mut seen) = (None::<String>, 0);
        loop {
            let page = trail.page(&query, after.as_deref(), PAGE).await?;
            for entry in &page.entries {
                let is = |kind: NoticeKind| entry.action == kind.name();
                if is(NoticeKind::Provisioned) {
                    recently.provisioned_last_day += 1;
                    recently.provisioned_last_hour += u64::from(now.before(HOUR) <= entry.at);
                } else if is(NoticeKind::Refused) || is(NoticeKind::Quarantined) {
                    let reason = entry.reason.clone().unwrap_or_default();
                    *recently.refused_last_day.entry(reason).or_default() += u64::from(entry.count);
                }
            }
            seen += page.entries.len();
            after = page.next;
            if after.is_none() || seen >= ENTRIES {
                return Ok(recently);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cvm_provisioning::DeviceStore as _;
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
        let fleet = Fleet::of(&Table::new(registry), later(60), Duration::from_secs(60)).await.unwrap();
        assert_eq!((fleet.devices, fleet.enabled, fleet.disabled, fleet.stale_reservations), (3, 2, 1, 1));
        assert_eq!((fleet.states["registered"], fleet.states["reserved"], fleet.unsettled), (2, 1, 1));
        assert_eq!(fleet.lines()[0], "devices       3");
    }
}
