//! The one connection that writes, and many changes that share one write to the disk.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::checkpoint::Checkpoints;
use super::connection::{SqliteConnection, prepared};
use crate::error::SqlError;
use crate::queue::Work;

/// Changes that share one write to the disk, at most.
const GROUP: usize = 256;

/// Takes what waits, does it in one transaction, and answers when that is on the disk. What comes in the meantime waits
/// for the next one: the busier it is, the more share one write.
pub(super) fn write(connection: &rusqlite::Connection, queue: &Receiver<Box<dyn Work>>, mut checkpoints: Checkpoints) {
    while let Ok(first) = queue.recv() {
        let mut group = vec![first];
        group.extend(queue.try_iter().take(GROUP - 1));
        match all_or_each(connection, &mut group) {
            Ok(outcomes) => {
                let mut outcomes = outcomes.into_iter();
                for work in group {
                    work.answer(outcomes.next().unwrap_or(Err(SqlError::Closed)));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for work in group {
                    work.answer(Err(SqlError::Group(Arc::clone(&error))));
                }
            }
        }
        checkpoints.after_commit(connection);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Connection;

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
