//! The item of a device, read and written inside a transaction.

use cvm_provisioning::{AuditEntry, Credential, Device, DeviceId, LedgerEntry, Origin, RegistryWrite, Timestamp};
use cvm_records::{DeviceRecord, GivenRecord};

use crate::audit_trail::{self, Place};
use crate::connection::{Connection, Row, Value};
use crate::error::SqlError;
use crate::{decisions, keys, ledger};

/// Reads devices; what comes behind it says which.
pub(crate) const SELECT: &str = concat!(
    "SELECT devices.record, devices.last_entry, devices.last_certificate, devices.credential, certificates.given, ",
    ledger::entry_columns!(),
    " FROM devices LEFT JOIN certificates ON certificates.sequence = devices.credential"
);

/// A device that the transaction has locked, and what hangs on it.
pub(crate) struct Locked {
    pub(crate) device: Device,
    in_ledger: Option<InLedger>,
    last_certificate: Option<i64>,
    last_entry: Option<i64>,
}

/// What a device was given, where the ledger has it and the record of the device does not.
struct InLedger {
    sequence: i64,
    credential: Credential,
}

impl Locked {
    /// Enters a certificate that the device is to be given with [`update`] in the same transaction.
    pub(crate) fn enter(
        &mut self,
        connection: &mut dyn Connection,
        entry: &LedgerEntry,
        credential: &Credential,
    ) -> Result<(), SqlError> {
        let entered = ledger::enter_for(connection, entry, &self.device.id, credential, self.last_certificate)?;
        self.in_ledger = Some(InLedger::new(entered.sequence, credential));
        self.last_certificate = entered.last_certificate;
        Ok(())
    }
}

/// The device, as it is for as long as the transaction lasts.
pub(crate) fn lock(connection: &mut dyn Connection, id: &DeviceId) -> Result<Option<Locked>, SqlError> {
    let statement = format!("{SELECT} WHERE devices.id = ?{}", connection.for_update());
    let rows = connection.query(&statement, &[id.as_str().into()])?;
    rows.first().map(|row| locked(row, id.as_str())).transpose()
}

/// The device in a row of what [`SELECT`] reads.
pub(crate) fn device(row: &Row, key: &str) -> Result<Device, SqlError> {
    locked(row, key).map(|locked| locked.device)
}

fn locked(row: &Row, key: &str) -> Result<Locked, SqlError> {
    let corrupt = |source| SqlError::Corrupt { key: key.to_owned(), source };
    let in_ledger = row.optional_integer(3)?.map(|sequence| {
        let given: GivenRecord = serde_json::from_str(row.text(4)?).map_err(|error| corrupt(error.into()))?;
        let credential = given.with(ledger::entry(row, 5, key)?).map_err(|error| corrupt(error.into()))?;
        Ok::<_, SqlError>(InLedger { sequence, credential })
    });
    let in_ledger = in_ledger.transpose()?;
    let record: DeviceRecord = serde_json::from_str(row.text(0)?).map_err(|error| corrupt(error.into()))?;
    let device = match &in_ledger {
        Some(there) => record.with_credential(there.credential.clone()),
        None => record.try_into(),
    };
    Ok(Locked {
        device: device.map_err(corrupt)?,
        in_ledger,
        last_certificate: row.optional_integer(2)?,
        last_entry: row.optional_integer(1)?,
    })
}

/// The device in a record that has all of it.
pub(crate) fn of_record(record: &str, key: &str) -> Result<Device, SqlError> {
    let record = serde_json::from_str::<DeviceRecord>(record).map_err(Into::into);
    record.and_then(Device::try_from).map_err(|source| SqlError::Corrupt { key: key.to_owned(), source })
}

/// Registers a device, whose id has to be free, and tells it as `told`.
pub(crate) fn insert(
    connection: &mut dyn Connection,
    device: &Device,
    told: Option<&RegistryWrite>,
) -> Result<(), SqlError> {
    keys::update(connection, None, Some(device))?;
    let last_entry = tell(connection, told, None)?;
    write(
        connection,
        "INSERT INTO devices (version, state, enabled, device_group, template, certificate, unsettled_since, \
         succession_ends, updated_at, credential, last_certificate, last_entry, record, id) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        device,
        None,
        [None, last_entry],
    )
}

/// Puts `after` in the place of what the transaction has locked; nothing is written where they are equal.
pub(crate) fn update(
    connection: &mut dyn Connection,
    there: Locked,
    after: &Device,
    by: &Origin,
) -> Result<(), SqlError> {
    let Locked { device: before, in_ledger, last_certificate, last_entry } = there;
    if before == *after {
        return Ok(());
    }
    keys::update(connection, Some(&before), Some(after))?;
    let told = RegistryWrite::new(Some(before), Some(after.clone()), by.clone());
    let last_entry = tell(connection, told.as_ref(), last_entry)?;
    write(
        connection,
        "UPDATE devices SET version = ?, state = ?, enabled = ?, device_group = ?, template = ?, certificate = ?, \
         unsettled_since = ?, succession_ends = ?, updated_at = ?, credential = ?, last_certificate = ?, last_entry = ?, \
         record = ? WHERE id = ?",
        after,
        in_ledger.filter(|there| there.is_of(after)),
        [last_certificate, last_entry],
    )
}

/// Deletes a device that the transaction has locked, as `buried` says it was.
pub(crate) fn delete(
    connection: &mut dyn Connection,
    there: &Locked,
    buried: Device,
    by: &Origin,
) -> Result<(), SqlError> {
    let id = buried.id.clone();
    keys::update(connection, Some(&there.device), None)?;
    tell(connection, RegistryWrite::new(Some(buried), None, by.clone()).as_ref(), there.last_entry)?;
    ledger::unlink(connection, there.last_certificate)?;
    connection.execute("DELETE FROM devices WHERE id = ?", &[id.as_str().into()]).map(|_| ())
}

impl InLedger {
    /// When the credential was first used is the device's to say.
    fn new(sequence: i64, credential: &Credential) -> Self {
        Self { sequence, credential: Credential { used_at: None, ..credential.clone() } }
    }

    /// Whether this is what the device has.
    fn is_of(&self, device: &Device) -> bool {
        device.credential.as_ref().is_some_and(|has| Self::new(self.sequence, has).credential == self.credential)
    }
}

/// Writes all columns. Of a certificate that the ledger knows to be the device's there is none in the one for them.
fn write(
    connection: &mut dyn Connection,
    statement: &str,
    device: &Device,
    in_ledger: Option<InLedger>,
    [last_certificate, last_entry]: [Option<i64>; 2],
) -> Result<(), SqlError> {
    let known = in_ledger.as_ref().map(|there| there.credential.certificate);
    let certificate = device.indexed_certificate().filter(|certificate| known != Some(*certificate));
    let certificate = certificate.map(|certificate| certificate.to_string());
    let group = device.group.as_ref().map(ToString::to_string);
    let template = device.template.as_ref().map(ToString::to_string);
    let record = DeviceRecord::from(device);
    let record = json(&if in_ledger.is_some() { record.without_credential() } else { record })?;
    let values = [
        Value::Integer(device.version.cast_signed()),
        device.state.name().into(),
        Value::Integer(device.status.enabled.into()),
        group.as_ref().into(),
        template.as_ref().into(),
        certificate.as_ref().into(),
        device.unsettled.as_ref().map(|unsettled| unsettled.since.seconds()).into(),
        device.succession_ends().map(Timestamp::seconds).into(),
        Value::Integer(device.updated_at.seconds()),
        in_ledger.map(|there| there.sequence).into(),
        last_certificate.into(),
        last_entry.into(),
        (&record).into(),
        device.id.as_str().into(),
    ];
    connection.execute(statement, &values).map(|_| ())
}

/// The record of a device, with all of it.
pub(crate) fn record(device: &Device) -> Result<String, SqlError> {
    json(&DeviceRecord::from(device))
}

fn json(record: &DeviceRecord) -> Result<String, SqlError> {
    serde_json::to_string(record).map_err(|error| SqlError::Failed(error.into()))
}

/// Writes down what happened, in the same transaction, and returns the last entry that the device has then.
fn tell(
    connection: &mut dyn Connection,
    write: Option<&RegistryWrite>,
    mut last_entry: Option<i64>,
) -> Result<Option<i64>, SqlError> {
    let Some(write) = write else { return Ok(None) };
    let place = |earlier| if write.after.is_some() { Place::InList { earlier } } else { Place::Apart { earlier } };
    for entry in AuditEntry::of(write) {
        last_entry = Some(audit_trail::append(connection, &entry, place(last_entry))?);
    }
    decisions::note(connection, write)?;
    Ok(last_entry)
}
