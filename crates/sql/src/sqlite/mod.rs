//! SQLite: one connection writes, and many changes share one write to the disk; others read beside it.

mod checkpoint;
mod connection;
mod copy;
mod private;
mod write;

use std::error::Error;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{ErrorCode, MAIN_DB, OpenFlags};

use self::checkpoint::{Checkpoints, Pace};
use self::connection::{SqliteConnection, prepared};
pub(crate) use self::copy::copy;
use crate::connection::Connection;
use crate::error::{OpenError, SqlError};
use crate::queue::{WAITING, Work};
use crate::schema::{self, Dialect};

/// The database in its folder.
const FILE: &str = "registry.sqlite";
/// Connections that read.
const READERS: usize = 2;
/// Connections for whoever looks, without a thread of their own.
const AT_HAND: usize = 4;
/// The longest that an answer is waited for, from a disk that hangs: less than a request may take.
pub(crate) const LONGEST: Duration = Duration::from_secs(25);
/// Statements that are kept prepared for each connection.
const PREPARED: usize = 128;
/// Memory for pages, for each connection, in KiB; SQLite writes that as a negative number.
const CACHE: i64 = -8 * 1024;

/// An open database.
#[derive(Debug)]
pub(crate) struct Sqlite {
    /// For a look at a row or two, which takes less time than to hand it to another thread.
    at_hand: [Mutex<rusqlite::Connection>; AT_HAND],
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
        private::folder(folder).map_err(failed(folder))?;
        let lock_path = folder.join("registry.lock");
        let lock = private::file(&lock_path).map_err(failed(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path: lock_path }),
            Err(TryLockError::Error(source)) => return Err(failed(&lock_path)(source)),
        }
        let path = folder.join(FILE);
        // SQLite gives the files beside the database its permissions.
        for path in [&path, &folder.join(format!("{FILE}-wal")), &folder.join(format!("{FILE}-shm"))] {
            private::existing(path).map_err(failed(path))?;
        }
        private::file(&path).map_err(failed(&path))?;
        let mut writer = open_file(&path)?;
        // A file that may only be read is opened all the same, and fails at the first change. Nothing was put beside it yet,
        // which would have its permissions, and would stay.
        if writer.is_readonly(MAIN_DB).map_err(open_error(&path))? {
            return Err(failed(&path)(io::ErrorKind::PermissionDenied.into()));
        }
        set_up(&writer, &path)?;
        migrate(&writer, &path)?;
        let (writes, write_queue) = sync_channel(WAITING);
        let (checkpoints, checkpoint_thread) = Checkpoints::start(&path, &mut writer, Pace::USUAL)?;
        let write = move || write::write(&writer, &write_queue, checkpoints);
        let mut threads = vec![spawn("registry-writer", write)?, checkpoint_thread];
        let reads = start_readers(&path, &mut threads)?;
        let queues = Some(Queues { writes: Some(writes), reads });
        Ok(Self { at_hand: open_at_hand(&path)?, queues, threads, _lock: Some(lock) })
    }

    /// Looks into the database in a folder, whoever has it open, and changes nothing.
    pub(crate) fn look_into(folder: &Path) -> Result<Self, OpenError> {
        let path = folder.join(FILE);
        fs::metadata(&path).map_err(|source| OpenError::Missing { path: path.clone(), source })?;
        let mut threads = Vec::new();
        let reads = start_readers(&path, &mut threads)?;
        let queues = Some(Queues { writes: None, reads });
        Ok(Self { at_hand: open_at_hand(&path)?, queues, threads, _lock: None })
    }

    /// Looks at every page, which a bit that flips on the disk makes unreadable more often than not.
    pub(crate) fn check_pages(&self) -> Result<(), OpenError> {
        let [connection, ..] = &self.at_hand;
        let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
        let path = PathBuf::from(connection.path().unwrap_or(FILE));
        check_pages(&connection, &path)
    }

    /// Does something that is one statement right here, unless others are at it: so few callers wait for the disk in this
    /// way.
    pub(crate) fn look<T>(
        &self,
        look: &mut impl FnMut(&mut dyn Connection) -> Result<T, SqlError>,
    ) -> Option<Result<T, SqlError>> {
        let connection = self.at_hand.iter().find_map(|connection| connection.try_lock().ok())?;
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

fn check_pages(connection: &rusqlite::Connection, path: &Path) -> Result<(), OpenError> {
    // The first fault is enough (sqlite.org, "PRAGMA quick_check").
    let found = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match found.map_err(open_error(path))? {
        whole if whole == "ok" => Ok(()),
        fault => Err(OpenError::Damaged { path: path.to_owned(), source: fault.into() }),
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

fn open_at_hand(path: &Path) -> Result<[Mutex<rusqlite::Connection>; AT_HAND], OpenError> {
    let open = || open_reader(path).map(Mutex::new);
    Ok([open()?, open()?, open()?, open()?])
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
    // Else a statement that could use a partial index is prepared anew for each value that is bound to it (sqlite.org, "The
    // SQLite Query Planner Stability Guarantee").
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(open_error(path))?;
    Ok(())
}

/// All of it or nothing, whenever the machine stops.
fn migrate(connection: &rusqlite::Connection, path: &Path) -> Result<(), OpenError> {
    connection.execute_batch("BEGIN IMMEDIATE").map_err(open_error(path))?;
    schema::migrate(&mut SqliteConnection(connection), Dialect::Sqlite).map_err(|error| match error {
        OpenError::Database { source } if is_corrupt(&*source) => OpenError::Damaged { path: path.to_owned(), source },
        error => error,
    })?;
    connection.execute_batch("COMMIT").map_err(open_error(path))
}

/// Whether this comes of a page that cannot be what was written.
fn is_corrupt(error: &(dyn Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |&cause| cause.source());
    causes
        .filter_map(|cause| cause.downcast_ref::<rusqlite::Error>())
        .any(|cause| matches!(cause.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)))
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
