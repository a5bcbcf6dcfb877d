//! How an export writes devices.

use std::io::{self, Write};
use std::str::FromStr;

use cvm_interchange::{DeviceDocument, IdentityLine, Keys, SPREADSHEET_HEADER, spreadsheet_row};
use cvm_provisioning::Device;
use serde::{Deserialize, Serialize};

/// The formats of an export.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// A line of JSON each, as the identity registry has it; an import takes it.
    #[default]
    Json,
    /// A table, for people.
    Csv,
}

impl ExportFormat {
    /// Every format there is.
    pub const ALL: [Self; 2] = [Self::Json, Self::Csv];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
        }
    }

    /// What stands before the first device.
    pub const fn header(self) -> &'static str {
        match self {
            Self::Json => "",
            Self::Csv => SPREADSHEET_HEADER,
        }
    }

    /// Writes a device, with the digests of its tokens where `digests` says so and the format has them.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(self, device: &Device, digests: bool, sink: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Csv => {
                let document = DeviceDocument::new(device, None, &Keys::default());
                sink.write_all(spreadsheet_row(&document).as_bytes())
            }
            Self::Json => {
                serde_json::to_writer(&mut *sink, &IdentityLine::of(device, digests))?;
                sink.write_all(b"\n")
            }
        }
    }
}

impl FromStr for ExportFormat {
    type Err = InvalidExportFormat;

    fn from_str(text: &str) -> Result<Self, InvalidExportFormat> {
        Self::ALL.into_iter().find(|format| format.name() == text).ok_or(InvalidExportFormat)
    }
}

/// A text is no [`ExportFormat`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the format of an export is json or csv")]
pub struct InvalidExportFormat;
