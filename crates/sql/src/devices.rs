//! The item of a device, read and written inside a transaction.

use cvm_provisioning::{AuditEntry, Device, DeviceId, Origin, RegistryWrite, Timestamp};
use cvm_records::DeviceRecord;

use crate::audit_trail::{self, Place};
use crate::connection::{Connection, Row, Value};
use crate::decisions;
use crate::error::SqlError;

/// The device, as it is for as long as the transaction lasts.
pub(crate) fn lock(connection: &mut dyn Connection, id: &DeviceId) -> Result<Option<Device>, SqlError> {
    let end = connection.for_update();
    let rows = connection.query(&format!("SELECT record FROM devices WHERE id = ?{end}"), &[id.as_str().into()])?;
    rows.first().map(|row| device(row, id.as_str())).transpose()
}

/// The device in the first column of a row.
pub(crate) fn device(row: &Row, key: &str) -> Result<Device, SqlError> {
    let record = serde_json::from_str::<DeviceRecord>(row.text(0)?).map_err(Into::into);
    record.and_then(Device::try_from).map_err(|source| SqlError::Corrupt { key: key.to_owned(), source })
}

/// The record of a device.
pub(crate) fn record(device: &Device) -> Result<String, SqlError> {
    serde_json::to_string(&DeviceRecord::from(device)).map_err(|error| SqlError::Failed(error.into()))
}

/// Registers a device, whose id has to be free.
pub(crate) fn insert(connection: &mut dyn Connection, device: &Device, by: &Origin) -> Result<(), SqlError> {
    let last_entry = tell(connection, None, Some(device), by)?;
    write(
        connection,
        "INSERT INTO devices (version, state, enabled, device_group, template, certificate, unsettled_since, \
         succession_ends, updated_at, last_entry, record, id) VALUES (?, ?, ?, ?, ?, \
         CASE WHEN EXISTS (SELECT 1 FROM certificates WHERE id = ? AND device = ?) THEN NULL ELSE ? END, \
         ?, ?, ?, ?, ?, ?)",
        device,
        last_entry,
    )
}

/// Puts `after` in the place of `before`, which the transaction has locked; nothing is written where they are equal.
pub(crate) fn update(
    connection: &mut dyn Connection,
    before: Device,
    after: &Device,
    by: &Origin,
) -> Result<(), SqlError> {
    if before == *after {
        return Ok(());
    }
    let last_entry = tell(connection, Some(before), Some(after), by)?;
    write(
        connection,
        "UPDATE devices SET version = ?, state = ?, enabled = ?, device_group = ?, template = ?, \
         certificate = CASE WHEN EXISTS (SELECT 1 FROM certificates WHERE id = ? AND device = ?) THEN NULL ELSE ? END, \
         unsettled_since = ?, succession_ends = ?, updated_at = ?, last_entry = ?, record = ? WHERE id = ?",
        after,
        last_entry,
    )
}

/// Deletes a device that the transaction has locked.
pub(crate) fn delete(connection: &mut dyn Connection, device: Device, by: &Origin) -> Result<(), SqlError> {
    let id = device.id.clone();
    tell(connection, Some(device), None, by)?;
    connection.execute("DELETE FROM devices WHERE id = ?", &[id.as_str().into()]).map(|_| ())
}

/// Writes all columns. Of certificates that the ledger knows to be the device's there is none in the one for them.
fn write(
    connection: &mut dyn Connection,
    statement: &str,
    device: &Device,
    last_entry: Option<i64>,
) -> Result<(), SqlError> {
    let certificate = device.indexed_certificate().map(|certificate| certificate.to_string());
    let group = device.group.as_ref().map(ToString::to_string);
    let template = device.template.as_ref().map(ToString::to_string);
    let record = record(device)?;
    let values = [
        Value::Integer(device.version.cast_signed()),
        device.state.name().into(),
        Value::Integer(device.status.enabled.into()),
        group.as_ref().into(),
        template.as_ref().into(),
        certificate.as_ref().into(),
        device.id.as_str().into(),
        certificate.as_ref().into(),
        device.unsettled.as_ref().map(|unsettled| unsettled.since.seconds()).into(),
        device.succession_ends().map(Timestamp::seconds).into(),
        Value::Integer(device.updated_at.seconds()),
        last_entry.into(),
        (&record).into(),
        device.id.as_str().into(),
    ];
    connection.execute(statement, &values).map(|_| ())
}

/// Writes down what happened, in the same transaction, and returns the last entry that the device has then. A device that is
/// there is locked.
fn tell(
    connection: &mut dyn Connection,
    before: Option<Device>,
    after: Option<&Device>,
    by: &Origin,
) -> Result<Option<i64>, SqlError> {
    let Some(device) = after.or(before.as_ref()) else { return Ok(None) };
    let mut last_entry = match &before {
        Some(before) => audit_trail::last_entry(connection, &before.id)?,
        None => None,
    };
    let place = |earlier| if after.is_some() { Place::InList { earlier } } else { Place::Apart { earlier } };
    // One write of a device is one version of it; its end has the version after the last one.
    let version = device.version + u64::from(after.is_none());
    let id = format!("{}-{version:010}", device.generation);
    let write = RegistryWrite { id, at: device.updated_at, by: Some(by.clone()), before, after: after.cloned() };
    for entry in AuditEntry::of(&write) {
        last_entry = Some(audit_trail::append(connection, &entry, place(last_entry))?);
    }
    decisions::note(connection, &write)?;
    Ok(last_entry)
}
