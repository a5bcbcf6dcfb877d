//! Devices that asked and are not registered.

use std::collections::BTreeMap;
use std::str::FromStr;

use cvm_provisioning::{
    DeviceId, RegistryError, Timestamp, UnknownCount, UnknownDevice, UnknownDeviceStore, UnknownDevices,
};

use crate::SqlRegistry;
use crate::connection::{Connection, Row, Value};
use crate::error::SqlError;

impl UnknownDeviceStore for SqlRegistry {
    async fn note_unknown(&self, newer: &UnknownDevices, now: Timestamp) -> Result<(), RegistryError> {
        let newer = newer.clone();
        self.write(move |connection| note(connection, &newer, now)).await
    }

    async fn unknown_devices(&self) -> Result<UnknownDevices, RegistryError> {
        self.read(|connection| {
            let devices = " WHERE id NOT IN (SELECT id FROM devices)";
            Ok(UnknownDevices { devices: devices_of(connection, devices)?, hours: hours(connection)? })
        })
        .await
    }
}

/// Reads what is there, lets the domain decide what stays, and writes the differences. The list is short.
fn note(connection: &mut dyn Connection, newer: &UnknownDevices, now: Timestamp) -> Result<(), SqlError> {
    // Of servers that share the database one does so at a time.
    let lock = format!("SELECT value FROM meta WHERE name = 'unknown-devices'{}", connection.for_update());
    connection.query(&lock, &[])?;
    connection.execute("DELETE FROM unknown_devices WHERE id IN (SELECT id FROM devices)", &[])?;
    let before = UnknownDevices { devices: devices_of(connection, "")?, hours: hours(connection)? };
    let mut after = before.clone();
    after.merge(newer, now);
    for id in before.devices.keys().filter(|id| !after.devices.contains_key(*id)) {
        connection.execute("DELETE FROM unknown_devices WHERE id = ?", &[id.as_str().into()])?;
    }
    for (id, device) in after.devices.iter().filter(|(id, device)| before.devices.get(*id) != Some(*device)) {
        let UnknownDevice { door, source, first_at, last_at, attempts } = device;
        let statement = "REPLACE INTO unknown_devices (id, door, source, first_at, last_at, attempts) \
                         VALUES (?, ?, ?, ?, ?, ?)";
        let values = [
            id.as_str().into(),
            door.into(),
            source.as_ref().into(),
            Value::Integer(first_at.seconds()),
            Value::Integer(last_at.seconds()),
            Value::Integer(attempts.cast_signed()),
        ];
        connection.execute(statement, &values)?;
    }
    for hour in before.hours.keys().filter(|hour| !after.hours.contains_key(*hour)) {
        connection.execute("DELETE FROM unknown_hours WHERE hour_number = ?", &[Value::Integer(*hour)])?;
    }
    for (hour, count) in after.hours.iter().filter(|(hour, count)| before.hours.get(*hour) != Some(*count)) {
        let values = [*hour, count.attempts.cast_signed(), count.evicted.cast_signed()].map(Value::Integer);
        let statement = "REPLACE INTO unknown_hours (hour_number, attempts, evicted) VALUES (?, ?, ?)";
        connection.execute(statement, &values)?;
    }
    Ok(())
}

fn devices_of(connection: &mut dyn Connection, condition: &str) -> Result<BTreeMap<DeviceId, UnknownDevice>, SqlError> {
    let statement = format!("SELECT id, door, source, first_at, last_at, attempts FROM unknown_devices{condition}");
    let rows = connection.query(&statement, &[])?;
    let device = |row: &Row| {
        let key = row.text(0)?;
        let id = key.parse().map_err(|error: <DeviceId as FromStr>::Err| SqlError::Corrupt {
            key: key.to_owned(),
            source: error.into(),
        })?;
        let device = UnknownDevice {
            door: row.text(1)?.to_owned(),
            source: row.optional_text(2)?.map(str::to_owned),
            first_at: Timestamp::from_seconds(row.integer(3)?),
            last_at: Timestamp::from_seconds(row.integer(4)?),
            attempts: row.integer(5)?.unsigned_abs(),
        };
        Ok((id, device))
    };
    rows.iter().map(device).collect()
}

fn hours(connection: &mut dyn Connection) -> Result<BTreeMap<i64, UnknownCount>, SqlError> {
    let rows = connection.query("SELECT hour_number, attempts, evicted FROM unknown_hours", &[])?;
    let hour = |row: &Row| {
        let (attempts, evicted) = (row.integer(1)?.unsigned_abs(), row.integer(2)?.unsigned_abs());
        Ok((row.integer(0)?, UnknownCount { attempts, evicted }))
    };
    rows.iter().map(hour).collect()
}
