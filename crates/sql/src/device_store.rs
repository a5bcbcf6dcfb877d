//! The registry as operators use it.

use cvm_provisioning::{
    Device, DeviceCounts, DeviceFilter, DeviceId, DeviceStore, Origin, Page, RegistryError, State, Tombstone,
};

use crate::connection::{Connection, Value};
use crate::error::SqlError;
use crate::{SqlRegistry, devices, tombstones};

impl DeviceStore for SqlRegistry {
    async fn add(&self, device: &Device, by: &Origin) -> Result<bool, RegistryError> {
        let (device, by) = (device.clone(), by.clone());
        self.write(move |connection| {
            let free = devices::lock(connection, &device.id)?.is_none();
            if free {
                devices::insert(connection, &device, &by)?;
            }
            Ok(free)
        })
        .await
    }

    async fn find(&self, id: &DeviceId) -> Result<Option<Device>, RegistryError> {
        let id = id.clone();
        self.look(move |connection| find(connection, &id)).await
    }

    async fn list(&self, filter: &DeviceFilter, after: Option<&DeviceId>, limit: u16) -> Result<Page, RegistryError> {
        let (filter, after) = (filter.clone(), after.cloned());
        self.read(move |connection| list(connection, &filter, after.as_ref(), limit)).await
    }

    async fn replace(&self, device: &Device, version: u64, by: &Origin) -> Result<bool, RegistryError> {
        let (device, by) = (device.clone(), by.clone());
        self.write(move |connection| replace(connection, &device, version, &by)).await
    }

    async fn remove(&self, tombstone: &Tombstone, version: u64, by: &Origin) -> Result<bool, RegistryError> {
        let (tombstone, by) = (tombstone.clone(), by.clone());
        self.write(move |connection| {
            let buried = &tombstone.device;
            match devices::lock(connection, &buried.id)? {
                Some(there) if there.version == version && there.generation == buried.generation => {
                    tombstones::insert(connection, &tombstone)?;
                    devices::delete(connection, buried.clone(), &by)?;
                    Ok(true)
                }
                _ => Ok(false),
            }
        })
        .await
    }

    async fn count(&self) -> Result<DeviceCounts, RegistryError> {
        self.read(|connection| {
            let mut counts = DeviceCounts::default();
            let statement = "SELECT state, enabled, COUNT(*) FROM devices GROUP BY state, enabled";
            for row in connection.query(statement, &[])? {
                let count = u64::try_from(row.integer(2)?).unwrap_or_default();
                counts.total += count;
                counts.enabled += if row.integer(1)? == 0 { 0 } else { count };
                let state = State::from_name(row.text(0)?);
                if let Some(place) = State::ALL.iter().position(|other| Some(*other) == state) {
                    counts.by_state[place] += count;
                }
            }
            Ok(counts)
        })
        .await
    }
}

/// The device as it is at this moment.
pub(crate) fn find(connection: &mut dyn Connection, id: &DeviceId) -> Result<Option<Device>, SqlError> {
    let rows = connection.query("SELECT record FROM devices WHERE id = ?", &[id.as_str().into()])?;
    rows.first().map(|row| devices::device(row, id.as_str())).transpose()
}

/// Puts `device` in the place of the item at `version`, and says whether it was.
pub(crate) fn replace(
    connection: &mut dyn Connection,
    device: &Device,
    version: u64,
    by: &Origin,
) -> Result<bool, SqlError> {
    match devices::lock(connection, &device.id)? {
        Some(there) if there.version == version && there.generation == device.generation => {
            devices::update(connection, there, device, by)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn list(
    connection: &mut dyn Connection,
    DeviceFilter { state, enabled, group, template, changed_since }: &DeviceFilter,
    after: Option<&DeviceId>,
    limit: u16,
) -> Result<Page, SqlError> {
    let group = group.as_ref().map(ToString::to_string);
    let template = template.as_ref().map(ToString::to_string);
    let conditions: [(&str, Option<Value<'_>>); 6] = [
        ("id > ?", after.map(|id| id.as_str().into())),
        ("state = ?", state.map(|state| state.name().into())),
        ("enabled = ?", enabled.map(|enabled| Value::Integer(enabled.into()))),
        ("device_group = ?", group.as_ref().map(Into::into)),
        ("template = ?", template.as_ref().map(Into::into)),
        ("updated_at >= ?", changed_since.map(|since| Value::Integer(since.seconds()))),
    ];
    let asked = conditions.into_iter().filter_map(|(condition, value)| value.map(|value| (condition, value)));
    let (conditions, mut values): (Vec<_>, Vec<_>) = asked.unzip();
    let all = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    values.push(Value::Integer(i64::from(limit) + 1));
    let rows = connection.query(&format!("SELECT record FROM devices{all} ORDER BY id LIMIT ?"), &values)?;
    let read = rows.iter().take(limit.into()).map(|row| devices::device(row, "a device of a list"));
    let found = read.collect::<Result<Vec<_>, _>>()?;
    let next = found.last().filter(|_| rows.len() > usize::from(limit)).map(|device| device.id.clone());
    Ok(Page { devices: found, next })
}
