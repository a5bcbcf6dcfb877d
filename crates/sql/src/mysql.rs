//! MySQL and MariaDB: some connections, each with a thread of its own, each change a transaction.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, IsolationLevel, Opts, OptsBuilder, Transaction, TxOpts};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::connection::{Cell, Connection, Row, Value};
use crate::error::{OpenError, SqlError};
use crate::queue::{WAITING, Work};
use crate::schema::{self, Dialect};

/// Connections of one server.
const CONNECTIONS: usize = 8;
/// Tries of a transaction that others are in the way of.
const TRIES: usize = 8;
/// The longest that an answer is waited for, to a statement and to all that is asked at once. A database whose machine has
/// vanished says nothing at all.
pub(crate) const LONGEST: Duration = Duration::from_secs(10);
/// The longest that a statement that makes the schema is waited for: an index of millions of devices takes its time.
const LONGEST_OF_SCHEMA: Duration = Duration::from_secs(60 * 60);
/// A lock is waited for less long than an answer, so that it is known what was in the way (MySQL reference manual,
/// "innodb_lock_wait_timeout").
const LOCK_WAIT: &str = "SET SESSION innodb_lock_wait_timeout = 5";

/// Error codes of a transaction that others were in the way of: a key that was not there when it was looked for, a lock
/// that was waited for too long, a deadlock (MySQL reference manual, "Server error message reference").
const CONTENDED: [u16; 3] = [1062, 1205, 1213];
/// Error codes of what is there already, a table, a column, an index, and of an index that is gone already.
const DONE: [u16; 4] = [1050, 1060, 1061, 1091];
/// Error codes of a user who is not let in: to this database, by this password, from this host, without a password.
const DENIED: [u16; 4] = [1044, 1045, 1130, 1698];
/// The error code of a database that is not there.
const NO_DATABASE: u16 = 1049;

/// A database: where its work goes.
#[derive(Debug)]
pub(crate) struct MySql {
    pub(crate) work: SyncSender<Box<dyn Work>>,
}

impl MySql {
    /// Opens it, and brings its schema up to date.
    ///
    /// Whoever calls may be in an executor of their own, in which nothing may be waited for, and in which no other
    /// executor may come to its end: all of it is done on a thread beside it.
    pub(crate) fn open(address: &str) -> Result<Self, OpenError> {
        Self::open_to(Purpose::Work, address)
    }

    /// Opens it to be looked into, and changes nothing.
    pub(crate) fn look_into(address: &str) -> Result<Self, OpenError> {
        Self::open_to(Purpose::Look, address)
    }

    fn open_to(purpose: Purpose, address: &str) -> Result<Self, OpenError> {
        let opts = Opts::from_url(address).map_err(|source| OpenError::Address { source: source.into() })?;
        let opened = thread::scope(|scope| scope.spawn(|| Self::open_here(purpose, &opts)).join());
        opened.map_err(|_| OpenError::Database { source: "the opening of it panicked".into() })?
    }

    fn open_here(purpose: Purpose, opts: &Opts) -> Result<Self, OpenError> {
        let failed = |source: std::io::Error| OpenError::Database { source: source.into() };
        let opts = Opts::from(OptsBuilder::from_opts(opts.clone()).init(vec![LOCK_WAIT]));
        let (work, queue) = sync_channel(WAITING);
        let queue = Arc::new(Mutex::new(queue));
        let mut sessions = Vec::new();
        for _ in 0..CONNECTIONS {
            let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
            let waiter = Waiter { runtime, longest: LONGEST };
            sessions.push(Session { purpose, waiter, opts: opts.clone(), connection: None });
        }
        match purpose {
            Purpose::Work => sessions[0].migrate()?,
            Purpose::Look => sessions[0].connect()?,
        }
        for session in sessions {
            let queue = Arc::clone(&queue);
            let thread = thread::Builder::new().name("registry-mysql".to_owned());
            thread.spawn(move || session.work_off(&queue)).map_err(failed)?;
        }
        Ok(Self { work })
    }
}

/// What it is opened for.
#[derive(Clone, Copy)]
enum Purpose {
    /// It may be written to.
    Work,
    /// It may be read alone.
    Look,
}

/// A connection, as far as there is one.
struct Session {
    purpose: Purpose,
    waiter: Waiter,
    opts: Opts,
    connection: Option<Chained>,
}

/// A connection and the chain of audit entries that it alone adds to: another one may begin while the last transaction of
/// the one before is still at its end over there, and must not come between.
struct Chained {
    connection: Conn,
    chain: i64,
}

impl Chained {
    fn connect(waiter: &Waiter, opts: &Opts) -> Result<Self, NoAnswer> {
        let mut chain = [0; 8];
        let filled = aws_lc_rs::rand::fill(&mut chain);
        filled.map_err(|_| mysql_async::Error::Other("the system has no randomness to give".into()))?;
        let connection = waiter.wait(Conn::new(opts.clone()))?;
        Ok(Self { connection, chain: i64::from_be_bytes(chain) })
    }

    fn begin<'a>(&'a mut self, purpose: Purpose, waiter: &'a Waiter) -> Result<Open<'a>, NoAnswer> {
        let mut options = TxOpts::default();
        match purpose {
            Purpose::Work => options.with_isolation_level(IsolationLevel::ReadCommitted),
            // All statements of a look see the database at one moment.
            Purpose::Look => options.with_isolation_level(IsolationLevel::RepeatableRead).with_readonly(true),
        };
        let transaction = waiter.wait(self.connection.start_transaction(options))?;
        Ok(Open { waiter, transaction, chain: self.chain })
    }
}

/// Waits for answers, each for so long.
struct Waiter {
    runtime: Runtime,
    longest: Duration,
}

impl Waiter {
    fn wait<T>(&self, answer: impl Future<Output = Result<T, mysql_async::Error>>) -> Result<T, NoAnswer> {
        let answered = self.runtime.block_on(async { timeout(self.longest, answer).await });
        Ok(answered.map_err(|_| NoAnswer::Silence(self.longest))??)
    }
}

/// Why there is no answer, or none that helps.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error(transparent)]
    Error(#[from] mysql_async::Error),
    #[error("the database said nothing for {} seconds", .0.as_secs())]
    Silence(Duration),
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
                // Nothing was asked of it yet, and the next one is new.
                Err(SqlError::Lost(_)) => self.connection = None,
                // It may be one that does not work any more: the next work gets a new one.
                Err(error @ (SqlError::Failed(_) | SqlError::Silent(_))) => {
                    self.connection = None;
                    return Err(error);
                }
                done => return done,
            }
        }
    }

    fn try_to(&mut self, work: &mut dyn Work) -> Result<(), SqlError> {
        let Self { purpose, waiter, opts, connection } = self;
        let mut open = match connection {
            Some(earlier) => earlier.begin(*purpose, waiter).map_err(|error| match error {
                NoAnswer::Error(error) => SqlError::Lost(error.into()),
                silence @ NoAnswer::Silence(_) => silence.into(),
            })?,
            none => none.insert(Chained::connect(waiter, opts)?).begin(*purpose, waiter)?,
        };
        match work.run(&mut open) {
            Ok(()) => Ok(waiter.wait(open.transaction.commit())?),
            // The connection is given up, and the database takes the transaction back when it sees that.
            Err(silent @ SqlError::Silent(_)) => Err(silent),
            Err(error) => {
                waiter.wait(open.transaction.rollback())?;
                Err(error)
            }
        }
    }

    fn connect(&mut self) -> Result<(), OpenError> {
        let connected = Chained::connect(&self.waiter, &self.opts);
        self.connection = Some(connected.map_err(|error| connect_error(&self.opts, error))?);
        Ok(())
    }

    /// Brings the schema up to date; of several servers that start at once, one does.
    fn migrate(&mut self) -> Result<(), OpenError> {
        self.connect()?;
        self.waiter.longest = LONGEST_OF_SCHEMA;
        let made = self.connection.as_mut().map_or(Ok(()), |connection| make_schema(&self.waiter, connection));
        self.waiter.longest = LONGEST;
        made
    }
}

fn make_schema(waiter: &Waiter, connection: &mut Chained) -> Result<(), OpenError> {
    let mut open = connection.begin(Purpose::Work, waiter).map_err(SqlError::from)?;
    let locked = open.query("SELECT COALESCE(GET_LOCK('cvm-schema', 60), 0)", &[])?;
    if locked.first().map(|row| row.integer(0)).transpose()? != Some(1) {
        return Err(OpenError::Migrating);
    }
    // Where this fails the connection is given up, and the lock with it.
    schema::migrate(&mut open, Dialect::MySql)?;
    open.query("SELECT RELEASE_LOCK('cvm-schema')", &[])?;
    Ok(waiter.wait(open.transaction.commit()).map_err(SqlError::from)?)
}

struct Open<'a> {
    waiter: &'a Waiter,
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
        let rows: Vec<mysql_async::Row> = self.waiter.wait(self.transaction.exec(statement, parameters(values)))?;
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
        self.waiter.wait(self.transaction.exec_drop(statement, parameters(values)))?;
        Ok(self.transaction.affected_rows())
    }

    fn append(&mut self, statement: &str, values: &[Value<'_>]) -> Result<i64, SqlError> {
        self.execute(statement, values)?;
        let number = self.transaction.last_insert_id().and_then(|number| number.try_into().ok());
        number.ok_or(SqlError::Column { column: 0 })
    }

    fn for_update(&self) -> &'static str {
        " FOR UPDATE"
    }

    fn shows_what_is_not_on_the_disk(&self) -> bool {
        true
    }

    fn has_index_of_states(&self) -> bool {
        true
    }

    fn json_value(&self) -> &'static str {
        "JSON_VALUE"
    }

    fn chain(&self) -> i64 {
        self.chain
    }
}

impl From<NoAnswer> for SqlError {
    fn from(error: NoAnswer) -> Self {
        match &error {
            NoAnswer::Error(mysql_async::Error::Server(server)) if CONTENDED.contains(&server.code) => {
                Self::Contended(error.into())
            }
            NoAnswer::Error(mysql_async::Error::Server(server)) if DONE.contains(&server.code) => {
                Self::Done(error.into())
            }
            NoAnswer::Error(_) => Self::Failed(error.into()),
            NoAnswer::Silence(_) => Self::Silent(error.into()),
        }
    }
}

/// Why there is no first connection, and what helps.
fn connect_error(opts: &Opts, error: NoAnswer) -> OpenError {
    match &error {
        NoAnswer::Error(mysql_async::Error::Server(server)) if DENIED.contains(&server.code) => {
            OpenError::Denied { user: opts.user().unwrap_or_default().to_owned(), source: error.into() }
        }
        NoAnswer::Error(mysql_async::Error::Server(server)) if server.code == NO_DATABASE => {
            OpenError::NoDatabase { database: opts.db_name().unwrap_or_default().to_owned(), source: error.into() }
        }
        NoAnswer::Error(mysql_async::Error::Server(_) | mysql_async::Error::Url(_)) => {
            OpenError::Database { source: error.into() }
        }
        _ => OpenError::Unreachable {
            host: opts.ip_or_hostname().to_owned(),
            port: opts.tcp_port(),
            source: error.into(),
        },
    }
}
