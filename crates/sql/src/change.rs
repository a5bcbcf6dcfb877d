//! A change of a device, with all that belongs to it, in one transaction.

use cvm_provisioning::{Change, Claim, ClaimChange, DeviceChange, LedgerChange, Put, Standing};

use crate::connection::Connection;
use crate::devices::{self, Locked};
use crate::error::SqlError;
use crate::{claims, keys, ledger, tombstones};

/// Makes the change where the device is what was read, no other device has its exclusive keys, and its claim is open.
pub(crate) fn put(connection: &mut dyn Connection, change: &Change) -> Result<Put, SqlError> {
    // The claim is locked last: many devices share it, and none should wait for another for long.
    if let Some(ClaimChange::Count { claim, at }) = &change.claim
        && !claims::find(connection, claim)?.is_some_and(|claim| claim.is_open(*at))
    {
        return Ok(Put::Changed);
    }
    let there = devices::lock(connection, change.id())?;
    if !change.is_of(there.as_ref().map(|there| &there.device)) {
        return Ok(Put::Changed);
    }
    for key in &change.exclusive {
        if let Some(owner) = keys::other_owner(connection, key, change.id())? {
            return Ok(Put::KeyInUse { key: *key, owner });
        }
    }
    keys::claim_all(connection, &change.exclusive, change.id())?;
    write(connection, there, change)?;
    match &change.claim {
        None => {}
        Some(ClaimChange::Count { claim, at }) => match claims::lock(connection, claim)? {
            Some(claim) if claim.is_open(*at) => claims::put(connection, &Claim { used: claim.used + 1, ..claim })?,
            // It was used up or revoked in between: what was written of the device is taken back, and looked at anew.
            _ => return Err(SqlError::Contended("the claim was changed".into())),
        },
        Some(ClaimChange::MakeOut(claim)) => claims::put(connection, claim)?,
    }
    Ok(Put::Done)
}

/// Writes the device and its ledger.
fn write(connection: &mut dyn Connection, there: Option<Locked>, change: &Change) -> Result<(), SqlError> {
    match (&change.device, there) {
        (DeviceChange::Add(device) | DeviceChange::Restore { device, .. }, _) => {
            devices::insert(connection, device, change.told(None).as_ref())
        }
        (DeviceChange::Replace { device, .. }, Some(mut there)) => {
            for part in &change.ledger {
                match (part, &device.credential) {
                    (LedgerChange::Enter(entry), Some(credential)) => there.enter(connection, entry, credential)?,
                    // It is of nobody's credential.
                    (LedgerChange::Enter(_), None) => {}
                    (LedgerChange::Revoke { certificate, at }, _) => {
                        ledger::set_standing(connection, certificate, Standing::Revoked, *at)?;
                    }
                }
            }
            devices::update(connection, there, device, &change.by)
        }
        (DeviceChange::Remove { tombstone, .. }, Some(there)) => {
            tombstones::insert(connection, tombstone)?;
            devices::delete(connection, &there, tombstone.device.clone(), &change.by)
        }
        // A change is of what is there.
        (DeviceChange::Replace { .. } | DeviceChange::Remove { .. }, None) => Ok(()),
    }
}
