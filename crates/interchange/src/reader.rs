//! The file of an import, whichever of its formats it has.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::io::{self, BufRead};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cvm_provisioning::{
    Attestation, CertificateId, Device, DeviceId, EnrolmentToken, GroupName, ImportEntry, ImportMode, TemplateName,
};

use serde::{Deserialize, Serialize};

use crate::columns::columns;
use crate::counted::Counted;
use crate::elements::Elements;
use crate::lines::{BYTE_ORDER_MARK, Lines, Record};
use crate::records::Records;
use crate::secure_element::ManifestElement;
use crate::thing_line::ThingLine;
use crate::{
    Column, ColumnMapping, IdentityLine, InvalidColumns, InvalidIdentityLine, InvalidRow, InvalidSecureElement,
    InvalidThingLine, Keys, MAX_RECORD, table,
};

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
    /// The identity registry: an object a line.
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
        let line = text.split(|byte| *byte == b'\n').next().unwrap_or(text);
        let has = |word: &str| line.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()));
        match text.first() {
            Some(b'[') => Self::Microchip,
            Some(b'{') if !has("\"id\"") && (has("\"ThingName\"") || has("\"SerialNumber\"")) => Self::Aws,
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

/// What is said for all lines that do not say it themselves.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Defaults {
    /// What is to be done; `None` is what the format says.
    pub mode: Option<ImportMode>,
    /// The group.
    pub group: Option<GroupName>,
    /// The provisioning template.
    pub template: Option<TemplateName>,
    /// How a new device proves itself.
    pub proof: DefaultProof,
}

/// How a new device proves itself whose line does not say so: `token`, `claim`, `trusted-user` or `ca=` and its id.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(into = "String", try_from = "String")]
pub enum DefaultProof {
    /// With a factory certificate of this CA.
    Ca(CertificateId),
    /// With any claim certificate that the registry knows.
    Claim,
    /// With an enrolment token that is made for it.
    #[default]
    Token,
    /// By the word of a trusted user.
    TrustedUser,
}

impl FromStr for DefaultProof {
    type Err = InvalidDefaultProof;

    fn from_str(text: &str) -> Result<Self, InvalidDefaultProof> {
        match text {
            "claim" => Ok(Self::Claim),
            "token" => Ok(Self::Token),
            "trusted-user" => Ok(Self::TrustedUser),
            _ => match text.strip_prefix("ca=").map(str::parse) {
                Some(Ok(id)) => Ok(Self::Ca(id)),
                _ => Err(InvalidDefaultProof),
            },
        }
    }
}

impl TryFrom<String> for DefaultProof {
    type Error = InvalidDefaultProof;

    fn try_from(text: String) -> Result<Self, InvalidDefaultProof> {
        text.parse()
    }
}

impl From<DefaultProof> for String {
    fn from(proof: DefaultProof) -> Self {
        match proof {
            DefaultProof::Ca(id) => format!("ca={id}"),
            DefaultProof::Claim => "claim".to_owned(),
            DefaultProof::Token => "token".to_owned(),
            DefaultProof::TrustedUser => "trusted-user".to_owned(),
        }
    }
}

/// A text is no [`DefaultProof`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the proof is token, claim, trusted-user, or ca= and the id of a CA, 64 hexadecimal digits")]
pub struct InvalidDefaultProof;

/// How a file is to be read.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Options {
    /// What lines do not say.
    #[serde(flatten)]
    pub defaults: Defaults,
    /// Columns of other names.
    pub columns: Vec<ColumnMapping>,
    /// Whether columns that nothing is known of are passed over.
    pub ignore_unknown_columns: bool,
    /// Whether devices are to be put back as they were exported.
    pub restore: bool,
}

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
    hasher: RandomState,
    /// The lines by the hash of what they are about; in bytes, because numbers would be padded.
    seen: HashMap<[u8; 8], [u8; 4]>,
    ended: bool,
    bytes: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Source<R> {
    Json(Lines<Counted<R>>),
    Aws(Lines<Counted<R>>),
    Microchip(Elements<Counted<R>>),
    Table(Box<Records<Counted<R>>>, Vec<Column>),
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
        if matches!(source.fill_buf()?, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
            return Err(UnreadableFile::Encoding);
        }
        if options.restore && format != Format::Json {
            return Err(UnreadableFile::NoRestore);
        }
        let source = match format {
            Format::Json => Source::Json(Lines::new(source)),
            Format::Aws => Source::Aws(Lines::new(source)),
            Format::Microchip => Source::Microchip(Elements::new(source)),
            Format::Csv | Format::Espressif => {
                let mut records = Records::new(source);
                let header = match records.next_record()? {
                    Some(Record::Whole(_, header)) => header,
                    Some(Record::TooLong(_)) => return Err(UnreadableFile::Header),
                    None => Vec::new(),
                };
                let columns = columns(&header, &options.columns, options.ignore_unknown_columns)?;
                Source::Table(Box::new(records), columns)
            }
        };
        let mode = options.defaults.mode.unwrap_or_else(|| format.default_mode());
        Ok(Self { source, options, mode, hasher: RandomState::new(), seen: HashMap::new(), ended: false, bytes })
    }

    /// How many bytes of the file have been read.
    pub fn bytes_read(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn read(&mut self) -> Result<Option<ImportLine>, LineError> {
        let mode = self.mode;
        let unreadable = |error: io::Error| LineError { line: 0, device: None, problem: LineProblem::File(error) };
        let (line, read) = match &mut self.source {
            Source::Json(lines) => match lines.next_line().map_err(unreadable)? {
                None => return Ok(None),
                Some(Record::TooLong(line)) => (line, Err(LineProblem::TooLong)),
                Some(Record::Whole(line, text)) => (line, identity(&text, line, mode, self.options.restore)),
            },
            Source::Aws(lines) => match lines.next_line().map_err(unreadable)? {
                None => return Ok(None),
                Some(Record::TooLong(line)) => (line, Err(LineProblem::TooLong)),
                Some(Record::Whole(line, text)) => {
                    let entry = json::<ThingLine>(&text).and_then(|thing| Ok(thing.entry(mode)?));
                    (line, entry.map(|entry| ImportLine::of(line, entry)))
                }
            },
            Source::Microchip(elements) => match elements.next_element().map_err(unreadable)? {
                None if !elements.is_whole() => {
                    let cut_off =
                        io::Error::new(io::ErrorKind::UnexpectedEof, "the manifest ends before its array does");
                    return Err(unreadable(cut_off));
                }
                None => return Ok(None),
                Some(Record::TooLong(line)) => (line, Err(LineProblem::TooLong)),
                Some(Record::Whole(line, text)) => {
                    let entry = json::<ManifestElement>(&text).and_then(|element| Ok(element.entry(mode)?));
                    (line, entry.map(|entry| ImportLine::of(line, entry)))
                }
            },
            Source::Table(records, columns) => match records.next_record().map_err(unreadable)? {
                None => return Ok(None),
                Some(Record::TooLong(line)) => (line, Err(LineProblem::TooLong)),
                Some(Record::Whole(line, cells)) => {
                    let entry = table::entry(columns, &cells, mode).map_err(LineProblem::from);
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

impl Defaults {
    /// Adds what the line does not say. A device that is there keeps the proof that it has.
    fn complete(&self, line: &mut ImportLine) -> Result<(), ()> {
        let ImportLine { entry, keys, proof_if_new, .. } = line;
        let creates = match entry.mode {
            ImportMode::Create | ImportMode::CreateOrUpdate | ImportMode::CreateOrUpdateIfMatchETag => true,
            ImportMode::Update | ImportMode::UpdateIfMatchETag => false,
            ImportMode::Delete | ImportMode::DeleteIfMatchETag => return Ok(()),
        };
        if entry.module.is_some() {
            return Ok(());
        }
        entry.settings.group = entry.settings.group.take().or_else(|| self.group.clone().map(Some));
        entry.settings.template = entry.settings.template.take().or_else(|| self.template.clone().map(Some));
        *proof_if_new = keys.primary.is_some();
        if creates && entry.settings.attestation.is_none() {
            *proof_if_new = true;
            entry.settings.attestation = Some(match self.proof {
                DefaultProof::Ca(id) => Attestation::Ca { id: Some(id) },
                DefaultProof::Claim => Attestation::Claim { certificate: None },
                DefaultProof::TrustedUser => Attestation::TrustedUser { claim: None },
                DefaultProof::Token => {
                    let token = EnrolmentToken::generate().map_err(|_| ())?;
                    let attestation = Attestation::Token { digest: token.digest(), second: None, expires_at: None };
                    keys.primary = Some(token);
                    attestation
                }
            });
        }
        Ok(())
    }
}

fn identity(text: &[u8], line: u64, mode: ImportMode, restore: bool) -> Result<ImportLine, LineProblem> {
    let identity: IdentityLine = json(text)?;
    let twin = identity.has_twin();
    if restore {
        let (device, keys) = identity.device()?;
        let entry = ImportEntry { id: device.id.clone(), module: None, etag: None, mode, settings: Default::default() };
        return Ok(ImportLine { keys, device: Some(Box::new(device)), twin, ..ImportLine::of(line, entry) });
    }
    let (entry, keys) = identity.entry(mode)?;
    Ok(ImportLine { keys, twin, ..ImportLine::of(line, entry) })
}

fn json<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, LineProblem> {
    // The words of serde_json may have a part of the line in them, and that may be a key.
    serde_json::from_slice(text).map_err(|error| LineProblem::Json { column: error.column() })
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
    #[error(transparent)]
    Identity(#[from] InvalidIdentityLine),
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
            Self::Identity(_) | Self::Row(_) | Self::SecureElement(_) | Self::Thing(_) => "invalid",
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
    /// Its first row.
    #[error(transparent)]
    Columns(#[from] InvalidColumns),
    /// UTF-16.
    #[error("the file is in UTF-16: save it as UTF-8")]
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
}

#[cfg(test)]
mod tests {
    use cvm_testkit::MemoryPlatform;
    use cvm_testkit::fixture::csr;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn read(text: &[u8], format: Format, options: Options) -> Vec<Result<ImportLine, LineError>> {
        ImportReader::new(text, format, options).unwrap().collect()
    }

    fn with_proof(proof: DefaultProof) -> Options {
        Options { defaults: Defaults { proof, ..Defaults::default() }, ..Options::default() }
    }

    #[test]
    fn a_format_is_known_by_its_beginning() {
        for (beginning, format) in [
            ("\u{feff}{\"id\":\"a\"}", Format::Json),
            ("{\"ThingName\":\"a\"}\n{\"id\"", Format::Aws),
            (" \n[{", Format::Microchip),
            ("node_id,certs\n", Format::Espressif),
            ("serial\n", Format::Csv),
        ] {
            assert_eq!(Format::detect("-", beginning.as_bytes()), format, "{beginning}");
        }
        assert_eq!(Format::detect("a.jsonl", b""), Format::Json);
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
        let latin = ImportReader::new(&b"id,Stra\xdfe\n"[..], Format::Csv, Options::default());
        assert!(matches!(latin, Err(UnreadableFile::Columns(InvalidColumns::Encoding))));
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
        let text = format!("node_id,certs,qrcode\nsn-1,\"{}\",x\n", certificate.pem());
        let rows = read(text.as_bytes(), Format::detect("", text.as_bytes()), Options::default());
        let expected = Attestation::Certificate { id: *certificate.id(), second: None };
        assert_eq!(rows[0].as_ref().unwrap().entry.settings.attestation, Some(expected));
    }

    #[test]
    fn a_manifest_that_was_cut_off_is_not_taken_for_a_shorter_one() {
        let rows = read(b"[", Format::Microchip, Options::default());
        assert!(matches!(&rows[..], [Err(error)] if error.problem.is_of_the_file()), "{rows:?}");
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
