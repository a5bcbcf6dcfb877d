//! Statements and their answers.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{ErrorCode, ToSql, params_from_iter};

use crate::connection::{Cell, Connection, Row, Value};
use crate::error::SqlError;

pub(super) fn prepared(connection: &rusqlite::Connection, statement: &str) -> Result<(), SqlError> {
    connection.prepare_cached(statement).and_then(|mut statement| statement.execute([])).map_err(sql_error).map(drop)
}

pub(super) struct SqliteConnection<'a>(pub(super) &'a rusqlite::Connection);

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

impl Connection for SqliteConnection<'_> {
    fn query(&mut self, statement: &str, values: &[Value<'_>]) -> Result<Vec<Row>, SqlError> {
        let mut statement = self.0.prepare_cached(statement).map_err(sql_error)?;
        let columns = statement.column_count();
        let mut found = statement.query(params_from_iter(values)).map_err(sql_error)?;
        let mut rows = Vec::new();
        while let Some(row) = found.next().map_err(sql_error)? {
            let cells = (0..columns).map(|column| {
                Ok(match row.get_ref(column).map_err(sql_error)? {
                    ValueRef::Null => Cell::Null,
                    ValueRef::Integer(number) => Cell::Integer(number),
                    ValueRef::Text(text) => {
                        let text = str::from_utf8(text).map_err(|_| SqlError::Column { column })?;
                        Cell::Text(text.to_owned())
                    }
                    _ => return Err(SqlError::Column { column }),
                })
            });
            rows.push(Row(cells.collect::<Result<_, SqlError>>()?));
        }
        Ok(rows)
    }

    fn execute(&mut self, statement: &str, values: &[Value<'_>]) -> Result<u64, SqlError> {
        let mut statement = self.0.prepare_cached(statement).map_err(sql_error)?;
        let rows = statement.execute(params_from_iter(values)).map_err(sql_error)?;
        Ok(rows as u64)
    }

    fn append(&mut self, statement: &str, values: &[Value<'_>]) -> Result<i64, SqlError> {
        self.execute(statement, values)?;
        Ok(self.0.last_insert_rowid())
    }

    fn for_update(&self) -> &'static str {
        // Only one connection writes.
        ""
    }

    fn shows_what_is_not_on_the_disk(&self) -> bool {
        false
    }

    fn has_index_of_states(&self) -> bool {
        false
    }

    fn json_value(&self) -> &'static str {
        "json_extract"
    }

    fn chain(&self) -> i64 {
        0
    }
}

fn sql_error(error: rusqlite::Error) -> SqlError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => SqlError::Contended(error.into()),
        _ => SqlError::Failed(error.into()),
    }
}
