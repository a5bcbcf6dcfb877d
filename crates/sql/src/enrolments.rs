//! A device and its certificate of our own CA, in one transaction.

use cvm_provisioning::{
    Attempt, Credential, Decision, DeviceId, Door, Enrol, Enrolments, LedgerEntry, Origin, RegistryError, Standing,
    Superseded, Timestamp,
};

use crate::connection::{Connection, Value};
use crate::error::SqlError;
use crate::{SqlRegistry, devices, keys, ledger};

impl Enrolments for SqlRegistry {
    async fn enrol(
        &self,
        attempt: &Attempt,
        credential: &Credential,
        entry: &LedgerEntry,
    ) -> Result<Enrol, RegistryError> {
        let (attempt, credential, entry) = (attempt.clone(), credential.clone(), entry.clone());
        self.write(move |connection| {
            let Some(mut there) = devices::lock(connection, &attempt.device)? else {
                return Ok(Enrol::Refused(None));
            };
            if !matches!(there.device.decide(&attempt), Decision::Provision) {
                return Ok(Enrol::Refused(Some(there.device)));
            }
            if let Some(owner) = keys::claim(connection, &attempt.proof.key, &attempt.device)? {
                return Ok(Enrol::KeyInUse { owner, device: there.device });
            }
            let mut device = there.device.clone();
            let outdated = device.enrol(&attempt, credential.clone());
            there.enter(connection, &entry, &credential)?;
            revoke(connection, &outdated, attempt.now)?;
            devices::update(connection, there, &device, &attempt.origin)?;
            Ok(Enrol::Done)
        })
        .await
    }

    async fn end_successions(&self, now: Timestamp, limit: u16) -> Result<usize, RegistryError> {
        let mut ended = 0;
        for id in self.successions_due(now, limit).await? {
            ended += usize::from(self.end_succession(id, now).await?);
        }
        Ok(ended)
    }
}

impl SqlRegistry {
    /// At most `limit` devices whose superseded certificates have to lose their power at `now`, the longest due first.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn successions_due(&self, now: Timestamp, limit: u16) -> Result<Vec<DeviceId>, RegistryError> {
        let statement = "SELECT id FROM devices WHERE succession_ends <= ? ORDER BY succession_ends LIMIT ?";
        let due = self.read(move |connection| {
            let rows = connection.query(statement, &[Value::Integer(now.seconds()), Value::Integer(limit.into())])?;
            rows.iter().map(|row| row.text(0).map(ToOwned::to_owned)).collect::<Result<Vec<_>, _>>()
        });
        Ok(due.await?.iter().filter_map(|id| id.parse().ok()).collect())
    }

    async fn end_succession(&self, id: DeviceId, now: Timestamp) -> Result<bool, RegistryError> {
        self.write(move |connection| {
            let Some(there) = devices::lock(connection, &id)? else { return Ok(false) };
            let mut device = there.device.clone();
            if device.succession_ends().is_none_or(|end| now < end) {
                return Ok(false);
            }
            let superseded = device.end_succession(now);
            revoke(connection, &superseded, now)?;
            devices::update(connection, there, &device, &Origin::new(Door::Succession, String::new()))?;
            Ok(true)
        })
        .await
    }
}

fn revoke(connection: &mut dyn Connection, superseded: &[Superseded], now: Timestamp) -> Result<(), SqlError> {
    for certificate in superseded {
        ledger::set_standing(connection, &certificate.certificate, Standing::Revoked, now)?;
    }
    Ok(())
}
