//! Avro values as ClickHouse columns: the decode plan compiled from a schema, the column buffers it fills, and the
//! Native block they are sent as.

mod avro;
mod decoder;
mod error;
mod low_cardinality;
pub mod native;
mod nested;
mod strings;
mod values;

pub use decoder::{Decoder, Mismatch, ResolveError, Row};
pub use error::{DecodeError, Fault};
pub use low_cardinality::LowCardinality;
pub use nested::Nested;
pub use strings::Strings;
pub use values::{Column, Distributions, Values};

/// A column of a table: what DDL and documentation need to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnDef {
    /// Its name.
    pub name: String,
    /// Its ClickHouse type, as in DDL and in a Native block's header.
    pub clickhouse_type: String,
    /// Its comment: the field's documentation with the unit.
    pub comment: String,
}

/// The rows of one event type and one month, column by column, with what the engine knows of each row.
///
/// `columns` follow the fields of the event type; a priced type has one more, `cost_usd`. All vectors have equal length
/// between two calls, so taking the last row back is a truncation.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    /// One per field, in the schema's order, then `cost_usd` for a priced type.
    pub columns: Vec<Column>,
    /// Kafka offset of each row, ascending.
    pub offsets: Vec<u64>,
    /// Event time of each row, microseconds since 1970, UTC.
    pub times: Vec<i64>,
}

impl Columns {
    /// Rows, counted by their times.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Keeps the first `rows` rows of everything; a column that has fewer (a row half pushed) keeps what it has.
    pub fn truncate(&mut self, rows: usize) {
        for column in &mut self.columns {
            column.truncate(rows);
        }
        self.offsets.truncate(rows);
        self.times.truncate(rows);
    }

    /// Bytes that values, dictionaries, offsets and times take in memory.
    pub fn bytes(&self) -> usize {
        let columns: usize = self.columns.iter().map(Column::bytes).sum();
        columns + size_of_val(self.offsets.as_slice()) + size_of_val(self.times.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_half_pushed_is_taken_back() {
        let column = |rows: usize| Column {
            name: "n".to_owned(),
            clickhouse_type: "Nullable(Int64)".to_owned(),
            values: Values::Int64(vec![7; rows]),
            nulls: Some(vec![0; rows]),
        };
        let mut columns = Columns { columns: vec![column(3), column(2)], offsets: vec![1, 2], times: vec![5, 6, 7] };
        assert_eq!((columns.len(), columns.bytes()), (3, 3 * 9 + 2 * 9 + 2 * 8 + 3 * 8));
        columns.truncate(2);
        assert_eq!((columns.len(), columns.columns[0].len(), columns.columns[1].len()), (2, 2, 2));
        assert_eq!((columns.offsets.len(), columns.bytes()), (2, 2 * 9 * 2 + 4 * 8));
        columns.truncate(5);
        assert_eq!(columns.len(), 2);
    }
}
