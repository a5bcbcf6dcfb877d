//! What the columns of a table hold.

use std::collections::BTreeMap;
use std::str::FromStr;

use cvm_provisioning::DeviceId;
use serde::{Deserialize, Serialize};

use crate::excerpt::excerpt;

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
    /// Values that no import takes.
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
    /// A column without a name, as spreadsheets write at the right of a table: its cells are empty.
    Unnamed,
}

/// The names of columns: letters in lower case and digits only.
const NAMES: [(&str, Column); 41] = [
    ("deviceid", Column::Device),
    ("device", Column::Device),
    ("id", Column::Device),
    ("serial", Column::Device),
    ("serialnumber", Column::Device),
    ("serialno", Column::Device),
    ("serialnr", Column::Device),
    ("serialnum", Column::Device),
    ("sn", Column::Device),
    ("dsn", Column::Device),
    ("deviceserial", Column::Device),
    ("deviceserialnumber", Column::Device),
    ("uniqueid", Column::Device),
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
    // What `--column ignore=NAME` names, the columns of our own exports, and the pictures of Espressif's `qrcode`.
    ("ignore", Column::Ignored),
    ("state", Column::Ignored),
    ("proof", Column::Ignored),
    ("certificateid", Column::Ignored),
    ("notafter", Column::Ignored),
    ("createdat", Column::Ignored),
    ("updatedat", Column::Ignored),
    ("qrcode", Column::Ignored),
];

/// Other ids that a device may have. The first of these columns holds the device's id if no column of [`NAMES`] does; the
/// others are ignored.
const OTHER_IDS: [&str; 8] = ["cn", "commonname", "thingname", "devicename", "clientid", "mac", "macaddress", "imei"];

impl Column {
    /// The column of this name, such as `Serial_Number`, `S/N` or `parameter.Site`.
    fn named(name: &str) -> Option<Self> {
        if let Some((prefix, parameter)) = name.split_once('.')
            && prefix.eq_ignore_ascii_case("parameter")
        {
            return (!parameter.is_empty()).then(|| Self::Parameter(parameter.to_owned()));
        }
        let plain = plain(name);
        NAMES.iter().find(|(known, _)| *known == plain).map(|(_, column)| column.clone())
    }

    /// The name of the field in messages and in [`ColumnMapping`].
    pub(crate) fn field(&self) -> String {
        let name = match self {
            Self::Ca => "ca",
            Self::Certificate => "certificate",
            Self::Claim => "claim",
            Self::Device => "deviceId",
            Self::Group => "group",
            Self::Ignored => "ignore",
            Self::ImportMode => "importMode",
            Self::KeyOrigin => "keyOrigin",
            Self::Parameter(name) => return format!("parameter.{}", excerpt(name)),
            Self::PublicKey => "publicKey",
            Self::Status => "status",
            Self::StatusReason => "statusReason",
            Self::Template => "template",
            Self::Token => "token",
            Self::TrustedUser => "trustedUser",
            Self::Unnamed => "a column without a name",
        };
        name.to_owned()
    }

    /// Whether the cells may hold secrets or long texts, which messages do not repeat.
    pub(crate) const fn is_confidential(&self) -> bool {
        matches!(self, Self::Token | Self::Certificate | Self::PublicKey)
    }
}

/// A name's letters in lower case and its digits.
fn plain(name: &str) -> String {
    name.chars().filter(|character| character.is_alphanumeric()).flat_map(char::to_lowercase).collect()
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

/// How a table is read that does not name the column of the devices' ids.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Guess {
    /// The table has one column and no header row.
    #[error("the first line names no column: each line is read as a device id")]
    List,
    /// Another id of the devices is taken.
    #[error("no column is called deviceId: the ids are read from {column}; --column device=NAME names another")]
    OtherId {
        /// The name of its column.
        column: String,
    },
}

/// The columns of a table whose first row is `header`, and the guess that was made for the devices' ids.
///
/// A mapping outranks the names: another column that is called like the mapped field is ignored.
pub(crate) fn columns(
    header: &[Option<String>],
    mappings: &[ColumnMapping],
    ignore_unknown: bool,
) -> Result<(Vec<Column>, Option<Guess>), InvalidColumns> {
    let names = header.iter().map(|name| name.as_deref().map(str::trim).ok_or(InvalidColumns::Encoding));
    let names: Vec<&str> = names.collect::<Result<_, _>>()?;
    if let Some(absent) = mappings.iter().find(|mapping| !names.contains(&mapping.name.as_str())) {
        return Err(InvalidColumns::Absent { name: excerpt(&absent.name) });
    }
    let column = |name: &&str| match mappings.iter().find(|mapping| mapping.name == *name) {
        Some(mapping) => Some(mapping.column.clone()),
        None if name.is_empty() => Some(Column::Unnamed),
        None => Column::named(name).map(|column| match mappings.iter().any(|mapping| mapping.column == column) {
            true => Column::Ignored,
            false => column,
        }),
    };
    let mut columns: Vec<Option<Column>> = names.iter().map(column).collect();
    if is_list(&names, &columns) {
        columns[0] = Some(Column::Device);
        return Ok((columns.into_iter().flatten().collect(), Some(Guess::List)));
    }
    let guess = take_other_ids(&names, &mut columns);
    let unknown: Vec<&str> =
        names.iter().zip(&columns).filter(|(_, column)| column.is_none()).map(|(name, _)| *name).collect();
    if !unknown.is_empty() && !ignore_unknown {
        return Err(match columns.iter().flatten().all(|column| *column == Column::Unnamed) {
            true => InvalidColumns::NoHeader { first: shown(&unknown) },
            false => InvalidColumns::Unknown { names: shown(&unknown) },
        });
    }
    let columns: Vec<Column> = columns.into_iter().map(|column| column.unwrap_or(Column::Ignored)).collect();
    let mut seen = BTreeMap::new();
    for (column, name) in columns.iter().zip(&names) {
        let counts = !matches!(column, Column::Ignored | Column::Unnamed);
        if let Some(first) = seen.insert(column, name).filter(|_| counts) {
            let (field, names) = (column.field(), [excerpt(first), excerpt(name)].join(" and "));
            return Err(InvalidColumns::Twice { field, names });
        }
    }
    if !seen.contains_key(&Column::Device) {
        return Err(InvalidColumns::NoDevice);
    }
    Ok((columns, guess))
}

/// Whether the first row is an id itself: a text with a digit that names no column, alone in its row.
fn is_list(names: &[&str], columns: &[Option<Column>]) -> bool {
    let [first, rest @ ..] = names else { return false };
    let is_id = first.parse::<DeviceId>().is_ok() && first.contains(|character: char| character.is_ascii_digit());
    is_id && columns[0].is_none() && rest.iter().all(|name| name.is_empty())
}

/// Makes the first of [`OTHER_IDS`] the devices' id if no column is called so, and has the others ignored.
fn take_other_ids(names: &[&str], columns: &mut [Option<Column>]) -> Option<Guess> {
    let place = |name: &str| OTHER_IDS.iter().position(|known| *known == plain(name));
    let mut others: Vec<(usize, usize)> = (0..names.len())
        .filter(|index| columns[*index].is_none())
        .filter_map(|index| Some((place(names[index])?, index)))
        .collect();
    others.sort_unstable();
    let has_id = columns.contains(&Some(Column::Device));
    let mut guess = None;
    for (_, index) in others {
        let is_id = !has_id && guess.is_none();
        columns[index] = Some(if is_id { Column::Device } else { Column::Ignored });
        if is_id {
            guess = Some(Guess::OtherId { column: excerpt(names[index]) });
        }
    }
    guess
}

/// The first of these names, for a message.
fn shown(names: &[&str]) -> String {
    names.iter().take(8).map(|name| excerpt(name)).collect::<Vec<_>>().join(", ")
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
         template, publicKey, certificate, ca, token, claim, trustedUser, keyOrigin, importMode, parameter.NAME and \
         ignore"
    )]
    Mapping,
    /// No column that tells the devices apart.
    #[error(
        "the first row names no column with the devices' ids, such as deviceId or serialNumber: rename the column, or \
         name it with --column device=NAME"
    )]
    NoDevice,
    /// No name of a column at all.
    #[error(
        "the first row names no known column, it has {first}: put a header row before it, such as deviceId,group, or \
         name the columns with --column"
    )]
    NoHeader {
        /// The first of its cells.
        first: String,
    },
    /// Two columns for the same.
    #[error("columns {names} both mean {field}: name the one to read with --column {field}=NAME")]
    Twice {
        /// What both of them hold.
        field: String,
        /// Their names.
        names: String,
    },
    /// Columns of unknown names.
    #[error("unknown columns: {names}")]
    Unknown {
        /// The first of them.
        names: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guessed(
        header: &[&str],
        mappings: &[&str],
        ignore: bool,
    ) -> Result<(Vec<Column>, Option<Guess>), InvalidColumns> {
        let header: Vec<_> = header.iter().map(|name| Some((*name).to_owned())).collect();
        let mappings: Vec<_> = mappings.iter().map(|mapping| mapping.parse().unwrap()).collect();
        columns(&header, &mappings, ignore)
    }

    fn of(header: &[&str], mappings: &[&str], ignore: bool) -> Result<Vec<Column>, InvalidColumns> {
        guessed(header, mappings, ignore).map(|(columns, _)| columns)
    }

    #[test]
    fn columns_are_known_by_many_names() {
        for name in ["deviceId", "SERIAL", "serial_number", "Serial Number", " id ", "S/N", "SN", "Serial No.", "DSN"] {
            assert_eq!(
                of(&[name, "parameter.Site"], &[], false).unwrap(),
                [Column::Device, Column::Parameter("Site".into())]
            );
        }
        let mapped = of(&["Nr", "Site", "x"], &["device=Nr", "parameter.Site=Site"], true).unwrap();
        assert_eq!(mapped, [Column::Device, Column::Parameter("Site".into()), Column::Ignored]);
    }

    #[test]
    fn another_id_is_taken_where_no_column_is_called_so() {
        let cn = Some(Guess::OtherId { column: "\"cn\"".to_owned() });
        let espressif = guessed(&["MAC", "cn", "cert"], &[], false).unwrap();
        assert_eq!(espressif, (vec![Column::Ignored, Column::Device, Column::Certificate], cn));
        assert_eq!(guessed(&["MAC", "sn"], &[], false), Ok((vec![Column::Ignored, Column::Device], None)));
        assert_eq!(of(&["MAC", "cn"], &["device=MAC"], false), Ok(vec![Column::Device, Column::Ignored]));
    }

    #[test]
    fn a_mapping_outranks_a_name_and_can_have_a_column_ignored() {
        assert_eq!(of(&["id", "Nr"], &["device=Nr"], false), Ok(vec![Column::Ignored, Column::Device]));
        let ignored = of(&["id", "Status", "Note"], &["ignore=Status", "ignore=Note"], false);
        assert_eq!(ignored, Ok(vec![Column::Device, Column::Ignored, Column::Ignored]));
    }

    #[test]
    fn one_column_without_a_header_is_a_list_of_ids() {
        assert_eq!(guessed(&["sn-0001"], &[], false), Ok((vec![Column::Device], Some(Guess::List))));
        let with_empty_columns = of(&["sn-0001", "", ""], &[], false);
        assert_eq!(with_empty_columns, Ok(vec![Column::Device, Column::Unnamed, Column::Unnamed]));
        // A word may be the name of a column.
        for words in [&["Seriennummer"][..], &["sn-0001", "ulm"], &["no id 1"]] {
            assert!(matches!(of(words, &[], false), Err(InvalidColumns::NoHeader { .. })), "{words:?}");
        }
        assert_eq!(of(&["sn-0001"], &["device=sn-0001"], false), Ok(vec![Column::Device]));
    }

    #[test]
    fn a_table_that_is_not_understood_is_refused_with_the_names_of_its_columns() {
        let unknown = InvalidColumns::Unknown { names: "\"colour\", \"size\"".to_owned() };
        assert_eq!(of(&["id", "colour", "size"], &[], false), Err(unknown));
        assert_eq!(of(&["group"], &[], false), Err(InvalidColumns::NoDevice));
        let twice = of(&["id", "serial"], &[], false).unwrap_err().to_string();
        assert!(twice.contains("\"id\" and \"serial\"") && twice.contains("--column deviceId=NAME"), "{twice}");
        assert_eq!(of(&["id"], &["group=G"], false), Err(InvalidColumns::Absent { name: "\"G\"".to_owned() }));
        for bad in ["SN", "colour=SN", "device=", "parameter.=x"] {
            assert_eq!(bad.parse::<ColumnMapping>(), Err(InvalidColumns::Mapping), "{bad}");
        }
    }
}
