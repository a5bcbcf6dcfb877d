//! The removal of old entries from the audit trail.

use std::collections::BTreeMap;

use cvm_provisioning::{RegistryError, Timestamp};

use crate::SqlRegistry;
use crate::connection::{Connection, Value};
use crate::error::SqlError;

/// Entries that one transaction removes: devices wait for it.
const AT_ONCE: i64 = 500;

impl SqlRegistry {
    /// Removes the first entries of the trail, up to the first one that was written at `before` or later; at most 500 in one
    /// call. Returns how many it removed: 0 means that no old entry is left. What stays can still be verified.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn trim_trail(&self, before: Timestamp) -> Result<u64, RegistryError> {
        self.write(move |connection| trim(connection, before)).await
    }
}

fn trim(connection: &mut dyn Connection, before: Timestamp) -> Result<u64, SqlError> {
    // Of two servers that do this at once one waits for the other.
    let lock = connection.for_update();
    let statement = format!("SELECT sequence, chain, moment, hash FROM entries ORDER BY sequence LIMIT ?{lock}");
    let rows = connection.query(&statement, &[Value::Integer(AT_ONCE)])?;
    let mut removed = 0;
    let mut last = None;
    let mut of_chains = BTreeMap::new();
    for row in &rows {
        if row.integer(2)? >= before.seconds() {
            break;
        }
        let (sequence, chain, hash) = (row.integer(0)?, row.integer(1)?, row.text(3)?);
        let of_chain = of_chains.entry(chain).or_insert((0, hash));
        *of_chain = (of_chain.0 + 1, hash);
        (removed, last) = (removed + 1, Some(sequence));
    }
    let Some(last) = last else { return Ok(0) };
    connection.execute("DELETE FROM entries WHERE sequence <= ?", &[Value::Integer(last)])?;
    for (chain, (number, hash)) in of_chains {
        let statement = "UPDATE chains SET removed = removed + ?, removed_hash = ? WHERE chain = ?";
        connection.execute(statement, &[Value::Integer(number), hash.into(), Value::Integer(chain)])?;
    }
    let statement = "UPDATE meta SET value = ? WHERE name = 'trail-begins'";
    connection.execute(statement, &[Value::Integer(last + 1)])?;
    Ok(removed)
}
