//! The files of jobs in S3.

use std::fmt::Debug;
use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use cvm_bulk::{Fetched, JobId, ObjectError, ObjectPath, Objects};

/// The largest object that is fetched, in bytes: what the function's disk has room for, and some ten million devices.
const ROOM: u64 = 4_000_000_000;
/// The largest object that is read at once: the tokens of one portion.
const MAX_READ: u64 = 16 * 1024 * 1024;
/// What tells the object of an export from one that was there before: metadata of this name.
const JOB: &str = "cvm-job";

/// The objects of S3.
#[derive(Clone, Debug)]
pub(crate) struct S3Objects {
    client: Client,
}

impl S3Objects {
    /// With this configuration, but more time: a portion is megabytes.
    pub(crate) fn new(config: &SdkConfig) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(3))
            .read_timeout(Duration::from_secs(30))
            .operation_attempt_timeout(Duration::from_secs(60))
            .build();
        let config = aws_sdk_s3::config::Builder::from(config)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(4))
            .build();
        Self { client: Client::from_conf(config) }
    }

    async fn put_if(&self, object: &ObjectPath, bytes: Vec<u8>, new: Option<&str>) -> Result<bool, ObjectError> {
        let put =
            self.client.put_object().set_bucket(object.bucket.clone()).key(&object.key).body(ByteStream::from(bytes));
        match put.set_if_none_match(new.map(str::to_owned)).send().await {
            Ok(_) => Ok(true),
            Err(error) if code(&error) == Some("PreconditionFailed") => Ok(false),
            Err(error) => Err(object_error(error)),
        }
    }
}

impl Objects for S3Objects {
    async fn fetch(&self, object: &ObjectPath, etag: Option<&str>, file: &mut File) -> Result<Fetched, ObjectError> {
        let get = self.client.get_object().set_bucket(object.bucket.clone()).key(&object.key);
        let got = get.set_if_match(etag.map(str::to_owned)).send().await.map_err(object_error)?;
        let length = got.content_length.and_then(|length| length.try_into().ok()).unwrap_or_default();
        if length > ROOM {
            return Err(ObjectError::TooLarge { length, room: ROOM });
        }
        let etag = got.e_tag.ok_or_else(|| ObjectError::Refused { source: "the object has no entity tag".into() })?;
        let mut body = got.body;
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(|error| ObjectError::Unavailable { source: error.into() })?;
            file.write_all(&bytes).map_err(ObjectError::Disk)?;
        }
        Ok(Fetched { etag, length })
    }

    async fn get(&self, object: &ObjectPath) -> Result<Option<Vec<u8>>, ObjectError> {
        let get = self.client.get_object().set_bucket(object.bucket.clone()).key(&object.key);
        let got = match get.send().await.map_err(object_error) {
            Ok(got) => got,
            Err(ObjectError::NotFound) => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = got.content_length.and_then(|length| length.try_into().ok()).unwrap_or_default();
        if length > MAX_READ {
            return Err(ObjectError::TooLarge { length, room: MAX_READ });
        }
        let body = got.body.collect().await;
        Ok(Some(body.map_err(|error| ObjectError::Unavailable { source: error.into() })?.to_vec()))
    }

    async fn put(&self, object: &ObjectPath, bytes: Vec<u8>) -> Result<(), ObjectError> {
        self.put_if(object, bytes, None).await.map(|_| ())
    }

    async fn put_new(&self, object: &ObjectPath, bytes: Vec<u8>) -> Result<bool, ObjectError> {
        self.put_if(object, bytes, Some("*")).await
    }

    async fn begin(&self, object: &ObjectPath, job: JobId) -> Result<String, ObjectError> {
        let begin = self.client.create_multipart_upload().set_bucket(object.bucket.clone()).key(&object.key);
        let begun = begin.metadata(JOB, job.to_string()).send().await.map_err(object_error)?;
        begun.upload_id.ok_or_else(|| ObjectError::Refused { source: "the upload has no id".into() })
    }

    async fn part(
        &self,
        object: &ObjectPath,
        upload: &str,
        number: usize,
        bytes: Vec<u8>,
    ) -> Result<String, ObjectError> {
        let part = self.client.upload_part().set_bucket(object.bucket.clone()).key(&object.key).upload_id(upload);
        let part = part.part_number(part_number(number)?).body(ByteStream::from(bytes));
        let put = part.send().await.map_err(object_error)?;
        put.e_tag.ok_or_else(|| ObjectError::Refused { source: "the part has no entity tag".into() })
    }

    async fn complete(
        &self,
        object: &ObjectPath,
        upload: &str,
        parts: &[String],
        job: JobId,
    ) -> Result<(), ObjectError> {
        let parts = parts
            .iter()
            .zip(1..)
            .map(|(tag, number)| Ok(CompletedPart::builder().e_tag(tag).part_number(part_number(number)?).build()));
        let parts = parts.collect::<Result<Vec<_>, ObjectError>>()?;
        let complete = self
            .client
            .complete_multipart_upload()
            .set_bucket(object.bucket.clone())
            .key(&object.key)
            .upload_id(upload)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build());
        let Err(error) = complete.send().await else { return Ok(()) };
        if code(&error) != Some("NoSuchUpload") {
            return Err(object_error(error));
        }
        // It is complete already, and the answer was lost; or it was given up, and nothing is there.
        let head = self.client.head_object().set_bucket(object.bucket.clone()).key(&object.key);
        let there = head.send().await.map_err(object_error)?;
        let made_by = there.metadata.as_ref().and_then(|metadata| metadata.get(JOB));
        if made_by == Some(&job.to_string()) { Ok(()) } else { Err(object_error(error)) }
    }

    async fn abort(&self, object: &ObjectPath, upload: &str) -> Result<(), ObjectError> {
        let abort =
            self.client.abort_multipart_upload().set_bucket(object.bucket.clone()).key(&object.key).upload_id(upload);
        match abort.send().await {
            Err(error) if code(&error) != Some("NoSuchUpload") => Err(object_error(error)),
            _ => Ok(()),
        }
    }
}

fn part_number(number: usize) -> Result<i32, ObjectError> {
    let too_many = |_| ObjectError::Refused { source: "an object has 10,000 parts at most".into() };
    number.try_into().map_err(too_many)
}

fn code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

/// What an SDK's error means, by its code where it has one (Amazon S3 API reference, "Error responses"); an answer
/// without a body has none.
fn object_error<E>(error: SdkError<E>) -> ObjectError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    match (code(&error), status) {
        (Some("NoSuchKey" | "NotFound"), _) | (None, 404) => ObjectError::NotFound,
        (Some("PreconditionFailed"), _) | (None, 412) => ObjectError::Changed,
        (Some("ConditionalRequestConflict" | "OperationAborted" | "RequestTimeout" | "SlowDown"), _) => {
            ObjectError::Unavailable { source: error.into() }
        }
        (_, 400..=499) => ObjectError::Refused { source: error.into() },
        _ => ObjectError::Unavailable { source: error.into() },
    }
}
