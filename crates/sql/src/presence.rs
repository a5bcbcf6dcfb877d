//! Who is connected.

use std::collections::BTreeMap;

use cvm_provisioning::{DeviceId, Presence, Presences, RegistryError};
use cvm_records::PresenceRecord;

use crate::SqlRegistry;
use crate::connection::Value;
use crate::error::SqlError;

impl Presences for SqlRegistry {
    async fn note_presence(&self, device: &DeviceId, presence: &Presence) -> Result<(), RegistryError> {
        let (device, presence) = (device.clone(), presence.clone());
        self.write(move |connection| {
            let id = device.as_str();
            let statement = format!("SELECT position FROM presences WHERE id = ?{}", connection.for_update());
            let rows = connection.query(&statement, &[id.into()])?;
            let position = presence.order.cast_signed();
            if rows.first().map(|row| row.integer(0)).transpose()?.is_some_and(|there| there > position) {
                return Ok(());
            }
            let record = serde_json::to_string(&PresenceRecord::from(&presence));
            let record = record.map_err(|error| SqlError::Failed(error.into()))?;
            let values =
                [id.into(), Value::Integer(presence.connected.into()), Value::Integer(position), (&record).into()];
            let statement = "REPLACE INTO presences (id, connected, position, record) VALUES (?, ?, ?, ?)";
            connection.execute(statement, &values).map(|_| ())
        })
        .await
    }

    async fn presences(&self, devices: &[DeviceId]) -> Result<BTreeMap<DeviceId, Presence>, RegistryError> {
        let devices = devices.to_vec();
        self.read(move |connection| {
            let mut known = BTreeMap::new();
            if devices.is_empty() {
                return Ok(known);
            }
            let places = vec!["?"; devices.len()].join(", ");
            let statement = format!("SELECT id, record FROM presences WHERE id IN ({places})");
            let ids: Vec<Value<'_>> = devices.iter().map(|id| id.as_str().into()).collect();
            for row in connection.query(&statement, &ids)? {
                let key = row.text(0)?;
                let record: PresenceRecord = serde_json::from_str(row.text(1)?)
                    .map_err(|error| SqlError::Corrupt { key: key.to_owned(), source: error.into() })?;
                let id = devices.iter().find(|id| id.as_str() == key);
                known.extend(id.map(|id| (id.clone(), record.into())));
            }
            Ok(known)
        })
        .await
    }

    async fn forget_presence(&self, device: &DeviceId) -> Result<(), RegistryError> {
        let id = device.clone();
        self.write(move |connection| {
            connection.execute("DELETE FROM presences WHERE id = ?", &[id.as_str().into()]).map(|_| ())
        })
        .await
    }

    async fn count_connected(&self) -> Result<u64, RegistryError> {
        self.read(|connection| {
            let rows = connection.query("SELECT COUNT(*) FROM presences WHERE connected = 1", &[])?;
            let count = rows.first().map(|row| row.integer(0)).transpose()?;
            Ok(u64::try_from(count.unwrap_or_default()).unwrap_or_default())
        })
        .await
    }
}
