//! What operators have decided and the platform has not been told yet: written with the decision itself, so that none is
//! forgotten.

use cvm_provisioning::{DeviceId, GenerationId, RegistryError, RegistryWrite};

use crate::SqlRegistry;
use crate::connection::{Connection, Value};
use crate::error::SqlError;

/// A decision that has to be enforced.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Decision {
    /// Its number; later ones have higher ones.
    pub sequence: i64,
    /// The device that it is about.
    pub device: DeviceId,
    /// Which of those that have had the id.
    pub generation: GenerationId,
    /// Whether it was deleted; else its status was changed.
    pub deleted: bool,
}

impl SqlRegistry {
    /// At most `limit` decisions that have to be enforced, the oldest first.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn decisions(&self, limit: u16) -> Result<Vec<Decision>, RegistryError> {
        self.read(move |connection| {
            let statement = "SELECT sequence, device, generation, deleted FROM decisions ORDER BY sequence LIMIT ?";
            let decision = |row: &crate::connection::Row| {
                let key = row.text(1)?;
                let corrupt = |source: Box<dyn std::error::Error + Send + Sync>| SqlError::Corrupt {
                    key: key.to_owned(),
                    source,
                };
                Ok(Decision {
                    sequence: row.integer(0)?,
                    device: key.parse().map_err(|error| corrupt(Box::new(error)))?,
                    generation: row.text(2)?.parse().map_err(|error| corrupt(Box::new(error)))?,
                    deleted: row.integer(3)? != 0,
                })
            };
            connection.query(statement, &[Value::Integer(limit.into())])?.iter().map(decision).collect()
        })
        .await
    }

    /// Takes note that a decision is enforced.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn enforced(&self, decision: &Decision) -> Result<(), RegistryError> {
        let sequence = decision.sequence;
        self.write(move |connection| {
            connection.execute("DELETE FROM decisions WHERE sequence = ?", &[Value::Integer(sequence)]).map(|_| ())
        })
        .await
    }
}

/// Writes the decision down that a write is, if it is one.
pub(crate) fn note(connection: &mut dyn Connection, write: &RegistryWrite) -> Result<(), SqlError> {
    let Some(device) = write.after.as_ref().or(write.before.as_ref()).filter(|_| write.is_to_be_enforced()) else {
        return Ok(());
    };
    let generation = device.generation.to_string();
    let deleted = Value::Integer(write.after.is_none().into());
    let values = [device.id.as_str().into(), (&generation).into(), deleted];
    connection.execute("INSERT INTO decisions (device, generation, deleted) VALUES (?, ?, ?)", &values).map(|_| ())
}
