//! Column buffers.

use super::{LowCardinality, Nested, Strings};

/// One column: name, ClickHouse type, values, and which of them are null.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its name in the table.
    pub name: String,
    /// Its ClickHouse type, as in the Native block's header.
    pub clickhouse_type: String,
    /// The values; a null has a zero value in its place.
    pub values: Values,
    /// One byte a row, 1 = null. `None`: the type is not `Nullable`.
    pub nulls: Option<Vec<u8>>,
}

impl Column {
    /// A `LowCardinality(String)` column that says the same in every row (`_source`).
    pub fn constant_low_cardinality(name: &str, value: &str, rows: usize) -> Column {
        let mut values = LowCardinality::default();
        let index = values.intern(value);
        values.index.resize(rows, index);
        Column {
            name: name.to_owned(),
            clickhouse_type: "LowCardinality(String)".to_owned(),
            values: Values::LowCardinality(values),
            nulls: None,
        }
    }

    /// Rows it holds.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether it holds no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the first `rows` rows; does nothing where there are no more.
    pub fn truncate(&mut self, rows: usize) {
        self.values.truncate(rows);
        if let Some(nulls) = &mut self.nulls {
            nulls.truncate(rows);
        }
    }

    /// Bytes its values take in memory.
    pub fn bytes(&self) -> usize {
        self.values.bytes() + self.nulls.as_ref().map_or(0, Vec::len)
    }

    /// Whether this row is null.
    pub fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.get(row) == Some(&1))
    }
}

/// The values of a column, by their layout in memory (several ClickHouse types share one).
#[derive(Debug, Clone)]
pub enum Values {
    /// `Bool`, `UInt8`
    UInt8(Vec<u8>),
    /// `UInt32`, `DateTime`
    UInt32(Vec<u32>),
    /// `UInt64`
    UInt64(Vec<u64>),
    /// `Int32`, `Date32`
    Int32(Vec<i32>),
    /// `Int64`, `DateTime64`
    Int64(Vec<i64>),
    /// `Float32`
    Float32(Vec<f32>),
    /// `Float64`
    Float64(Vec<f64>),
    /// `Decimal` of any precision up to 38, as a whole number of its last digits
    Int128(Vec<i128>),
    /// `UUID`
    Uuid(Vec<u128>),
    /// `String`
    String(Strings),
    /// `LowCardinality(String)`
    LowCardinality(LowCardinality),
    /// `Tuple(Array(Float64), Array(UInt64))`: a distribution a row
    Distributions(Distributions),
    /// `Array(…)` or `Map(String, …)`
    Nested(Nested),
}

/// Evaluates `$body` with `$values` bound to the vector or buffer inside, whatever its type.
macro_rules! each {
    ($of:expr, $values:ident => $body:expr) => {
        match $of {
            Values::UInt8($values) => $body,
            Values::UInt32($values) => $body,
            Values::UInt64($values) => $body,
            Values::Int32($values) => $body,
            Values::Int64($values) => $body,
            Values::Float32($values) => $body,
            Values::Float64($values) => $body,
            Values::Int128($values) => $body,
            Values::Uuid($values) => $body,
            Values::String($values) => $body,
            Values::LowCardinality($values) => $body,
            Values::Distributions($values) => $body,
            Values::Nested($values) => $body,
        }
    };
}

impl Values {
    /// Rows it holds.
    pub fn len(&self) -> usize {
        each!(self, values => values.len())
    }

    /// Whether it holds no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the first `rows` rows; does nothing where there are no more.
    pub fn truncate(&mut self, rows: usize) {
        each!(self, values => values.truncate(rows));
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Values::String(values) => values.size(),
            Values::LowCardinality(values) => values.bytes(),
            Values::Distributions(values) => values.bytes(),
            Values::Nested(values) => values.bytes(),
            Values::UInt8(values) => size_of_val(values.as_slice()),
            Values::UInt32(values) => size_of_val(values.as_slice()),
            Values::UInt64(values) => size_of_val(values.as_slice()),
            Values::Int32(values) => size_of_val(values.as_slice()),
            Values::Int64(values) => size_of_val(values.as_slice()),
            Values::Float32(values) => size_of_val(values.as_slice()),
            Values::Float64(values) => size_of_val(values.as_slice()),
            Values::Int128(values) => size_of_val(values.as_slice()),
            Values::Uuid(values) => size_of_val(values.as_slice()),
        }
    }

    /// Appends the zero of the type (0, '', an empty distribution or array): what stands in the place of a null.
    pub fn push_zero(&mut self) {
        match self {
            Values::UInt8(values) => values.push(0),
            Values::UInt32(values) => values.push(0),
            Values::UInt64(values) => values.push(0),
            Values::Int32(values) => values.push(0),
            Values::Int64(values) => values.push(0),
            Values::Float32(values) => values.push(0.0),
            Values::Float64(values) => values.push(0.0),
            Values::Int128(values) => values.push(0),
            Values::Uuid(values) => values.push(0),
            Values::String(values) => values.push(b""),
            Values::LowCardinality(values) => values.index.push(0),
            Values::Distributions(values) => values.push(&[]),
            Values::Nested(values) => values.end_row(),
        }
    }
}

/// Sparse histograms: representative values and their counts, a pair of arrays a row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Distributions {
    /// End of each row's buckets in `values` and `counts`.
    pub ends: Vec<usize>,
    /// Representative value of each bucket, ascending within a row.
    pub values: Vec<f64>,
    /// Count of each bucket.
    pub counts: Vec<u64>,
}

impl Distributions {
    /// Appends a row of (representative value, count), ascending by value.
    pub fn push(&mut self, buckets: &[(f64, u64)]) {
        self.values.extend(buckets.iter().map(|bucket| bucket.0));
        self.counts.extend(buckets.iter().map(|bucket| bucket.1));
        self.ends.push(self.values.len());
    }

    /// The (values, counts) of a row; empty where there is no such row.
    pub fn get(&self, row: usize) -> (&[f64], &[u64]) {
        let range = start(&self.ends, row)..self.ends.get(row).copied().unwrap_or(0);
        (self.values.get(range.clone()).unwrap_or_default(), self.counts.get(range).unwrap_or_default())
    }

    /// Rows it holds.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it holds no row.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Keeps the first `rows` rows; does nothing where there are no more.
    pub fn truncate(&mut self, rows: usize) {
        if rows < self.ends.len() {
            let buckets = start(&self.ends, rows);
            self.values.truncate(buckets);
            self.counts.truncate(buckets);
            self.ends.truncate(rows);
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(self.ends.as_slice()) + size_of_val(self.values.as_slice()) + size_of_val(self.counts.as_slice())
    }
}

/// Where the entry at `at` begins: the end of the one before it.
pub(super) fn start(ends: &[usize], at: usize) -> usize {
    at.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_come_back_and_are_taken_back() {
        let mut rows = Distributions::default();
        rows.push(&[(-1.0, 2), (3.5, 4)]);
        rows.push(&[]);
        rows.push(&[(0.0, 9)]);
        assert_eq!(rows.get(0), (&[-1.0, 3.5][..], &[2, 4][..]));
        assert_eq!(rows.get(1), (&[][..], &[][..]));
        assert_eq!(rows.get(2), (&[0.0][..], &[9][..]));
        assert_eq!(rows.get(3), (&[][..], &[][..]));
        rows.truncate(1);
        assert_eq!((rows.len(), rows.values.len(), rows.counts.len()), (1, 2, 2));
    }

    #[test]
    fn a_constant_says_the_same_in_every_row() {
        let column = Column::constant_low_cardinality("_source", "1/events/0", 3);
        assert_eq!((column.len(), column.clickhouse_type.as_str()), (3, "LowCardinality(String)"));
        let Values::LowCardinality(values) = &column.values else { unreachable!("made as LowCardinality") };
        assert!((0..3).all(|row| values.get(row) == "1/events/0"));
    }

    #[test]
    fn zeros_are_values_of_every_layout() {
        let all = [
            Values::UInt8(vec![]),
            Values::UInt32(vec![]),
            Values::UInt64(vec![]),
            Values::Int32(vec![]),
            Values::Int64(vec![]),
            Values::Float32(vec![]),
            Values::Float64(vec![]),
            Values::Int128(vec![]),
            Values::Uuid(vec![]),
            Values::String(Strings::default()),
            Values::LowCardinality(LowCardinality::default()),
            Values::Distributions(Distributions::default()),
            Values::Nested(Nested::default()),
        ];
        for mut values in all {
            let empty = values.bytes();
            values.push_zero();
            assert_eq!(values.len(), 1);
            assert!(values.bytes() > empty, "{values:?}");
            values.truncate(0);
            assert!(values.is_empty());
            assert_eq!(values.bytes(), empty);
        }
    }
}
