//! What the statements need of a database.

use crate::error::SqlError;

/// A connection inside a transaction.
pub(crate) trait Connection {
    /// Reads rows. `?` in the statement stands for the next of the values.
    fn query(&mut self, statement: &str, values: &[Value<'_>]) -> Result<Vec<Row>, SqlError>;

    /// Writes, and says how many rows.
    fn execute(&mut self, statement: &str, values: &[Value<'_>]) -> Result<u64, SqlError>;

    /// Writes a row that gets the next number of its table, and says which.
    fn append(&mut self, statement: &str, values: &[Value<'_>]) -> Result<i64, SqlError>;

    /// What stands at the end of a SELECT whose row is to be changed: nobody else may change it until the end of the
    /// transaction.
    fn for_update(&self) -> &'static str;

    /// Whether others' changes may be read before they would outlive a crash.
    fn shows_what_is_not_on_the_disk(&self) -> bool;

    /// Whether an index has the devices in each state, and not just those in the rare ones.
    fn has_index_of_states(&self) -> bool;

    /// The function that reads a value of a JSON document by its path.
    fn json_value(&self) -> &'static str;

    /// The chain of audit entries that this connection adds to: those who write at once have chains of their own, so
    /// that nobody waits for anybody.
    fn chain(&self) -> i64;
}

/// A value in a statement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Null,
    Integer(i64),
    Text(&'a str),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl<'a, T: Into<Self>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// A value in a row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Cell {
    Null,
    Integer(i64),
    Text(String),
}

/// A row, column by column as the statement names them.
#[derive(Clone, Debug)]
pub(crate) struct Row(pub(crate) Vec<Cell>);

impl Row {
    pub(crate) fn text(&self, column: usize) -> Result<&str, SqlError> {
        match self.0.get(column) {
            Some(Cell::Text(text)) => Ok(text),
            _ => Err(SqlError::Column { column }),
        }
    }

    pub(crate) fn optional_text(&self, column: usize) -> Result<Option<&str>, SqlError> {
        match self.0.get(column) {
            Some(Cell::Null) => Ok(None),
            _ => self.text(column).map(Some),
        }
    }

    pub(crate) fn optional_integer(&self, column: usize) -> Result<Option<i64>, SqlError> {
        match self.0.get(column) {
            Some(Cell::Null) => Ok(None),
            _ => self.integer(column).map(Some),
        }
    }

    pub(crate) fn integer(&self, column: usize) -> Result<i64, SqlError> {
        match self.0.get(column) {
            Some(Cell::Integer(number)) => Ok(*number),
            // A sum is a decimal in MySQL.
            Some(Cell::Text(text)) => text.parse().map_err(|_| SqlError::Column { column }),
            _ => Err(SqlError::Column { column }),
        }
    }
}
