//! What happened, in chains of hashes, so that a change of it shows.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};
use cvm_provisioning::{AuditEntry, AuditPage, AuditQuery, AuditTrail, RegistryError};
use cvm_records::AuditEntryRecord;
use data_encoding::HEXLOWER;

use crate::SqlRegistry;
use crate::connection::{Connection, Value};
use crate::error::SqlError;

/// The hash before the first entry of a chain.
const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Entries that are checked in one transaction.
const PORTION: i64 = 10_000;

impl AuditTrail for SqlRegistry {
    async fn append(&self, entries: &[AuditEntry]) -> Result<(), RegistryError> {
        let entries = entries.to_vec();
        self.write(move |connection| {
            for entry in &entries {
                let values = [entry.device.as_str().into(), Value::Integer(entry.at.seconds()), (&entry.id).into()];
                let statement = "SELECT 1 FROM entries WHERE device = ? AND moment = ? AND id = ?";
                if connection.query(statement, &values)?.is_empty() {
                    append(connection, entry)?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn entries(&self, query: &AuditQuery, after: Option<&str>, limit: u16) -> Result<AuditPage, RegistryError> {
        let query = query.clone();
        let after = after.and_then(|place| {
            let (moment, sequence) = place.split_once('#')?;
            Some((moment.parse::<i64>().ok()?, sequence.parse::<i64>().ok()?))
        });
        self.read(move |connection| {
            let device = query.device.as_ref().map(|device| device.as_str());
            let mut values = vec![Value::Integer(query.since.seconds()), Value::Integer(query.until.seconds())];
            let mut conditions = "moment >= ? AND moment < ?".to_owned();
            if let Some(device) = device {
                conditions.push_str(" AND device = ?");
                values.push(device.into());
            }
            if let Some((moment, sequence)) = after {
                conditions.push_str(" AND (moment < ? OR (moment = ? AND sequence < ?))");
                values.extend([moment, moment, sequence].map(Value::Integer));
            }
            values.push(Value::Integer(i64::from(limit) + 1));
            let statement = format!(
                "SELECT document, moment, sequence FROM entries WHERE {conditions} \
                 ORDER BY moment DESC, sequence DESC LIMIT ?"
            );
            let rows = connection.query(&statement, &values)?;
            let mut page = AuditPage::default();
            for row in rows.iter().take(limit.into()) {
                page.entries.push(entry(row.text(0)?)?);
                if rows.len() > usize::from(limit) {
                    page.next = Some(format!("{:012}#{}", row.integer(1)?, row.integer(2)?));
                }
            }
            Ok(page)
        })
        .await
    }
}

impl SqlRegistry {
    /// Checks that the trail is as it was written.
    ///
    /// Whoever can write to the database could write all of it anew; keep the numbers and hashes that this returns where
    /// they cannot, and compare.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]. A trail that was changed is no error: see [`Verified`].
    pub async fn verify_trail(&self) -> Result<Verified, RegistryError> {
        // The ends first: what is written from now on is behind them.
        let ends = self.read(ends).await?;
        let mut entries = 0;
        for (chain, (length, end)) in &ends {
            let (mut seen, mut last, mut before) = (0, 0, BEGINNING.to_owned());
            while seen < *length {
                let (chain, portion) = (*chain, PORTION.min(length - seen));
                let found = self.read(move |connection| portion_of(connection, chain, last, portion)).await?;
                if found.is_empty() {
                    return Ok(Verified::Broken(BrokenChain::End { chain }));
                }
                for (sequence, document, hash) in found {
                    if next_hash(&before, &document) != hash {
                        return Ok(Verified::Broken(BrokenChain::Entry { sequence }));
                    }
                    (seen, last, before) = (seen + 1, sequence, hash);
                }
            }
            if before != *end {
                return Ok(Verified::Broken(BrokenChain::End { chain: *chain }));
            }
            entries += length.unsigned_abs();
        }
        if let Some(chain) = self.read(chain_without_end).await? {
            return Ok(Verified::Broken(BrokenChain::End { chain }));
        }
        Ok(Verified::Whole { entries, ends: ends.into_values().map(|(_, hash)| hash).collect() })
    }
}

/// The chains, with their lengths and the hashes at their ends.
fn ends(connection: &mut dyn Connection) -> Result<BTreeMap<i64, (i64, String)>, SqlError> {
    let rows = connection.query("SELECT chain, length, hash FROM chains", &[])?;
    rows.iter().map(|row| Ok((row.integer(0)?, (row.integer(1)?, row.text(2)?.to_owned())))).collect()
}

/// Some entries of a chain: their numbers, documents and hashes.
fn portion_of(
    connection: &mut dyn Connection,
    chain: i64,
    after: i64,
    limit: i64,
) -> Result<Vec<(i64, String, String)>, SqlError> {
    let statement =
        "SELECT sequence, document, hash FROM entries WHERE chain = ? AND sequence > ? ORDER BY sequence LIMIT ?";
    let rows = connection.query(statement, &[chain, after, limit].map(Value::Integer))?;
    rows.iter().map(|row| Ok((row.integer(0)?, row.text(1)?.to_owned(), row.text(2)?.to_owned()))).collect()
}

/// A chain that has entries and no end.
fn chain_without_end(connection: &mut dyn Connection) -> Result<Option<i64>, SqlError> {
    let statement = "SELECT chain FROM entries WHERE chain NOT IN (SELECT chain FROM chains) LIMIT 1";
    connection.query(statement, &[])?.first().map(|row| row.integer(0)).transpose()
}

/// What a look at the whole trail came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verified {
    /// Every entry is as it was written, and none is missing.
    Whole {
        /// How many there are.
        entries: u64,
        /// The hashes at the ends of the chains.
        ends: Vec<String>,
    },
    /// It was changed.
    Broken(BrokenChain),
}

/// Where a trail was changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BrokenChain {
    /// At the end of this chain: entries are missing.
    End {
        /// Which.
        chain: i64,
    },
    /// At this entry, or right before it.
    Entry {
        /// Its number.
        sequence: i64,
    },
}

/// Adds an entry to this connection's chain.
pub(crate) fn append(connection: &mut dyn Connection, entry: &AuditEntry) -> Result<(), SqlError> {
    let document = serde_json::to_string(&AuditEntryRecord::from(entry));
    let document = document.map_err(|error| SqlError::Failed(error.into()))?;
    let chain = connection.chain();
    let rows = connection.query("SELECT length, hash FROM chains WHERE chain = ?", &[Value::Integer(chain)])?;
    let (length, before) = match rows.first() {
        Some(row) => (row.integer(0)?, row.text(1)?),
        None => (0, BEGINNING),
    };
    let hash = next_hash(before, &document);
    let values = [
        Value::Integer(chain),
        (&entry.id).into(),
        entry.device.as_str().into(),
        Value::Integer(entry.at.seconds()),
        (&document).into(),
        (&hash).into(),
    ];
    let statement = "INSERT INTO entries (chain, id, device, moment, document, hash) VALUES (?, ?, ?, ?, ?, ?)";
    connection.execute(statement, &values)?;
    let values = [Value::Integer(length + 1), (&hash).into(), Value::Integer(chain)];
    let statement = match length {
        0 => "INSERT INTO chains (length, hash, chain) VALUES (?, ?, ?)",
        _ => "UPDATE chains SET length = ?, hash = ? WHERE chain = ?",
    };
    connection.execute(statement, &values).map(|_| ())
}

/// The hash of an entry: SHA-256 of the hash before it and of its document, in hexadecimal digits.
fn next_hash(before: &str, document: &str) -> String {
    let mut context = Context::new(&SHA256);
    context.update(before.as_bytes());
    context.update(document.as_bytes());
    HEXLOWER.encode(context.finish().as_ref())
}

fn entry(document: &str) -> Result<AuditEntry, SqlError> {
    let record = serde_json::from_str::<AuditEntryRecord>(document).map_err(Into::into);
    let corrupt = |source| SqlError::Corrupt { key: "an entry of the audit trail".to_owned(), source };
    record.and_then(AuditEntry::try_from).map_err(corrupt)
}
