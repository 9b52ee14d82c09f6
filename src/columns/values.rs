//! Column buffers.

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
    /// `Decimal` of any precision up to 38, stored as `Decimal(P > 18, S)`
    Int128(Vec<i128>),
    /// `UUID`
    Uuid(Vec<u128>),
    /// `String`
    String(Strings),
    /// `LowCardinality(String)`
    LowCardinality(LowCardinality),
    /// `Tuple(Array(Float64), Array(UInt64))`: a distribution a row
    Distributions(Distributions),
}

/// Strings back to back.
#[derive(Debug, Clone, Default)]
pub struct Strings {
    /// End of each string in `bytes`.
    pub ends: Vec<usize>,
    /// All strings, concatenated.
    pub bytes: Vec<u8>,
}

/// Dictionary-encoded strings: the dictionary grows with the batch, entry 0 is ''.
#[derive(Debug, Clone, Default)]
pub struct LowCardinality {
    /// Dictionary index of each row.
    pub index: Vec<u32>,
}

/// Sparse histograms: representative values and their counts, a pair of arrays a row.
#[derive(Debug, Clone, Default)]
pub struct Distributions {
    /// End of each row's buckets in `values` and `counts`.
    pub ends: Vec<usize>,
    /// Representative value of each bucket, ascending within a row.
    pub values: Vec<f64>,
    /// Count of each bucket.
    pub counts: Vec<u64>,
}
