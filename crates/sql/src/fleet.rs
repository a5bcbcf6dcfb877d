//! The fleet at a glance, counted by the database.

use cvm_provisioning::{AuditQuery, FleetMoment, FleetSummary, RecentActivity, Timestamp};

use crate::connection::{Connection, Row, Value};
use crate::device_store;
use crate::error::SqlError;

/// Counts the devices in one walk along them.
pub(crate) fn summarize(connection: &mut dyn Connection, moment: FleetMoment) -> Result<FleetSummary, SqlError> {
    let FleetMoment { now, expiring_until } = moment;
    let json = connection.json_value();
    // The limit keeps SQLite from writing the inner query into the outer one, which would parse each record several times.
    let statement = format!(
        "SELECT SUM(reserved_until <= ?), SUM(unsettled_since IS NOT NULL), \
         SUM(has_power AND not_after IS NOT NULL), SUM(has_power AND not_after <= ?), \
         SUM(has_power AND not_after > ? AND not_after <= ?), \
         SUM(has_power AND not_after IS NOT NULL AND used_at IS NULL) \
         FROM (SELECT devices.state <> 'revoked' AS has_power, devices.unsettled_since, \
         CASE WHEN devices.state = 'reserved' THEN {json}(devices.record, '$.reservedUntil') END AS reserved_until, \
         {json}(devices.record, '$.usedAt') AS used_at, CASE WHEN devices.credential IS NULL \
         THEN {json}(devices.record, '$.credential.notAfter') ELSE certificates.not_after END AS not_after \
         FROM devices LEFT JOIN certificates ON certificates.sequence = devices.credential \
         LIMIT 9223372036854775807) AS counted"
    );
    let (now, expiring_until) = (Value::Integer(now.seconds()), Value::Integer(expiring_until.seconds()));
    let rows = connection.query(&statement, &[now, now, now, expiring_until])?;
    let counts = device_store::count(connection)?;
    let Some(row) = rows.first() else { return Ok(FleetSummary { counts, ..FleetSummary::default() }) };
    let [stale_reservations, unsettled, certificates, expired, expiring, never_used] =
        [sum(row, 0)?, sum(row, 1)?, sum(row, 2)?, sum(row, 3)?, sum(row, 4)?, sum(row, 5)?];
    Ok(FleetSummary { counts, certificates, expiring, expired, never_used, stale_reservations, unsettled })
}

/// Counts what happened in the last day, of which at most the latest `limit` entries.
pub(crate) fn recently(
    connection: &mut dyn Connection,
    now: Timestamp,
    limit: usize,
) -> Result<RecentActivity, SqlError> {
    let AuditQuery { since, until, .. } = AuditQuery::of_last_day(now);
    let json = connection.json_value();
    let statement = format!(
        "SELECT action, reason, SUM(times), SUM(CASE WHEN moment >= ? THEN times ELSE 0 END) \
         FROM (SELECT {json}(document, '$.action') AS action, {json}(document, '$.reason') AS reason, \
         COALESCE(CAST({json}(document, '$.count') AS SIGNED), 1) AS times, moment FROM entries WHERE moment >= ? AND moment < ? \
         ORDER BY moment DESC LIMIT ?) AS latest GROUP BY action, reason"
    );
    let hour = now.before(RecentActivity::HOUR).seconds();
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let values = [hour, since.seconds(), until.seconds(), limit].map(Value::Integer);
    let mut recently = RecentActivity::default();
    for row in connection.query(&statement, &values)? {
        recently.add_many(row.text(0)?, row.optional_text(1)?, sum(&row, 2)?, sum(&row, 3)?);
    }
    Ok(recently)
}

/// A count, or a sum, which is NULL of no rows.
fn sum(row: &Row, column: usize) -> Result<u64, SqlError> {
    Ok(row.optional_integer(column)?.unwrap_or_default().unsigned_abs())
}
