//! Work for the threads that have the connections, and its answers.

use std::sync::mpsc::{SyncSender, TrySendError};

use tokio::sync::oneshot;

use crate::connection::Connection;
use crate::error::SqlError;

/// What waits for a database at most; more is turned away, so that nobody waits for what comes too late.
pub(crate) const WAITING: usize = 4_096;

/// Something to be done in a transaction, and to be answered when that is on the disk.
pub(crate) trait Work: Send {
    /// Does it. It may be done more than once, each time after the transaction of the time before was taken back.
    fn run(&mut self, connection: &mut dyn Connection) -> Result<(), SqlError>;

    /// Answers, after the transaction; an error takes the place of what [`Work::run`] said.
    fn answer(self: Box<Self>, outcome: Result<(), SqlError>);
}

struct Pending<T, F> {
    work: F,
    result: Option<T>,
    answer: oneshot::Sender<Result<T, SqlError>>,
}

impl<T, F> Work for Pending<T, F>
where
    T: Send,
    F: FnMut(&mut dyn Connection) -> Result<T, SqlError> + Send,
{
    fn run(&mut self, connection: &mut dyn Connection) -> Result<(), SqlError> {
        self.result = None;
        // Nobody waits for it any more: a frozen database that answers again does not begin with old work.
        if self.answer.is_closed() {
            return Ok(());
        }
        self.result = Some((self.work)(connection)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), SqlError>) {
        let Self { result, answer, .. } = *self;
        // Whoever asked may be gone; what was done is done.
        let _ = answer.send(outcome.and_then(|()| result.ok_or(SqlError::Closed)));
    }
}

/// Work whose answer nobody waits for.
struct Unattended<F> {
    what: &'static str,
    work: F,
}

impl<F> Work for Unattended<F>
where
    F: FnMut(&mut dyn Connection) -> Result<(), SqlError> + Send,
{
    fn run(&mut self, connection: &mut dyn Connection) -> Result<(), SqlError> {
        (self.work)(connection)
    }

    fn answer(self: Box<Self>, outcome: Result<(), SqlError>) {
        if let Err(error) = outcome {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "could not write {}", self.what);
        }
    }
}

/// Queues the work and returns. If it fails later, the log says so.
pub(crate) fn submit_unattended(
    queue: &SyncSender<Box<dyn Work>>,
    what: &'static str,
    work: impl FnMut(&mut dyn Connection) -> Result<(), SqlError> + Send + 'static,
) -> Result<(), SqlError> {
    enqueue(queue, Box::new(Unattended { what, work }))
}

fn enqueue(queue: &SyncSender<Box<dyn Work>>, work: Box<dyn Work>) -> Result<(), SqlError> {
    queue.try_send(work).map_err(|error| match error {
        TrySendError::Full(_) => SqlError::Overloaded,
        TrySendError::Disconnected(_) => SqlError::Closed,
    })
}

/// Has the work done by whoever takes it from the queue.
pub(crate) async fn submit<T: Send + 'static>(
    queue: &SyncSender<Box<dyn Work>>,
    work: impl FnMut(&mut dyn Connection) -> Result<T, SqlError> + Send + 'static,
) -> Result<T, SqlError> {
    let (answer, answered) = oneshot::channel();
    enqueue(queue, Box::new(Pending { work, result: None, answer }))?;
    answered.await.map_err(|_| SqlError::Closed)?
}
