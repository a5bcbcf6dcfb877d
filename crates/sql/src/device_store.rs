//! The registry as operators use it.

use cvm_provisioning::{
    CertificateId, Change, Device, DeviceCounts, DeviceFilter, DeviceId, DeviceStore, FleetMoment, FleetSummary,
    KeyFingerprint, NotRestored, Origin, Page, Put, Refusal, RegistryError, State, Timestamp,
};

use crate::connection::{Connection, Value};
use crate::error::SqlError;
use crate::{SqlRegistry, change, decoy, devices, fleet, keys, restore};

impl DeviceStore for SqlRegistry {
    async fn put(&self, change: &Change) -> Result<Put, RegistryError> {
        let change = change.clone();
        self.write(move |connection| change::put(connection, &change)).await
    }

    async fn count_refusal(&self, device: &DeviceId, refusal: &Refusal, by: &Origin) -> Result<(), RegistryError> {
        let (id, refusal, by) = (device.clone(), refusal.clone(), by.clone());
        let write = move |connection: &mut dyn Connection| {
            let Some(there) = devices::lock(connection, &id)? else { return Ok(()) };
            let mut device = there.device.clone();
            device.refuse(&refusal);
            devices::update(connection, there, &device, &by)
        };
        match self.counts_later() {
            true => self.write_unattended("a refusal", write),
            false => self.write(write).await,
        }
    }

    async fn is_recorded(&self, device: &DeviceId, certificate: &CertificateId) -> Result<bool, RegistryError> {
        if !self.is_shared() {
            // SQLite shows a change when its log is on the disk (sqlite.org, "Write-Ahead Logging").
            return Ok(true);
        }
        let (id, certificate) = (device.clone(), *certificate);
        self.write(move |connection| {
            let found = devices::lock(connection, &id)?;
            end_behind_what_was_read(connection)?;
            Ok(found.is_some_and(|there| there.device.has(&certificate)))
        })
        .await
    }

    async fn restore(
        &self,
        device: &Device,
        by: &Origin,
        now: Timestamp,
    ) -> Result<Result<bool, NotRestored>, RegistryError> {
        let (device, by, issuers) = (device.clone(), by.clone(), self.issuers().clone());
        self.write(move |connection| restore::restore(connection, &issuers, &device, &by, now)).await
    }

    async fn find(&self, id: &DeviceId) -> Result<Option<Device>, RegistryError> {
        let id = id.clone();
        self.look(move |connection| find(connection, &id)).await
    }

    async fn owner_of(&self, key: &KeyFingerprint) -> Result<Option<DeviceId>, RegistryError> {
        let key = *key;
        self.look(move |connection| keys::owner(connection, &key)).await
    }

    async fn list(&self, filter: &DeviceFilter, after: Option<&DeviceId>, limit: u16) -> Result<Page, RegistryError> {
        let (filter, after) = (filter.clone(), after.cloned());
        self.read(move |connection| list(connection, &filter, after.as_ref(), limit)).await
    }

    async fn count(&self) -> Result<DeviceCounts, RegistryError> {
        self.read(|connection| count(connection)).await
    }

    async fn summarize(&self, moment: FleetMoment) -> Result<FleetSummary, RegistryError> {
        self.read(move |connection| fleet::summarize(connection, moment)).await
    }
}

/// How many devices there are.
pub(crate) fn count(connection: &mut dyn Connection) -> Result<DeviceCounts, SqlError> {
    let mut counts = DeviceCounts::default();
    for row in connection.query("SELECT state, enabled, devices FROM device_counts", &[])? {
        let count = row.integer(2)?.unsigned_abs();
        counts.total += count;
        counts.enabled += if row.integer(1)? == 0 { 0 } else { count };
        let state = State::from_name(row.text(0)?);
        if let Some(place) = State::ALL.iter().position(|other| Some(*other) == state) {
            counts.by_state[place] += count;
        }
    }
    Ok(counts)
}

/// The device as it is at this moment.
pub(crate) fn find(connection: &mut dyn Connection, id: &DeviceId) -> Result<Option<Device>, SqlError> {
    let statement = format!("{} WHERE devices.id = ?", devices::SELECT);
    let rows = connection.query(&statement, &[id.as_str().into()])?;
    match rows.first() {
        Some(row) => devices::device(row, id.as_str()).map(Some),
        None => {
            decoy::read(id.as_str());
            Ok(None)
        }
    }
}

/// Devices that are looked at for one page, where no index has just those that are asked for.
const LOOKED_AT: i64 = 20_000;
/// Devices that are read for one page, where only the device itself tells whether it is asked for.
const READ: u16 = 2_000;
/// Greater than every character of a device id.
const BEHIND: char = '~';

fn list(
    connection: &mut dyn Connection,
    filter: &DeviceFilter,
    after: Option<&DeviceId>,
    limit: u16,
) -> Result<Page, SqlError> {
    let DeviceFilter { state, enabled, group, template, changed_since, prefix, refused_since, expires_before } = filter;
    let is_rare = state.is_some_and(|state| !matches!(state, State::Registered | State::Provisioned));
    let is_part = state.is_some() || enabled.is_some() || template.is_some() || changed_since.is_some();
    let is_indexed = is_rare || group.is_some() || (state.is_some() && connection.has_index_of_states());
    // Where the devices begin that can be on the page.
    let begin = after.max(prefix.as_ref());
    let last = if is_part && !is_indexed { last_looked_at(connection, begin)? } else { None };
    let is_read = refused_since.is_some() || expires_before.is_some();
    let portion = if is_read { limit.max(READ) } else { limit };
    let end = prefix.as_ref().map(|prefix| format!("{prefix}{BEHIND}"));
    let group = group.as_ref().map(ToString::to_string);
    let template = template.as_ref().map(ToString::to_string);
    let conditions: [(&str, Option<Value<'_>>); 9] = [
        ("devices.id > ?", after.map(|id| id.as_str().into())),
        ("devices.id >= ?", prefix.as_ref().map(|prefix| prefix.as_str().into())),
        ("devices.id < ?", end.as_ref().map(Into::into)),
        ("devices.id <= ?", last.as_ref().map(|id| id.as_str().into())),
        ("state = ?", state.map(|state| state.name().into())),
        ("enabled = ?", enabled.map(|enabled| Value::Integer(enabled.into()))),
        ("device_group = ?", group.as_ref().map(Into::into)),
        ("template = ?", template.as_ref().map(Into::into)),
        ("updated_at >= ?", changed_since.map(|since| Value::Integer(since.seconds()))),
    ];
    let asked = conditions.into_iter().filter_map(|(condition, value)| value.map(|value| (condition, value)));
    let (mut conditions, mut values): (Vec<_>, Vec<_>) = asked.unzip();
    if is_rare {
        // The words of the index, by which SQLite knows that it has them all.
        conditions.push("state NOT IN ('registered', 'provisioned')");
    }
    let all = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    values.push(Value::Integer(i64::from(portion) + 1));
    let statement = format!("{}{all} ORDER BY devices.id LIMIT ?", devices::SELECT);
    let rows = connection.query(&statement, &values)?;
    let mut page = Page { devices: Vec::new(), next: last };
    for (number, row) in rows.iter().take(portion.into()).enumerate() {
        let device = devices::device(row, "a device of a list")?;
        let id = device.id.clone();
        // Whatever a column tells, the database has looked at.
        page.devices.extend(Some(device).filter(|device| !is_read || filter.admits(device)));
        let is_full = page.devices.len() == usize::from(limit) || number + 1 == usize::from(portion);
        if is_full && number + 1 < rows.len() {
            page.next = Some(id);
        }
        if is_full {
            break;
        }
    }
    Ok(page)
}

/// Up to which device a page looks, if not to the end.
fn last_looked_at(connection: &mut dyn Connection, after: Option<&DeviceId>) -> Result<Option<DeviceId>, SqlError> {
    let statement = "SELECT id FROM devices WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?";
    let after = after.map_or("", |id| id.as_str());
    let rows = connection.query(statement, &[after.into(), Value::Integer(LOOKED_AT)])?;
    let Some(row) = rows.first() else { return Ok(None) };
    let id = row.text(0)?;
    let corrupt =
        |source: <DeviceId as std::str::FromStr>::Err| SqlError::Corrupt { key: id.to_owned(), source: source.into() };
    id.parse().map(Some).map_err(corrupt)
}

/// Lets the transaction end when all that it has read would outlive a crash. InnoDB shows a change when it is committed in
/// memory, which is before its log is on the disk; a commit waits for the log until its own place in it (MariaDB and MySQL
/// manuals, `innodb_flush_log_at_trx_commit`).
fn end_behind_what_was_read(connection: &mut dyn Connection) -> Result<(), SqlError> {
    if !connection.shows_what_is_not_on_the_disk() {
        return Ok(());
    }
    let statement = "INSERT INTO meta (name, value) VALUES ('shown', 1) ON DUPLICATE KEY UPDATE value = value + 1";
    connection.execute(statement, &[]).map(|_| ())
}
