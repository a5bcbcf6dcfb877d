//! Where the registry is, and the password that opens it.

use std::fmt;
use std::path::Path;

use cvm_sql::{OpenError, SqlRegistry};
use url::Url;
use zeroize::Zeroizing;

use crate::file::{self, FileError};
use crate::output::shell_word;

/// What a table of DynamoDB is named after.
pub(crate) const DYNAMODB: &str = "dynamodb:";
/// The variable of the database's password. It is no option, so that nobody reads it in a list of processes.
const PASSWORD: &str = "CVM_DATABASE_PASSWORD";
/// The longest password, in bytes.
const MAX_PASSWORD: usize = 1024;

/// The database of the registry.
#[derive(Clone)]
pub(crate) enum Database {
    /// MySQL or MariaDB, with the password, if there is one; and whether that stood in the address as it was given.
    MySql { address: Url, password_was_in_address: bool },
    /// SQLite in the folder of the server.
    Sqlite,
}

impl Database {
    /// The database that this text names, with a password from elsewhere.
    pub(crate) fn parse(text: &str, password: Option<&str>) -> Result<Self, InvalidDatabase> {
        if text == "sqlite" {
            return match password {
                Some(_) => Err(InvalidDatabase::NeedsNoPassword),
                None => Ok(Self::Sqlite),
            };
        }
        let mut address: Url = text.parse().map_err(|_| InvalidDatabase::Address)?;
        let names_database = address.path().trim_matches('/').split('/').all(|name| !name.is_empty());
        if address.scheme() != "mysql" || address.host_str().is_none_or(str::is_empty) || !names_database {
            return Err(InvalidDatabase::Address);
        }
        let password_was_in_address = address.password().is_some();
        match password {
            Some(_) if password_was_in_address => return Err(InvalidDatabase::TwoPasswords),
            Some(_) if address.username().is_empty() => return Err(InvalidDatabase::Address),
            // What is encoded already is left as it is there (WHATWG URL), and a password is not encoded.
            Some(password) => {
                let password = Zeroizing::new(password.replace('%', "%25"));
                address.set_password(Some(&password)).map_err(|()| InvalidDatabase::Address)?;
            }
            None => {}
        }
        Ok(Self::MySql { address, password_was_in_address })
    }

    /// Opens it, and brings its schema up to date.
    pub(crate) fn open(&self, folder: &Path) -> Result<SqlRegistry, OpenError> {
        let registry = match self {
            Self::MySql { address, .. } => SqlRegistry::on_mysql(address.as_str()),
            Self::Sqlite => SqlRegistry::in_folder(folder),
        };
        registry.map(SqlRegistry::counting_later)
    }

    /// The same to be looked into alone, whoever works on it.
    pub(crate) fn look_into(&self, folder: &Path) -> Result<SqlRegistry, OpenError> {
        match self {
            Self::MySql { address, .. } => SqlRegistry::look_into_mysql(address.as_str()),
            Self::Sqlite => SqlRegistry::look_into(folder),
        }
    }

    /// Whether a password stands where others may see it.
    pub(crate) const fn shows_password(&self) -> bool {
        matches!(self, Self::MySql { password_was_in_address: true, .. })
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MySql { address, .. } => f.debug_tuple("MySql").field(&without_password(address.as_str())).finish(),
            Self::Sqlite => f.write_str("Sqlite"),
        }
    }
}

/// The password of a database, in a file for nobody else to read or in the variable, if there is one.
pub(crate) fn password(file: Option<&Path>) -> Result<Option<Zeroizing<String>>, PasswordError> {
    let variable = std::env::var(PASSWORD).ok().filter(|value| !value.is_empty()).map(Zeroizing::new);
    let text = match (variable, file) {
        (Some(_), Some(_)) => return Err(PasswordError::Two),
        (None, Some(path)) => Some(Zeroizing::new(file::read_private_text(path, MAX_PASSWORD)?)),
        (variable, None) => variable,
    };
    let password = text.map(|text| Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()));
    Ok(password.filter(|password| !password.is_empty()))
}

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PasswordError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{PASSWORD} has a password, too: give one of them")]
    Two,
}

/// The address of a database as it may be shown.
pub(crate) fn without_password(address: &str) -> String {
    match address.parse::<Url>() {
        Ok(mut address) if address.scheme() == "mysql" => {
            if address.password().is_some() {
                // One that can have a password can have another.
                let _ = address.set_password(Some("..."));
            }
            address.into()
        }
        _ if address == "sqlite" || address.starts_with(DYNAMODB) => address.to_owned(),
        // What is no address may have anything in it.
        _ => "...".to_owned(),
    }
}

/// What to do next about a database that cannot be opened.
pub(crate) fn advice(error: &OpenError) -> String {
    match error {
        OpenError::InUse { path } => {
            let lock = shell_word(&path.to_string_lossy());
            format!("stop that server (`fuser {lock}` shows its process), or give this one another --data and --listen")
        }
        OpenError::Missing { .. } => "give --data, the folder of `cvm serve`, or --database".to_owned(),
        OpenError::Copy { .. } => "check the disk of the copy; an earlier backup is as it was".to_owned(),
        OpenError::Damaged { .. } => "docs/serve.md, Backups, says how to restore one".to_owned(),
        OpenError::Newer { .. } => "`cvm --version` shows the version of this command".to_owned(),
        OpenError::Folder { .. } => "check the owner of the folder and its disk".to_owned(),
        _ => "check the database that --database names".to_owned(),
    }
}

/// A text names no database. What it was is not said again: it may have a password in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum InvalidDatabase {
    #[error("give `sqlite`, mysql://USER@HOST:PORT/DATABASE, or with the platform aws dynamodb:TABLE")]
    Address,
    #[error("a password is given, and SQLite has none: leave it away, or give the address of the database")]
    NeedsNoPassword,
    #[error("it has a password, and there is another: leave the one in the address away")]
    TwoPasswords,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_sqlite_or_an_address_of_mysql() {
        assert!(matches!(Database::parse("sqlite", None), Ok(Database::Sqlite)));
        let database = Database::parse("mysql://cvm@db.example:3306/cvm?require_ssl=true", Some("p@ss/w%rd")).unwrap();
        let Database::MySql { address, password_was_in_address: false } = &database else { panic!("{database:?}") };
        assert_eq!(address.as_str(), "mysql://cvm:p%40ss%2Fw%25rd@db.example:3306/cvm?require_ssl=true");
        for bad in ["", "mysql", "mysql://", "mysql:///cvm", "mysql://h", "mysql://h/", "postgres://h/cvm", "sqlite:x"]
        {
            assert_eq!(Database::parse(bad, None).unwrap_err(), InvalidDatabase::Address, "{bad}");
        }
        assert_eq!(Database::parse("sqlite", Some("p")).unwrap_err(), InvalidDatabase::NeedsNoPassword);
        assert_eq!(Database::parse("mysql://u:p@h/d", Some("q")).unwrap_err(), InvalidDatabase::TwoPasswords);
    }

    #[test]
    fn threat_61_no_password_is_shown() {
        let database = Database::parse("mysql://cvm:marked@db/cvm", None).unwrap();
        assert!(database.shows_password() && !format!("{database:?}").contains("marked"), "{database:?}");
        for text in ["mysql://cvm:marked@db/cvm", "mysql//cvm:marked@db", "cvm:marked@"] {
            assert!(!without_password(text).contains("marked"), "{text}");
        }
        assert_eq!(without_password("sqlite"), "sqlite");
    }
}
