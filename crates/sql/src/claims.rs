//! Claims, and how many each trusted user had made out.

use cvm_provisioning::{CertificateId, Claim, ClaimStore, Device, DeviceId, RegistryError, TrustedUser};
use cvm_records::ClaimRecord;

use crate::connection::{Connection, Row, Value};
use crate::error::SqlError;
use crate::{SqlRegistry, device_store};

impl ClaimStore for SqlRegistry {
    async fn look_up(
        &self,
        claim: &CertificateId,
        device: &DeviceId,
    ) -> Result<(Option<Claim>, Option<Device>), RegistryError> {
        let (claim, device) = (*claim, device.clone());
        self.read(move |connection| Ok((find(connection, &claim)?, device_store::find(connection, &device)?))).await
    }

    async fn count_claim(&self, user: &TrustedUser, day: i64, quota: u64) -> Result<bool, RegistryError> {
        let user = user.to_string();
        self.write(move |connection| {
            let end = connection.for_update();
            let statement = format!("SELECT day, used FROM claim_counts WHERE trusted_user = ?{end}");
            let rows = connection.query(&statement, &[(&user).into()])?;
            let counted = rows.first().map(|row| Ok::<_, SqlError>((row.integer(0)?, row.integer(1)?))).transpose()?;
            let used = counted.filter(|(of, _)| *of == day).map_or(0, |(_, used)| used);
            if u64::try_from(used).unwrap_or_default() >= quota {
                return Ok(false);
            }
            let values = [Value::Integer(day), Value::Integer(used + 1), (&user).into()];
            let statement = match counted {
                Some(_) => "UPDATE claim_counts SET day = ?, used = ? WHERE trusted_user = ?",
                None => "INSERT INTO claim_counts (day, used, trusted_user) VALUES (?, ?, ?)",
            };
            connection.execute(statement, &values)?;
            Ok(true)
        })
        .await
    }

    async fn find_claim(&self, id: &CertificateId) -> Result<Option<Claim>, RegistryError> {
        let id = *id;
        self.read(move |connection| find(connection, &id)).await
    }

    async fn put_claim(&self, claim: &Claim, found: Option<&Claim>) -> Result<bool, RegistryError> {
        let (claim, found) = (claim.clone(), found.map(|found| found.status.clone()));
        self.write(move |connection| {
            let there = lock(connection, &claim.certificate)?;
            if there.as_ref().map(|there| &there.status) != found.as_ref() {
                return Ok(false);
            }
            let used = there.as_ref().map_or(claim.used, |there| there.used);
            let claim = Claim { used, ..claim.clone() };
            match there {
                Some(_) => put(connection, &claim)?,
                // Of two who register it one is told so.
                None => insert(connection, &claim)?,
            }
            Ok(true)
        })
        .await
    }

    async fn claims(&self) -> Result<Vec<Claim>, RegistryError> {
        self.read(|connection| {
            let rows = connection.query("SELECT record, certificate FROM claims", &[])?;
            rows.iter().map(|row| claim(row, row.text(1)?)).collect()
        })
        .await
    }
}

pub(crate) fn find(connection: &mut dyn Connection, id: &CertificateId) -> Result<Option<Claim>, SqlError> {
    select(connection, id, "")
}

/// The claim, as it is for as long as the transaction lasts.
pub(crate) fn lock(connection: &mut dyn Connection, id: &CertificateId) -> Result<Option<Claim>, SqlError> {
    let end = connection.for_update();
    select(connection, id, end)
}

fn select(connection: &mut dyn Connection, id: &CertificateId, end: &str) -> Result<Option<Claim>, SqlError> {
    let key = id.to_string();
    let rows = connection.query(&format!("SELECT record FROM claims WHERE certificate = ?{end}"), &[(&key).into()])?;
    rows.first().map(|row| claim(row, &key)).transpose()
}

fn claim(row: &Row, key: &str) -> Result<Claim, SqlError> {
    let record = serde_json::from_str::<ClaimRecord>(row.text(0)?).map_err(Into::into);
    record.and_then(Claim::try_from).map_err(|source| SqlError::Corrupt { key: key.to_owned(), source })
}

fn insert(connection: &mut dyn Connection, claim: &Claim) -> Result<(), SqlError> {
    write(connection, "INSERT INTO claims (certificate, record) VALUES (?, ?)", claim)
}

pub(crate) fn put(connection: &mut dyn Connection, claim: &Claim) -> Result<(), SqlError> {
    write(connection, "REPLACE INTO claims (certificate, record) VALUES (?, ?)", claim)
}

fn write(connection: &mut dyn Connection, statement: &str, claim: &Claim) -> Result<(), SqlError> {
    let record = serde_json::to_string(&ClaimRecord::from(claim)).map_err(|error| SqlError::Failed(error.into()))?;
    let key = claim.certificate.to_string();
    connection.execute(statement, &[(&key).into(), (&record).into()]).map(|_| ())
}
