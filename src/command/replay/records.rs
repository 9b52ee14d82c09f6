//! The records of a CSV file with the number of the line that each begins in.
//!
//! Crate `csv` counts lines too, but one too few after CR LF and after blank lines; and ids are made of these numbers.

use std::io::{BufRead, Result};

use csv::{ByteRecord, ReaderBuilder};

/// Reads records from lines.
#[derive(Debug)]
pub(super) struct Records<R> {
    reader: R,
    /// Lines read so far.
    lines: u64,
    text: Vec<u8>,
}

impl<R: BufRead> Records<R> {
    pub(super) fn new(reader: R) -> Self {
        Records { reader, lines: 0, text: Vec::new() }
    }

    /// The next record and its line, from 1 on; blank lines are passed over.
    pub(super) fn next(&mut self) -> Result<Option<(u64, ByteRecord)>> {
        loop {
            self.text.clear();
            let line = self.lines + 1;
            // A line feed within quotes belongs to the record.
            while self.text.is_empty() || self.text.iter().filter(|byte| **byte == b'"').count() % 2 == 1 {
                if self.reader.read_until(b'\n', &mut self.text)? == 0 {
                    break;
                }
                self.lines += 1;
            }
            if self.text.is_empty() {
                return Ok(None);
            }
            let mut record = ByteRecord::new();
            let mut reader = ReaderBuilder::new()
                .has_headers(false)
                .flexible(true)
                .buffer_capacity(self.text.len())
                .from_reader(self.text.as_slice());
            if reader.read_byte_record(&mut record)? {
                return Ok(Some((line, record)));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(u64, Vec<String>)> {
        let mut records = Records::new(text.as_bytes());
        let fields = |record: ByteRecord| record.iter().map(|f| String::from_utf8(f.to_vec()).unwrap()).collect();
        std::iter::from_fn(|| records.next().unwrap().map(|(line, record)| (line, fields(record)))).collect()
    }

    #[test]
    fn each_record_has_the_line_it_begins_in() {
        let text = "a,b\n1,2\n\n\n3,\"x\ny\"\n4,\"say \"\"hi\"\"\"\n\n5,";
        let expected: Vec<(u64, Vec<String>)> =
            [(1, ["a", "b"]), (2, ["1", "2"]), (5, ["3", "x\ny"]), (7, ["4", "say \"hi\""]), (9, ["5", ""])]
                .map(|(line, fields)| (line, fields.map(str::to_owned).to_vec()))
                .to_vec();
        assert_eq!(read(text), expected);
        let crlf = read(&text.replace('\n', "\r\n"));
        let lines = |records: &[(u64, Vec<String>)]| records.iter().map(|(line, _)| *line).collect::<Vec<_>>();
        assert_eq!(lines(&crlf), lines(&expected));
        assert_eq!(read(&format!("\u{feff}{text}")), expected);
        assert_eq!(read("\n\n"), []);
        assert_eq!(read("1,\"open\n2,3\n"), [(1, vec!["1".to_owned(), "open\n2,3\n".to_owned()])]);
    }
}
