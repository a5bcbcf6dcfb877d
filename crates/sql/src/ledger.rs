//! The certificates of our own CA.

use cvm_provisioning::{
    CertificateId, CertificateLedger, DeviceId, LedgerEntry, RegistryError, Standing, ThingName, Timestamp,
};
use cvm_records::LedgerEntryRecord;

use crate::SqlRegistry;
use crate::connection::{Connection, Row, Value};
use crate::error::SqlError;

impl CertificateLedger for SqlRegistry {
    async fn enter(&self, entry: &LedgerEntry) -> Result<(), RegistryError> {
        let entry = entry.clone();
        self.write(move |connection| match lock(connection, &entry.id)? {
            Some(_) => Ok(()),
            None => enter(connection, &entry, None),
        })
        .await
    }

    async fn entry(&self, id: &CertificateId) -> Result<Option<LedgerEntry>, RegistryError> {
        let id = *id;
        self.look(move |connection| find(connection, &id, "")).await
    }

    async fn entry_of_serial(&self, issuer: &str, serial: &str) -> Result<Option<LedgerEntry>, RegistryError> {
        let (issuer, serial) = (issuer.to_owned(), serial.to_owned());
        self.look(move |connection| {
            let statement = "SELECT record FROM certificates WHERE issuer = ? AND serial = ?";
            let rows = connection.query(statement, &[(&issuer).into(), (&serial).into()])?;
            rows.first().map(|row| entry(row, &serial)).transpose()
        })
        .await
    }

    async fn entries_of(&self, thing: &ThingName) -> Result<Vec<LedgerEntry>, RegistryError> {
        let thing = thing.clone();
        self.read(move |connection| {
            let rows = connection.query("SELECT record FROM certificates WHERE thing = ?", &[thing.as_str().into()])?;
            rows.iter().map(|row| entry(row, thing.as_str())).collect()
        })
        .await
    }

    async fn set_standing(&self, id: &CertificateId, standing: Standing, now: Timestamp) -> Result<(), RegistryError> {
        let id = *id;
        self.write(move |connection| set_standing(connection, &id, standing, now)).await
    }

    async fn without_power(&self, issuer: &str, ends_after: Timestamp) -> Result<Vec<LedgerEntry>, RegistryError> {
        let issuer = issuer.to_owned();
        self.read(move |connection| {
            let statement = "SELECT record FROM certificates WHERE powerless = 1 AND issuer = ? AND not_after > ?";
            let values = [(&issuer).into(), Value::Integer(ends_after.seconds())];
            connection.query(statement, &values)?.iter().map(|row| entry(row, &issuer)).collect()
        })
        .await
    }
}

/// Enters a certificate that nobody has entered, and whose it is where that is known.
pub(crate) fn enter(
    connection: &mut dyn Connection,
    entry: &LedgerEntry,
    device: Option<&DeviceId>,
) -> Result<(), SqlError> {
    write(
        connection,
        "INSERT INTO certificates (issuer, serial, thing, powerless, not_after, record, id, device) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        entry,
        &[device.map(DeviceId::as_str).into()],
    )
}

/// Writes how a certificate stands; one that is revoked stays so, and one that is unknown is no error.
pub(crate) fn set_standing(
    connection: &mut dyn Connection,
    id: &CertificateId,
    standing: Standing,
    now: Timestamp,
) -> Result<(), SqlError> {
    let Some(there) = lock(connection, id)? else { return Ok(()) };
    if there.standing == standing || there.standing == Standing::Revoked {
        return Ok(());
    }
    write(
        connection,
        "UPDATE certificates SET issuer = ?, serial = ?, thing = ?, powerless = ?, not_after = ?, record = ? WHERE id = ?",
        &LedgerEntry { standing, since: now, ..there },
        &[],
    )
}

fn lock(connection: &mut dyn Connection, id: &CertificateId) -> Result<Option<LedgerEntry>, SqlError> {
    let end = connection.for_update();
    find(connection, id, end)
}

fn find(connection: &mut dyn Connection, id: &CertificateId, end: &str) -> Result<Option<LedgerEntry>, SqlError> {
    let key = id.to_string();
    let rows = connection.query(&format!("SELECT record FROM certificates WHERE id = ?{end}"), &[(&key).into()])?;
    rows.first().map(|row| entry(row, &key)).transpose()
}

fn entry(row: &Row, key: &str) -> Result<LedgerEntry, SqlError> {
    let record = serde_json::from_str::<LedgerEntryRecord>(row.text(0)?).map_err(Into::into);
    record.and_then(LedgerEntry::try_from).map_err(|source| SqlError::Corrupt { key: key.to_owned(), source })
}

fn write(
    connection: &mut dyn Connection,
    statement: &str,
    entry: &LedgerEntry,
    more: &[Value<'_>],
) -> Result<(), SqlError> {
    let record = serde_json::to_string(&LedgerEntryRecord::from(entry));
    let record = record.map_err(|error| SqlError::Failed(error.into()))?;
    let id = entry.id.to_string();
    let mut values = vec![
        (&entry.issuer).into(),
        (&entry.serial).into(),
        entry.thing.as_str().into(),
        Value::Integer((entry.standing != Standing::Active).into()),
        Value::Integer(entry.not_after.seconds()),
        (&record).into(),
        (&id).into(),
    ];
    values.extend_from_slice(more);
    connection.execute(statement, &values).map(|_| ())
}
