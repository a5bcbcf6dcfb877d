//! The worker of imports and exports, called by the stream of the table of jobs.

mod objects;

use std::error::Error;
use std::time::{Duration, Instant, SystemTime};

use aws_lambda_events::event::dynamodb::EventRecord;
use cvm_aws::{Clients, DynamoDbJobs, DynamoDbRegistry, job_written};
use cvm_bulk::{JobId, Portion, Worked, Worker};
use cvm_lambda::{Environment, StreamAnswer, StreamBatch, TimeLeft, configured, start_log};
use cvm_provisioning::Operations;
use lambda_runtime::{LambdaEvent, service_fn};

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
    let handle = async |event: LambdaEvent<StreamBatch>| Box::pin(work_off(worker, event)).await;
    Box::pin(lambda_runtime::run(service_fn(handle))).await
}

/// Works off the jobs of a batch. Every write of a job is told, and what there is to do is in the job itself.
async fn work_off(worker: &OnAws, event: LambdaEvent<StreamBatch>) -> Result<StreamAnswer, lambda_runtime::Error> {
    let time_left = TimeLeft::of(&event.context);
    // Each job once, however often it was written, with the first record that is about it.
    let mut jobs: Vec<(JobId, String)> = Vec::new();
    for record in event.payload.records {
        match serde_json::from_value::<EventRecord>(record) {
            Ok(record) => {
                let id = job_written(&record).filter(|id| jobs.iter().all(|(known, _)| known != id));
                jobs.extend(id.map(|id| (id, record.change.sequence_number.unwrap_or_default())));
            }
            Err(error) => tracing::error!(error = &error as &dyn Error, "a record of the stream cannot be read"),
        }
    }
    for (id, record) in jobs {
        if !time_left.is_more_than(RESERVE) {
            return Ok(StreamAnswer::again_from(record));
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
                return Ok(StreamAnswer::again_from(record));
            }
        }
    }
    Ok(StreamAnswer::default())
}
