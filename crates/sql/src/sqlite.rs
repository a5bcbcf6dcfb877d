//! SQLite: one connection writes, and many changes share one write to the disk; others read beside it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{ErrorCode, MAIN_DB, OpenFlags, ToSql, params_from_iter};

use crate::connection::{Cell, Connection, Row, Value};
use crate::error::{OpenError, SqlError};
use crate::queue::{WAITING, Work};
use crate::schema::{self, Dialect};

/// The database in its folder.
const FILE: &str = "registry.sqlite";
/// Changes that share one write to the disk, at most.
const GROUP: usize = 256;
/// Connections that read.
const READERS: usize = 2;
/// Statements that are kept prepared for each connection.
const PREPARED: usize = 128;
/// Memory for pages, for each connection, in KiB; SQLite writes that as a negative number.
const CACHE: i64 = -8 * 1024;

/// An open database.
#[derive(Debug)]
pub(crate) struct Sqlite {
    /// For a look at a row or two, which takes less time than to hand it to another thread.
    at_hand: Mutex<rusqlite::Connection>,
    queues: Option<Queues>,
    threads: Vec<JoinHandle<()>>,
    /// Held until the last thread is at its end, by who may write.
    _lock: Option<File>,
}

/// Where the work goes.
#[derive(Debug)]
struct Queues {
    /// None where the database is only looked into.
    writes: Option<SyncSender<Box<dyn Work>>>,
    reads: SyncSender<Box<dyn Work>>,
}

impl Sqlite {
    /// Opens the database in a folder, which is made where it is not there.
    pub(crate) fn open(folder: &Path) -> Result<Self, OpenError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| OpenError::Folder { path, source: source.into() }
        };
        fs::create_dir_all(folder).map_err(failed(folder))?;
        let lock_path = folder.join("registry.lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(failed(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path: lock_path }),
            Err(TryLockError::Error(source)) => return Err(failed(&lock_path)(source)),
        }
        let path = folder.join(FILE);
        let writer = open_file(&path)?;
        // A file that may only be read is opened all the same, and fails at the first change. Nothing was put beside it yet,
        // which would have its permissions, and would stay.
        if writer.is_readonly(MAIN_DB).map_err(open_error(&path))? {
            return Err(failed(&path)(io::ErrorKind::PermissionDenied.into()));
        }
        set_up(&writer, &path)?;
        migrate(&writer, &path)?;
        let (writes, write_queue) = sync_channel(WAITING);
        let mut threads = vec![spawn("registry-writer", move || write(&writer, &write_queue))?];
        let reads = start_readers(&path, &mut threads)?;
        let queues = Some(Queues { writes: Some(writes), reads });
        Ok(Self { at_hand: Mutex::new(open_reader(&path)?), queues, threads, _lock: Some(lock) })
    }

    /// Looks into the database in a folder, whoever has it open, and changes nothing.
    pub(crate) fn look_into(folder: &Path) -> Result<Self, OpenError> {
        let path = folder.join(FILE);
        fs::metadata(&path).map_err(|source| OpenError::Missing { path: path.clone(), source })?;
        let mut threads = Vec::new();
        let reads = start_readers(&path, &mut threads)?;
        let queues = Some(Queues { writes: None, reads });
        Ok(Self { at_hand: Mutex::new(open_reader(&path)?), queues, threads, _lock: None })
    }

    /// Does something that is one statement right here, unless somebody else is at it: one caller at most waits for the
    /// disk in this way.
    pub(crate) fn look<T>(
        &self,
        look: &mut impl FnMut(&mut dyn Connection) -> Result<T, SqlError>,
    ) -> Option<Result<T, SqlError>> {
        let connection = self.at_hand.try_lock().ok()?;
        Some(look(&mut SqliteConnection(&connection)))
    }

    /// Where work goes that writes.
    pub(crate) fn writes(&self) -> Option<&SyncSender<Box<dyn Work>>> {
        self.queues.as_ref()?.writes.as_ref()
    }

    /// Where work goes that only reads.
    pub(crate) fn reads(&self) -> Option<&SyncSender<Box<dyn Work>>> {
        self.queues.as_ref().map(|queues| &queues.reads)
    }
}

/// What was taken on is done, before anybody else may have the folder.
impl Drop for Sqlite {
    fn drop(&mut self) {
        self.queues = None;
        for thread in self.threads.drain(..) {
            // One that panicked has nothing left to do.
            let _ = thread.join();
        }
    }
}

fn start_readers(path: &Path, threads: &mut Vec<JoinHandle<()>>) -> Result<SyncSender<Box<dyn Work>>, OpenError> {
    let (reads, queue) = sync_channel(WAITING);
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..READERS {
        let reader = open_reader(path)?;
        let queue = Arc::clone(&queue);
        threads.push(spawn("registry-reader", move || read(&reader, &queue))?);
    }
    Ok(reads)
}

fn open_reader(path: &Path) -> Result<rusqlite::Connection, OpenError> {
    let reader = open_file(path)?;
    set_up(&reader, path)?;
    reader.pragma_update(None, "query_only", true).map_err(open_error(path))?;
    Ok(reader)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map_err(|source| OpenError::Database { source: source.into() })
}

fn open_file(path: &Path) -> Result<rusqlite::Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    rusqlite::Connection::open_with_flags(path, flags).map_err(open_error(path))
}

fn set_up(connection: &rusqlite::Connection, path: &Path) -> Result<(), OpenError> {
    connection.busy_timeout(Duration::from_secs(5)).map_err(open_error(path))?;
    // Written ahead, and on the disk before anybody is answered (sqlite.org, "PRAGMA synchronous").
    connection.pragma_update(None, "journal_mode", "WAL").map_err(open_error(path))?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(open_error(path))?;
    // Keys are hashes and serial numbers: without room for the pages that are between them each write reads some anew
    // (sqlite.org, "PRAGMA cache_size"). A longer log than the usual one made the slowest vends slower.
    connection.pragma_update(None, "cache_size", CACHE).map_err(open_error(path))?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    Ok(())
}

/// All of it or nothing, whenever the machine stops.
fn migrate(connection: &rusqlite::Connection, path: &Path) -> Result<(), OpenError> {
    connection.execute_batch("BEGIN IMMEDIATE").map_err(open_error(path))?;
    schema::migrate(&mut SqliteConnection(connection), Dialect::Sqlite)?;
    connection.execute_batch("COMMIT").map_err(open_error(path))
}

/// Why the file cannot be worked with, and what helps.
fn open_error(path: &Path) -> impl Fn(rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    move |error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            OpenError::Damaged { path: path.clone(), source: error.into() }
        }
        Some(
            ErrorCode::CannotOpen
            | ErrorCode::DiskFull
            | ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly
            | ErrorCode::SystemIoFailure,
        ) => OpenError::Folder { path: path.clone(), source: error.into() },
        _ => OpenError::Database { source: error.into() },
    }
}

/// Takes what waits, does it in one transaction, and answers when that is on the disk. What comes in the meantime waits
/// for the next one: the busier it is, the more share one write.
fn write(connection: &rusqlite::Connection, queue: &Receiver<Box<dyn Work>>) {
    while let Ok(first) = queue.recv() {
        let mut group = vec![first];
        group.extend(queue.try_iter().take(GROUP - 1));
        let outcomes = all_or_each(connection, &mut group);
        let lost = outcomes.as_ref().err().map(ToString::to_string);
        let mut outcomes = outcomes.unwrap_or_default().into_iter();
        for work in group {
            work.answer(match &lost {
                None => outcomes.next().unwrap_or(Err(SqlError::Closed)),
                Some(error) => Err(SqlError::Failed(error.clone().into())),
            });
        }
    }
}

/// Does all of it in one transaction. Where something of it fails, nothing of that is kept, and each is done apart from
/// the others. The outer error is of the database itself.
fn all_or_each(
    connection: &rusqlite::Connection,
    group: &mut [Box<dyn Work>],
) -> Result<Vec<Result<(), SqlError>>, SqlError> {
    let all = in_transaction(connection, |connection| {
        group.iter_mut().try_for_each(|work| work.run(&mut SqliteConnection(connection)))
    });
    if all.is_ok() {
        return Ok(group.iter().map(|_| Ok(())).collect());
    }
    let mut outcomes = Vec::with_capacity(group.len());
    in_transaction(connection, |connection| {
        for work in group {
            outcomes.push(in_savepoint(connection, |connection| work.run(connection))?);
        }
        Ok(())
    })?;
    Ok(outcomes)
}

fn read(connection: &rusqlite::Connection, queue: &Mutex<Receiver<Box<dyn Work>>>) {
    loop {
        let work = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut work) = work else { return };
        let outcome = (|| {
            prepared(connection, "BEGIN")?;
            let outcome = work.run(&mut SqliteConnection(connection));
            prepared(connection, "COMMIT")?;
            outcome
        })();
        work.answer(outcome);
    }
}

fn in_transaction(
    connection: &rusqlite::Connection,
    work: impl FnOnce(&rusqlite::Connection) -> Result<(), SqlError>,
) -> Result<(), SqlError> {
    prepared(connection, "BEGIN IMMEDIATE")?;
    let done = work(connection).and_then(|()| prepared(connection, "COMMIT"));
    if done.is_err() && !connection.is_autocommit() {
        // Where this fails too, the next BEGIN says so.
        let _ = connection.execute_batch("ROLLBACK");
    }
    done
}

/// What fails takes back its own changes and leaves those of the others. The outer error is of the database itself.
fn in_savepoint(
    connection: &rusqlite::Connection,
    work: impl FnOnce(&mut SqliteConnection<'_>) -> Result<(), SqlError>,
) -> Result<Result<(), SqlError>, SqlError> {
    prepared(connection, "SAVEPOINT work")?;
    let outcome = work(&mut SqliteConnection(connection));
    if outcome.is_err() {
        prepared(connection, "ROLLBACK TO work")?;
    }
    prepared(connection, "RELEASE work")?;
    Ok(outcome)
}

fn prepared(connection: &rusqlite::Connection, statement: &str) -> Result<(), SqlError> {
    connection.prepare_cached(statement).and_then(|mut statement| statement.execute([])).map_err(sql_error).map(drop)
}

struct SqliteConnection<'a>(&'a rusqlite::Connection);

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

    fn for_update(&self) -> &'static str {
        // Only one connection writes.
        ""
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes its name, and then fails if it is told to.
    struct Note(&'static str, Result<(), ()>);

    impl Work for Note {
        fn run(&mut self, connection: &mut dyn Connection) -> Result<(), SqlError> {
            connection.execute("INSERT INTO notes (name) VALUES (?)", &[self.0.into()])?;
            self.1.map_err(|()| SqlError::Closed)
        }

        fn answer(self: Box<Self>, _outcome: Result<(), SqlError>) {}
    }

    #[test]
    fn what_fails_takes_back_what_is_its_own_and_nothing_of_those_beside_it() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE notes (name TEXT NOT NULL UNIQUE)").unwrap();
        let group = |notes: [(&'static str, Result<(), ()>); 3]| {
            let mut group = notes.map(|(name, end)| Box::new(Note(name, end)) as Box<dyn Work>);
            let outcomes = all_or_each(&connection, &mut group).unwrap();
            outcomes.iter().map(Result::is_ok).collect::<Vec<_>>()
        };
        let notes = || {
            let mut found = SqliteConnection(&connection).query("SELECT name FROM notes ORDER BY name", &[]).unwrap();
            found.drain(..).map(|row| row.text(0).unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(group([("a", Ok(())), ("b", Err(())), ("c", Ok(()))]), [true, false, true]);
        assert_eq!(notes(), ["a", "c"]);
        // So does what the database itself refuses.
        assert_eq!(group([("d", Ok(())), ("a", Ok(())), ("e", Ok(()))]), [true, false, true]);
        assert_eq!(notes(), ["a", "c", "d", "e"]);
        assert_eq!(group([("f", Ok(())), ("g", Ok(())), ("h", Ok(()))]), [true; 3]);
        assert_eq!(notes().len(), 7);
    }
}
