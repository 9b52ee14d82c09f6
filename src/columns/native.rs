//! ClickHouse's Native format: one block, as `INSERT … FORMAT Native` takes it over HTTP.
//!
//! ```text
//! columns (varuint), rows (varuint), then of each column: name, type (strings: varuint length, bytes), data
//! ```
//! There is no block header here: that belongs to the native protocol. Numbers are little-endian. The layouts were
//! checked against ClickHouse 26.7: every type inserted, read back and compared.

use std::ops::Range;

use super::values::start;
use super::{Column, Distributions, LowCardinality, Nested, Strings, Values};

/// Version of `LowCardinality`'s serialization: dictionaries per block.
const LOW_CARDINALITY_VERSION: u64 = 1;
/// A block that brings its own keys (0x200), which replace those of the block before (0x400), and uses no other.
const LOW_CARDINALITY_FLAGS: u64 = 0x600;
/// After so many bytes whoever takes what is written may do so.
pub const PIECE: usize = 256 << 10;
/// Numbers written between two looks at how much there is.
const NUMBERS: usize = 4_096;

/// Appends one block: these rows of these columns.
///
/// A `SimpleAggregateFunction(f, T)` is written as its `T`. Dictionaries are sent whole, or without the entries that no
/// row of the range has where they have more entries than the range has rows.
///
/// # Panics
/// Where a column ends before the range does: a block with a shorter column is no block.
pub fn encode(columns: &[&Column], rows: Range<usize>, out: &mut Vec<u8>) {
    encode_piecewise(columns, rows, out, &mut |_| {});
}

/// As [`encode`], with a call whenever [`PIECE`] bytes are there, which may take away what has been written.
///
/// # Panics
/// As [`encode`].
pub fn encode_piecewise(
    columns: &[&Column],
    rows: Range<usize>,
    out: &mut Vec<u8>,
    written: &mut dyn FnMut(&mut Vec<u8>),
) {
    let out = &mut Out { bytes: out, written };
    write_varuint(columns.len() as u64, out);
    write_varuint(rows.len() as u64, out);
    for column in columns {
        write_string(column.name.as_bytes(), out);
        write_string(column.clickhouse_type.as_bytes(), out);
        // Without rows ClickHouse expects nothing of a column, not even a dictionary's version.
        if rows.is_empty() {
            continue;
        }
        write_prefix(&column.values, out);
        write_data(column, rows.clone(), out);
    }
}

/// What has been written, and who may take it away.
struct Out<'a> {
    bytes: &'a mut Vec<u8>,
    written: &'a mut dyn FnMut(&mut Vec<u8>),
}

impl Out<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// To be called after each of many pieces, none of them long.
    fn piece(&mut self) {
        if self.bytes.len() >= PIECE {
            (self.written)(self.bytes);
        }
    }
}

/// What stands before all data of a column, those of its items included.
fn write_prefix(values: &Values, out: &mut Out<'_>) {
    match values {
        Values::LowCardinality(_) => out.put(&LOW_CARDINALITY_VERSION.to_le_bytes()),
        Values::Nested(nested) => nested.columns.iter().for_each(|column| write_prefix(&column.values, out)),
        _ => {}
    }
}

fn write_data(column: &Column, rows: Range<usize>, out: &mut Out<'_>) {
    if let Some(nulls) = &column.nulls {
        out.put(&nulls[rows.clone()]);
        out.piece();
    }
    write_values(&column.values, &column.clickhouse_type, rows, out);
}

fn write_values(values: &Values, clickhouse_type: &str, rows: Range<usize>, out: &mut Out<'_>) {
    match values {
        Values::UInt8(values) => {
            out.put(&values[rows]);
            out.piece();
        }
        Values::UInt32(values) => write_numbers(&values[rows], out, u32::to_le_bytes),
        Values::UInt64(values) => write_numbers(&values[rows], out, u64::to_le_bytes),
        Values::Int32(values) => write_numbers(&values[rows], out, i32::to_le_bytes),
        Values::Int64(values) => write_numbers(&values[rows], out, i64::to_le_bytes),
        Values::Float32(values) => write_numbers(&values[rows], out, f32::to_le_bytes),
        Values::Float64(values) => write_numbers(&values[rows], out, f64::to_le_bytes),
        // A decimal's digits decide how wide it is, and what was decoded has no more digits than that.
        Values::Int128(values) => match decimal_precision(clickhouse_type) {
            Some(..=9) => write_numbers(&values[rows], out, |value| (value as i32).to_le_bytes()),
            Some(10..=18) => write_numbers(&values[rows], out, |value| (value as i64).to_le_bytes()),
            _ => write_numbers(&values[rows], out, i128::to_le_bytes),
        },
        // Two halves, the high one first, each little-endian.
        Values::Uuid(values) => write_numbers(&values[rows], out, |value| value.rotate_left(64).to_le_bytes()),
        Values::String(values) => write_strings(values, rows, out),
        Values::LowCardinality(values) => write_low_cardinality(values, rows, out),
        Values::Distributions(values) => write_distributions(values, rows, out),
        Values::Nested(values) => write_nested(values, rows, out),
    }
}

/// The precision in `Decimal(P, S)`, also within `Nullable` or `SimpleAggregateFunction`.
fn decimal_precision(clickhouse_type: &str) -> Option<u8> {
    let (_, parameters) = clickhouse_type.split_once("Decimal(")?;
    parameters.split_once(',')?.0.trim().parse().ok()
}

fn write_varuint(mut value: u64, out: &mut Out<'_>) {
    while value >= 0x80 {
        out.bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.bytes.push(value as u8);
}

fn write_string(value: &[u8], out: &mut Out<'_>) {
    write_varuint(value.len() as u64, out);
    out.put(value);
}

fn write_numbers<T: Copy, const N: usize>(values: &[T], out: &mut Out<'_>, bytes: impl Fn(T) -> [u8; N]) {
    for values in values.chunks(NUMBERS) {
        out.bytes.reserve(values.len() * N);
        out.bytes.extend(values.iter().flat_map(|&value| bytes(value)));
        out.piece();
    }
}

fn write_strings(values: &Strings, rows: Range<usize>, out: &mut Out<'_>) {
    assert!(rows.end <= values.len(), "a column that is shorter than its block");
    for value in values.iter(rows) {
        write_string(value, out);
        out.piece();
    }
}

/// Where the arrays of these rows end, counted from the first of their elements; answers which elements they are.
fn write_ends(ends: &[usize], rows: Range<usize>, out: &mut Out<'_>) -> Range<usize> {
    let from = start(ends, rows.start);
    let ends = &ends[rows];
    write_numbers(ends, out, |end| ((end - from) as u64).to_le_bytes());
    from..ends.last().copied().unwrap_or(from)
}

fn write_distributions(values: &Distributions, rows: Range<usize>, out: &mut Out<'_>) {
    // A tuple's elements one after the other, each an array: where its rows end, then all elements.
    let buckets = write_ends(&values.ends, rows.clone(), out);
    write_numbers(&values.values[buckets], out, f64::to_le_bytes);
    let buckets = write_ends(&values.ends, rows, out);
    write_numbers(&values.counts[buckets], out, u64::to_le_bytes);
}

/// An array: where its rows end, then all items. A map is an array of pairs, all keys before all values.
fn write_nested(values: &Nested, rows: Range<usize>, out: &mut Out<'_>) {
    let items = write_ends(&values.ends, rows, out);
    values.columns.iter().for_each(|column| write_data(column, items.clone(), out));
}

fn write_low_cardinality(values: &LowCardinality, rows: Range<usize>, out: &mut Out<'_>) {
    let index = &values.index[rows];
    // Without items ClickHouse expects no dictionary either.
    if index.is_empty() {
        return;
    }
    if index.len() >= values.dictionary_len() {
        return write_dictionary(values.dictionary(), index.iter().copied(), out);
    }
    // New numbers in the order of first use; '' keeps 0, which is where ClickHouse looks for the default.
    let mut renumbered = vec![u32::MAX; values.dictionary_len()];
    let mut used = vec![0];
    renumbered[0] = 0;
    for &old in index {
        let new = &mut renumbered[old as usize];
        if *new == u32::MAX {
            *new = used.len() as u32;
            used.push(old);
        }
    }
    let dictionary = used.iter().map(|&old| values.entry(old));
    write_dictionary(dictionary, index.iter().map(|&old| renumbered[old as usize]), out);
}

fn write_dictionary<'a>(
    dictionary: impl ExactSizeIterator<Item = &'a str>,
    index: impl ExactSizeIterator<Item = u32>,
    out: &mut Out<'_>,
) {
    let entries = dictionary.len();
    let width: u64 = match entries {
        0..=0x100 => 0,
        0x101..=0x1_0000 => 1,
        _ => 2,
    };
    for number in [LOW_CARDINALITY_FLAGS | width, entries as u64] {
        out.put(&number.to_le_bytes());
    }
    for entry in dictionary {
        write_string(entry.as_bytes(), out);
        out.piece();
    }
    out.put(&(index.len() as u64).to_le_bytes());
    match width {
        0 => out.bytes.extend(index.map(|at| at as u8)),
        1 => out.bytes.extend(index.flat_map(|at| (at as u16).to_le_bytes())),
        _ => out.bytes.extend(index.flat_map(u32::to_le_bytes)),
    }
    out.piece();
}

#[cfg(test)]
mod tests;
