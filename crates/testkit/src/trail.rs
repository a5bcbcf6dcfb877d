use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cvm_provisioning::{AuditEntry, AuditPage, AuditQuery, AuditTrail, Bus, BusError, RegistryError};

/// An audit trail in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryTrail {
    entries: Arc<Mutex<BTreeMap<(i64, String), AuditEntry>>>,
}

impl AuditTrail for MemoryTrail {
    async fn append(&self, entries: &[AuditEntry]) -> Result<(), RegistryError> {
        let mut kept = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            kept.entry((entry.at.seconds(), entry.id.clone())).or_insert_with(|| entry.clone());
        }
        Ok(())
    }

    async fn entries(&self, query: &AuditQuery, after: Option<&str>, limit: u16) -> Result<AuditPage, RegistryError> {
        let place = |(at, id): &(i64, String)| format!("{at:012}#{id}");
        let kept = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wanted = kept.iter().rev().filter(|(key, entry)| {
            let device = query.device.as_ref().is_none_or(|device| *device == entry.device);
            let in_time = query.since <= entry.at && entry.at < query.until;
            device && in_time && after.is_none_or(|after| place(key).as_str() < after)
        });
        let page: Vec<_> = wanted.by_ref().take(limit.into()).collect();
        let next = wanted.next().and(page.last()).map(|(key, _)| place(key));
        Ok(AuditPage { entries: page.into_iter().map(|(_, entry)| entry.clone()).collect(), next })
    }
}

/// A bus in memory, which may be out of order.
#[derive(Clone, Debug, Default)]
pub struct MemoryBus {
    told: Arc<Mutex<Vec<String>>>,
    aside: Arc<Mutex<Vec<String>>>,
    broken: bool,
}

impl MemoryBus {
    /// A bus that takes nothing.
    pub fn broken() -> Self {
        Self { broken: true, ..Self::default() }
    }

    /// The ids and actions that were told, in their order.
    pub fn told(&self) -> Vec<String> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The writes that were put aside.
    pub fn aside(&self) -> Vec<String> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn works(&self) -> Result<(), BusError> {
        if self.broken { Err(BusError { source: "scripted".into() }) } else { Ok(()) }
    }
}

impl Bus for MemoryBus {
    async fn tell(&self, entries: &[AuditEntry]) -> Result<(), BusError> {
        self.works()?;
        let told = entries.iter().map(|entry| format!("{} {} {}", entry.id, entry.device, entry.action));
        self.told.lock().unwrap_or_else(PoisonError::into_inner).extend(told);
        Ok(())
    }

    async fn put_aside(&self, write: &str, _: &str) -> Result<(), BusError> {
        self.works()?;
        self.aside.lock().unwrap_or_else(PoisonError::into_inner).push(write.to_owned());
        Ok(())
    }
}
