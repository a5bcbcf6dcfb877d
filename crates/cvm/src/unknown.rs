//! Devices that asked and are not registered, as the commands show them.

use cvm_aws::DynamoDbAuditTrail;
use cvm_interchange::{SourceTold, UnknownDeviceTold, UnknownDevicesDocument};
use cvm_provisioning::{DeviceId, UnknownDeviceStore as _};
use cvm_sql::SqlRegistry;

use crate::audit::AuditError;
use crate::error::CommandError;
use crate::output::{Output, count, printable};
use crate::registry::now;
use crate::registry_api::RegistryApi;
use crate::table::Table;

/// Devices of one source from which on it looks like a sweep.
const SWEEP: u64 = 100;

/// Where devices that are not registered are kept.
pub(crate) trait Unknown {
    /// At most `limit` of them, or the one of this id; `None` where they are in a log alone.
    async fn unknown(
        &self,
        device: Option<&DeviceId>,
        limit: u16,
    ) -> Result<Option<UnknownDevicesDocument>, AuditError>;
}

impl Unknown for RegistryApi<'_> {
    async fn unknown(
        &self,
        device: Option<&DeviceId>,
        limit: u16,
    ) -> Result<Option<UnknownDevicesDocument>, AuditError> {
        Ok(self.unknown_devices(device, limit).await?)
    }
}

impl Unknown for SqlRegistry {
    async fn unknown(
        &self,
        device: Option<&DeviceId>,
        limit: u16,
    ) -> Result<Option<UnknownDevicesDocument>, AuditError> {
        let unknown = self.unknown_devices().await?;
        Ok(Some(UnknownDevicesDocument::new(&unknown, device, limit.into(), now())))
    }
}

impl Unknown for DynamoDbAuditTrail {
    async fn unknown(&self, _: Option<&DeviceId>, _: u16) -> Result<Option<UnknownDevicesDocument>, AuditError> {
        Ok(None)
    }
}

/// Lists them, the one that asked last first.
pub(crate) async fn list(place: &impl Unknown, limit: u16, output: &Output) -> Result<(), CommandError> {
    let Some(unknown) = place.unknown(None, limit).await? else { return Err(AuditError::UnknownElsewhere.into()) };
    output.json(&unknown)?;
    let rows: Vec<_> = unknown.devices.iter().map(row).collect();
    let mut table = Table::new(["DEVICE", "REQUESTS", "LAST", "DOOR", "SOURCE"], output.width());
    table.fit(&rows);
    if !rows.is_empty() {
        output.headline(&table.header())?;
    }
    for row in &rows {
        output.say(table.line(row))?;
    }
    let shown = unknown.devices.len() as u64;
    match unknown.count {
        0 => output.note("no device that is not registered asked in the last 30 days")?,
        all if shown < all => output.note(format_args!("{shown} of {}; --limit shows more", count(all, "device")))?,
        _ => {}
    }
    if let Some(sweep) = sweep(&unknown) {
        output.note(sweep)?;
    }
    Ok(())
}

/// A sentence about a device that is not registered.
pub(crate) fn sentence(device: &UnknownDeviceTold) -> String {
    let UnknownDeviceTold { device_id, attempts, first_at, last_at, door, source } = device;
    let source = source.as_deref().map(|source| format!(" from {source}")).unwrap_or_default();
    let asked = match attempts {
        1 => format!("asked once, at {last_at}"),
        _ => format!("asked {}, from {first_at} to {last_at}", count(*attempts, "time")),
    };
    format!("{device_id} is not registered, and {asked}{source} (door {door})")
}

/// What looks like a sweep.
pub(crate) fn sweep(unknown: &UnknownDevicesDocument) -> Option<String> {
    let UnknownDevicesDocument { evicted_last_day, sources, .. } = unknown;
    let first = sources.first().filter(|SourceTold { devices, .. }| *devices >= SWEEP);
    let dropped = match evicted_last_day {
        0 => String::new(),
        more => format!("; {} did not fit into the list in the last day", count(*more, "more device")),
    };
    match first {
        Some(SourceTold { source, devices, .. }) => Some(format!(
            "this looks like a sweep: {} asked in the name of {} that are not registered{dropped}",
            if source.is_empty() { "an unknown source" } else { source },
            count(*devices, "device"),
        )),
        None if *evicted_last_day > 0 => Some(format!("this looks like a sweep from many sources{dropped}")),
        None => None,
    }
}

fn row(device: &UnknownDeviceTold) -> [String; 5] {
    let source = device.source.clone().unwrap_or_else(|| "-".to_owned());
    let cells = [
        device.device_id.to_string(),
        device.attempts.to_string(),
        device.last_at.to_string(),
        device.door.clone(),
        source,
    ];
    cells.map(|cell| printable(&cell).replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use cvm_provisioning::Timestamp;

    use super::*;

    #[test]
    fn threat_02_a_sweep_is_told_whether_from_one_source_or_from_many() {
        let source = |devices| SourceTold { source: "192.0.2.1".to_owned(), devices, attempts: devices };
        let unknown = |evicted_last_day, sources| UnknownDevicesDocument {
            evicted_last_day,
            sources,
            ..UnknownDevicesDocument::default()
        };
        assert_eq!(sweep(&unknown(0, vec![source(SWEEP - 1)])), None);
        let one = sweep(&unknown(7, vec![source(SWEEP)])).unwrap();
        assert!(one.contains("192.0.2.1") && one.contains("100 devices") && one.contains("7 more"), "{one}");
        assert!(sweep(&unknown(7, vec![source(1)])).unwrap().contains("many sources"));
    }

    #[test]
    fn a_sentence_says_when_a_device_asked() {
        let device = |attempts| UnknownDeviceTold {
            device_id: "sn-1".parse().unwrap(),
            attempts,
            first_at: Timestamp::from_seconds(1_800_000_000).into(),
            last_at: Timestamp::from_seconds(1_800_000_060).into(),
            door: "vend".to_owned(),
            source: Some("192.0.2.1".to_owned()),
        };
        let once = "sn-1 is not registered, and asked once, at 2027-01-15T08:01:00Z from 192.0.2.1 (door vend)";
        assert_eq!(sentence(&device(1)), once);
        assert!(sentence(&device(2)).contains("asked 2 times, from 2027-01-15T08:00:00Z to 2027-01-15T08:01:00Z"));
    }
}
