//! What can go wrong with a database, and what it means to the domain.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use cvm_provisioning::RegistryError;

/// A transaction that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SqlError {
    /// Another transaction was in the way: the same again may go through.
    #[error("another transaction was in the way")]
    Contended(#[source] Box<dyn Error + Send + Sync>),
    /// What is stored is not what this version writes.
    #[error("the record of {key} cannot be read")]
    Corrupt {
        /// Whose it is.
        key: String,
        /// What is wrong with it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A column has another type than it was made with.
    #[error("column {column} of an answer has another type than it should have")]
    Column {
        /// Its number, from 0.
        column: usize,
    },
    /// What is to be made is there already, or what is to be dropped is gone.
    #[error("it is done already")]
    Done(#[source] Box<dyn Error + Send + Sync>),
    /// The database did not do it, or cannot be reached.
    #[error("the database did not do it")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
    /// The transaction that many changes shared was not written.
    #[error("the transaction was not written")]
    Group(#[source] Arc<Self>),
    /// There was no answer in time; the change may be made or not.
    #[error("the database did not answer within {seconds} s")]
    Late {
        /// How long it was waited for.
        seconds: u64,
    },
    /// The connection had ended before anything was asked of it: a new one may do it.
    #[error("the connection to the database has ended")]
    Lost(#[source] Box<dyn Error + Send + Sync>),
    /// The database says nothing, and whether it has done it is not known.
    #[error("the database does not answer")]
    Silent(#[source] Box<dyn Error + Send + Sync>),
    /// Too much waits to be done.
    #[error("too much waits for the database")]
    Overloaded,
    /// The thread that works on the database has ended.
    #[error("the database is closed")]
    Closed,
}

impl From<SqlError> for RegistryError {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Corrupt { key, source } => Self::Corrupt { device: key, source },
            SqlError::Contended(_) | SqlError::Overloaded => Self::Throttled { source: error.into() },
            SqlError::Column { .. }
            | SqlError::Done(_)
            | SqlError::Failed(_)
            | SqlError::Group(_)
            | SqlError::Late { .. }
            | SqlError::Lost(_)
            | SqlError::Silent(_)
            | SqlError::Closed => Self::Unavailable { source: error.into() },
        }
    }
}

/// Why a database cannot be worked with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another server has it.
    #[error("another server works on {path}; end that one first, or give this one a folder of its own", path = path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The folder or a file in it.
    #[error(
        "{path} cannot be opened for writing; see that it belongs to whoever runs this, and that its disk has room and is mounted for writing",
        path = path.display()
    )]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A copy was not made.
    #[error("the copy {path} cannot be made; see that its disk has room for it", path = path.display())]
    Copy {
        /// The copy.
        path: PathBuf,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// There is nothing to look into.
    #[error("there is no registry at {path}; give the folder of the server that has it", path = path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// What was found instead.
        source: io::Error,
    },
    /// A file is no database, or not what was written.
    #[error("{path} is damaged, or no database; put its backup in its place", path = path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What was found.
        source: Box<dyn Error + Send + Sync>,
    },
    /// It was written by a later version.
    #[error(
        "the database has schema {found}, and this version knows {known} at most; use the version that wrote it, or a later one"
    )]
    Newer {
        /// The schema that it has.
        found: i64,
        /// The latest that is known here.
        known: i64,
    },
    /// The database did not do what it was asked.
    #[error("the database cannot be opened")]
    Database {
        /// What it said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A user of a MySQL server is not let in.
    #[error(
        "the database does not let the user {user:?} in; correct the user or the password, and grant that user all rights on the database"
    )]
    Denied {
        /// Who.
        user: String,
        /// What it said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A MySQL server does not have this database.
    #[error("there is no database {database:?}; create it, or correct its name in the address")]
    NoDatabase {
        /// Its name.
        database: String,
        /// What it said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// No MySQL server answers.
    #[error("no database answers at {host}:{port}; start it, or correct the address")]
    Unreachable {
        /// Where it was looked for.
        host: String,
        /// At which port.
        port: u16,
        /// What came instead.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Another server brings the schema of the same database up to date, and does not come to an end.
    #[error("another server is bringing the database up to date; start this one when that is done")]
    Migrating,
    /// The address of a MySQL database is none.
    #[error("the address of the database is mysql://USER:PASSWORD@HOST:PORT/DATABASE")]
    Address {
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl From<SqlError> for OpenError {
    fn from(error: SqlError) -> Self {
        Self::Database { source: error.into() }
    }
}
