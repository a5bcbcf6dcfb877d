//! What the Lambda functions share: their environment, their log, and queues of events.

mod environment;
mod log;
mod queue;
mod time_left;

pub use environment::{Environment, InvalidEnvironment};
pub use log::{configured, start_log};
pub use queue::{Message, Redeliver, work_off};
pub use time_left::TimeLeft;
