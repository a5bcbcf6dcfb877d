//! A job: an import or an export that goes on when nobody waits for it, and how far it has come.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use cvm_interchange::{Format, Options};
use cvm_provisioning::{Actor, AttemptId, DeviceFilter, DeviceId, Door, Origin, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{ExportFormat, Folder, ImportStanding, ObjectPath};

/// The id of a job: 128 random bits, as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct JobId(AttemptId);

impl From<AttemptId> for JobId {
    fn from(id: AttemptId) -> Self {
        Self(id)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = InvalidJobId;

    fn from_str(text: &str) -> Result<Self, InvalidJobId> {
        let allowed = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let good = text.len() == 32 && text.bytes().all(allowed);
        text.parse().ok().filter(|_| good).map(Self).ok_or(InvalidJobId)
    }
}

impl TryFrom<String> for JobId {
    type Error = InvalidJobId;

    fn try_from(text: String) -> Result<Self, InvalidJobId> {
        text.parse()
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.to_string()
    }
}

/// A text is no [`JobId`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the id of a job has 32 hexadecimal digits in small letters")]
pub struct InvalidJobId;

/// A job.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// How often it was written: who writes it next says which state that is about.
    pub version: u64,
    /// What became of it so far.
    pub status: JobStatus,
    /// Who asked for it.
    pub by: Actor,
    /// When.
    pub created_at: Timestamp,
    /// When it last got any further.
    pub advanced_at: Timestamp,
    /// When a worker began with it.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it failed.
    pub failure: Option<String>,
    /// How much of it is done, in percent, as far as that can be known.
    pub progress: u8,
    /// What is to be done, and how much of it is.
    pub work: Work,
}

/// What became of a job.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// No worker has begun with it yet.
    Enqueued,
    /// A worker has begun with it.
    Running,
    /// It is done. Single lines may have failed.
    Completed,
    /// It cannot be done, or not to its end.
    Failed,
    /// An operator ended it.
    Cancelled,
}

impl JobStatus {
    /// Whether nothing is to be done any more.
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// What a job does, and how far it has come.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    /// The lines of an object, into the registry.
    Import {
        /// What is asked for.
        request: ImportRequest,
        /// How far it has come.
        standing: ImportStanding,
        /// Which state of the object is read.
        etag: Option<String>,
        /// Whether a worker may have begun with what comes next.
        begun: bool,
    },
    /// The devices of the registry, into an object.
    Export {
        /// What is asked for.
        request: ExportRequest,
        /// How far it has come.
        standing: ExportStanding,
    },
}

/// What an import is asked for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportRequest {
    /// What is imported.
    pub input: ObjectPath,
    /// Where tokens and failed lines are written, in a folder of the job's own.
    pub output: Folder,
    /// The input's format; by its beginning where none is given.
    pub format: Option<Format>,
    /// How it is to be read.
    pub options: Options,
    /// Whether lines are checked only.
    pub dry_run: bool,
}

/// What an export is asked for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportRequest {
    /// Where the devices are written.
    pub output: ObjectPath,
    /// How.
    pub format: ExportFormat,
    /// Whether the digests of tokens are written.
    pub digests: bool,
    /// Which devices.
    pub filter: DeviceFilter,
}

/// How far an export has come.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportStanding {
    /// Devices that are written.
    pub devices: u64,
    /// Where they are, until the object is made of them.
    pub upload: Option<Upload>,
}

/// An object on its way.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Upload {
    /// What the service calls it.
    pub id: String,
    /// What tells its parts from others, in their order.
    pub parts: Vec<String>,
    /// The last device in them.
    pub after: Option<DeviceId>,
    /// Whether that is the last one of all.
    pub whole: bool,
}

impl Job {
    /// How long a job is kept after its end.
    pub const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

    /// A job that nobody has begun with.
    pub fn new(id: JobId, work: Work, by: Actor, now: Timestamp) -> Self {
        Self {
            id,
            version: 1,
            status: JobStatus::Enqueued,
            by,
            created_at: now,
            advanced_at: now,
            started_at: None,
            ended_at: None,
            failure: None,
            progress: 0,
            work,
        }
    }

    /// Whose changes it makes, where and by which request.
    pub fn origin(&self) -> Origin {
        Origin { actor: Some(self.by.clone()), ..Origin::new(Door::Job, self.id.to_string()) }
    }

    /// Ends it.
    pub fn end(&mut self, status: JobStatus, now: Timestamp) {
        self.status = status;
        self.ended_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_in_one_way() {
        let text = "0123456789abcdef0123456789abcdef";
        assert_eq!(text.parse::<JobId>().unwrap().to_string(), text);
        for text in
            ["", "0", "0123456789ABCDEF0123456789abcdef", "+123456789abcdef0123456789abcdef", &format!("{text}0")]
        {
            assert_eq!(text.parse::<JobId>(), Err(InvalidJobId), "{text}");
        }
    }
}
