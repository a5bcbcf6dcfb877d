//! The elements of a JSON array, one by one.

use std::io::{self, BufRead};

use crate::lines::{MAX_RECORD, Record};

/// Reads a file that is one JSON array of objects. Where an element ends is told by its brackets alone: whether it is
/// JSON is for whoever reads it to see.
#[derive(Debug)]
pub(crate) struct Elements<R> {
    source: R,
    line: u64,
    ended: bool,
}

impl<R: BufRead> Elements<R> {
    pub(crate) const fn new(source: R) -> Self {
        Self { source, line: 1, ended: false }
    }

    /// The next element. What is no object, and an object that the file ends within, comes as it is.
    pub(crate) fn next_element(&mut self) -> io::Result<Option<Record<Vec<u8>>>> {
        let mut element = Vec::new();
        let (mut begun_on, mut too_long) = (self.line, false);
        let (mut depth, mut quoted, mut escaped) = (0_u64, false, false);
        while let Some(byte) = self.next_byte()? {
            if element.is_empty() && depth == 0 {
                match byte {
                    // Between elements, the brackets of the array itself, and a byte order mark.
                    b' ' | b'\t' | b'\r' | b'\n' | b',' | b'[' | 0xef | 0xbb | 0xbf => continue,
                    b']' => {
                        self.ended = true;
                        continue;
                    }
                    _ => begun_on = self.line,
                }
            }
            if element.len() < MAX_RECORD {
                element.push(byte);
            } else {
                too_long = true;
            }
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b'{' | b'[' if !quoted => depth += 1,
                b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
                _ => {}
            }
            let scalar_ended = depth == 0 && !quoted && matches!(byte, b'\n' | b',');
            if (depth == 0 && !quoted && matches!(byte, b'}' | b']')) || scalar_ended {
                break;
            }
        }
        Ok(match element.is_empty() {
            true => None,
            false if too_long => Some(Record::TooLong(begun_on)),
            false => Some(Record::Whole(begun_on, element)),
        })
    }

    /// Whether the array was closed: a file that was cut off is not taken for a shorter one.
    pub(crate) const fn is_whole(&self) -> bool {
        self.ended
    }

    fn next_byte(&mut self) -> io::Result<Option<u8>> {
        let Some(byte) = self.source.fill_buf()?.first().copied() else { return Ok(None) };
        self.source.consume(1);
        self.line += u64::from(byte == b'\n');
        Ok(Some(byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(text: &str) -> (Vec<(u64, String)>, bool) {
        let mut elements = Elements::new(text.as_bytes());
        let mut all = Vec::new();
        while let Some(Record::Whole(line, element)) = elements.next_element().unwrap() {
            all.push((line, String::from_utf8(element).unwrap()));
        }
        (all, elements.is_whole())
    }

    #[test]
    fn elements_are_told_apart_by_their_brackets_outside_of_texts() {
        let (all, whole) = elements("[\n {\"a\": \"}]\\\"\"},{\"b\":[{}]}\n]\n");
        assert_eq!(all, [(2, "{\"a\": \"}]\\\"\"}".to_owned()), (2, "{\"b\":[{}]}".to_owned())]);
        assert!(whole);
        let (cut_off, whole) = elements("[{\"a\":1},{\"b\"");
        assert!(cut_off.len() == 2 && !whole, "{cut_off:?}");
        assert_eq!(elements("[]"), (vec![], true));
    }

    #[test]
    fn threat_42_an_element_without_end_is_read_over() {
        let text = format!("[{{\"a\":\"{}\"}},{{}}]", "x".repeat(2 * MAX_RECORD));
        let mut elements = Elements::new(text.as_bytes());
        assert_eq!(elements.next_element().unwrap(), Some(Record::TooLong(1)));
        assert_eq!(elements.next_element().unwrap(), Some(Record::Whole(1, b"{}".to_vec())));
    }
}
