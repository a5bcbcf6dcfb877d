//! What the columns of a table hold.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a column holds.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Column {
    /// The CA whose certificates the device proves itself with: an id, or `any`.
    Ca,
    /// Its own factory certificate: an id, or PEM.
    Certificate,
    /// The claim certificate that it enrols with: an id, or `any`.
    Claim,
    /// The device.
    Device,
    /// Its group.
    Group,
    /// What other tools and people want to know, and no import takes.
    Ignored,
    /// What is to be done with it.
    ImportMode,
    /// `device` or `service`.
    KeyOrigin,
    /// The value of a template parameter.
    Parameter(String),
    /// The key that it proves itself with: a fingerprint, or PEM.
    PublicKey,
    /// `enabled` or `disabled`.
    Status,
    /// Why.
    StatusReason,
    /// Its provisioning template.
    Template,
    /// The enrolment token that it proves itself with.
    Token,
    /// Whether a trusted user vouches for it: `true` or `false`.
    TrustedUser,
}

/// The names under which columns are known, in lower case and without blanks, underscores and dashes.
const NAMES: [(&str, Column); 32] = [
    ("deviceid", Column::Device),
    ("device", Column::Device),
    ("id", Column::Device),
    ("serial", Column::Device),
    ("serialnumber", Column::Device),
    ("registrationid", Column::Device),
    ("nodeid", Column::Device),
    ("status", Column::Status),
    ("statusreason", Column::StatusReason),
    ("reason", Column::StatusReason),
    ("group", Column::Group),
    ("batch", Column::Group),
    ("template", Column::Template),
    ("publickey", Column::PublicKey),
    ("certificate", Column::Certificate),
    ("cert", Column::Certificate),
    ("certs", Column::Certificate),
    ("ca", Column::Ca),
    ("caid", Column::Ca),
    ("token", Column::Token),
    ("claim", Column::Claim),
    ("trusteduser", Column::TrustedUser),
    ("keyorigin", Column::KeyOrigin),
    ("importmode", Column::ImportMode),
    ("mode", Column::ImportMode),
    // Of our own exports, and the pictures of Espressif's `qrcode`.
    ("state", Column::Ignored),
    ("proof", Column::Ignored),
    ("certificateid", Column::Ignored),
    ("notafter", Column::Ignored),
    ("createdat", Column::Ignored),
    ("updatedat", Column::Ignored),
    ("qrcode", Column::Ignored),
];

impl Column {
    /// The column of this name, such as `Serial_Number` or `parameter.Site`.
    fn named(name: &str) -> Option<Self> {
        if let Some((prefix, parameter)) = name.split_once('.') {
            let known = prefix.eq_ignore_ascii_case("parameter") && !parameter.is_empty();
            return known.then(|| Self::Parameter(parameter.to_owned()));
        }
        let plain: String = name.chars().filter(|character| !matches!(character, ' ' | '_' | '-')).collect();
        let plain = plain.to_ascii_lowercase();
        NAMES.iter().find(|(known, _)| *known == plain).map(|(_, column)| column.clone())
    }
}

/// What an operator says of a column that has another name: `device=SN`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct ColumnMapping {
    column: Column,
    name: String,
    text: String,
}

impl FromStr for ColumnMapping {
    type Err = InvalidColumns;

    fn from_str(text: &str) -> Result<Self, InvalidColumns> {
        let (known, name) = text.split_once('=').ok_or(InvalidColumns::Mapping)?;
        let column = Column::named(known).ok_or(InvalidColumns::Mapping)?;
        if name.is_empty() {
            return Err(InvalidColumns::Mapping);
        }
        Ok(Self { column, name: name.to_owned(), text: text.to_owned() })
    }
}

impl TryFrom<String> for ColumnMapping {
    type Error = InvalidColumns;

    fn try_from(text: String) -> Result<Self, InvalidColumns> {
        text.parse()
    }
}

impl From<ColumnMapping> for String {
    fn from(mapping: ColumnMapping) -> Self {
        mapping.text
    }
}

/// The columns of a table whose first row is `header`.
pub(crate) fn columns(
    header: &[Option<String>],
    mappings: &[ColumnMapping],
    ignore_unknown: bool,
) -> Result<Vec<Column>, InvalidColumns> {
    let mut columns = Vec::new();
    let mut unknown = Vec::new();
    let mut seen = BTreeMap::new();
    for (index, name) in header.iter().enumerate() {
        let name = name.as_ref().ok_or(InvalidColumns::Encoding)?.trim();
        let mapped = mappings.iter().find(|mapping| mapping.name == name).map(|mapping| mapping.column.clone());
        let column = match mapped.or_else(|| Column::named(name)) {
            Some(column) => column,
            None if ignore_unknown => Column::Ignored,
            None => {
                unknown.push(shown(name));
                Column::Ignored
            }
        };
        if column != Column::Ignored && seen.insert(column.clone(), index).is_some() {
            return Err(InvalidColumns::Twice { name: shown(name) });
        }
        columns.push(column);
    }
    if let Some(absent) = mappings.iter().find(|mapping| !seen.contains_key(&mapping.column)) {
        return Err(InvalidColumns::Absent { name: shown(&absent.name) });
    }
    if !unknown.is_empty() {
        unknown.truncate(8);
        return Err(InvalidColumns::Unknown { names: unknown.join(", ") });
    }
    if !seen.contains_key(&Column::Device) {
        return Err(InvalidColumns::NoDevice);
    }
    Ok(columns)
}

/// The beginning of a name from a file, fit to be shown.
fn shown(name: &str) -> String {
    name.chars().filter(|character| !character.is_control()).take(40).collect()
}

/// Why the first row of a table names no columns that could be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidColumns {
    /// A mapping of a column that is not there.
    #[error("the table has no column {name}")]
    Absent {
        /// The column that was named.
        name: String,
    },
    /// A name that is not UTF-8.
    #[error("the first row is not UTF-8: save the table as CSV UTF-8")]
    Encoding,
    /// A mapping that cannot be read.
    #[error(
        "a column is given as FIELD=NAME, such as device=SN; the fields are device, status, statusReason, group, \
         template, publicKey, certificate, ca, token, claim, trustedUser, keyOrigin, importMode and parameter.NAME"
    )]
    Mapping,
    /// No column that tells the devices apart.
    #[error("the first row names no column with the devices' ids, such as deviceId or serialNumber")]
    NoDevice,
    /// Two columns for the same.
    #[error("column {name} holds what another one holds already")]
    Twice {
        /// The second of them.
        name: String,
    },
    /// Columns that nothing is known of.
    #[error("nothing is known of these columns: {names}")]
    Unknown {
        /// The first of them.
        names: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(header: &[&str], mappings: &[&str], ignore: bool) -> Result<Vec<Column>, InvalidColumns> {
        let header: Vec<_> = header.iter().map(|name| Some((*name).to_owned())).collect();
        let mappings: Vec<_> = mappings.iter().map(|mapping| mapping.parse().unwrap()).collect();
        columns(&header, &mappings, ignore)
    }

    #[test]
    fn columns_are_known_by_many_names() {
        for name in ["deviceId", "SERIAL", "serial_number", "Serial Number", " id "] {
            assert_eq!(
                of(&[name, "parameter.Site"], &[], false).unwrap(),
                [Column::Device, Column::Parameter("Site".into())]
            );
        }
        let mapped = of(&["SN", "Site", "x"], &["device=SN", "parameter.Site=Site"], true).unwrap();
        assert_eq!(mapped, [Column::Device, Column::Parameter("Site".into()), Column::Ignored]);
    }

    #[test]
    fn a_table_that_is_not_understood_is_refused_with_the_names_of_its_columns() {
        let unknown = InvalidColumns::Unknown { names: "colour, size".to_owned() };
        assert_eq!(of(&["id", "colour", "size"], &[], false), Err(unknown));
        assert_eq!(of(&["group"], &[], false), Err(InvalidColumns::NoDevice));
        assert_eq!(of(&["id", "serial"], &[], false), Err(InvalidColumns::Twice { name: "serial".to_owned() }));
        assert_eq!(of(&["id"], &["group=G"], false), Err(InvalidColumns::Absent { name: "G".to_owned() }));
        for bad in ["SN", "colour=SN", "device=", "parameter.=x"] {
            assert_eq!(bad.parse::<ColumnMapping>(), Err(InvalidColumns::Mapping), "{bad}");
        }
    }
}
