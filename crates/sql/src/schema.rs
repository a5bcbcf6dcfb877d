//! The schema and its versions.

use crate::connection::{Connection, Value};
use crate::error::{OpenError, SqlError};

/// The statements of each version after the one before it.
const VERSIONS: [&str; 12] = [
    include_str!("../schema/0001.sql"),
    include_str!("../schema/0002.sql"),
    include_str!("../schema/0003.sql"),
    include_str!("../schema/0004.sql"),
    include_str!("../schema/0005.sql"),
    include_str!("../schema/0006.sql"),
    include_str!("../schema/0007.sql"),
    include_str!("../schema/0008.sql"),
    include_str!("../schema/0009.sql"),
    include_str!("../schema/0010.sql"),
    include_str!("../schema/0011.sql"),
    include_str!("../schema/0012.sql"),
];

/// Which database it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Dialect {
    MySql,
    Sqlite,
}

impl Dialect {
    /// The statement with what this database calls the names in capitals, unless it is for another one.
    fn speak(self, statement: &str) -> Option<String> {
        let (own, other) = match self {
            Self::MySql => ("ON MYSQL ", "ON SQLITE "),
            Self::Sqlite => ("ON SQLITE ", "ON MYSQL "),
        };
        if statement.starts_with(other) {
            return None;
        }
        let statement = statement.strip_prefix(own).unwrap_or(statement);
        let words = match self {
            // Names of up to 256 characters are told apart by every one of their bytes.
            Self::MySql => [
                (" NAME", " VARCHAR(256) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"),
                (" DOCUMENT", " MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"),
                (" SEQUENCE", " BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY"),
                (" OPTIONS", " ENGINE=InnoDB ROW_FORMAT=DYNAMIC"),
                (" FIELD(", " JSON_VALUE("),
            ],
            Self::Sqlite => [
                (" NAME", " TEXT"),
                (" DOCUMENT", " TEXT"),
                (" SEQUENCE", " INTEGER PRIMARY KEY AUTOINCREMENT"),
                (" OPTIONS", " STRICT"),
                (" FIELD(", " json_extract("),
            ],
        };
        let mut spoken = words.iter().fold(statement.to_owned(), |text, (word, own)| text.replace(word, own));
        if self == Self::Sqlite {
            spoken = spoken.replace("BIGINT", "INTEGER");
        }
        // An index has those rows alone that have a value, where the database can do that.
        Some(match spoken.split_once(" PRESENT(") {
            Some((index, column)) if self == Self::Sqlite => {
                format!("{index} WHERE {} IS NOT NULL", column.trim_end_matches(')'))
            }
            Some((index, _)) => index.to_owned(),
            None => spoken,
        })
    }
}

/// Brings the database to the latest version; one that is later than that is refused.
///
/// MySQL commits whatever changes a table at once. So every statement is noted when it is done, and whoever is cut off
/// goes on behind the last note; the effect of one more statement may be there already by then, so that each has to bear
/// being done twice.
pub(crate) fn migrate(connection: &mut impl Connection, dialect: Dialect) -> Result<(), OpenError> {
    let known = VERSIONS.len() as i64;
    let table = "CREATE TABLE IF NOT EXISTS meta (name NAME NOT NULL PRIMARY KEY, value BIGINT NOT NULL) OPTIONS";
    connection.execute(&dialect.speak(table).unwrap_or_default(), &[])?;
    let version = noted(connection, "schema")?;
    let found = version.unwrap_or(0);
    if found > known {
        return Err(OpenError::Newer { found, known });
    }
    let mut done = noted(connection, "statements")?.unwrap_or(0);
    let mut resumes = version.is_some();
    if !resumes {
        note(connection, 0, 0)?;
    }
    for (version, statements) in (1..).zip(VERSIONS).skip(usize::try_from(found).unwrap_or(usize::MAX)) {
        for (number, statement) in (1..).zip(split(statements)).filter(|(number, _)| *number > done) {
            if let Some(statement) = dialect.speak(&statement) {
                let executed = connection.execute(&statement, &[]);
                // It may have been cut off between the statement and its note.
                if !(resumes && matches!(executed, Err(SqlError::Done(_)))) {
                    executed?;
                }
            }
            note(connection, version - 1, number)?;
            resumes = false;
        }
        note(connection, version, 0)?;
        done = 0;
    }
    Ok(())
}

fn noted(connection: &mut impl Connection, name: &str) -> Result<Option<i64>, SqlError> {
    let rows = connection.query("SELECT value FROM meta WHERE name = ?", &[name.into()])?;
    rows.first().map(|row| row.integer(0)).transpose()
}

/// Notes the version that the database has, and how many statements of the next one are done.
fn note(connection: &mut impl Connection, version: i64, done: i64) -> Result<(), SqlError> {
    let statement = "REPLACE INTO meta (name, value) VALUES ('schema', ?), ('statements', ?)";
    connection.execute(statement, &[version, done].map(Value::Integer)).map(|_| ())
}

/// The statements, without their comments. What is within a statement is further in than where it begins.
fn split(text: &str) -> Vec<String> {
    let mut lines = text.lines().filter(|line| !line.trim_start().starts_with("--")).peekable();
    let mut statements = Vec::new();
    let mut statement = String::new();
    while let Some(line) = lines.next() {
        match line.strip_suffix(';') {
            Some(end) if lines.peek().is_none_or(|next| !next.starts_with(' ')) => {
                statement.push_str(end);
                statements.push(std::mem::take(&mut statement));
            }
            _ => {
                statement.push_str(line);
                statement.push('\n');
            }
        }
    }
    statements
}
