//! A row of a table, and the device that it is about.

use std::collections::BTreeMap;

use cvm_provisioning::{
    Attestation, BadCertificate, BadKey, Certificate, CertificateId, DeviceId, EnrolmentToken, ImportEntry, ImportMode,
    InvalidDeviceId, InvalidDigest, InvalidImportMode, InvalidReason, InvalidRegistryName, InvalidTemplateName,
    InvalidToken, KeyOrigin, PublicKey, ReasonText, Settings, StatusSetting,
};

use crate::Column;
use crate::excerpt::excerpt;

/// Reads a row. A cell with nothing in it says nothing.
pub(crate) fn entry(
    columns: &[Column],
    cells: &[Option<String>],
    default_mode: ImportMode,
) -> Result<ImportEntry, InvalidRow> {
    let fits = match cells.get(columns.len()..) {
        Some(beyond) => beyond.iter().all(is_empty),
        None => columns[cells.len()..].iter().all(|column| *column == Column::Unnamed),
    };
    if !fits {
        return Err(InvalidRow::Cells { expected: columns.len(), found: cells.len() });
    }
    let mut row = Row { mode: default_mode, ..Row::default() };
    for (column, cell) in columns.iter().zip(cells).filter(|(column, _)| **column != Column::Ignored) {
        let failed = |value, problem| InvalidRow::Cell { column: column.field(), value, problem };
        let cell = cell.as_deref().ok_or_else(|| failed(None, InvalidCell::Encoding))?;
        // A tab or a line end is a formula's beginning, too; blanks are somebody's slip.
        let cell = cell.trim_matches(' ');
        if !cell.is_empty() {
            let value = (!column.is_confidential()).then(|| excerpt(cell));
            row.read(column, cell).map_err(|problem| failed(value, problem))?;
        }
    }
    let status = match (row.enabled, row.reason) {
        (None, Some(_)) => return Err(InvalidRow::ReasonAlone),
        (enabled, reason) => enabled.map(|enabled| StatusSetting { enabled, reason }),
    };
    Ok(ImportEntry {
        id: row.id.ok_or(InvalidRow::NoDevice)?,
        module: None,
        etag: None,
        mode: row.mode,
        settings: Settings {
            status,
            parameters: (!row.parameters.is_empty()).then_some(row.parameters),
            ..row.settings
        },
    })
}

/// Whether a row has nothing in any of its cells, as spreadsheets write below a table.
pub(crate) fn is_blank(cells: &[Option<String>]) -> bool {
    cells.iter().all(is_empty)
}

fn is_empty(cell: &Option<String>) -> bool {
    cell.as_deref().is_some_and(|cell| cell.trim_matches(' ').is_empty())
}

#[derive(Default)]
struct Row {
    id: Option<DeviceId>,
    mode: ImportMode,
    enabled: Option<bool>,
    reason: Option<ReasonText>,
    parameters: BTreeMap<String, String>,
    settings: Settings,
}

impl Row {
    fn read(&mut self, column: &Column, cell: &str) -> Result<(), InvalidCell> {
        // What a token or PEM begins with may be anything of its alphabet, and no program takes them for a formula
        // that would do harm.
        let cell = match column {
            Column::Token | Column::Certificate | Column::PublicKey => cell,
            _ => plain(cell)?,
        };
        match column {
            Column::Device => self.id = Some(cell.parse()?),
            Column::Group => self.settings.group = Some(Some(cell.parse()?)),
            Column::Ignored => {}
            Column::Unnamed => return Err(InvalidCell::Unnamed),
            Column::ImportMode => self.mode = cell.parse()?,
            Column::KeyOrigin => {
                self.settings.key_origin = Some(match cell.to_ascii_lowercase().as_str() {
                    "device" => KeyOrigin::Device,
                    "service" => KeyOrigin::Service,
                    _ => return Err(InvalidCell::KeyOrigin),
                });
            }
            Column::Parameter(name) => {
                self.parameters.insert(name.clone(), cell.to_owned());
            }
            Column::Status => {
                self.enabled = Some(match cell.to_ascii_lowercase().as_str() {
                    "enabled" => true,
                    "disabled" => false,
                    _ => return Err(InvalidCell::Status),
                });
            }
            Column::StatusReason => self.reason = Some(cell.parse()?),
            Column::Template => self.settings.template = Some(Some(cell.parse()?)),
            Column::Ca => self.prove(Attestation::Ca { id: any_or(cell)? })?,
            Column::Certificate => self.prove(Attestation::Certificate { id: certificate(cell)?, second: None })?,
            Column::Claim => self.prove(Attestation::Claim { certificate: any_or(cell)? })?,
            Column::PublicKey => {
                let key = match cell.parse() {
                    Ok(key) => key,
                    Err(_) => *PublicKey::parse(cell)?.fingerprint(),
                };
                self.prove(Attestation::PublicKey { key })?;
            }
            Column::Token => {
                let token: EnrolmentToken = cell.parse()?;
                self.prove(Attestation::Token { digest: token.digest(), second: None, expires_at: None })?;
            }
            Column::TrustedUser => match cell.to_ascii_lowercase().as_str() {
                "true" | "yes" | "1" => self.prove(Attestation::TrustedUser { claim: None })?,
                "false" | "no" | "0" => {}
                _ => return Err(InvalidCell::TrustedUser),
            },
        }
        Ok(())
    }

    fn prove(&mut self, attestation: Attestation) -> Result<(), InvalidCell> {
        match self.settings.attestation.replace(attestation) {
            None => Ok(()),
            Some(_) => Err(InvalidCell::SeveralProofs),
        }
    }
}

/// The text of a cell that is no formula. An apostrophe before what would be one is how spreadsheets, and our exports,
/// write that it is none.
fn plain(cell: &str) -> Result<&str, InvalidCell> {
    match cell.strip_prefix('\'') {
        Some(rest) if is_formula(rest) => Ok(rest),
        _ if is_formula(cell) => Err(InvalidCell::Formula),
        _ => Ok(cell),
    }
}

/// Whether a spreadsheet takes this cell for a formula (OWASP, "CSV Injection").
pub(crate) fn is_formula(cell: &str) -> bool {
    cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n'])
}

fn any_or(cell: &str) -> Result<Option<CertificateId>, InvalidCell> {
    if cell.eq_ignore_ascii_case("any") { Ok(None) } else { Ok(Some(cell.parse()?)) }
}

fn certificate(cell: &str) -> Result<CertificateId, InvalidCell> {
    match cell.parse() {
        Ok(id) => Ok(id),
        Err(_) => Ok(*Certificate::parse(cell)?.id()),
    }
}

/// Why a row cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRow {
    /// A cell.
    #[error("{column}{}: {problem}", value.as_ref().map(|value| format!(" {value}")).unwrap_or_default())]
    Cell {
        /// The field that its column holds.
        column: String,
        /// The beginning of its value, unless that may be a secret.
        value: Option<String>,
        /// Why it cannot be used.
        problem: InvalidCell,
    },
    /// More or fewer cells than the first row.
    #[error("the row has {found} cells, the first row has {expected}")]
    Cells {
        /// The columns.
        expected: usize,
        /// The cells.
        found: usize,
    },
    /// No device.
    #[error("the row names no device")]
    NoDevice,
    /// A reason without a status.
    #[error("statusReason is a reason for a status, and there is none")]
    ReasonAlone,
}

/// Why a cell cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCell {
    /// The certificate.
    #[error("neither a SHA-256 nor a certificate: {0}")]
    Certificate(#[from] BadCertificate),
    /// Not UTF-8.
    #[error("the cell is not UTF-8: save the table as CSV UTF-8")]
    Encoding,
    /// A spreadsheet would evaluate it.
    #[error("the cell begins like a formula, with = + - @, a tab or a line end: if it is none, put a ' before it")]
    Formula,
    /// The device's id.
    #[error(transparent)]
    Id(#[from] InvalidDeviceId),
    /// The id of a CA or of a claim.
    #[error("expected the id of a CA or a claim, or any: {0}")]
    Issuer(#[from] InvalidDigest),
    /// The key.
    #[error("neither a fingerprint nor a key: {0}")]
    Key(#[from] BadKey),
    /// Where the key comes from.
    #[error("expected device or service")]
    KeyOrigin,
    /// What is to be done.
    #[error(transparent)]
    Mode(#[from] InvalidImportMode),
    /// The group.
    #[error(transparent)]
    Name(#[from] InvalidRegistryName),
    /// The reason of the status.
    #[error(transparent)]
    Reason(#[from] InvalidReason),
    /// Two ways to prove itself.
    #[error("the row has more than one proof: a device proves itself in one way")]
    SeveralProofs,
    /// The status.
    #[error("expected enabled or disabled; if the column means something else, pass over it with --column ignore=NAME")]
    Status,
    /// The template.
    #[error(transparent)]
    Template(#[from] InvalidTemplateName),
    /// The token.
    #[error(transparent)]
    Token(#[from] InvalidToken),
    /// Whether a trusted user vouches.
    #[error("expected true or false")]
    TrustedUser,
    /// A cell of a column without a name.
    #[error("put a name into the first row, or clear the cell")]
    Unnamed,
}

#[cfg(test)]
mod tests {
    use cvm_testkit::fixture::{TOKEN, csr, token};

    use super::*;

    fn read(cells: &[(Column, &str)]) -> Result<ImportEntry, InvalidRow> {
        let (columns, cells): (Vec<_>, Vec<_>) =
            cells.iter().map(|(column, cell)| (column.clone(), Some((*cell).to_owned()))).unzip();
        entry(&columns, &cells, ImportMode::Create)
    }

    #[test]
    fn a_row_says_what_its_cells_say_and_no_more() {
        let site = Column::Parameter("Site".to_owned());
        let entry = read(&[
            (Column::Device, " sn-1 "),
            (Column::Token, TOKEN),
            (Column::Group, ""),
            (Column::Status, "Disabled"),
            (Column::StatusReason, "'-10 units"),
            (site, "'=1"),
        ])
        .unwrap();
        let settings = Settings {
            attestation: Some(Attestation::Token { digest: token().digest(), second: None, expires_at: None }),
            status: Some(StatusSetting { enabled: false, reason: Some("-10 units".parse().unwrap()) }),
            parameters: Some([("Site".to_owned(), "=1".to_owned())].into()),
            ..Settings::default()
        };
        assert_eq!((entry.id.as_str(), entry.settings), ("sn-1", settings));
    }

    #[test]
    fn threat_41_formula_cells_are_refused() {
        for cell in ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "=HYPERLINK(\"http://x\")"] {
            for column in [Column::Device, Column::StatusReason, Column::Parameter("Site".to_owned())] {
                let error = read(&[(Column::Device, "sn-1"), (column, cell)]).unwrap_err();
                assert!(matches!(error, InvalidRow::Cell { problem: InvalidCell::Formula, .. }), "{cell:?}: {error}");
            }
        }
    }

    #[test]
    fn a_proof_is_read_in_each_of_its_forms() {
        let request = csr("sn-1");
        let key = *request.key().fingerprint();
        let id = "ab".repeat(32);
        for (column, cell, expected) in [
            (Column::PublicKey, key.to_string(), Attestation::PublicKey { key }),
            (Column::Ca, id.clone(), Attestation::Ca { id: Some(id.parse().unwrap()) }),
            (Column::Claim, "any".to_owned(), Attestation::Claim { certificate: None }),
            (Column::TrustedUser, "TRUE".to_owned(), Attestation::TrustedUser { claim: None }),
            (Column::Certificate, id.clone(), Attestation::Certificate { id: id.parse().unwrap(), second: None }),
        ] {
            let entry = read(&[(Column::Device, "sn-1"), (column, &cell)]).unwrap();
            assert_eq!(entry.settings.attestation, Some(expected));
        }
        let both = read(&[(Column::Device, "sn-1"), (Column::Claim, "any"), (Column::Token, TOKEN)]);
        assert!(matches!(both, Err(InvalidRow::Cell { problem: InvalidCell::SeveralProofs, .. })));
        let secret = read(&[(Column::Device, "sn-1"), (Column::Token, "hunter2")]).unwrap_err();
        assert!(!secret.to_string().contains("hunter2"));
    }

    #[test]
    fn an_error_has_the_column_and_the_beginning_of_its_value() {
        for (column, cell, expected) in [
            (Column::Device, "sn 1", "deviceId \"sn 1\": "),
            (Column::Group, "berlin/warehouse/7", "group \"berlin/warehouse…\": "),
            (Column::Status, "shipped", "status \"shipped\": expected enabled or disabled"),
            (Column::ImportMode, "upsert", "importMode \"upsert\": "),
            (Column::KeyOrigin, "factory", "keyOrigin \"factory\": expected device or service"),
            (Column::TrustedUser, "maybe", "trustedUser \"maybe\": "),
            (Column::Token, "hunter2", "token: "),
            (Column::PublicKey, "hunter2", "publicKey: "),
        ] {
            let error = read(&[(column, cell)]).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn empty_columns_of_a_spreadsheet_are_no_error() {
        let columns = [Column::Device, Column::Group, Column::Unnamed, Column::Unnamed];
        let read = |cells: &[&str]| {
            let cells: Vec<_> = cells.iter().map(|cell| Some((*cell).to_owned())).collect();
            entry(&columns, &cells, ImportMode::Create)
        };
        // A spreadsheet leaves out empty cells at the end of some rows, and writes more of them in others.
        for cells in [&["sn-1", "ulm"][..], &["sn-1", "ulm", ""], &["sn-1", "ulm", "", " ", "", ""]] {
            assert_eq!(read(cells).unwrap().id.as_str(), "sn-1");
        }
        let unnamed = read(&["sn-1", "ulm", "7"]).unwrap_err().to_string();
        assert_eq!(unnamed, "a column without a name \"7\": put a name into the first row, or clear the cell");
        for cells in [&["sn-1"][..], &["sn-1", "ulm", "", "", "7"]] {
            assert!(matches!(read(cells), Err(InvalidRow::Cells { expected: 4, .. })), "{cells:?}");
        }
        assert!(is_blank(&[Some(String::new()), Some(" ".to_owned())]) && !is_blank(&[None]));
    }
}
