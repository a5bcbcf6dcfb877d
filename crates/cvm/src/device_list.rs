//! A list of devices in a file, read line by line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use cvm_provisioning::{DeviceId, InvalidDeviceId};

use crate::file::{BYTE_ORDER_MARK, FileError};

/// Device ids, one a line; empty lines, lines that begin with `#`, and a byte order mark before them do not count. However
/// long the list is, one line of it is in memory.
pub(crate) struct Devices {
    lines: Box<dyn BufRead>,
    number: u64,
    read: u64,
    length: Option<u64>,
}

/// A device and the line that it is on.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Listed {
    pub(crate) id: DeviceId,
    pub(crate) line: u64,
}

impl Devices {
    /// The longest line that is read, in bytes with its end.
    const MAX_LINE: u64 = 1024;

    /// The list in this file, or on stdin for `-`.
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        if path == Path::new("-") {
            return Ok(Self::new(BufReader::new(io::stdin()), None));
        }
        let failed = |source| FileError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        // A pipe has a length of zero.
        let length = file.metadata().map_err(failed)?.len();
        Ok(Self::new(BufReader::new(file), (length > 0).then_some(length)))
    }

    /// A list of one.
    pub(crate) fn one(id: &DeviceId) -> Self {
        Self::new(io::Cursor::new(id.to_string()), None)
    }

    fn new(lines: impl BufRead + 'static, length: Option<u64>) -> Self {
        Self { lines: Box::new(lines), number: 0, read: 0, length }
    }

    /// The part of the list that has been read, from 0 to 1, where its length is known.
    pub(crate) fn part(&self) -> Option<f64> {
        self.length.map(|length| (self.read as f64 / length as f64).min(1.0))
    }

    fn line(&mut self) -> Result<Option<Listed>, BadLine> {
        loop {
            let mut bytes = Vec::new();
            let length = self.lines.by_ref().take(Self::MAX_LINE).read_until(b'\n', &mut bytes)? as u64;
            if length == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.read += length;
            if length == Self::MAX_LINE && !bytes.ends_with(b"\n") {
                return Err(BadLine::TooLong { line: self.number });
            }
            let line = self.number;
            let bad = |source| BadLine::DeviceId { line, source };
            let text = str::from_utf8(&bytes).map_err(|_| bad(InvalidDeviceId::Character))?;
            let text = if line == 1 { text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text) } else { text }.trim_ascii();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            return Ok(Some(Listed { id: text.parse().map_err(bad)?, line }));
        }
    }
}

impl Iterator for Devices {
    type Item = Result<Listed, BadLine>;

    fn next(&mut self) -> Option<Self::Item> {
        self.line().transpose()
    }
}

/// Why a line is no device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum BadLine {
    #[error("line {line} is no device id: {source}")]
    DeviceId { line: u64, source: InvalidDeviceId },
    #[error("the list of devices cannot be read")]
    Io(#[from] io::Error),
    #[error("line {line} has more than {max} bytes", max = Devices::MAX_LINE)]
    TooLong { line: u64 },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(text: impl Into<Vec<u8>>) -> Devices {
        let bytes = text.into();
        let length = bytes.len() as u64;
        Devices::new(io::Cursor::new(bytes), Some(length))
    }

    #[test]
    fn a_list_has_one_device_a_line_and_comments() {
        let mut list = devices("\u{feff}# first pallet\nsn-1\r\n\n  sn-2  \nsn-3");
        let listed = list.by_ref().map(|listed| listed.map(|listed| (listed.line, listed.id.to_string())).unwrap());
        assert_eq!(listed.collect::<Vec<_>>(), [(2, "sn-1".into()), (4, "sn-2".into()), (5, "sn-3".into())]);
        assert_eq!(list.part(), Some(1.0));
        let first = devices("\u{feff}sn-1\n").next().unwrap().unwrap();
        assert_eq!((first.id.as_str(), first.line), ("sn-1", 1));
    }

    #[test]
    fn a_bad_line_is_named_by_its_number_and_not_repeated() {
        for (text, expected) in [
            ("sn-1\n../sn-2\n".into(), "line 2 is no device id"),
            (b"sn-1\n\n\xff\n".to_vec(), "line 3 is no device id"),
            ("sn-1\n\u{feff}sn-2\n".into(), "line 2 is no device id"),
        ] {
            let error = devices(text).find_map(Result::err).unwrap().to_string();
            assert!(error.starts_with(expected) && !error.contains(".."), "{error}");
        }
    }

    #[test]
    fn a_line_without_end_is_not_read_to_its_end() {
        let mut list = devices(vec![b'x'; 1 << 20]);
        assert!(matches!(list.next(), Some(Err(BadLine::TooLong { line: 1 }))));
        assert_eq!(list.read, Devices::MAX_LINE);
    }
}
