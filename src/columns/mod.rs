//! Avro values as ClickHouse columns: the decode plan compiled from a schema, the column buffers it fills, and the
//! Native block they are sent as.

mod decoder;
pub mod native;
mod values;

pub use decoder::{DecodeError, Decoder, Row};
pub use values::{Column, Distributions, LowCardinality, Strings, Values};

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
