//! Whose a key is. Each change of a device changes this with it; the first device that has a key keeps it.

use std::collections::BTreeSet;

use cvm_provisioning::{Device, DeviceId, KeyFingerprint};

use crate::connection::Connection;
use crate::error::SqlError;

/// Makes the key the device's, and returns the other device that has it, if there is one.
pub(crate) fn claim(
    connection: &mut dyn Connection,
    key: &KeyFingerprint,
    device: &DeviceId,
) -> Result<Option<DeviceId>, SqlError> {
    let Some(owner) = owner(connection, key)? else {
        // Of two transactions that do this at once one fails, and is done again.
        let fingerprint = key.to_string();
        let values = [(&fingerprint).into(), device.as_str().into()];
        connection.execute("INSERT INTO device_keys (fingerprint, device) VALUES (?, ?)", &values)?;
        return Ok(None);
    };
    Ok(Some(owner).filter(|owner| owner != device))
}

/// The device that has the key.
pub(crate) fn owner(connection: &mut dyn Connection, key: &KeyFingerprint) -> Result<Option<DeviceId>, SqlError> {
    let fingerprint = key.to_string();
    let rows = connection.query("SELECT device FROM device_keys WHERE fingerprint = ?", &[(&fingerprint).into()])?;
    let Some(row) = rows.first() else { return Ok(None) };
    row.text(0)?.parse().map(Some).map_err(|error| SqlError::Corrupt {
        key: fingerprint,
        source: Box::<dyn std::error::Error + Send + Sync>::from(error),
    })
}

/// The other device that has the key.
pub(crate) fn other_owner(
    connection: &mut dyn Connection,
    key: &KeyFingerprint,
    device: &DeviceId,
) -> Result<Option<DeviceId>, SqlError> {
    Ok(owner(connection, key)?.filter(|owner| owner != device))
}

/// Makes keys the device's alone, none of which [another device had](other_owner) a moment ago.
///
/// # Errors
///
/// [`SqlError::Contended`] where another device was faster with one: all is taken back, and looked at anew.
pub(crate) fn claim_all(
    connection: &mut dyn Connection,
    keys: &BTreeSet<KeyFingerprint>,
    device: &DeviceId,
) -> Result<(), SqlError> {
    for key in keys {
        if claim(connection, key, device)?.is_some() {
            return Err(SqlError::Contended("another device took the key".into()));
        }
    }
    Ok(())
}

/// Writes down which keys a device has from now on. A key that another device has stays that one's.
pub(crate) fn update(
    connection: &mut dyn Connection,
    before: Option<&Device>,
    after: Option<&Device>,
) -> Result<(), SqlError> {
    let Some(device) = after.or(before).map(|device| &device.id) else { return Ok(()) };
    let keys = |device: Option<&Device>| device.map(Device::keys).unwrap_or_default();
    let (before, after) = (keys(before), keys(after));
    for key in before.difference(&after) {
        let fingerprint = key.to_string();
        let values = [(&fingerprint).into(), device.as_str().into()];
        connection.execute("DELETE FROM device_keys WHERE fingerprint = ? AND device = ?", &values)?;
    }
    for key in after.difference(&before) {
        claim(connection, key, device)?;
    }
    Ok(())
}
