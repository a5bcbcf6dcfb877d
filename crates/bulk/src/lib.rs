//! Many devices at once: imports and exports, and the jobs that do them where no operator waits.
//!
//! An [`Import`] works off the lines of a file a batch at a time; after each batch it is known how far it has come, and
//! one that was cut off goes on from there, with the batch that was cut off done again. A [`Worker`] does the same for
//! [`Job`]s, whose files are [`Objects`] and whose standing is in a [`JobStore`].

mod export;
mod files;
mod import;
mod job;
mod objects;
mod patience;
mod ports;
mod tokens;
mod worker;

pub use export::{ExportFormat, InvalidExportFormat};
pub use files::FolderObjects;
pub use import::{
    FailedLine, Import, ImportError, ImportFiles, ImportRegistry, ImportStanding, Refused, Summary, advance,
};
pub use job::{ExportRequest, ExportStanding, ImportRequest, InvalidJobId, Job, JobId, JobStatus, Upload, Work};
pub use objects::{Folder, InvalidLocation, ObjectPath};
pub use ports::{Fetched, JobStore, ObjectError, Objects};
pub use tokens::KeptTokens;
pub use worker::{Portion, WorkError, Worked, Worker};
