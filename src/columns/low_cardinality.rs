//! Dictionary-encoded strings.

use std::hash::{BuildHasher, Hasher};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::values::start;

/// Dictionary-encoded strings: the dictionary grows with the batch, entry 0 is ''.
///
/// The index of a row is both what the Native format sends and what a rollup groups by, so a value is hashed once.
#[derive(Debug, Clone)]
pub struct LowCardinality {
    /// Dictionary index of each row.
    pub index: Vec<u32>,
    /// All dictionary entries, concatenated in the order of their indices.
    text: String,
    /// End of each entry in `text`.
    ends: Vec<usize>,
    /// Dictionary indices by the hash of their entry.
    lookup: HashTable<u32>,
    /// Seeded at random, so that nobody can choose values that collide. Indices do not depend on it.
    hasher: DefaultHashBuilder,
}

impl Default for LowCardinality {
    fn default() -> Self {
        let mut empty = LowCardinality {
            index: Vec::new(),
            text: String::new(),
            ends: Vec::new(),
            lookup: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        };
        empty.intern("");
        empty
    }
}

impl LowCardinality {
    /// The dictionary index of a value, which is added where it is new.
    pub fn intern(&mut self, value: &str) -> u32 {
        match self.find(value.as_bytes()) {
            Some(index) => index,
            None => self.add(value),
        }
    }

    /// As [`LowCardinality::intern`], for bytes that may not be UTF-8: only a new value is checked.
    pub(super) fn intern_bytes(&mut self, value: &[u8]) -> Result<u32, std::str::Utf8Error> {
        match self.find(value) {
            Some(index) => Ok(index),
            None => Ok(self.add(std::str::from_utf8(value)?)),
        }
    }

    fn find(&self, value: &[u8]) -> Option<u32> {
        let (text, ends) = (self.text.as_bytes(), &self.ends);
        self.lookup.find(hash(&self.hasher, value), |&index| entry(text, ends, index) == value).copied()
    }

    fn add(&mut self, value: &str) -> u32 {
        // A batch ends long before it has four billion rows, let alone entries.
        let index = self.ends.len() as u32;
        self.text.push_str(value);
        self.ends.push(self.text.len());
        let (text, ends, hasher) = (self.text.as_bytes(), &self.ends, &self.hasher);
        self.lookup
            .insert_unique(hash(hasher, value.as_bytes()), index, |&index| hash(hasher, entry(text, ends, index)));
        index
    }

    /// Appends a row.
    pub fn push(&mut self, value: &str) {
        let index = self.intern(value);
        self.index.push(index);
    }

    /// The value in this row; '' where there is no such row.
    pub fn get(&self, row: usize) -> &str {
        self.index.get(row).map_or("", |&index| self.entry(index))
    }

    /// The dictionary entry at this index; '' where there is none.
    pub fn entry(&self, index: u32) -> &str {
        let index = index as usize;
        self.ends.get(index).and_then(|&end| self.text.get(start(&self.ends, index)..end)).unwrap_or("")
    }

    /// The dictionary, in the order of its indices. It may hold entries that no row has (any more).
    pub fn dictionary(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.ends.len()).map(|index| self.entry(index as u32))
    }

    /// Entries in the dictionary, at least one.
    pub fn dictionary_len(&self) -> usize {
        self.ends.len()
    }

    /// Rows it holds.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether it holds no row.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Keeps the first `rows` rows and the whole dictionary.
    pub fn truncate(&mut self, rows: usize) {
        self.index.truncate(rows);
    }

    /// Bytes in memory, dictionary included.
    pub fn bytes(&self) -> usize {
        size_of_val(self.index.as_slice()) + self.text.len() + size_of_val(self.ends.as_slice())
    }
}

fn hash(hasher: &DefaultHashBuilder, value: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write(value);
    hasher.finish()
}

fn entry<'a>(text: &'a [u8], ends: &[usize], index: u32) -> &'a [u8] {
    let index = index as usize;
    ends.get(index).and_then(|&end| text.get(start(ends, index)..end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn empty_is_entry_zero() {
        let mut column = LowCardinality::default();
        assert_eq!((column.intern(""), column.dictionary_len(), column.len()), (0, 1, 0));
        column.push("");
        assert_eq!((column.index.as_slice(), column.get(0), column.get(1)), (&[0][..], "", ""));
    }

    #[test]
    fn rows_come_back_as_they_went_in() {
        let mut rng = fastrand::Rng::with_seed(11);
        let (mut column, mut truth, mut first_seen) = (LowCardinality::default(), Vec::new(), HashMap::new());
        first_seen.insert(String::new(), 0u32);
        for _ in 0..50_000 {
            let value = "äx".repeat(rng.usize(0..4)) + &rng.u32(0..3_000).to_string();
            let next = first_seen.len() as u32;
            let expected = *first_seen.entry(value.clone()).or_insert(next);
            assert_eq!(column.intern(&value), expected);
            column.push(&value);
            truth.push(value);
        }
        assert!((0..truth.len()).all(|row| column.get(row) == truth[row]));
        assert_eq!(column.dictionary().len(), first_seen.len());
        assert!(column.dictionary().enumerate().all(|(index, value)| first_seen[value] == index as u32));
        column.truncate(10);
        assert_eq!((column.len(), column.get(9), column.get(10)), (10, truth[9].as_str(), ""));
        assert_eq!(column.intern(&truth[40_000]), first_seen[&truth[40_000]]);
    }

    #[test]
    fn bytes_that_are_not_utf8_leave_nothing_behind() {
        let mut column = LowCardinality::default();
        assert!(column.intern_bytes(b"ab\xff").is_err());
        assert_eq!(column.dictionary_len(), 1);
        assert_eq!(column.intern_bytes(b"ab"), Ok(1));
        assert_eq!(column.intern_bytes(b"ab"), Ok(1));
    }
}
