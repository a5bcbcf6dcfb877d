//! What was written ahead is put into the database beside the writer, whom the disk would otherwise keep for tens of
//! milliseconds at a time: each page of the database goes to a place of its own (sqlite.org, "Write-Ahead Logging").

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::hooks::Wal;

use super::{open_error, open_file, set_up, spawn};
use crate::error::OpenError;

/// How much is written ahead, in pages of 4 KiB.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// Between two checkpoints.
    step: i32,
    /// Before the log is made to begin anew.
    long: i32,
}

impl Pace {
    /// 1 MiB and 32 MiB. What a checkpoint writes is on its way to the disk before the log of the next commit: with the 4 MiB
    /// that SQLite has by itself the slowest vends took twice as long, and with less than 1 MiB all of them a little more.
    pub(super) const USUAL: Self = Self { step: 250, long: 8_000 };
}

/// The writer's side of it.
pub(super) struct Checkpoints {
    pace: Pace,
    due: SyncSender<()>,
    is_long: Arc<AtomicBool>,
    /// The pages that were in the log when the last checkpoint was asked for.
    asked_at: i32,
}

impl Checkpoints {
    /// From now on the writer makes none by itself.
    pub(super) fn start(
        path: &Path,
        writer: &mut rusqlite::Connection,
        pace: Pace,
    ) -> Result<(Self, JoinHandle<()>), OpenError> {
        writer.pragma_update(None, "wal_autocheckpoint", 0).map_err(open_error(path))?;
        writer.wal_hook(Some(note_pages)).map_err(open_error(path))?;
        let connection = open_file(path)?;
        set_up(&connection, path)?;
        let (due, is_due) = sync_channel(1);
        let is_long = Arc::new(AtomicBool::new(false));
        let checkpoints = Self { pace, due, is_long: Arc::clone(&is_long), asked_at: 0 };
        let thread = spawn("registry-checkpoint", move || work(&connection, &is_due, &is_long, pace))?;
        Ok((checkpoints, thread))
    }

    /// Has a checkpoint made beside the writer when it is time for one. A log that is never whole in the database, because
    /// more is written in the meantime, cannot begin anew: the writer itself does the little that is left, now and then.
    pub(super) fn after_commit(&mut self, writer: &rusqlite::Connection) {
        let pages = PAGES.get();
        if pages < self.asked_at {
            // The log has begun anew.
            self.asked_at = 0;
        }
        if self.is_long.swap(false, Ordering::AcqRel) {
            checkpoint(writer);
            self.asked_at = pages;
        } else if pages - self.asked_at >= self.pace.step {
            // One that waits already will see these pages, too.
            let _ = self.due.try_send(());
            self.asked_at = pages;
        }
    }
}

thread_local! {
    /// The pages in the log after this thread's last commit.
    static PAGES: Cell<i32> = const { Cell::new(0) };
}

fn note_pages(_: &mut Wal, pages: i32) -> rusqlite::Result<()> {
    PAGES.set(pages);
    Ok(())
}

fn work(connection: &rusqlite::Connection, is_due: &Receiver<()>, is_long: &AtomicBool, pace: Pace) {
    while is_due.recv().is_ok() {
        if checkpoint(connection).is_some_and(|pages| pages >= pace.long) {
            is_long.store(true, Ordering::Release);
        }
    }
}

/// Puts into the database what nobody has to wait for. Returns how many pages are in the log.
fn checkpoint(connection: &rusqlite::Connection) -> Option<i32> {
    match connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1)) {
        Ok(pages) => Some(pages),
        // What is written ahead is safe where it is; the next one may do it.
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "what was written ahead could not be put into the database");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_written_to_all_the_time_begins_anew_and_nothing_is_lost() {
        const ROWS: i64 = 20_000;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.sqlite");
        let mut writer = open_file(&path).unwrap();
        set_up(&writer, &path).unwrap();
        // Nobody switches this machine off.
        writer.pragma_update(None, "synchronous", "OFF").unwrap();
        writer.execute_batch("CREATE TABLE notes (note TEXT NOT NULL)").unwrap();
        let pace = Pace { step: 20, long: 100 };
        let (mut checkpoints, thread) = Checkpoints::start(&path, &mut writer, pace).unwrap();
        let (mut before, mut begun_anew) = (0, 0);
        for row in 0..ROWS {
            writer.execute("INSERT INTO notes VALUES (?)", [format!("note {row}")]).unwrap();
            begun_anew += i32::from(PAGES.get() < before);
            before = PAGES.get();
            checkpoints.after_commit(&writer);
        }
        assert!(begun_anew > 10, "{begun_anew} times in {ROWS} commits, and the log has {before} pages");
        drop(checkpoints);
        thread.join().unwrap();
        drop(writer);
        let reader = open_file(&path).unwrap();
        let found: i64 = reader.query_row("SELECT COUNT(*) FROM notes", [], |row| row.get(0)).unwrap();
        assert_eq!(found, ROWS);
    }
}
