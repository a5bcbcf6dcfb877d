//! Checks that the audit trail is as it was written, and that everything in it is shown.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::str::FromStr;

use cvm_provisioning::{RegistryError, Timestamp};
use serde::Deserialize;

use crate::SqlRegistry;
use crate::connection::{Connection, Row, Value};
use crate::error::SqlError;
use crate::trail_hash::{BEGINNING, Columns, Rule};

/// Rows that are read at once.
const BATCH: i64 = 10_000;

/// The end of a chain, as it is at one time or was at an earlier one.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct TrailEnd {
    /// The hash of its last entry, in hexadecimal digits.
    pub hash: String,
    /// The number of its entries, if it is known.
    pub entries: Option<u64>,
}

impl std::fmt::Display for TrailEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.hash)?;
        self.entries.map_or(Ok(()), |entries| write!(f, "@{entries}"))
    }
}

impl FromStr for TrailEnd {
    type Err = InvalidTrailEnd;

    fn from_str(text: &str) -> Result<Self, InvalidTrailEnd> {
        let (hash, entries) = match text.split_once('@') {
            Some((hash, entries)) => (hash, Some(entries.parse().map_err(|_| InvalidTrailEnd)?)),
            None => (text, None),
        };
        let hash = hash.to_ascii_lowercase();
        let is_hash = hash.len() == BEGINNING.len() && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hash { Ok(Self { hash, entries }) } else { Err(InvalidTrailEnd) }
    }
}

/// A text is no [`TrailEnd`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the end of a trail is HASH or HASH@N: 64 hexadecimal digits, and a number of entries")]
pub struct InvalidTrailEnd;

/// The result of a check of the whole trail.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verified {
    /// Every entry is as it was written, and none is missing.
    Whole {
        /// The number of entries.
        entries: u64,
        /// How many older ones were removed ([`SqlRegistry::trim_trail`]).
        removed: u64,
        /// How many of them have a hash that covers their document alone, as schemas up to 9 wrote it.
        by_first_rule: u64,
        /// The ends of the chains.
        ends: Vec<TrailEnd>,
    },
    /// It was changed.
    Broken(BrokenChain),
    /// It does not continue an earlier state that was expected.
    Unexpected(TrailEnd),
}

/// Where a trail was changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BrokenChain {
    /// At the end of this chain: entries are missing, or there are more than there should be.
    End {
        /// The chain's number.
        chain: i64,
    },
    /// At this entry, or right before it.
    Entry {
        /// Its number.
        sequence: i64,
    },
    /// The history of a device does not lead to this entry, which is its.
    Hidden {
        /// Its number.
        sequence: i64,
    },
    /// The history of a device begins at this entry, which is not its last one.
    History {
        /// Its number.
        sequence: i64,
    },
}

impl SqlRegistry {
    /// Checks that the trail is as it was written, and that it continues each of these earlier states.
    ///
    /// Who can write to the database can write all of it again: only a comparison with an end that was kept elsewhere
    /// detects that.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]. A trail that was changed is no error: see [`Verified`].
    pub async fn verify_trail(&self, expected: &[TrailEnd]) -> Result<Verified, RegistryError> {
        let expected = expected.to_vec();
        self.read_all(move |connection| Check::new(connection, &expected)?.run(connection)).await
    }

    /// The ends of the chains as they are now, by the chain's number.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn trail_ends(&self) -> Result<BTreeMap<i64, TrailEnd>, RegistryError> {
        self.read(|connection| {
            let ends = chains(connection)?.into_iter();
            Ok(ends.map(|(number, chain)| (number, chain.trail_end())).collect())
        })
        .await
    }
}

/// The chains by their numbers, each at its beginning.
fn chains(connection: &mut dyn Connection) -> Result<BTreeMap<i64, Chain>, SqlError> {
    let rows = connection.query("SELECT chain, length, hash, removed, removed_hash FROM chains", &[])?;
    let chain = |row: &Row| {
        let removed = row.integer(3)?;
        let last = row.optional_text(4)?.unwrap_or(BEGINNING).to_owned();
        let (length, end) = (row.integer(1)?, row.text(2)?.to_owned());
        Ok((row.integer(0)?, Chain { length, end, removed, seen: removed, last, rule: Rule::Document }))
    };
    rows.iter().map(chain).collect()
}

/// A check, all of which sees the database at one moment.
struct Check<'a> {
    expected: &'a [TrailEnd],
    is_found: Vec<bool>,
    chains: BTreeMap<i64, Chain>,
    /// The number of the first entry that was not removed.
    begins: i64,
    by_first_rule: u64,
    /// Linked entries that no later entry of their device leads to yet, with the hash of the device's id.
    unreached: HashMap<i64, u64>,
    keys: RandomState,
}

struct Chain {
    length: i64,
    end: String,
    removed: i64,
    /// Entries up to the one that was checked last, with those that were removed.
    seen: i64,
    last: String,
    rule: Rule,
}

/// What a document says of itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claims<'a> {
    #[serde(borrow)]
    device_id: std::borrow::Cow<'a, str>,
    at: Timestamp,
    #[serde(borrow)]
    id: std::borrow::Cow<'a, str>,
}

impl<'a> Check<'a> {
    fn new(connection: &mut dyn Connection, expected: &'a [TrailEnd]) -> Result<Self, SqlError> {
        let chains = chains(connection)?;
        let is_beginning = |end: &TrailEnd| chains.values().any(|chain| chain.removed > 0 && chain.is_at(end));
        let rows = connection.query("SELECT value FROM meta WHERE name = 'trail-begins'", &[])?;
        Ok(Self {
            expected,
            is_found: expected.iter().map(is_beginning).collect(),
            begins: rows.first().map_or(Ok(0), |row| row.integer(0))?,
            chains,
            by_first_rule: 0,
            unreached: HashMap::new(),
            keys: RandomState::new(),
        })
    }

    fn run(mut self, connection: &mut dyn Connection) -> Result<Verified, SqlError> {
        let broken = match self.entries(connection)? {
            None => match self.chains.iter().find(|(_, chain)| !chain.is_whole()) {
                Some((number, _)) => Some(BrokenChain::End { chain: *number }),
                None => self.histories(connection)?,
            },
            broken => broken,
        };
        if let Some(broken) = broken {
            return Ok(Verified::Broken(broken));
        }
        let missing = self.expected.iter().zip(&self.is_found).find(|(_, found)| !**found);
        if let Some((missing, _)) = missing {
            return Ok(Verified::Unexpected(missing.clone()));
        }
        let removed = self.chains.values().map(|chain| chain.removed.unsigned_abs()).sum();
        let all: u64 = self.chains.values().map(|chain| chain.seen.unsigned_abs()).sum();
        Ok(Verified::Whole {
            entries: all.saturating_sub(removed),
            removed,
            by_first_rule: self.by_first_rule,
            ends: self.chains.values().map(Chain::trail_end).collect(),
        })
    }

    /// Reads every entry, in the order of their numbers.
    fn entries(&mut self, connection: &mut dyn Connection) -> Result<Option<BrokenChain>, SqlError> {
        let statement = "SELECT sequence, chain, id, device, moment, earlier, is_linked, document, rule, hash FROM entries \
                         WHERE sequence > ? ORDER BY sequence LIMIT ?";
        let mut after = i64::MIN;
        loop {
            let rows = connection.query(statement, &[after, BATCH].map(Value::Integer))?;
            let Some(last) = rows.last() else { return Ok(None) };
            after = last.integer(0)?;
            for row in &rows {
                if let Some(broken) = self.entry(connection, row)? {
                    return Ok(Some(broken));
                }
            }
        }
    }

    fn entry(&mut self, connection: &mut dyn Connection, row: &Row) -> Result<Option<BrokenChain>, SqlError> {
        let sequence = row.integer(0)?;
        let broken = Ok(Some(BrokenChain::Entry { sequence }));
        if sequence < self.begins {
            return broken;
        }
        let columns = Columns {
            chain: row.integer(1)?,
            id: row.text(2)?,
            device: row.text(3)?,
            at: row.integer(4)?,
            earlier: row.optional_integer(5)?,
            is_linked: row.integer(6)? == 1,
            document: row.text(7)?,
        };
        let Some(chain) = self.chains.get_mut(&columns.chain).filter(|chain| chain.seen < chain.length) else {
            return Ok(Some(BrokenChain::End { chain: columns.chain }));
        };
        // No entry by the first rule comes after one by the second.
        let Some(rule) = Rule::from_number(row.integer(8)?).filter(|rule| *rule >= chain.rule) else { return broken };
        let hash = columns.hash(rule, &chain.last);
        if hash != row.text(9)? || !matches!(row.integer(6)?, 0 | 1) || !says_the_same(&columns) {
            return broken;
        }
        (chain.seen, chain.rule) = (chain.seen + 1, rule);
        chain.last = hash;
        for (is_found, _) in self.is_found.iter_mut().zip(self.expected).filter(|(_, end)| chain.is_at(end)) {
            *is_found = true;
        }
        self.by_first_rule += u64::from(rule == Rule::Document);
        let device = self.keys.hash_one(columns.device);
        if let Some(earlier) = columns.earlier.filter(|earlier| *earlier >= self.begins)
            && (earlier >= sequence
                || (self.unreached.remove(&earlier) != Some(device) && !is_apart(connection, earlier, columns.device)?))
        {
            return broken;
        }
        if columns.is_linked {
            self.unreached.insert(sequence, device);
        }
        Ok(None)
    }

    /// Checks that the history of each device leads to all of its linked entries.
    fn histories(&mut self, connection: &mut dyn Connection) -> Result<Option<BrokenChain>, SqlError> {
        let statement = "SELECT id, last_entry FROM devices WHERE id > ? ORDER BY id LIMIT ?";
        let mut after = String::new();
        loop {
            let rows = connection.query(statement, &[(&after).into(), Value::Integer(BATCH)])?;
            let Some(last) = rows.last() else { break };
            after = last.text(0)?.to_owned();
            for row in &rows {
                let last_entry = row.optional_integer(1)?;
                let Some(sequence) = last_entry.filter(|last| *last >= self.begins) else { continue };
                if self.unreached.remove(&sequence) != Some(self.keys.hash_one(row.text(0)?)) {
                    return Ok(Some(BrokenChain::History { sequence }));
                }
            }
        }
        Ok(self.unreached.keys().min().map(|sequence| BrokenChain::Hidden { sequence: *sequence }))
    }
}

impl Chain {
    fn trail_end(&self) -> TrailEnd {
        TrailEnd { hash: self.end.clone(), entries: Some(self.length.unsigned_abs()) }
    }

    /// Whether the entry that was checked last is this end of an earlier state.
    fn is_at(&self, end: &TrailEnd) -> bool {
        end.hash == self.last && end.entries.is_none_or(|entries| entries == self.seen.unsigned_abs())
    }

    fn is_whole(&self) -> bool {
        self.seen == self.length && self.last == self.end
    }
}

/// Whether the columns by which an entry is found are those of its document.
fn says_the_same(columns: &Columns<'_>) -> bool {
    serde_json::from_str::<Claims<'_>>(columns.document).is_ok_and(|document| {
        document.device_id == columns.device && document.at.seconds() == columns.at && document.id == columns.id
    })
}

/// Whether an entry is one of this device that is in no list: the index has it.
fn is_apart(connection: &mut dyn Connection, sequence: i64, device: &str) -> Result<bool, SqlError> {
    let statement = "SELECT 1 FROM entries WHERE sequence = ? AND device = ? AND is_linked = 0";
    Ok(!connection.query(statement, &[Value::Integer(sequence), device.into()])?.is_empty())
}
