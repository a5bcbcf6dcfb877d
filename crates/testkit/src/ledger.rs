use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cvm_provisioning::{
    CertificateId, CertificateLedger, DeviceId, LedgerEntry, RegistryError, Standing, ThingName, Timestamp,
};

/// A ledger in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryLedger {
    entries: Arc<Mutex<BTreeMap<CertificateId, LedgerEntry>>>,
}

impl MemoryLedger {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<CertificateId, LedgerEntry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CertificateLedger for MemoryLedger {
    async fn enter(&self, entry: &LedgerEntry) -> Result<(), RegistryError> {
        self.entries().entry(entry.id).or_insert_with(|| entry.clone());
        Ok(())
    }

    async fn entry(&self, id: &CertificateId) -> Result<Option<LedgerEntry>, RegistryError> {
        Ok(self.entries().get(id).cloned())
    }

    async fn entry_of_serial(&self, issuer: &str, serial: &str) -> Result<Option<LedgerEntry>, RegistryError> {
        let entries = self.entries();
        Ok(entries.values().find(|entry| entry.issuer == issuer && entry.serial == serial).cloned())
    }

    async fn entries_of(&self, thing: &ThingName) -> Result<Vec<LedgerEntry>, RegistryError> {
        Ok(self.entries().values().filter(|entry| entry.thing == *thing).cloned().collect())
    }

    async fn set_standing(&self, id: &CertificateId, standing: Standing, now: Timestamp) -> Result<(), RegistryError> {
        let mut entries = self.entries();
        let changes = |entry: &&mut LedgerEntry| ![standing, Standing::Revoked].contains(&entry.standing);
        if let Some(entry) = entries.get_mut(id).filter(changes) {
            (entry.standing, entry.since) = (standing, now);
        }
        Ok(())
    }

    async fn successions_due(&self, _: Timestamp, _: u16) -> Result<Vec<DeviceId>, RegistryError> {
        Ok(Vec::new())
    }

    async fn without_power(&self, issuer: &str, ends_after: Timestamp) -> Result<Vec<LedgerEntry>, RegistryError> {
        let entries = self.entries();
        let of_issuer = entries.values().filter(|entry| entry.issuer == issuer && entry.not_after > ends_after);
        Ok(of_issuer.filter(|entry| entry.standing != Standing::Active).cloned().collect())
    }
}
