//! How devices are written for other tools, and how the files of an import are read.
//!
//! The shapes are those of the identity registry of Azure IoT Hub (service REST API, version 2021-04-12), so that tools
//! made for it can be used; what it has no word for stands beside it under `cvm`. An import takes other files, too: see
//! [`Format`]. Every file is read as a stream, and no record of it may be longer than [`MAX_RECORD`].

mod audit_document;
mod authentication;
mod bulk_answer;
mod columns;
mod counted;
mod device_document;
mod elements;
mod excerpt;
mod extension;
mod fleet_document;
mod format;
mod identity_line;
mod lines;
mod moment;
mod object;
mod options;
mod present;
mod reader;
mod records;
mod restore;
mod secure_element;
mod spreadsheet;
mod table;
mod thing_line;
mod unknown_document;

pub use audit_document::AuditDocument;
pub use authentication::{Authentication, InvalidAuthentication, Keys, SymmetricKey, Thumbprints};
pub use bulk_answer::{BulkAnswer, BulkError, BulkTold, BulkWarning};
pub use columns::{Column, ColumnMapping, Guess, InvalidColumns};
pub use device_document::{
    CertificateTold, ClaimTold, DeviceDocument, DeviceTold, RefusalTold, ReservationTold, SupersededTold,
    WrongProofsTold,
};
pub use extension::{AttestationDocument, Extension, InvalidExtension};
pub use fleet_document::{FleetDocument, RecentDocument};
pub use format::Format;
pub use identity_line::{Capabilities, IdentityLine, InvalidIdentityLine};
pub use lines::MAX_RECORD;
pub use moment::Moment;
pub use object::{Object, optional_object};
pub use options::{DefaultProof, Defaults, InvalidDefaultProof, Options};
pub use present::present;
pub use reader::{ImportLine, ImportReader, LineError, LineProblem, UnreadableFile};
pub use restore::{
    CredentialDocument, InvalidRestore, ModuleDocument, RefusalDocument, Restore, SupersededDocument, UnsettledDocument,
};
pub use secure_element::InvalidSecureElement;
pub use spreadsheet::{SPREADSHEET_HEADER, spreadsheet_row};
pub use table::{InvalidCell, InvalidRow};
pub use thing_line::InvalidThingLine;
pub use unknown_document::{SourceTold, UnknownDeviceTold, UnknownDevicesDocument};
