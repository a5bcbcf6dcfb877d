//! MySQL and MariaDB: some connections, each with a thread of its own, each change a transaction.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, IsolationLevel, Opts, Transaction, TxOpts};
use tokio::runtime::{Builder, Runtime};

use crate::connection::{Cell, Connection, Row, Value};
use crate::error::{OpenError, SqlError};
use crate::queue::{WAITING, Work};
use crate::schema::{self, Dialect};

/// Connections of one server.
const CONNECTIONS: usize = 8;
/// Tries of a transaction that others are in the way of.
const TRIES: usize = 8;

/// Error codes of a transaction that others were in the way of: a key that was not there when it was looked for, a lock
/// that was waited for too long, a deadlock (MySQL reference manual, "Server error message reference").
const CONTENDED: [u16; 3] = [1062, 1205, 1213];

/// A database: where its work goes.
#[derive(Debug)]
pub(crate) struct MySql {
    pub(crate) work: SyncSender<Box<dyn Work>>,
}

impl MySql {
    /// Opens it, and brings its schema up to date.
    pub(crate) fn open(address: &str) -> Result<Self, OpenError> {
        let opts = Opts::from_url(address).map_err(|source| OpenError::Address { source: source.into() })?;
        let failed = |source: std::io::Error| OpenError::Database { source: source.into() };
        let (work, queue) = sync_channel(WAITING);
        let queue = Arc::new(Mutex::new(queue));
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
            let mut chain = [0; 8];
            let filled = aws_lc_rs::rand::fill(&mut chain);
            filled.map_err(|_| OpenError::Database { source: "the system has no randomness to give".into() })?;
            let chain = i64::from_be_bytes(chain);
            connections.push(Session { runtime, opts: opts.clone(), connection: None, chain });
        }
        // Whoever calls may be in an executor of their own, in which nothing may be waited for like this.
        let migrated = thread::scope(|scope| scope.spawn(|| connections[0].migrate()).join());
        migrated.map_err(|_| OpenError::Database { source: "the schema was not brought up to date".into() })??;
        for connection in connections {
            let queue = Arc::clone(&queue);
            let thread = thread::Builder::new().name("registry-mysql".to_owned());
            thread.spawn(move || connection.work_off(&queue)).map_err(failed)?;
        }
        Ok(Self { work })
    }
}

/// A connection, as far as there is one.
struct Session {
    runtime: Runtime,
    opts: Opts,
    connection: Option<Conn>,
    chain: i64,
}

impl Session {
    fn work_off(mut self, queue: &Mutex<Receiver<Box<dyn Work>>>) {
        loop {
            let work = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(mut work) = work else { return };
            let outcome = self.run(&mut *work);
            work.answer(outcome);
        }
    }

    fn run(&mut self, work: &mut dyn Work) -> Result<(), SqlError> {
        let mut tries = 1;
        loop {
            match self.try_to(work) {
                Err(SqlError::Contended(_)) if tries < TRIES => tries += 1,
                // It may be one that does not work any more: the next work gets a new one.
                Err(error @ SqlError::Failed(_)) => {
                    self.connection = None;
                    return Err(error);
                }
                done => return done,
            }
        }
    }

    fn try_to(&mut self, work: &mut dyn Work) -> Result<(), SqlError> {
        let Self { runtime, opts, connection, chain } = self;
        let connection = match connection {
            Some(connection) => connection,
            none => none.insert(runtime.block_on(Conn::new(opts.clone())).map_err(sql_error)?),
        };
        let mut options = TxOpts::default();
        options.with_isolation_level(IsolationLevel::ReadCommitted);
        let transaction = runtime.block_on(connection.start_transaction(options)).map_err(sql_error)?;
        let mut open = Open { runtime, transaction, chain: *chain };
        let done = work.run(&mut open);
        match done {
            Ok(()) => runtime.block_on(open.transaction.commit()).map_err(sql_error),
            Err(error) => {
                runtime.block_on(open.transaction.rollback()).map_err(sql_error)?;
                Err(error)
            }
        }
    }

    /// Brings the schema up to date; of several servers that start at once, one does.
    fn migrate(&mut self) -> Result<(), OpenError> {
        let connection = self.runtime.block_on(Conn::new(self.opts.clone())).map_err(sql_error)?;
        let connection = self.connection.insert(connection);
        let transaction = self.runtime.block_on(connection.start_transaction(TxOpts::default())).map_err(sql_error)?;
        let mut open = Open { runtime: &self.runtime, transaction, chain: self.chain };
        open.query("SELECT GET_LOCK('cvm-schema', 60)", &[])?;
        let migrated = schema::migrate(&mut open, Dialect::MySql);
        open.query("SELECT RELEASE_LOCK('cvm-schema')", &[])?;
        self.runtime.block_on(open.transaction.commit()).map_err(sql_error)?;
        migrated
    }
}

struct Open<'a> {
    runtime: &'a Runtime,
    transaction: Transaction<'a>,
    chain: i64,
}

fn parameters(values: &[Value<'_>]) -> mysql_async::Params {
    let value = |value: &Value<'_>| match value {
        Value::Null => mysql_async::Value::NULL,
        Value::Integer(number) => mysql_async::Value::Int(*number),
        Value::Text(text) => mysql_async::Value::Bytes(text.as_bytes().to_vec()),
    };
    match values {
        [] => mysql_async::Params::Empty,
        values => mysql_async::Params::Positional(values.iter().map(value).collect()),
    }
}

impl Connection for Open<'_> {
    fn query(&mut self, statement: &str, values: &[Value<'_>]) -> Result<Vec<Row>, SqlError> {
        let rows: Vec<mysql_async::Row> =
            self.runtime.block_on(self.transaction.exec(statement, parameters(values))).map_err(sql_error)?;
        let row = |row: mysql_async::Row| {
            let cells = row.unwrap().into_iter().enumerate().map(|(column, value)| {
                Ok(match value {
                    mysql_async::Value::NULL => Cell::Null,
                    mysql_async::Value::Int(number) => Cell::Integer(number),
                    mysql_async::Value::UInt(number) => {
                        Cell::Integer(number.try_into().map_err(|_| SqlError::Column { column })?)
                    }
                    mysql_async::Value::Bytes(bytes) => {
                        Cell::Text(String::from_utf8(bytes).map_err(|_| SqlError::Column { column })?)
                    }
                    _ => return Err(SqlError::Column { column }),
                })
            });
            Ok(Row(cells.collect::<Result<_, SqlError>>()?))
        };
        rows.into_iter().map(row).collect()
    }

    fn execute(&mut self, statement: &str, values: &[Value<'_>]) -> Result<u64, SqlError> {
        let done = self.runtime.block_on(self.transaction.exec_drop(statement, parameters(values)));
        done.map_err(sql_error)?;
        Ok(self.transaction.affected_rows())
    }

    fn for_update(&self) -> &'static str {
        " FOR UPDATE"
    }

    fn chain(&self) -> i64 {
        self.chain
    }
}

fn sql_error(error: mysql_async::Error) -> SqlError {
    match &error {
        mysql_async::Error::Server(server) if CONTENDED.contains(&server.code) => SqlError::Contended(error.into()),
        _ => SqlError::Failed(error.into()),
    }
}
