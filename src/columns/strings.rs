//! Strings of any length, in pieces that need no moving as they grow.

use std::ops::Range;

use super::values::start;

/// Bytes of a chunk. A buffer that doubles is copied as it grows and is half empty then, and one of many megabytes goes
/// back to the system each time, which clears every page of the next one.
const CHUNK: usize = 256 << 10;

/// Strings back to back, of any bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strings {
    /// End of each string, counted over all chunks.
    ends: Vec<usize>,
    /// No string lies in two. Ascending by where they begin.
    chunks: Vec<Chunk>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Chunk {
    /// Bytes in the chunks before.
    start: usize,
    bytes: Vec<u8>,
}

impl Strings {
    /// Appends one.
    pub fn push(&mut self, value: &[u8]) {
        let end = match self.chunks.last_mut() {
            Some(Chunk { start, bytes }) if bytes.len() + value.len() <= CHUNK => {
                if bytes.capacity() - bytes.len() < value.len() {
                    // Doubles, but to no more than a chunk.
                    bytes.reserve_exact(value.len().max(bytes.len().min(CHUNK - bytes.len())));
                }
                bytes.extend_from_slice(value);
                *start + bytes.len()
            }
            last => {
                // The first one grows with what there is; who comes to a second one fills it.
                let (start, capacity) = last.map_or((0, value.len()), |last| (last.start + last.bytes.len(), CHUNK));
                let mut bytes = Vec::with_capacity(capacity.max(value.len()));
                bytes.extend_from_slice(value);
                self.chunks.push(Chunk { start, bytes });
                start + value.len()
            }
        };
        self.ends.push(end);
    }

    /// The one in this row; empty where there is no such row.
    pub fn get(&self, row: usize) -> &[u8] {
        self.iter(row..row + 1).next().unwrap_or_default()
    }

    /// Those in these rows, as far as there are such.
    pub fn iter(&self, rows: Range<usize>) -> impl Iterator<Item = &[u8]> {
        let mut from = start(&self.ends, rows.start);
        let mut at = self.chunks.partition_point(|chunk| chunk.start <= from).saturating_sub(1);
        let ends = self.ends.get(rows.start..rows.end.min(self.ends.len())).unwrap_or_default();
        ends.iter().map(move |&end| {
            while self.chunks.get(at + 1).is_some_and(|next| next.start <= from) {
                at += 1;
            }
            let Chunk { start, bytes } = &self.chunks[at];
            let value = &bytes[from - start..end - start];
            from = end;
            value
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Keeps the first `rows`; does nothing where there are no more.
    pub fn truncate(&mut self, rows: usize) {
        if rows < self.ends.len() {
            let end = start(&self.ends, rows);
            self.ends.truncate(rows);
            let kept = self.chunks.partition_point(|chunk| chunk.start < end).max(1);
            self.chunks.truncate(kept);
            if let Some(last) = self.chunks.last_mut() {
                last.bytes.truncate(end - last.start);
            }
        }
    }

    /// Bytes in memory.
    pub fn size(&self) -> usize {
        self.chunks.last().map_or(0, |last| last.start + last.bytes.len()) + size_of_val(self.ends.as_slice())
    }

    /// Bytes that it has room for, which are those it takes from the system.
    pub fn capacity(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bytes.capacity()).sum::<usize>()
            + self.ends.capacity() * size_of::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back_and_are_taken_back() {
        let mut strings = Strings::default();
        for value in [&b"one"[..], b"", b"\xff\x00", b"four"] {
            strings.push(value);
        }
        let before = {
            strings.truncate(2);
            strings.clone()
        };
        strings.push(b"x");
        strings.truncate(2);
        assert_eq!(strings, before);
        assert_eq!((strings.get(0), strings.get(1), strings.get(2)), (&b"one"[..], &b""[..], &b""[..]));
        strings.truncate(9);
        assert_eq!((strings.len(), strings.size()), (2, 3 + 2 * 8));
        strings.truncate(0);
        assert_eq!((strings.len(), strings.size()), (0, 0));
    }

    /// As a list of lists would have it, over many chunks, with strings that fill one, are longer than one, or empty.
    #[test]
    fn many_strings_are_those_of_a_list() {
        let mut rng = fastrand::Rng::with_seed(5);
        let (mut strings, mut truth) = (Strings::default(), Vec::<Vec<u8>>::new());
        for step in 0..2_000 {
            let length = match rng.u8(0..100) {
                0..5 => 0,
                5..7 => CHUNK - rng.usize(0..2),
                7 => CHUNK + rng.usize(1..CHUNK),
                _ => rng.usize(0..2_000),
            };
            let value: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(length).collect();
            strings.push(&value);
            truth.push(value);
            if rng.u8(0..20) == 0 {
                let rows = truth.len() - rng.usize(0..truth.len().min(9));
                strings.truncate(rows);
                truth.truncate(rows);
            }
            if step % 100 == 0 {
                let rows = rng.usize(0..=truth.len())..truth.len();
                assert!(strings.iter(rows.clone()).eq(truth[rows.clone()].iter().map(Vec::as_slice)), "{rows:?}");
                let row = rng.usize(0..truth.len() + 1);
                assert_eq!(strings.get(row), truth.get(row).map_or(&b""[..], Vec::as_slice));
            }
        }
        let bytes: usize = truth.iter().map(Vec::len).sum();
        assert_eq!((strings.len(), strings.size()), (truth.len(), bytes + 8 * truth.len()));
        assert!(strings.chunks.len() > 10);
        assert!(strings.iter(0..9_999).count() == truth.len() && strings.iter(9_998..9_999).next().is_none());
        strings.truncate(0);
        assert_eq!((strings.len(), strings.size(), strings.chunks.len()), (0, 0, 1));
    }

    #[test]
    fn few_bytes_take_little_memory_and_many_no_more_than_a_chunk_beside() {
        let mut strings = Strings::default();
        strings.push(b"abc");
        assert!(strings.capacity() < 200, "{}", strings.capacity());
        (0..10_000).for_each(|_| strings.push(&[7; 1_310]));
        let room = strings.capacity() - strings.ends.capacity() * 8;
        assert!(room < 13_100_003 + 50 * 1_310 + CHUNK, "{room}");
    }
}
