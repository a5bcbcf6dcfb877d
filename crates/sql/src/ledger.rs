//! The certificates of our own CA.

use std::error::Error;

use cvm_provisioning::{
    CertificateId, CertificateLedger, Credential, DeviceId, LedgerEntry, RegistryError, Standing, ThingName, Timestamp,
};
use cvm_records::GivenRecord;

use crate::SqlRegistry;
use crate::connection::{Connection, Row, Value};
use crate::error::SqlError;

/// The columns of an entry, in the order of [`entry`].
macro_rules! entry_columns {
    () => {
        "certificates.id, certificates.issuer, certificates.serial, certificates.pem, certificates.thing, \
         certificates.not_after, certificates.standing, certificates.since"
    };
}
pub(crate) use entry_columns;

/// Reads entries; what comes behind it says which.
const SELECT: &str = concat!("SELECT sequence, earlier, ", entry_columns!(), " FROM certificates");

impl CertificateLedger for SqlRegistry {
    async fn enter(&self, entry: &LedgerEntry) -> Result<(), RegistryError> {
        let entry = entry.clone();
        self.write(move |connection| match lock(connection, &entry.id)? {
            Some(_) => Ok(()),
            None => insert(connection, &entry, &Beside::default()).map(|_| ()),
        })
        .await
    }

    async fn entry(&self, id: &CertificateId) -> Result<Option<LedgerEntry>, RegistryError> {
        let key = id.to_string();
        self.look(move |connection| {
            let rows = connection.query(&format!("{SELECT} WHERE {HAS_ID}"), &has_id(&key))?;
            rows.first().map(|row| entry(row, 2, &key)).transpose()
        })
        .await
    }

    async fn entry_of_serial(&self, issuer: &str, serial: &str) -> Result<Option<LedgerEntry>, RegistryError> {
        let (issuer, serial) = (issuer.to_owned(), serial.to_owned());
        self.look(move |connection| {
            let statement = format!("{SELECT} WHERE issuer = ? AND serial = ?");
            let rows = connection.query(&statement, &[(&issuer).into(), (&serial).into()])?;
            rows.first().map(|row| entry(row, 2, &serial)).transpose()
        })
        .await
    }

    async fn entries_of(&self, thing: &ThingName) -> Result<Vec<LedgerEntry>, RegistryError> {
        let thing = thing.clone();
        self.read(move |connection| {
            let key = [thing.as_str().into()];
            let rows = connection.query("SELECT last_certificate FROM devices WHERE id = ?", &key)?;
            let last = rows.first().map(|row| row.optional_integer(0)).transpose()?.flatten();
            let mut all = list(connection, last)?;
            all.extend(connection.query(&format!("{SELECT} WHERE thing = ? AND is_linked = 0"), &key)?);
            all.iter().map(|row| entry(row, 2, thing.as_str())).collect()
        })
        .await
    }

    async fn set_standing(&self, id: &CertificateId, standing: Standing, now: Timestamp) -> Result<(), RegistryError> {
        let id = *id;
        self.write(move |connection| set_standing(connection, &id, standing, now)).await
    }

    async fn successions_due(&self, now: Timestamp, limit: u16) -> Result<Vec<DeviceId>, RegistryError> {
        let statement = "SELECT id FROM devices WHERE succession_ends <= ? ORDER BY succession_ends LIMIT ?";
        let due = self.read(move |connection| {
            let rows = connection.query(statement, &[Value::Integer(now.seconds()), Value::Integer(limit.into())])?;
            rows.iter().map(|row| row.text(0).map(ToOwned::to_owned)).collect::<Result<Vec<_>, _>>()
        });
        Ok(due.await?.iter().filter_map(|id| id.parse().ok()).collect())
    }

    async fn without_power(&self, issuer: &str, ends_after: Timestamp) -> Result<Vec<LedgerEntry>, RegistryError> {
        let issuer = issuer.to_owned();
        self.read(move |connection| {
            let statement = format!("{SELECT} WHERE powerless = 1 AND issuer = ? AND not_after > ?");
            let values = [(&issuer).into(), Value::Integer(ends_after.seconds())];
            connection.query(&statement, &values)?.iter().map(|row| entry(row, 2, &issuer)).collect()
        })
        .await
    }
}

/// Finds a certificate by its id, of which an index has the beginning.
pub(crate) const HAS_ID: &str = "substr(certificates.id, 1, 12) = ? AND certificates.id = ?";

/// The values for [`HAS_ID`].
pub(crate) fn has_id(id: &str) -> [Value<'_>; 2] {
    [id.get(..12).unwrap_or(id).into(), id.into()]
}

/// Whose a certificate is.
#[derive(Default)]
struct Beside {
    device: Option<String>,
    given: Option<String>,
    earlier: Option<i64>,
    is_linked: bool,
}

/// Where a certificate came to stand.
pub(crate) struct Entered {
    pub(crate) sequence: i64,
    /// The last one in the list of its device from now on.
    pub(crate) last_certificate: Option<i64>,
}

/// Enters a certificate that nobody has entered, with what the device is given; the last one in the list of the device was
/// `last_certificate`.
pub(crate) fn enter_for(
    connection: &mut dyn Connection,
    entry: &LedgerEntry,
    device: &DeviceId,
    credential: &Credential,
    last_certificate: Option<i64>,
) -> Result<Entered, SqlError> {
    // The list is that of the thing, too, where that has the name of the device.
    let is_linked = entry.thing.as_str() == device.as_str();
    let given = serde_json::to_string(&GivenRecord::from(credential));
    let beside = Beside {
        device: Some(device.to_string()),
        given: Some(given.map_err(|error| SqlError::Failed(error.into()))?),
        earlier: last_certificate.filter(|_| is_linked),
        is_linked,
    };
    let sequence = insert(connection, entry, &beside)?;
    Ok(Entered { sequence, last_certificate: if is_linked { Some(sequence) } else { last_certificate } })
}

/// Takes the list apart that ends with this certificate: no device knows it any more, so that the index has to.
pub(crate) fn unlink(connection: &mut dyn Connection, last: Option<i64>) -> Result<(), SqlError> {
    for row in list(connection, last)? {
        let sequence = row.integer(0)?.into();
        connection.execute("UPDATE certificates SET is_linked = 0 WHERE sequence = ?", &[sequence])?;
    }
    Ok(())
}

/// The certificates in the list that ends with this one, the latest first.
fn list(connection: &mut dyn Connection, last: Option<i64>) -> Result<Vec<Row>, SqlError> {
    let mut all = Vec::new();
    let mut next = last;
    while let Some(sequence) = next {
        let row = connection.query(&format!("{SELECT} WHERE sequence = ?"), &[sequence.into()])?.pop();
        let earlier = row.as_ref().map(|row| row.optional_integer(1)).transpose()?.flatten();
        // Always further to the front, whatever somebody has written there.
        next = earlier.filter(|earlier| *earlier < sequence);
        all.extend(row);
    }
    Ok(all)
}

/// Writes how a certificate stands; one that is revoked stays so, and one that is unknown is no error.
pub(crate) fn set_standing(
    connection: &mut dyn Connection,
    id: &CertificateId,
    standing: Standing,
    now: Timestamp,
) -> Result<(), SqlError> {
    let Some((sequence, there)) = lock(connection, id)? else { return Ok(()) };
    if there.standing == standing || there.standing == Standing::Revoked {
        return Ok(());
    }
    let values = [standing.name().into(), Value::Integer(now.seconds()), is_powerless(standing), sequence.into()];
    let statement = "UPDATE certificates SET standing = ?, since = ?, powerless = ? WHERE sequence = ?";
    connection.execute(statement, &values).map(|_| ())
}

/// A certificate, as it is for as long as the transaction lasts, and its number.
fn lock(connection: &mut dyn Connection, id: &CertificateId) -> Result<Option<(i64, LedgerEntry)>, SqlError> {
    let key = id.to_string();
    let end = connection.for_update();
    let rows = connection.query(&format!("{SELECT} WHERE {HAS_ID}{end}"), &has_id(&key))?;
    rows.first().map(|row| Ok((row.integer(0)?, entry(row, 2, &key)?))).transpose()
}

/// The entry of a certificate, as it is for as long as the transaction lasts.
pub(crate) fn locked_entry(
    connection: &mut dyn Connection,
    id: &CertificateId,
) -> Result<Option<LedgerEntry>, SqlError> {
    Ok(lock(connection, id)?.map(|(_, entry)| entry))
}

/// Whether a CA has a certificate with this serial number.
pub(crate) fn has_serial(connection: &mut dyn Connection, issuer: &str, serial: &str) -> Result<bool, SqlError> {
    let statement = "SELECT 1 FROM certificates WHERE issuer = ? AND serial = ?";
    Ok(!connection.query(statement, &[issuer.into(), serial.into()])?.is_empty())
}

/// Enters the certificate of a device whose own record has what it was given.
pub(crate) fn enter_restored(
    connection: &mut dyn Connection,
    entry: &LedgerEntry,
    device: &DeviceId,
) -> Result<(), SqlError> {
    let beside = Beside { device: Some(device.to_string()), ..Beside::default() };
    insert(connection, entry, &beside).map(|_| ())
}

fn insert(connection: &mut dyn Connection, entry: &LedgerEntry, beside: &Beside) -> Result<i64, SqlError> {
    let id = entry.id.to_string();
    let values = [
        (&id).into(),
        (&entry.issuer).into(),
        (&entry.serial).into(),
        (&entry.pem).into(),
        entry.thing.as_str().into(),
        Value::Integer(entry.not_after.seconds()),
        entry.standing.name().into(),
        Value::Integer(entry.since.seconds()),
        is_powerless(entry.standing),
        beside.device.as_ref().into(),
        beside.given.as_ref().into(),
        beside.earlier.into(),
        Value::Integer(beside.is_linked.into()),
    ];
    let statement = "INSERT INTO certificates (id, issuer, serial, pem, thing, not_after, standing, since, powerless, device, \
                     given, earlier, is_linked) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    connection.append(statement, &values)
}

fn is_powerless(standing: Standing) -> Value<'static> {
    Value::Integer((standing != Standing::Active).into())
}

/// The entry in the columns of a row from `first` on.
pub(crate) fn entry(row: &Row, first: usize, key: &str) -> Result<LedgerEntry, SqlError> {
    let corrupt = |source: Box<dyn Error + Send + Sync>| SqlError::Corrupt { key: key.to_owned(), source };
    let text = |column: usize| row.text(first + column);
    let time = |column: usize| row.integer(first + column).map(Timestamp::from_seconds);
    let standing = Standing::from_name(text(6)?).ok_or("its standing is not one that this version knows");
    Ok(LedgerEntry {
        id: text(0)?.parse().map_err(|error| corrupt(Box::new(error)))?,
        issuer: text(1)?.to_owned(),
        serial: text(2)?.to_owned(),
        pem: text(3)?.to_owned(),
        thing: ThingName::try_from(text(4)?.to_owned()).map_err(|error| corrupt(Box::new(error)))?,
        not_after: time(5)?,
        standing: standing.map_err(|error| corrupt(error.into()))?,
        since: time(7)?,
    })
}
