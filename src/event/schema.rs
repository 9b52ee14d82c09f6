//! An annotated Avro schema, validated into an [`EventType`].

/// One event type, as its annotated schema declares it.
#[derive(Debug, Clone)]
pub struct EventType {
    /// The record's name; also the name of its ClickHouse table.
    pub name: String,
    /// The record's documentation.
    pub doc: String,
    /// CRC-64-AVRO (Rabin) of the parsing canonical form: what a single-object header carries.
    pub fingerprint: u64,
    /// The fields in the schema's order, which is the order of their bytes in a message.
    pub fields: Vec<Field>,
    /// Index of the one field with role `id`.
    pub id: usize,
    /// Index of the one field with role `time`.
    pub time: usize,
    /// The schema's JSON text, as read.
    pub json: String,
}

/// One field of an event.
#[derive(Debug, Clone)]
pub struct Field {
    /// Avro name, also the column's.
    pub name: String,
    /// Documentation, also the column's comment.
    pub doc: String,
    /// What its values are.
    pub kind: Kind,
    /// For a union with null: the position (0 or 1) of the null branch. `None`: the field is never null.
    pub null_branch: Option<u8>,
    /// What the field is for.
    pub role: Option<Role>,
    /// Unit of a measure: `ms`, `tokens`, `USD`, `bytes` …
    pub unit: Option<String>,
    /// Privacy rule.
    pub pii: Option<Pii>,
    /// What the field is to the price list.
    pub price: Option<Price>,
}

/// The Avro type of a field, logical type included, null apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `boolean`
    Boolean,
    /// `int`
    Int,
    /// `long`
    Long,
    /// `float`
    Float,
    /// `double`
    Double,
    /// `string`
    String,
    /// `bytes`
    Bytes,
    /// `enum` with its symbols
    Enum(Vec<String>),
    /// `string` with logical type `uuid`
    Uuid,
    /// `int` with logical type `date`: days since 1970-01-01
    Date,
    /// `long` with a timestamp logical type
    Timestamp(TimeUnit),
    /// `bytes` with logical type `decimal`
    Decimal {
        /// Decimal digits in all, at most 38.
        precision: u8,
        /// Digits behind the point.
        scale: u8,
    },
}

/// The unit of a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// Milliseconds since 1970.
    Millis,
    /// Microseconds since 1970.
    Micros,
}

/// What a field is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Names the event; equal ids within the duplicates window are one event.
    Id,
    /// When the event happened.
    Time,
    /// Whom it concerns: a user or an installation.
    Subject,
    /// The session it belongs to.
    Session,
    /// A low-cardinality string or enum to group by. Null is stored as ''.
    Dimension,
    /// A number to sum or to take percentiles of.
    Measure,
}

/// A field's privacy rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pii {
    /// Replaced by a keyed hash.
    Pseudonymize,
    /// Never stored.
    Drop,
}

/// What a field is to the price list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Price {
    /// The name that prices are listed under.
    Model,
    /// Uncached input tokens.
    Input,
    /// Output tokens.
    Output,
    /// Input tokens read from a cache.
    CacheRead,
    /// Input tokens written to a cache.
    CacheWrite,
}

/// Why a schema can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {}
