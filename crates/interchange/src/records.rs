//! The rows of a table in CSV (RFC 4180), separated by commas, semicolons or tabs; a row that is too long is not kept.

use std::io::{self, BufRead};

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use crate::lines::{BYTE_ORDER_MARK, MAX_RECORD, Record};

/// The most cells of a row.
const MAX_CELLS: usize = 1_024;

/// Reads a file by its rows; lines with nothing on them are left out.
#[derive(Debug)]
pub(crate) struct Records<R> {
    source: R,
    reader: Box<Reader>,
    line: u64,
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl<R: BufRead> Records<R> {
    /// Reads the byte order mark, if there is one, and looks for the separator.
    pub(crate) fn new(mut source: R) -> io::Result<Self> {
        // A source that gives only a part of its first line at first is a pipe that is written to by hand.
        if source.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
            source.consume(BYTE_ORDER_MARK.len());
        }
        let mut separator = separator(source.fill_buf()?);
        // Excel's own way to name the separator.
        if let [b's' | b'S', b'e' | b'E', b'p' | b'P', b'=', named, b'\r' | b'\n', ..] = source.fill_buf()? {
            separator = *named;
            source.consume(b"sep=;".len());
        }
        let reader = Box::new(ReaderBuilder::new().delimiter(separator).build());
        Ok(Self { source, reader, line: 1, text: vec![0; 4_096], ends: vec![0; MAX_CELLS] })
    }

    /// The next row's cells. A cell that is not UTF-8 is `None`.
    pub(crate) fn next_record(&mut self) -> io::Result<Option<Record<Vec<Option<String>>>>> {
        self.skip_blanks()?;
        let begun_on = self.line;
        let (mut length, mut cells, mut too_long) = (0, 0, false);
        loop {
            let input = self.source.fill_buf()?;
            let (result, read, written, ended) =
                self.reader.read_record(input, &mut self.text[length..], &mut self.ends[cells..]);
            self.line += input[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
            self.source.consume(read);
            length += written;
            cells += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if self.text.len() < MAX_RECORD => {
                    self.text.resize((2 * self.text.len()).min(MAX_RECORD), 0);
                }
                // What comes over it is not looked at any more.
                ReadRecordResult::OutputFull => (too_long, length) = (true, 0),
                ReadRecordResult::OutputEndsFull => (too_long, cells) = (true, 0),
                ReadRecordResult::Record if too_long => return Ok(Some(Record::TooLong(begun_on))),
                ReadRecordResult::Record => return Ok(Some(Record::Whole(begun_on, self.cells(cells)))),
                ReadRecordResult::End => return Ok(None),
            }
        }
    }

    fn cells(&self, count: usize) -> Vec<Option<String>> {
        let mut begin = 0;
        let ends = self.ends[..count].iter();
        let cells = ends.map(|end| {
            let cell = std::str::from_utf8(&self.text[begin..*end]).ok().map(str::to_owned);
            begin = *end;
            cell
        });
        cells.collect()
    }

    /// Moves on to where the next row begins, so that its line is known.
    fn skip_blanks(&mut self) -> io::Result<()> {
        while let Some(byte @ (b'\r' | b'\n')) = self.source.fill_buf()?.first().copied() {
            self.source.consume(1);
            self.line += u64::from(byte == b'\n');
        }
        Ok(())
    }
}

/// The separator that the first line has most often outside of quotes; a comma if it has none. Spreadsheets write
/// semicolons where the comma is the decimal separator.
fn separator(beginning: &[u8]) -> u8 {
    let mut counts = [(b'\t', 0), (b';', 0), (b',', 0)];
    let mut quoted = false;
    for byte in beginning.iter().skip_while(|byte| matches!(byte, b'\r' | b'\n')) {
        match byte {
            b'"' => quoted = !quoted,
            b'\r' | b'\n' if !quoted => break,
            _ if quoted => {}
            byte => counts.iter_mut().filter(|(separator, _)| separator == byte).for_each(|(_, count)| *count += 1),
        }
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map_or(b',', |(separator, _)| separator)
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read as _};

    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn rows(text: &[u8], buffer: usize) -> Vec<Record<Vec<Option<String>>>> {
        let mut records = Records::new(BufReader::with_capacity(buffer, text)).unwrap();
        std::iter::from_fn(|| records.next_record().unwrap()).collect()
    }

    fn whole(line: u64, cells: &[&str]) -> Record<Vec<Option<String>>> {
        Record::Whole(line, cells.iter().map(|cell| Some((*cell).to_owned())).collect())
    }

    #[test]
    fn threat_41_byte_order_mark_crlf_quotes_and_lines_within_cells() {
        let text = b"\xef\xbb\xbfid,\"a \"\"b\"\"\"\r\n\r\nsn-1,\"two\r\nlines\"\r\nsn-2,x";
        let expected =
            vec![whole(1, &["id", "a \"b\""]), whole(3, &["sn-1", "two\r\nlines"]), whole(5, &["sn-2", "x"])];
        for buffer in [8, 13, 8192] {
            assert_eq!(rows(text, buffer), expected, "{buffer}");
        }
    }

    #[test]
    fn the_separator_is_a_comma_a_semicolon_or_a_tab() {
        for text in [
            "id,group\r\nsn-1,\"a;b\"\r\n",
            "id;group\r\nsn-1;\"a;b\"\r\n",
            "\u{feff}\"id\"\t\"group\"\nsn-1\ta;b\n",
            "\r\nid;\"group\"\nsn-1;\"a;b\"\n",
        ] {
            let rows = rows(text.as_bytes(), 8192).into_iter().map(|row| match row {
                Record::Whole(_, cells) => cells.into_iter().map(Option::unwrap).collect(),
                Record::TooLong(_) => Vec::new(),
            });
            assert_eq!(rows.collect::<Vec<_>>(), [["id", "group"], ["sn-1", "a;b"]], "{text}");
        }
        assert_eq!(rows(b"sep=;\r\nid;a,b\r\nsn-1;c,d", 64), [whole(2, &["id", "a,b"]), whole(3, &["sn-1", "c,d"])]);
        assert_eq!(rows(b"\"a;b;c\",d\n", 64), [whole(1, &["a;b;c", "d"])], "what is quoted separates nothing");
    }

    #[test]
    fn threat_41_a_cell_in_another_encoding_is_none() {
        assert_eq!(rows(b"id\nM\xfcller\n", 64)[1], Record::Whole(2, vec![None]));
    }

    #[test]
    fn threat_42_a_row_of_ten_megabytes_is_read_over_and_not_held() {
        let text = b"id\n".chain(io::repeat(b'x').take(10_000_000)).chain(&b"\nsn-1\n"[..]);
        let mut records = Records::new(BufReader::new(text)).unwrap();
        assert_eq!(records.next_record().unwrap(), Some(whole(1, &["id"])));
        assert_eq!(records.next_record().unwrap(), Some(Record::TooLong(2)));
        assert!(records.text.len() <= MAX_RECORD);
        assert_eq!(records.next_record().unwrap(), Some(whole(3, &["sn-1"])));
        let wide = format!("id\n{}\nsn-1\n", ",".repeat(5 * MAX_CELLS));
        assert_eq!(rows(wide.as_bytes(), 100)[1..], [Record::TooLong(2), whole(3, &["sn-1"])]);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            rng_seed: RngSeed::Fixed(0x5e71a1),
            ..ProptestConfig::default()
        })]

        #[test]
        fn what_is_quoted_is_read_back(rows_of in prop::collection::vec(prop::collection::vec("[a-z,\"\n]{1,9}", 1..5), 1..9)) {
            let quoted = |cell: &String| format!("\"{}\"", cell.replace('"', "\"\""));
            let text: String =
                rows_of.iter().map(|row| row.iter().map(quoted).collect::<Vec<_>>().join(",") + "\r\n").collect();
            let read = rows(text.as_bytes(), 16).into_iter().map(|record| match record {
                Record::Whole(_, cells) => cells.into_iter().map(Option::unwrap).collect(),
                Record::TooLong(_) => Vec::new(),
            });
            prop_assert_eq!(read.collect::<Vec<_>>(), rows_of);
        }
    }
}
