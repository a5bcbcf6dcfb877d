//! What happened, in chains of hashes, so that a change of it shows.

use cvm_provisioning::{
    AuditEntry, AuditPage, AuditQuery, AuditTrail, DeviceId, RecentActivity, RegistryError, Timestamp,
};
use cvm_records::AuditEntryRecord;

use crate::connection::{Connection, Value};
use crate::error::SqlError;
use crate::trail_hash::{BEGINNING, Columns, Rule};
use crate::{SqlRegistry, fleet};

/// Entries about a device that are looked at for one page, which has none of those outside the time that is asked for.
const LOOKED_AT: i64 = 1_000;

impl AuditTrail for SqlRegistry {
    async fn append(&self, entries: &[AuditEntry]) -> Result<(), RegistryError> {
        let entries = entries.to_vec();
        self.write(move |connection| {
            for entry in &entries {
                let values = [entry.device.as_str().into(), Value::Integer(entry.at.seconds()), (&entry.id).into()];
                let statement = "SELECT 1 FROM entries WHERE device = ? AND moment = ? AND id = ?";
                if connection.query(statement, &values)?.is_empty() {
                    append(connection, entry, Place::Apart { earlier: None })?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn entries(&self, query: &AuditQuery, after: Option<&str>, limit: u16) -> Result<AuditPage, RegistryError> {
        let query = query.clone();
        let after = match after.map(place) {
            // After a place that is none, there is nothing.
            Some(None) => return Ok(AuditPage::default()),
            Some(place) => place,
            None => None,
        };
        self.read(move |connection| match &query.device {
            Some(device) => entries_of(connection, device, &query, after, limit.into()),
            None => entries(connection, &query, after, limit),
        })
        .await
    }

    fn is_place(&self, text: &str) -> bool {
        place(text).is_some()
    }

    async fn recently(&self, now: Timestamp) -> Result<RecentActivity, RegistryError> {
        self.read(move |connection| fleet::recently(connection, now, Self::MAX_COUNTED)).await
    }
}

/// Where a page ends: two numbers, whose meaning is that of the query.
fn place(text: &str) -> Option<(i64, i64)> {
    // `parse` would take a sign.
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let (first, second) = text.split_once('#')?;
    Some((number(first)?, number(second)?))
}

/// Entries about whatever, the latest first. A page ends at a moment and a number.
fn entries(
    connection: &mut dyn Connection,
    query: &AuditQuery,
    after: Option<(i64, i64)>,
    limit: u16,
) -> Result<AuditPage, SqlError> {
    let mut values = vec![query.since.seconds(), query.until.seconds()];
    let mut conditions = "moment >= ? AND moment < ?".to_owned();
    if let Some((moment, sequence)) = after {
        conditions.push_str(" AND (moment < ? OR (moment = ? AND sequence < ?))");
        values.extend([moment, moment, sequence]);
    }
    values.push(i64::from(limit) + 1);
    let values: Vec<_> = values.into_iter().map(Value::Integer).collect();
    let statement = format!(
        "SELECT document, moment, sequence FROM entries WHERE {conditions} ORDER BY moment DESC, sequence DESC LIMIT ?"
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
}

/// Entries about a device, the latest first: along its list, and between them those that are in none. A page ends at a number,
/// and where the list goes on, which is 0 at its end.
fn entries_of(
    connection: &mut dyn Connection,
    device: &DeviceId,
    query: &AuditQuery,
    after: Option<(i64, i64)>,
    limit: usize,
) -> Result<AuditPage, SqlError> {
    let (below, mut in_list) = match after {
        Some((below, next)) => (below, Some(next).filter(|next| *next != 0)),
        None => (i64::MAX, last_entry(connection, device)?),
    };
    let statement = "SELECT sequence FROM entries WHERE device = ? AND is_linked = 0 AND sequence < ? \
                     ORDER BY sequence DESC LIMIT ?";
    let values = [device.as_str().into(), Value::Integer(below), Value::Integer(LOOKED_AT)];
    let rows = connection.query(statement, &values)?;
    let apart = rows.iter().map(|row| row.integer(0)).collect::<Result<Vec<_>, _>>()?;
    let mut apart = apart.into_iter().peekable();
    let mut page = AuditPage::default();
    for _ in 0..LOOKED_AT {
        let Some(sequence) = in_list.max(apart.peek().copied()) else { break };
        apart.next_if_eq(&sequence);
        // Where a page ends is what somebody sends: it leads to nobody else's entries.
        let statement = "SELECT document, moment, earlier FROM entries WHERE sequence = ? AND device = ?";
        let rows = connection.query(statement, &[Value::Integer(sequence), device.as_str().into()])?;
        let earlier = rows.first().map(|row| row.optional_integer(2)).transpose()?.flatten();
        if in_list.is_none_or(|next| next == sequence) {
            in_list = earlier.filter(|earlier| *earlier < sequence);
        }
        if let Some(row) = rows.first()
            && (query.since.seconds()..query.until.seconds()).contains(&row.integer(1)?)
        {
            page.entries.push(entry(row.text(0)?)?);
        }
        page.next = Some(format!("{sequence}#{}", in_list.unwrap_or(0)));
        if page.entries.len() >= limit {
            break;
        }
    }
    if in_list.is_none() && apart.peek().is_none() && (rows.len() as i64) < LOOKED_AT {
        page.next = None;
    }
    Ok(page)
}

/// The last entry in the list of a device.
fn last_entry(connection: &mut dyn Connection, device: &DeviceId) -> Result<Option<i64>, SqlError> {
    let rows = connection.query("SELECT last_entry FROM devices WHERE id = ?", &[device.as_str().into()])?;
    rows.first().map(|row| row.optional_integer(0)).transpose().map(Option::flatten)
}

/// Where an entry is found by its device.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// In the list of its device, which has to know it as its last one from now on.
    InList {
        /// The one before it.
        earlier: Option<i64>,
    },
    /// In no list, and so in the index.
    Apart {
        /// The last one of a list that no device knows any more.
        earlier: Option<i64>,
    },
}

/// Adds an entry to this connection's chain, and returns its number.
pub(crate) fn append(connection: &mut dyn Connection, entry: &AuditEntry, place: Place) -> Result<i64, SqlError> {
    let document = serde_json::to_string(&AuditEntryRecord::from(entry));
    let document = document.map_err(|error| SqlError::Failed(error.into()))?;
    let chain = connection.chain();
    let rows = connection.query("SELECT length, hash FROM chains WHERE chain = ?", &[Value::Integer(chain)])?;
    let (length, before) = match rows.first() {
        Some(row) => (row.integer(0)?, row.text(1)?),
        None => (0, BEGINNING),
    };
    let (earlier, is_linked) = match place {
        Place::InList { earlier } => (earlier, true),
        Place::Apart { earlier } => (earlier, false),
    };
    let columns = Columns {
        chain,
        id: &entry.id,
        device: entry.device.as_str(),
        at: entry.at.seconds(),
        earlier,
        is_linked,
        document: &document,
    };
    let hash = columns.hash(Rule::Columns, before);
    let values = [
        Value::Integer(chain),
        (&entry.id).into(),
        entry.device.as_str().into(),
        Value::Integer(entry.at.seconds()),
        (&document).into(),
        (&hash).into(),
        earlier.into(),
        Value::Integer(is_linked.into()),
        Value::Integer(Rule::Columns.number()),
    ];
    let statement = "INSERT INTO entries (chain, id, device, moment, document, hash, earlier, is_linked, rule) \
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let sequence = connection.append(statement, &values)?;
    let values = [Value::Integer(length + 1), (&hash).into(), Value::Integer(chain)];
    let statement = match length {
        0 => "INSERT INTO chains (length, hash, chain) VALUES (?, ?, ?)",
        _ => "UPDATE chains SET length = ?, hash = ? WHERE chain = ?",
    };
    connection.execute(statement, &values)?;
    Ok(sequence)
}

fn entry(document: &str) -> Result<AuditEntry, SqlError> {
    let record = serde_json::from_str::<AuditEntryRecord>(document).map_err(Into::into);
    let corrupt = |source| SqlError::Corrupt { key: "an entry of the audit trail".to_owned(), source };
    record.and_then(AuditEntry::try_from).map_err(corrupt)
}
