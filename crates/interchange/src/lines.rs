//! The lines of a file, none of them held that is too long.

use std::io::{self, BufRead};

/// The most bytes of one record: a line, a row of a table, or an element of an array.
pub const MAX_RECORD: usize = 1 << 20;

/// One record of a file, or what stands in its place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Record<T> {
    /// It, beginning on this line.
    Whole(u64, T),
    /// One of more than [`MAX_RECORD`] bytes, which was read over.
    TooLong(u64),
}

/// Where a UTF-8 file may begin with a byte order mark, which says nothing.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads a file by its lines; those with nothing on them are left out.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    source: R,
    line: u64,
}

impl<R: BufRead> Lines<R> {
    pub(crate) const fn new(source: R) -> Self {
        Self { source, line: 0 }
    }

    /// The next line without its end, which is a line feed with or without a carriage return.
    pub(crate) fn next_line(&mut self) -> io::Result<Option<Record<Vec<u8>>>> {
        loop {
            let (mut line, mut length, mut too_long) = (Vec::new(), 0_u64, false);
            let ended = loop {
                let bytes = self.source.fill_buf()?;
                if bytes.is_empty() {
                    break length > 0;
                }
                let end = bytes.iter().position(|byte| *byte == b'\n');
                let part = &bytes[..end.unwrap_or(bytes.len())];
                length += part.len() as u64 + u64::from(end.is_some());
                too_long |= line.len() + part.len() > MAX_RECORD;
                if !too_long {
                    line.extend_from_slice(part);
                }
                let taken = part.len() + usize::from(end.is_some());
                self.source.consume(taken);
                if end.is_some() {
                    break true;
                }
            };
            if !ended {
                return Ok(None);
            }
            self.line += 1;
            if too_long {
                return Ok(Some(Record::TooLong(self.line)));
            }
            if self.line == 1 && line.starts_with(BYTE_ORDER_MARK) {
                line.drain(..BYTE_ORDER_MARK.len());
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some(Record::Whole(self.line, line.trim_ascii().to_vec())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read as _};

    use super::*;

    fn lines(text: &[u8]) -> Vec<(u64, String)> {
        let mut lines = Lines::new(text);
        let mut all = Vec::new();
        while let Some(Record::Whole(number, line)) = lines.next_line().unwrap() {
            all.push((number, String::from_utf8(line).unwrap()));
        }
        all
    }

    #[test]
    fn lines_are_counted_whatever_ends_them_and_blank_ones_are_left_out() {
        let expected = vec![(1, "a".to_owned()), (2, "b".to_owned()), (5, "c".to_owned())];
        assert_eq!(lines(b"\xef\xbb\xbfa\r\nb\n\r\n  \nc"), expected);
        assert_eq!(lines(b""), vec![]);
    }

    #[test]
    fn threat_42_a_line_of_ten_megabytes_is_read_over_and_not_held() {
        let text = b"first\n".chain(io::repeat(b'x').take(10_000_000)).chain(&b"\nlast\n"[..]);
        let mut lines = Lines::new(BufReader::new(text));
        assert_eq!(lines.next_line().unwrap(), Some(Record::Whole(1, b"first".to_vec())));
        assert_eq!(lines.next_line().unwrap(), Some(Record::TooLong(2)));
        assert_eq!(lines.next_line().unwrap(), Some(Record::Whole(3, b"last".to_vec())));
        assert_eq!(lines.next_line().unwrap(), None);
    }
}
