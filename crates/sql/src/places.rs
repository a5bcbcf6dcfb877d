//! Where jobs that are done a piece at a time have got to.

use cvm_provisioning::{Cursors, RegistryError};

use crate::SqlRegistry;

impl Cursors for SqlRegistry {
    async fn place(&self, name: &str) -> Result<Option<String>, RegistryError> {
        let name = name.to_owned();
        self.read(move |connection| {
            let rows = connection.query("SELECT place FROM places WHERE name = ?", &[(&name).into()])?;
            rows.first().map(|row| row.text(0).map(str::to_owned)).transpose()
        })
        .await
    }

    async fn move_to(&self, name: &str, place: Option<&str>) -> Result<(), RegistryError> {
        let (name, place) = (name.to_owned(), place.map(str::to_owned));
        self.write(move |connection| {
            let moved = match &place {
                Some(place) => {
                    let values = [(&name).into(), place.into()];
                    connection.execute("REPLACE INTO places (name, place) VALUES (?, ?)", &values)
                }
                None => connection.execute("DELETE FROM places WHERE name = ?", &[(&name).into()]),
            };
            moved.map(|_| ())
        })
        .await
    }
}

/// The place that [`SqlRegistry::probe_write`] writes.
const PROBE: &str = "probe";

impl SqlRegistry {
    /// Writes one row, as every change of a device does, and returns when it is on the disk.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if nothing can be written.
    pub async fn probe_write(&self) -> Result<(), RegistryError> {
        self.write(|connection| {
            let values = [PROBE.into(), "".into()];
            connection.execute("REPLACE INTO places (name, place) VALUES (?, ?)", &values).map(|_| ())
        })
        .await
    }

    /// Writes down a place that is none yet, and returns the one that there is: of several servers that begin at once, the
    /// first one's.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn begin_at(&self, name: &str, place: &str) -> Result<String, RegistryError> {
        let (name, place) = (name.to_owned(), place.to_owned());
        self.write(move |connection| {
            let end = connection.for_update();
            let found =
                connection.query(&format!("SELECT place FROM places WHERE name = ?{end}"), &[(&name).into()])?;
            if let Some(row) = found.first() {
                return row.text(0).map(str::to_owned);
            }
            let values = [(&name).into(), (&place).into()];
            connection.execute("INSERT INTO places (name, place) VALUES (?, ?)", &values)?;
            Ok(place.clone())
        })
        .await
    }
}
