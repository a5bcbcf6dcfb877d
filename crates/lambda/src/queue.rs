//! Events that come through a queue, each with a fate of its own.

use std::error::Error;
use std::time::{Duration, SystemTime};

use aws_lambda_events::event::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent};
use cvm_provisioning::{Audit, AuditRecord, Door, LogAudit, Origin, Outcome, Timestamp};
use lambda_runtime::LambdaEvent;
use serde::de::DeserializeOwned;

use crate::TimeLeft;

/// One event of a queue.
#[derive(Debug)]
pub struct Message<E> {
    /// The event.
    pub event: E,
    /// Where it came in.
    pub origin: Origin,
    /// When this try began.
    pub now: Timestamp,
}

/// The longest event that is read, in bytes. Those of AWS IoT have a few hundred.
const MAX_EVENT: usize = 16 * 1024;

/// The time that is left free at the end of an invocation, so that its answer is given.
const RESERVE: Duration = Duration::from_secs(15);

/// Works a batch off, one event after the other, and says which events have to be delivered again: those that failed,
/// and those that there was no time for. An event that is none is delivered until the queue puts it aside, and holds up
/// no other.
///
/// `work` says whether the next event can be tried: after a throttle it is better not to.
pub async fn work_off<E, W>(
    door: Door,
    batch: LambdaEvent<SqsEvent>,
    mut work: impl FnMut(Message<E>) -> W,
) -> SqsBatchResponse
where
    E: DeserializeOwned,
    W: Future<Output = Result<(), Redeliver>>,
{
    let time = TimeLeft::of(&batch.context);
    let mut response = SqsBatchResponse::default();
    let mut go_on = true;
    for message in batch.payload.records {
        let id = message.message_id.unwrap_or_default();
        go_on &= time.is_more_than(RESERVE);
        let done = match parse(message.body.as_deref().unwrap_or_default()) {
            _ if !go_on => false,
            Ok(event) => {
                let origin = Origin::new(door, id.clone());
                match work(Message { event, origin, now: SystemTime::now().into() }).await {
                    Ok(()) => true,
                    Err(redeliver) => {
                        go_on = redeliver == Redeliver::This;
                        false
                    }
                }
            }
            Err(error) => {
                let cause: &dyn Error = &error;
                tracing::warn!(message = id, error = cause, "an event cannot be read");
                let origin = Origin::new(door, id.clone());
                let outcome = Outcome::Invalid { code: "event-invalid" };
                LogAudit.record(&AuditRecord { origin: &origin, device: None, key: None, outcome });
                false
            }
        };
        if !done {
            let mut failure = BatchItemFailure::default();
            failure.item_identifier = id;
            response.batch_item_failures.push(failure);
        }
    }
    response
}

/// What has to be delivered again after an event that failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Redeliver {
    /// This event, and the rest of the batch untried: it would fail, too.
    Rest,
    /// This event alone.
    This,
}

fn parse<E: DeserializeOwned>(body: &str) -> Result<E, BadEvent> {
    if body.len() > MAX_EVENT {
        return Err(BadEvent::TooLong { length: body.len() });
    }
    Ok(serde_json::from_str(body)?)
}

/// A text is no event. What it says is a stranger's, and never repeated.
#[derive(Debug, thiserror::Error)]
enum BadEvent {
    #[error("the event is not the JSON that is expected, at line {} column {}", .0.line(), .0.column())]
    Json(#[from] serde_json::Error),
    #[error("the event has {length} bytes, more than an event of AWS IoT ever has")]
    TooLong { length: usize },
}

#[cfg(test)]
mod tests {
    use aws_lambda_events::event::sqs::SqsMessage;
    use lambda_runtime::Context;
    use serde_json::Value;

    use super::*;

    fn batch(bodies: &[&str], time_left: Duration) -> LambdaEvent<SqsEvent> {
        let message = |(number, body): (usize, &&str)| {
            let mut message = SqsMessage::default();
            message.message_id = Some(number.to_string());
            message.body = Some((*body).to_owned());
            message
        };
        let mut event = SqsEvent::default();
        event.records = bodies.iter().enumerate().map(message).collect();
        let mut context = Context::default();
        let end = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() + time_left;
        context.deadline = end.as_millis() as u64;
        LambdaEvent::new(event, context)
    }

    async fn failures(bodies: &[&str], time_left: u64, fails: impl Fn(&Value) -> Result<(), Redeliver>) -> Vec<String> {
        let batch = batch(bodies, Duration::from_secs(time_left));
        let work = |message: Message<Value>| std::future::ready(fails(&message.event));
        let response = work_off(Door::Jitr, batch, work).await;
        response.batch_item_failures.into_iter().map(|failure| failure.item_identifier).collect()
    }

    #[tokio::test]
    async fn an_event_that_fails_fails_alone() {
        let second = |event: &Value| if *event == 2 { Err(Redeliver::This) } else { Ok(()) };
        assert_eq!(failures(&["1", "2", "3"], 60, second).await, ["1"]);
        assert_eq!(failures(&["1", "garbage", "", "3"], 60, |_| Ok(())).await, ["1", "2"]);
    }

    #[tokio::test]
    async fn after_a_throttle_the_rest_is_left_for_later() {
        let second = |event: &Value| if *event == 2 { Err(Redeliver::Rest) } else { Ok(()) };
        assert_eq!(failures(&["1", "2", "3", "4"], 60, second).await, ["1", "2", "3"]);
    }

    #[tokio::test]
    async fn what_there_is_no_time_for_is_left_for_later() {
        assert_eq!(failures(&["1", "2"], 10, |_| Ok(())).await, ["0", "1"]);
    }

    #[tokio::test]
    async fn a_deadline_of_1970_is_none() {
        let mut batch = batch(&["1"], Duration::ZERO);
        batch.context.deadline = 600_000;
        let response = work_off(Door::Jitr, batch, |_: Message<Value>| std::future::ready(Ok(()))).await;
        assert_eq!(response.batch_item_failures.len(), 0);
    }

    #[tokio::test]
    async fn threat_22_an_event_that_is_too_long_is_not_read() {
        let long = format!("\"{}\"", "x".repeat(MAX_EVENT));
        assert_eq!(failures(&[&long], 60, |_| Ok(())).await, ["0"]);
    }
}
