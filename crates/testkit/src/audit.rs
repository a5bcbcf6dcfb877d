use std::sync::{Arc, Mutex, PoisonError};

use cvm_provisioning::{Audit, AuditRecord};

/// Keeps each record as its debug text.
#[derive(Clone, Debug, Default)]
pub struct MemoryAudit {
    records: Arc<Mutex<Vec<String>>>,
}

impl MemoryAudit {
    /// The records so far, taken out.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.records.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Audit for MemoryAudit {
    fn record(&self, record: &AuditRecord<'_>) {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{:?}", record.outcome));
    }
}
