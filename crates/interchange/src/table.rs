//! A row of a table, and the device that it is about.

use std::collections::BTreeMap;

use cvm_provisioning::{
    Attestation, BadCertificate, BadKey, Certificate, CertificateId, DeviceId, EnrolmentToken, ImportEntry, ImportMode,
    InvalidDeviceId, InvalidDigest, InvalidImportMode, InvalidReason, InvalidRegistryName, InvalidTemplateName,
    InvalidToken, KeyOrigin, PublicKey, Settings, StatusSetting,
};

use crate::Column;

/// Reads a row. A cell with nothing in it says nothing.
pub(crate) fn entry(
    columns: &[Column],
    cells: &[Option<String>],
    default_mode: ImportMode,
) -> Result<ImportEntry, InvalidRow> {
    if cells.len() != columns.len() {
        return Err(InvalidRow::Cells { expected: columns.len(), found: cells.len() });
    }
    let mut row = Row { mode: default_mode, ..Row::default() };
    for (column, cell) in columns.iter().zip(cells) {
        if *column == Column::Ignored {
            continue;
        }
        let cell = cell.as_deref().ok_or(InvalidRow::Encoding)?;
        // A tab or a line end is a formula's beginning, too; blanks are somebody's slip.
        let cell = cell.trim_matches(' ');
        if !cell.is_empty() {
            row.read(column, cell)?;
        }
    }
    let reason = row.reason.map(|reason| reason.parse()).transpose()?;
    let status = match row.enabled {
        None if reason.is_some() => return Err(InvalidRow::ReasonAlone),
        enabled => enabled.map(|enabled| StatusSetting { enabled, reason }),
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

#[derive(Default)]
struct Row {
    id: Option<DeviceId>,
    mode: ImportMode,
    enabled: Option<bool>,
    reason: Option<String>,
    parameters: BTreeMap<String, String>,
    settings: Settings,
}

impl Row {
    fn read(&mut self, column: &Column, cell: &str) -> Result<(), InvalidRow> {
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
            Column::ImportMode => self.mode = cell.parse()?,
            Column::KeyOrigin => {
                self.settings.key_origin = Some(match cell.to_ascii_lowercase().as_str() {
                    "device" => KeyOrigin::Device,
                    "service" => KeyOrigin::Service,
                    _ => return Err(InvalidRow::KeyOrigin),
                });
            }
            Column::Parameter(name) => {
                self.parameters.insert(name.clone(), cell.to_owned());
            }
            Column::Status => {
                self.enabled = Some(match cell.to_ascii_lowercase().as_str() {
                    "enabled" => true,
                    "disabled" => false,
                    _ => return Err(InvalidRow::Status),
                });
            }
            Column::StatusReason => self.reason = Some(cell.to_owned()),
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
                _ => return Err(InvalidRow::TrustedUser),
            },
        }
        Ok(())
    }

    fn prove(&mut self, attestation: Attestation) -> Result<(), InvalidRow> {
        match self.settings.attestation.replace(attestation) {
            None => Ok(()),
            Some(_) => Err(InvalidRow::SeveralProofs),
        }
    }
}

/// The text of a cell that is no formula. An apostrophe before what would be one is how spreadsheets, and our exports,
/// write that it is none.
fn plain(cell: &str) -> Result<&str, InvalidRow> {
    match cell.strip_prefix('\'') {
        Some(rest) if is_formula(rest) => Ok(rest),
        _ if is_formula(cell) => Err(InvalidRow::Formula),
        _ => Ok(cell),
    }
}

/// Whether a spreadsheet takes this cell for a formula (OWASP, "CSV Injection").
pub(crate) fn is_formula(cell: &str) -> bool {
    cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n'])
}

fn any_or(cell: &str) -> Result<Option<CertificateId>, InvalidRow> {
    if cell.eq_ignore_ascii_case("any") { Ok(None) } else { Ok(Some(cell.parse()?)) }
}

fn certificate(cell: &str) -> Result<CertificateId, InvalidRow> {
    match cell.parse() {
        Ok(id) => Ok(id),
        Err(_) => Ok(*Certificate::parse(cell)?.id()),
    }
}

/// Why a row cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRow {
    /// More or fewer cells than the first row.
    #[error("the row has {found} cells, the first row has {expected}")]
    Cells {
        /// The columns.
        expected: usize,
        /// The cells.
        found: usize,
    },
    /// The certificate.
    #[error("the certificate is neither a SHA-256 nor a certificate: {0}")]
    Certificate(#[from] BadCertificate),
    /// A cell that is not UTF-8.
    #[error("a cell is not UTF-8: save the table as CSV UTF-8")]
    Encoding,
    /// A cell that a spreadsheet would work out.
    #[error("a cell begins like a formula, with = + - @, a tab or a line end: if it is none, put a ' before it")]
    Formula,
    /// The device's id.
    #[error(transparent)]
    Id(#[from] InvalidDeviceId),
    /// The id of a CA or of a claim.
    #[error("a CA or a claim is given by its id, or as any: {0}")]
    Issuer(#[from] InvalidDigest),
    /// The key.
    #[error("the public key is neither a fingerprint nor a key: {0}")]
    Key(#[from] BadKey),
    /// Where the key comes from.
    #[error("keyOrigin is device or service")]
    KeyOrigin,
    /// What is to be done.
    #[error(transparent)]
    Mode(#[from] InvalidImportMode),
    /// The group.
    #[error(transparent)]
    Name(#[from] InvalidRegistryName),
    /// No device.
    #[error("the row names no device")]
    NoDevice,
    /// The reason of the status.
    #[error(transparent)]
    Reason(#[from] InvalidReason),
    /// A reason for nothing.
    #[error("statusReason is a reason for a status, and there is none")]
    ReasonAlone,
    /// Two ways to prove itself.
    #[error("the row has more than one proof: a device proves itself in one way")]
    SeveralProofs,
    /// The status.
    #[error("status is enabled or disabled")]
    Status,
    /// The template.
    #[error(transparent)]
    Template(#[from] InvalidTemplateName),
    /// The token.
    #[error(transparent)]
    Token(#[from] InvalidToken),
    /// Whether a trusted user vouches.
    #[error("trustedUser is true or false")]
    TrustedUser,
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
                assert!(matches!(error, InvalidRow::Formula), "{cell:?}: {error}");
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
        assert!(matches!(both, Err(InvalidRow::SeveralProofs)));
        let secret = read(&[(Column::Device, "sn-1"), (Column::Token, "hunter2")]).unwrap_err();
        assert!(!secret.to_string().contains("hunter2"));
    }
}
