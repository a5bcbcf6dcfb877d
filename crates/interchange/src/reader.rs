//! The file of an import, whichever of its formats it has.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::io::{self, BufRead};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cvm_provisioning::{Device, DeviceId, ImportEntry, ImportMode};

use serde::Deserialize;

use crate::columns::columns as column_names;
use crate::counted::Counted;
use crate::elements::Elements;
use crate::format::{is_array, is_one_document, refuse_unreadable};
use crate::lines::{Lines, Record};
use crate::records::Records;
use crate::secure_element::ManifestElement;
use crate::thing_line::ThingLine;
use crate::{
    Column, Format, Guess, IdentityLine, InvalidColumns, InvalidIdentityLine, InvalidRow, InvalidSecureElement,
    InvalidThingLine, Keys, MAX_RECORD, Object, Options, table,
};

/// A line of an import.
#[derive(Debug)]
pub struct ImportLine {
    /// Its number, from 1; that of the first line where it has several.
    pub line: u64,
    /// What it asks for.
    pub entry: ImportEntry,
    /// The keys that were made for it.
    pub keys: Keys,
    /// Whether its proof is only for a device that is new.
    pub proof_if_new: bool,
    /// The device as it was exported, where it is to be put back.
    pub device: Option<Box<Device>>,
    /// Whether it says something of a twin, which is not kept here.
    pub twin: bool,
}

/// Reads the file of an import, a line at a time.
///
/// Of each line before it keeps 12 bytes, to tell where a device comes twice: some 30 MB for a million.
#[derive(Debug)]
pub struct ImportReader<R> {
    source: Source<R>,
    options: Options,
    mode: ImportMode,
    guess: Option<Guess>,
    hasher: RandomState,
    /// The lines by the hash of what they are about; in bytes, because numbers would be padded.
    seen: HashMap<[u8; 8], [u8; 4]>,
    ended: bool,
    bytes: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Source<R> {
    /// An array of objects.
    Array(Elements<Counted<R>>, Format),
    /// An object a line.
    Lines(Lines<Counted<R>>, Format),
    Table(Box<Table<R>>),
}

#[derive(Debug)]
struct Table<R> {
    records: Records<Counted<R>>,
    columns: Vec<Column>,
    /// The first row, if it is no header.
    first: Option<Record<Vec<Option<String>>>>,
}

impl<R: BufRead> Table<R> {
    /// The next row that is not blank.
    fn next_row(&mut self) -> io::Result<Option<Record<Vec<Option<String>>>>> {
        loop {
            let row = match self.first.take() {
                Some(row) => Some(row),
                None => self.records.next_record()?,
            };
            match row {
                Some(Record::Whole(_, cells)) if table::is_blank(&cells) => {}
                row => return Ok(row),
            }
        }
    }
}

impl<R: BufRead> ImportReader<R> {
    /// Begins to read.
    ///
    /// # Errors
    ///
    /// [`UnreadableFile`].
    pub fn new(source: R, format: Format, options: Options) -> Result<Self, UnreadableFile> {
        let bytes = Arc::default();
        let mut source = Counted::new(source, Arc::clone(&bytes));
        refuse_unreadable(source.fill_buf()?)?;
        if options.restore && format != Format::Json {
            return Err(UnreadableFile::NoRestore);
        }
        if matches!(format, Format::Json | Format::Aws) && is_one_document(source.fill_buf()?) {
            return Err(UnreadableFile::Document);
        }
        let mut guess = None;
        let source = match format {
            Format::Microchip => Source::Array(Elements::new(source), format),
            Format::Aws | Format::Json if is_array(source.fill_buf()?) => Source::Array(Elements::new(source), format),
            Format::Aws | Format::Json => Source::Lines(Lines::new(source), format),
            Format::Csv | Format::Espressif => {
                let mut records = Records::new(source)?;
                let (line, header) = match records.next_record()? {
                    Some(Record::Whole(line, header)) => (line, header),
                    Some(Record::TooLong(_)) => return Err(UnreadableFile::Header),
                    None => (1, Vec::new()),
                };
                let columns;
                (columns, guess) = column_names(&header, &options.columns, options.ignore_unknown_columns)?;
                let first = (guess == Some(Guess::List)).then_some(Record::Whole(line, header));
                Source::Table(Box::new(Table { records, columns, first }))
            }
        };
        let mode = options.defaults.mode.unwrap_or_else(|| format.default_mode());
        let (hasher, seen) = (RandomState::new(), HashMap::new());
        Ok(Self { source, options, mode, guess, hasher, seen, ended: false, bytes })
    }

    /// How the devices' ids are found in a table that does not say it.
    pub fn guess(&self) -> Option<&Guess> {
        self.guess.as_ref()
    }

    /// How many bytes of the file have been read.
    pub fn bytes_read(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn read(&mut self) -> Result<Option<ImportLine>, LineError> {
        let mode = self.mode;
        let unreadable = |error: io::Error| LineError { line: 0, device: None, problem: LineProblem::File(error) };
        let (line, read) = match &mut self.source {
            Source::Lines(lines, format) => match lines.next_line().map_err(unreadable)? {
                None => return Ok(None),
                Some(Record::TooLong(line)) => (line, Err(LineProblem::TooLong)),
                Some(Record::Whole(line, text)) => (line, object(&text, line, *format, mode, self.options.restore)),
            },
            Source::Array(elements, format) => match elements.next_element().map_err(unreadable)? {
                None if !elements.is_whole() => {
                    let cut_off = io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends before its array does");
                    return Err(unreadable(cut_off));
                }
                None => return Ok(None),
                Some(Record::TooLong(line)) => (line, Err(LineProblem::TooLong)),
                Some(Record::Whole(line, text)) => (line, object(&text, line, *format, mode, self.options.restore)),
            },
            Source::Table(table) => match table.next_row().map_err(unreadable)? {
                None => return Ok(None),
                Some(Record::TooLong(line)) => (line, Err(LineProblem::TooLong)),
                Some(Record::Whole(line, cells)) => {
                    let entry = table::entry(&table.columns, &cells, mode).map_err(LineProblem::from);
                    (line, entry.map(|entry| ImportLine::of(line, entry)))
                }
            },
        };
        let mut read = read.map_err(|problem| LineError { line, device: None, problem })?;
        let failed = |problem| LineError { line, device: Some(read.entry.id.clone()), problem };
        if let Some(first) = self.first_line_of(&read.entry, line) {
            return Err(failed(LineProblem::Twice { first }));
        }
        if read.device.is_none() && self.options.defaults.complete(&mut read).is_err() {
            return Err(LineError { line, device: None, problem: LineProblem::Randomness });
        }
        Ok(Some(read))
    }

    /// The line that was about the same before.
    fn first_line_of(&mut self, entry: &ImportEntry, line: u64) -> Option<u64> {
        let mut hasher = self.hasher.build_hasher();
        entry.id.as_str().hash(&mut hasher);
        entry.module.as_ref().map(|(id, _)| id.as_str()).hash(&mut hasher);
        let number = u32::try_from(line).unwrap_or(u32::MAX).to_le_bytes();
        match self.seen.entry(hasher.finish().to_le_bytes()) {
            std::collections::hash_map::Entry::Occupied(first) => Some(u32::from_le_bytes(*first.get()).into()),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(number);
                None
            }
        }
    }
}

impl<R: BufRead> Iterator for ImportReader<R> {
    type Item = Result<ImportLine, LineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let read = self.read().transpose();
        self.ended = match &read {
            None => true,
            Some(Err(error)) => error.problem.is_of_the_file(),
            Some(Ok(_)) => false,
        };
        read
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, self.ended.then_some(0))
    }
}

impl ImportLine {
    const fn of(line: u64, entry: ImportEntry) -> Self {
        let keys = Keys { primary: None, secondary: None };
        Self { line, entry, keys, proof_if_new: false, device: None, twin: false }
    }
}

/// What an object in this format asks for.
fn object(text: &[u8], line: u64, format: Format, mode: ImportMode, restore: bool) -> Result<ImportLine, LineProblem> {
    let entry = match format {
        Format::Aws => json::<ThingLine>(text)?.entry(mode)?,
        Format::Microchip => json::<ManifestElement>(text)?.entry(mode)?,
        Format::Csv | Format::Espressif | Format::Json => return identity(text, line, mode, restore),
    };
    Ok(ImportLine::of(line, entry))
}

fn identity(text: &[u8], line: u64, mode: ImportMode, restore: bool) -> Result<ImportLine, LineProblem> {
    let identity: IdentityLine = json(text)?;
    let twin = identity.has_twin();
    let invalid = |problem| LineProblem::Identity { field: identity.offending(&problem), problem };
    if restore {
        let (device, keys) = identity.device().map_err(invalid)?;
        let entry = ImportEntry { id: device.id.clone(), module: None, etag: None, mode, settings: Default::default() };
        return Ok(ImportLine { keys, device: Some(Box::new(device)), twin, ..ImportLine::of(line, entry) });
    }
    let (entry, keys) = identity.entry(mode).map_err(invalid)?;
    Ok(ImportLine { keys, twin, ..ImportLine::of(line, entry) })
}

fn json<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, LineProblem> {
    // The words of serde_json may have a part of the line in them, and that may be a key.
    let object = serde_json::from_slice(text).map(|Object(object)| object);
    object.map_err(|error| LineProblem::Json { column: error.column() })
}

/// A line that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct LineError {
    /// Its number, from 1; 0 where the file cannot be read any further.
    pub line: u64,
    /// The device that it is about, as far as that was understood.
    pub device: Option<DeviceId>,
    /// Why.
    pub problem: LineProblem,
}

/// Why a line cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LineProblem {
    /// The file cannot be read any further.
    #[error("the file cannot be read: {0}")]
    File(io::Error),
    /// A line of the identity registry.
    #[error("{}{problem}", field.as_ref().map(|(field, value)| format!("{field} {value}: ")).unwrap_or_default())]
    Identity {
        /// The field that it is about, and the beginning of its value.
        field: Option<(&'static str, String)>,
        /// Why it cannot be used.
        problem: InvalidIdentityLine,
    },
    /// The line is not JSON, or not of the shape.
    #[error("the line is no JSON object of the expected shape, or has a name twice; see its byte {column}")]
    Json {
        /// Where it was given up, from 1.
        column: usize,
    },
    /// No randomness for a token.
    #[error("the system has no randomness to give")]
    Randomness,
    /// A row of a table.
    #[error(transparent)]
    Row(#[from] InvalidRow),
    /// An element of a manifest.
    #[error(transparent)]
    SecureElement(#[from] InvalidSecureElement),
    /// A line of AWS IoT bulk registration.
    #[error(transparent)]
    Thing(#[from] InvalidThingLine),
    /// It is longer than any line has reason to be.
    #[error("the line has more than {MAX_RECORD} bytes")]
    TooLong,
    /// A line before was about the same device.
    #[error("line {first} is about the same device")]
    Twice {
        /// That line.
        first: u64,
    },
}

impl LineProblem {
    /// The stable word for it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Identity { .. } | Self::Row(_) | Self::SecureElement(_) | Self::Thing(_) => "invalid",
            Self::Json { .. } => "json",
            Self::Randomness => "randomness",
            Self::TooLong => "too-long",
            Self::Twice { .. } => "duplicate",
        }
    }

    /// Whether no line after it can be read.
    pub const fn is_of_the_file(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

/// Why a file cannot be read at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnreadableFile {
    /// No text.
    #[error("the file is not text")]
    Binary,
    /// Its first row.
    #[error(transparent)]
    Columns(#[from] InvalidColumns),
    /// One JSON object over several lines.
    #[error(
        "the file is one JSON document over several lines: write one object a line, as `jq -c '.devices[]'` does with \
         the array \"devices\""
    )]
    Document,
    /// UTF-16.
    #[error("the file is in UTF-16: save it as CSV UTF-8, or convert it with `iconv -f UTF-16 -t UTF-8`")]
    Encoding,
    /// Its first row is too long.
    #[error("the first row has more than {MAX_RECORD} bytes")]
    Header,
    /// It cannot be read.
    #[error("the file cannot be read")]
    Io(#[from] io::Error),
    /// Only exports in JSON have what is needed to put devices back.
    #[error("devices can be put back from an export in JSON only")]
    NoRestore,
    /// A workbook of a spreadsheet program.
    #[error("the file is a workbook, such as .xlsx, .ods or .xls: save its table as CSV UTF-8")]
    Workbook,
}

#[cfg(test)]
mod tests {
    use cvm_provisioning::Attestation;
    use cvm_testkit::MemoryPlatform;
    use cvm_testkit::fixture::csr;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;
    use crate::{DefaultProof, Defaults};

    fn read(text: &[u8], format: Format, options: Options) -> Vec<Result<ImportLine, LineError>> {
        ImportReader::new(text, format, options).unwrap().collect()
    }

    fn with_proof(proof: DefaultProof) -> Options {
        Options { defaults: Defaults { proof, ..Defaults::default() }, ..Options::default() }
    }

    #[test]
    fn threat_41_a_serial_number_that_comes_twice_is_an_error_with_both_lines() {
        let rows = read(b"serial\nsn-1\nsn-2\n\nsn-1\n", Format::Csv, with_proof(DefaultProof::Claim));
        let errors: Vec<_> = rows.into_iter().filter_map(Result::err).collect();
        assert!(
            matches!(errors[..], [LineError { line: 5, problem: LineProblem::Twice { first: 2 }, .. }]),
            "{errors:?}"
        );
    }

    #[test]
    fn threat_41_a_bad_line_is_told_by_its_number_and_the_rest_is_read() {
        let text = b"id,reason,status\r\nsn-1,,\r\n=1,,\r\n\"sn-2\",\"a \"\"b\"\"\r\nc\",disabled\r\nM\xfc,,\r\nsn-3,a,\r\nsn-4,\r\nsn-5,,\r\n";
        let rows = read(text, Format::Csv, Options::default());
        let lines: Vec<_> =
            rows.iter().map(|row| row.as_ref().map_or_else(|bad| (bad.line, false), |row| (row.line, true))).collect();
        let expected = [(2, true), (3, false), (4, false), (6, false), (7, false), (8, false), (9, true)];
        assert_eq!(lines, expected, "{rows:?}");
    }

    #[test]
    fn threat_41_another_encoding_is_named() {
        let utf16 = ImportReader::new(&b"\xff\xfei\0d\0"[..], Format::Csv, Options::default());
        assert!(matches!(utf16, Err(UnreadableFile::Encoding)));
        for text in [&b"i\0d\0"[..], b"\0i\0d"] {
            let unmarked = ImportReader::new(text, Format::Csv, Options::default());
            assert!(matches!(unmarked, Err(UnreadableFile::Encoding)));
        }
        let latin = ImportReader::new(&b"id,Stra\xdfe\n"[..], Format::Csv, Options::default());
        assert!(matches!(latin, Err(UnreadableFile::Columns(InvalidColumns::Encoding))));
    }

    #[test]
    fn a_file_that_is_no_text_is_named() {
        let problem = |text: &[u8]| {
            ImportReader::new(text, Format::Csv, Options::default()).err().map(|problem| problem.to_string())
        };
        let [xlsx, xls] = [&b"PK\x03\x04\x14\0"[..], b"\xd0\xcf\x11\xe0\xa1\xb1"].map(|text| problem(text).unwrap());
        assert!(xlsx.contains(".xlsx") && xlsx.contains("CSV UTF-8") && xls == xlsx, "{xlsx}");
        assert_eq!(problem(b"\x1f\x8b\x08\0\0\0").as_deref(), Some("the file is not text"));
    }

    #[test]
    fn a_document_over_several_lines_is_one_error() {
        let document = b"{\n  \"devices\": [\n    {\"deviceId\": \"sn-1\"}\n  ]\n}\n";
        let refused = ImportReader::new(&document[..], Format::detect("", document), Options::default()).unwrap_err();
        assert!(matches!(refused, UnreadableFile::Document) && refused.to_string().contains("jq -c"), "{refused}");
    }

    #[test]
    fn a_list_of_ids_needs_no_header() {
        let reader = ImportReader::new(&b"sn-0001\r\nsn-0002\nsn-0001\n"[..], Format::Csv, Options::default()).unwrap();
        assert_eq!(reader.guess(), Some(&Guess::List));
        let lines: Vec<_> = reader.map(|line| line.map(|line| (line.line, line.entry.id.to_string()))).collect();
        assert!(matches!(&lines[..2], [Ok(first), Ok(second)] if *first == (1, "sn-0001".to_owned()) && second.0 == 2));
        assert!(matches!(&lines[2..], [Err(LineError { line: 3, problem: LineProblem::Twice { first: 1 }, .. })]));
    }

    #[test]
    fn a_table_of_a_spreadsheet_is_read_with_its_semicolons_and_empty_cells() {
        let text = "\u{feff}Serial No.;Group;;\r\nsn-1;ulm;;\r\nsn-2;;;\r\n;;;\r\nsn-3;ulm\r\n;;;\r\n";
        let rows = read(text.as_bytes(), Format::Csv, Options::default());
        let ids: Vec<_> = rows.iter().map(|row| row.as_ref().unwrap().entry.id.as_str()).collect();
        assert_eq!(ids, ["sn-1", "sn-2", "sn-3"]);
    }

    #[test]
    fn an_error_of_a_line_has_the_beginning_of_the_value() {
        for (line, expected) in [
            (r#"{"id":"pump#7"}"#, "id \"pump#7\": "),
            (r#"{"id":"a","status":"sold"}"#, "status \"sold\": "),
            (r#"{"id":"a","importMode":"upsert"}"#, "importMode \"upsert\": "),
            (r#"{"id":"a","moduleId":"a b"}"#, "moduleId \"a b\": "),
        ] {
            let error = read(line.as_bytes(), Format::Json, Options::default()).remove(0).unwrap_err();
            assert!(error.problem.to_string().starts_with(expected), "{error}");
        }
        let aws = read(br#"{"ThingName":"a b"}"#, Format::Aws, Options::default()).remove(0).unwrap_err();
        assert!(aws.problem.to_string().starts_with("ThingName \"a b\": "), "{aws}");
    }

    #[test]
    fn what_a_line_does_not_say_is_the_default() {
        let options = Options {
            defaults: Defaults { group: Some("berlin".parse().unwrap()), ..Defaults::default() },
            ..Options::default()
        };
        let rows = read(b"id,group\na,\nb,paris\n", Format::Csv, options);
        let groups: Vec<_> = rows
            .iter()
            .map(|row| row.as_ref().unwrap().entry.settings.group.clone().unwrap().unwrap().to_string())
            .collect();
        assert_eq!(groups, ["berlin", "paris"]);
        let row = rows[0].as_ref().unwrap();
        let digest = row.keys.primary.as_ref().unwrap().digest();
        let token = Attestation::Token { digest, second: None, expires_at: None };
        assert_eq!((&row.entry.settings.attestation, row.proof_if_new), (&Some(token), true));
        let deleted = read(b"{\"id\":\"a\",\"importMode\":\"delete\"}", Format::Json, Options::default());
        assert!(deleted[0].as_ref().unwrap().keys.primary.is_none());
    }

    #[tokio::test]
    async fn the_certificates_of_espressif_are_read() {
        let certificate = MemoryPlatform::default().issue(&csr("sn-1")).await.unwrap().certificate;
        let expected = Attestation::Certificate { id: *certificate.id(), second: None };
        for text in [
            format!("node_id,certs,qrcode\nsn-1,\"{}\",x\n", certificate.pem()),
            format!("MAC,cn,cert\nAABBCC000000,sn-1,\"{}\"\n", certificate.pem()),
        ] {
            let rows = read(text.as_bytes(), Format::detect("", text.as_bytes()), Options::default());
            let entry = &rows[0].as_ref().unwrap().entry;
            assert_eq!((entry.id.as_str(), entry.settings.attestation.as_ref()), ("sn-1", Some(&expected)));
        }
    }

    #[test]
    fn a_manifest_that_was_cut_off_is_not_taken_for_a_shorter_one() {
        let rows = read(b"[", Format::Microchip, Options::default());
        assert!(matches!(&rows[..], [Err(error)] if error.problem.is_of_the_file()), "{rows:?}");
    }

    #[test]
    fn an_array_of_devices_is_read_like_a_device_a_line() {
        let objects = [r#"{"id":"sn-1"}"#, r#"{"deviceId":"sn-2","status":"disabled"}"#];
        for text in [format!("[{}]", objects.join(",")), format!("\u{feff}[\n  {}\n]\n", objects.join(",\n  "))] {
            let format = Format::detect("-", text.as_bytes());
            assert_eq!(format, Format::Json, "{text}");
            let lines = read(text.as_bytes(), format, with_proof(DefaultProof::Claim));
            let ids: Vec<_> = lines.into_iter().map(|line| line.unwrap().entry.id.to_string()).collect();
            assert_eq!(ids, ["sn-1", "sn-2"], "{text}");
        }
        let cut_off = read(br#"[{"id":"sn-1"}"#, Format::Json, with_proof(DefaultProof::Claim));
        assert!(cut_off.last().unwrap().as_ref().is_err_and(|error| error.problem.is_of_the_file()), "{cut_off:?}");
    }

    #[test]
    fn a_line_that_is_an_array_is_no_device() {
        for text in [r#"["sn-1"]"#, r#"{"id":"sn-1","authentication":[null,null,"sas"]}"#] {
            let lines = read(text.as_bytes(), Format::Json, with_proof(DefaultProof::Claim));
            assert!(lines.iter().any(Result::is_err) && lines.iter().all(Result::is_err), "{lines:?}");
        }
    }

    #[test]
    fn a_problem_never_repeats_a_key() {
        let rows = read(br#"{"id":"a","authentication":"hunter2"}"#, Format::Json, Options::default());
        assert!(!rows[0].as_ref().unwrap_err().to_string().contains("hunter2"));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            rng_seed: RngSeed::Fixed(0x5e71a1),
            ..ProptestConfig::default()
        })]

        #[test]
        fn whatever_the_bytes_are_the_reader_comes_to_an_end(text in prop::collection::vec(any::<u8>(), 0..300), format in 0..5_usize) {
            if let Ok(reader) = ImportReader::new(&text[..], Format::ALL[format], Options::default()) {
                // One problem more than there are bytes: a manifest of none is cut off.
                prop_assert!(reader.count() <= text.len() + 1);
            }
        }
    }
}
