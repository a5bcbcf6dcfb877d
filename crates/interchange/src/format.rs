//! The formats of an import's file, known by how the file begins.

use cvm_provisioning::ImportMode;
use serde::{Deserialize, Serialize};

use crate::UnreadableFile;
use crate::lines::BYTE_ORDER_MARK;

/// The formats of an import's file.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// AWS IoT bulk registration: an object of parameters a line.
    Aws,
    /// A table.
    Csv,
    /// The table of certificates that Espressif's RainMaker tools write: `node_id`, `certs`.
    Espressif,
    /// The identity registry: an object a line, or an array of objects.
    Json,
    /// A manifest of secure elements by Microchip: an array of objects.
    Microchip,
}

impl Format {
    /// Every format there is.
    pub const ALL: [Self; 5] = [Self::Aws, Self::Csv, Self::Espressif, Self::Json, Self::Microchip];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Csv => "csv",
            Self::Espressif => "espressif",
            Self::Json => "json",
            Self::Microchip => "microchip",
        }
    }

    /// The format of a file of this name that begins like this.
    pub fn detect(name: &str, beginning: &[u8]) -> Self {
        let text = beginning.strip_prefix(BYTE_ORDER_MARK).unwrap_or(beginning).trim_ascii_start();
        let is_array = is_array(beginning);
        let line = text.split(|byte| *byte == b'\n' && !is_array).next().unwrap_or(text);
        let has = |word: &str| line.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()));
        match text.first() {
            Some(b'[') if has("\"uniqueId\"") || has("\"payload\"") => Self::Microchip,
            Some(b'[' | b'{') if has("\"id\"") || has("\"deviceId\"") => Self::Json,
            Some(b'[' | b'{') if has("\"ThingName\"") || has("\"SerialNumber\"") => Self::Aws,
            Some(b'[') => Self::Microchip,
            Some(b'{') => Self::Json,
            Some(_) if has("node_id") && has("certs") => Self::Espressif,
            Some(_) => Self::Csv,
            None if name.ends_with(".json") || name.ends_with(".jsonl") || name.ends_with(".ndjson") => Self::Json,
            None => Self::Csv,
        }
    }

    /// What is done with a device where nothing else is said.
    pub const fn default_mode(self) -> ImportMode {
        match self {
            Self::Json => ImportMode::CreateOrUpdate,
            Self::Aws | Self::Csv | Self::Espressif | Self::Microchip => ImportMode::Create,
        }
    }
}

/// Refuses a file that is no text in UTF-8, by how it begins.
pub(crate) fn refuse_unreadable(beginning: &[u8]) -> Result<(), UnreadableFile> {
    match beginning {
        // A zip file, which an .xlsx and an .ods are, and the file of an old .xls.
        [b'P', b'K', 3, 4, ..] | [0xd0, 0xcf, 0x11, 0xe0, ..] => Err(UnreadableFile::Workbook),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 1..=255, ..] | [1..=255, 0, ..] => Err(UnreadableFile::Encoding),
        _ if beginning.contains(&0) => Err(UnreadableFile::Binary),
        _ => Ok(()),
    }
}

/// Whether a file is an array.
pub(crate) fn is_array(beginning: &[u8]) -> bool {
    beginning.strip_prefix(BYTE_ORDER_MARK).unwrap_or(beginning).trim_ascii_start().starts_with(b"[")
}

/// Whether a file of objects, one a line, has a lone bracket on its first line.
pub(crate) fn is_one_document(beginning: &[u8]) -> bool {
    let text = beginning.strip_prefix(BYTE_ORDER_MARK).unwrap_or(beginning).trim_ascii_start();
    let mut lines = text.split(|byte| *byte == b'\n');
    lines.next().is_some_and(|first| first.trim_ascii() == b"{") && lines.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_known_by_its_beginning() {
        for (beginning, format) in [
            ("\u{feff}{\"id\":\"a\"}", Format::Json),
            ("{\"ThingName\":\"a\"}\n{\"id\"", Format::Aws),
            (" \n[{", Format::Microchip),
            ("[\n{\"version\":1,\"uniqueId\":\"0123\"", Format::Microchip),
            ("[{\"payload\":\"eyJ\",\"header\":{}}", Format::Microchip),
            ("[\n  {\n    \"deviceId\": \"a\"", Format::Json),
            ("\u{feff}[{\"id\":\"a\",\"cvm\":{\"parameters\":{\"SerialNumber\":\"a\"}}}]", Format::Json),
            ("{\"deviceId\":\"a\",\"cvm\":{\"parameters\":{\"ThingName\":\"a\"}}}", Format::Json),
            ("[{\"ThingName\":\"a\"}]", Format::Aws),
            ("node_id,certs\n", Format::Espressif),
            ("serial\n", Format::Csv),
        ] {
            assert_eq!(Format::detect("-", beginning.as_bytes()), format, "{beginning}");
        }
        assert_eq!(Format::detect("a.jsonl", b""), Format::Json);
    }
}
