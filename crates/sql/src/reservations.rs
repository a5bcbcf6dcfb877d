//! The path of a device: one transaction for each step.

use cvm_provisioning::{
    Attempt, Beside, CertificateId, Credential, Decision, Denial, DeviceId, Leftover, Origin, Refusal, RegistryError,
    Remains, ReservationLost, Reservations, Reserve,
};

use crate::connection::Connection;
use crate::error::SqlError;
use crate::{SqlRegistry, devices, keys};

impl Reservations for SqlRegistry {
    async fn reserve(&self, attempt: &Attempt) -> Result<Reserve, RegistryError> {
        let attempt = attempt.clone();
        self.write(move |connection| {
            let Some(there) = devices::lock(connection, &attempt.device)? else {
                return Ok(Reserve::Refused(None));
            };
            if !matches!(there.device.decide(&attempt), Decision::Provision) {
                return Ok(Reserve::Refused(Some(there.device)));
            }
            if let Some(owner) = keys::claim(connection, &attempt.proof.key, &attempt.device)? {
                return Ok(Reserve::KeyInUse { owner, device: there.device });
            }
            let mut device = there.device.clone();
            device.reserve(&attempt);
            devices::update(connection, there, &device, &attempt.origin)?;
            Ok(Reserve::Held(device))
        })
        .await
    }

    async fn commit(
        &self,
        attempt: &Attempt,
        credential: &Credential,
        beside: &Beside,
    ) -> Result<Result<(), ReservationLost>, RegistryError> {
        let (attempt, credential, beside) = (attempt.clone(), credential.clone(), beside.clone());
        self.write(move |connection| {
            let Some(there) = devices::lock(connection, &attempt.device)? else {
                return Ok(Err(ReservationLost { to_same_key: false }));
            };
            let mut device = there.device.clone();
            let committed = device.commit(attempt.id, credential.clone(), beside.clone(), attempt.now);
            if there.device == device && committed.is_ok() {
                // Another attempt has done it.
                end_behind_what_was_read(connection)?;
            }
            devices::update(connection, there, &device, &attempt.origin)?;
            Ok(committed)
        })
        .await
    }

    async fn release(&self, attempt: &Attempt, left: &Leftover, remains: Remains) -> Result<(), RegistryError> {
        let (attempt, left) = (attempt.clone(), left.clone());
        self.write(move |connection| {
            let Some(there) = devices::lock(connection, &attempt.device)? else { return Ok(()) };
            let mut device = there.device.clone();
            device.release(attempt.id, left.clone(), remains, attempt.now);
            devices::update(connection, there, &device, &attempt.origin)
        })
        .await
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

    async fn refuse(&self, device: &DeviceId, refusal: &Refusal, by: &Origin) -> Result<(), RegistryError> {
        let (id, refusal, by) = (device.clone(), refusal.clone(), by.clone());
        let is_counted_later = self.counts_later() && refusal.denial != Denial::Cloned;
        let write = move |connection: &mut dyn Connection| {
            let Some(there) = devices::lock(connection, &id)? else { return Ok(()) };
            let mut device = there.device.clone();
            device.refuse(&refusal);
            devices::update(connection, there, &device, &by)
        };
        match is_counted_later {
            true => self.write_unattended("a refusal", write),
            false => self.write(write).await,
        }
    }
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
