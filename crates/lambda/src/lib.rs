//! What the Lambda functions share: their environment, their log, queues of events and streams of tables.

mod environment;
mod log;
mod queue;
mod stream;
mod time_left;

pub use environment::{Environment, InvalidEnvironment};
pub use log::{configured, start_log};
pub use queue::{Message, Redeliver, work_off};
pub use stream::{StreamAnswer, StreamBatch};
pub use time_left::TimeLeft;
