//! The worker of imports and exports, called by the stream of the table of jobs.

mod objects;

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant, SystemTime};

use aws_lambda_events::event::dynamodb::EventRecord;
use cvm_aws::{Clients, DynamoDbJobs, DynamoDbRegistry, job_written};
use cvm_bulk::{JobId, Portion, Worked, Worker};
use cvm_lambda::{Environment, TimeLeft, configured, start_log};
use cvm_provisioning::Operations;
use lambda_runtime::{LambdaEvent, service_fn};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::objects::S3Objects;

/// The time that is left free at the end of an invocation, beside twice the longest portion of the work.
const RESERVE: Duration = Duration::from_secs(15);

type OnAws = Worker<DynamoDbRegistry, DynamoDbJobs, S3Objects>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    start_log();
    let environment = Environment::of_process();
    let dynamodb = configured(Clients::dynamodb_of_function())?;
    let registry = DynamoDbRegistry::new(dynamodb.clone(), configured(environment.required("DEVICE_TABLE"))?);
    let worker = Worker {
        operations: Operations { registry },
        jobs: DynamoDbJobs::new(dynamodb, configured(environment.required("JOB_TABLE"))?),
        objects: S3Objects::new(&configured(Clients::config_of_function("AWS_ENDPOINT_URL_S3"))?),
        clock: || SystemTime::now().into(),
        portion: Portion::default(),
    };
    let worker = &worker;
    let handle = async |event: LambdaEvent<Batch>| Box::pin(work_off(worker, event)).await;
    Box::pin(lambda_runtime::run(service_fn(handle))).await
}

/// A batch of the stream: every write of a job is told, and what there is to do is in the job itself.
#[derive(Deserialize)]
struct Batch {
    #[serde(rename = "Records")]
    records: Vec<Value>,
}

/// What the stream is to deliver again: this record, and all after it.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    batch_item_failures: Vec<Failure>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    item_identifier: String,
}

async fn work_off(worker: &OnAws, event: LambdaEvent<Batch>) -> Result<Answer, lambda_runtime::Error> {
    let time_left = TimeLeft::of(&event.context);
    // Each job once, however often it was written, and the first record that is about it.
    let mut jobs: BTreeMap<JobId, String> = BTreeMap::new();
    let mut in_order = Vec::new();
    for record in event.payload.records {
        match serde_json::from_value::<EventRecord>(record) {
            Ok(record) => {
                let Some(id) = job_written(&record) else { continue };
                let number = record.change.sequence_number.unwrap_or_default();
                jobs.entry(id).or_insert_with(|| {
                    in_order.push(id);
                    number
                });
            }
            Err(error) => tracing::error!(error = &error as &dyn Error, "a record of the stream cannot be read"),
        }
    }
    for id in in_order {
        let again = |jobs: &mut BTreeMap<JobId, String>| {
            let item_identifier = jobs.remove(&id).unwrap_or_default();
            Ok(Answer { batch_item_failures: vec![Failure { item_identifier }] })
        };
        if !time_left.is_more_than(RESERVE) {
            return again(&mut jobs);
        }
        let (mut longest, mut begun) = (Duration::ZERO, Instant::now());
        let go_on = || {
            longest = longest.max(begun.elapsed());
            begun = Instant::now();
            time_left.is_more_than(RESERVE + 2 * longest)
        };
        match worker.work(id, go_on).await {
            Ok(Worked::Ended | Worked::Left) => {}
            // What it wrote last is told, too, and that is the next turn.
            Ok(Worked::Continues) => tracing::info!(job = %id, "there has to be another turn"),
            Err(error) => {
                tracing::error!(job = %id, error = &error as &dyn Error, "a turn did not come to its end");
                return again(&mut jobs);
            }
        }
    }
    Ok(Answer::default())
}
