//! The function's environment, read and cross-checked once, at the start.

use cvm_bulk::{Folder, InvalidLocation};
use cvm_lambda::{Environment, InvalidEnvironment};

/// Everything the function is told by its environment.
#[derive(Debug)]
pub(crate) struct Configuration {
    /// `AUDIT_TABLE`, the name of the DynamoDB table of the audit trail.
    pub(crate) audit_table: String,
    /// `JOB_BUCKET`, the name of the bucket that the files of imports and exports are in.
    pub(crate) job_bucket: Folder,
    /// `JOB_TABLE`, the name of the DynamoDB table of imports and exports.
    pub(crate) job_table: String,
    /// `DEVICE_TABLE`, the name of the DynamoDB table of the registry.
    pub(crate) table: String,
}

impl Configuration {
    pub(crate) fn read(environment: &Environment) -> Result<Self, InvalidEnvironment> {
        Ok(Self {
            audit_table: environment.required("AUDIT_TABLE")?.to_owned(),
            job_bucket: bucket(environment, "JOB_BUCKET")?,
            job_table: environment.required("JOB_TABLE")?.to_owned(),
            table: environment.required("DEVICE_TABLE")?.to_owned(),
        })
    }
}

fn bucket(environment: &Environment, name: &'static str) -> Result<Folder, InvalidEnvironment> {
    let folder = format!("s3://{}", environment.required(name)?).parse();
    folder
        .map_err(|error: InvalidLocation| InvalidEnvironment::Unusable { name: name.to_owned(), source: error.into() })
}
