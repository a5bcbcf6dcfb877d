//! From a certificate to its device, and to what attempts may have left.

use cvm_provisioning::{CertificateId, CertificateIndex, CertificateOwner, DeviceId, RegistryError, UnsettledDevice};

use crate::connection::{Connection, Value};
use crate::error::SqlError;
use crate::{SqlRegistry, devices, ledger};

/// The device that has this certificate, or awaits it.
pub(crate) fn owner(
    connection: &mut dyn Connection,
    certificate: &CertificateId,
) -> Result<Option<CertificateOwner>, SqlError> {
    let key = certificate.to_string();
    // The ledger may know it as an earlier one.
    let statement = format!(
        "{0} WHERE devices.certificate = ? UNION ALL {0} WHERE devices.id IN (SELECT device FROM certificates WHERE {1})",
        devices::SELECT,
        ledger::HAS_ID,
    );
    let [start, id] = ledger::has_id(&key);
    for row in connection.query(&statement, &[(&key).into(), start, id])? {
        let device = devices::device(&row, &key)?;
        if device.indexed_certificate() == Some(*certificate) {
            return Ok(Some(CertificateOwner { used: device.is_used(certificate), device: device.id }));
        }
    }
    Ok(None)
}

impl CertificateIndex for SqlRegistry {
    async fn device_of(&self, certificate: &CertificateId) -> Result<Option<CertificateOwner>, RegistryError> {
        let certificate = *certificate;
        self.read(move |connection| owner(connection, &certificate)).await
    }

    async fn unsettled(&self, limit: u16) -> Result<Vec<UnsettledDevice>, RegistryError> {
        self.read(move |connection| {
            let limit = [Value::Integer(limit.into())];
            let corrupt = |key: &str| {
                let key = key.to_owned();
                move |source: Box<dyn std::error::Error + Send + Sync>| SqlError::Corrupt { key, source }
            };
            let id = |text: &str| text.parse::<DeviceId>().map_err(|error| corrupt(text)(error.into()));
            let statement = "SELECT id FROM devices WHERE unsettled_since IS NOT NULL ORDER BY unsettled_since LIMIT ?";
            let mut all = Vec::new();
            for row in connection.query(statement, &limit)? {
                all.push(UnsettledDevice { id: id(row.text(0)?)?, deleted: None });
            }
            for row in connection.query("SELECT id, generation FROM tombstones LIMIT ?", &limit)? {
                let generation =
                    row.text(1)?.parse().map_err(|error| corrupt(row.text(0).unwrap_or_default())(Box::new(error)))?;
                all.push(UnsettledDevice { id: id(row.text(0)?)?, deleted: Some(generation) });
            }
            all.truncate(
                usize::try_from(match limit[0] {
                    Value::Integer(limit) => limit,
                    _ => 0,
                })
                .unwrap_or(0),
            );
            Ok(all)
        })
        .await
    }
}
