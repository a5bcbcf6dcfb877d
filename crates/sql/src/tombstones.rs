//! What is left of deleted devices.

use cvm_provisioning::{DeviceId, GenerationId, RegistryError, Tombstone, Tombstones};

use crate::connection::Connection;
use crate::error::SqlError;
use crate::{SqlRegistry, devices};

impl Tombstones for SqlRegistry {
    async fn tombstone(&self, id: &DeviceId, generation: GenerationId) -> Result<Option<Tombstone>, RegistryError> {
        let (id, generation) = (id.clone(), generation.to_string());
        self.read(move |connection| {
            let statement = "SELECT record FROM tombstones WHERE id = ? AND generation = ?";
            let rows = connection.query(statement, &[id.as_str().into(), (&generation).into()])?;
            let buried = rows.first().map(|row| devices::of_record(row.text(0)?, id.as_str())).transpose()?;
            Ok(buried.map(|device| Tombstone { device }))
        })
        .await
    }

    async fn forget(&self, id: &DeviceId, generation: GenerationId) -> Result<(), RegistryError> {
        let (id, generation) = (id.clone(), generation.to_string());
        self.write(move |connection| {
            let statement = "DELETE FROM tombstones WHERE id = ? AND generation = ?";
            connection.execute(statement, &[id.as_str().into(), (&generation).into()]).map(|_| ())
        })
        .await
    }
}

/// Leaves a tombstone.
pub(crate) fn insert(connection: &mut dyn Connection, Tombstone { device }: &Tombstone) -> Result<(), SqlError> {
    let (generation, record) = (device.generation.to_string(), devices::record(device)?);
    let values = [device.id.as_str().into(), (&generation).into(), (&record).into()];
    connection.execute("REPLACE INTO tombstones (id, generation, record) VALUES (?, ?, ?)", &values).map(|_| ())
}
