//! What can be wrong with a message's bytes.

use std::sync::Arc;

/// Why a message's bytes are not the event they claim to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// The field that could not be read; `None`: the message as a whole.
    pub field: Option<Arc<str>>,
    /// What is wrong.
    pub fault: Fault,
}

impl DecodeError {
    /// A short name to group dead letters by.
    pub fn name(&self) -> &'static str {
        self.fault.name()
    }
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.field {
            Some(field) => write!(f, "field `{field}`: {}", self.fault),
            None => write!(f, "{}", self.fault),
        }
    }
}

impl std::error::Error for DecodeError {}

/// What is wrong with a message's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The message ends within the field.
    #[error("{needed} bytes were to follow and only {left} are left; it was cut, or written with another schema")]
    Truncated {
        /// Bytes that were to follow.
        needed: u64,
        /// Bytes left.
        left: usize,
    },
    /// The message goes on after its last field.
    #[error("{0} bytes follow after the last field; it was written with another schema than its header names")]
    TrailingBytes(usize),
    /// A variable-length number of more than 64 bits.
    #[error("a number does not end within 64 bits; it was written with another schema than its header names")]
    BadVarint,
    /// An int of more than 32 bits.
    #[error("{0} is too large for an Avro int; make the field a long, or send a smaller number")]
    IntOutOfRange(i64),
    /// A negative length.
    #[error("a length is negative ({0}); it was written with another schema than its header names")]
    BadLength(i64),
    /// A boolean that is neither 0 nor 1.
    #[error("a boolean is the byte {0}, not 0 or 1; it was written with another schema than its header names")]
    BadBoolean(u8),
    /// A string that is not UTF-8.
    #[error("it is not UTF-8; encode it as UTF-8 or make the field bytes")]
    BadUtf8,
    /// An enum's index beyond its symbols.
    #[error("symbol {index} of {symbols}; it was written with a newer schema than its header names")]
    UnknownSymbol {
        /// The index.
        index: i64,
        /// How many symbols there are.
        symbols: u32,
    },
    /// A symbol that the writer's schema has and the reader's has not.
    #[error("symbol {0} of its writer's schema is unknown here; add it to the enum, or give the enum a default")]
    UnreadableSymbol(u32),
    /// A branch beyond those of its union.
    #[error("branch {branch} of a union of {branches}; it was written with another schema than its header names")]
    UnknownBranch {
        /// The branch.
        branch: i64,
        /// How many there are.
        branches: usize,
    },
    /// A branch of the writer's union that the reader has no type for.
    #[error("branch {0} of its writer's union can't be read; let the field be of that type or null too")]
    UnreadableBranch(usize),
    /// A map that has a key twice.
    #[error("a key stands twice in a map; send each key once")]
    DuplicateKey,
    /// Records within each other without end.
    #[error("more than {0} values are nested within each other; send fewer")]
    TooDeep(u32),
    /// A UUID in another form than its 36 characters.
    #[error("it is not a UUID; write it as 36 characters, like 0198c1f2-6a4e-7d10-8f3b-2c5d9e7a1b04")]
    BadUuid,
    /// A decimal of more digits than its schema allows.
    #[error("it has more than the {precision} digits of its decimal type; send a smaller number or widen the type")]
    DecimalTooWide {
        /// Digits allowed.
        precision: u8,
    },
    /// A date that ClickHouse can't hold.
    #[error("day {0} since 1970 is outside 1900-01-01 to 2299-12-31; send a date, or null where there is none")]
    DateOutOfRange(i32),
    /// A timestamp that ClickHouse can't hold.
    #[error("{0} since 1970 is outside 1900 to 2299; check its unit against the schema's")]
    TimestampOutOfRange(i64),
    /// An event time that the tables can't hold.
    #[error("event time {0} since 1970 is after 2105-12-31; check its unit against the schema's")]
    TimeOutOfRange(i64),
    /// No event time: zero or less.
    #[error("event time {0} is no time; send when the event happened")]
    MissingTime(i64),
    /// No id: the empty string or the nil UUID.
    #[error("the id is empty; give each event one of its own and send it again with every retry")]
    MissingId,
    /// The columns are not those of this decoder.
    #[error("the column buffers belong to another event type; make them with this type's decoder")]
    WrongColumns,
}

impl Fault {
    /// A short name to group dead letters by.
    pub fn name(&self) -> &'static str {
        match self {
            Fault::Truncated { .. } => "truncated",
            Fault::TrailingBytes(_) => "trailing_bytes",
            Fault::BadVarint => "bad_varint",
            Fault::IntOutOfRange(_) => "int_out_of_range",
            Fault::BadLength(_) => "bad_length",
            Fault::BadBoolean(_) => "bad_boolean",
            Fault::BadUtf8 => "bad_utf8",
            Fault::UnknownSymbol { .. } => "unknown_symbol",
            Fault::UnreadableSymbol(_) => "unreadable_symbol",
            Fault::UnknownBranch { .. } => "unknown_branch",
            Fault::UnreadableBranch(_) => "unreadable_branch",
            Fault::DuplicateKey => "duplicate_key",
            Fault::TooDeep(_) => "too_deep",
            Fault::BadUuid => "bad_uuid",
            Fault::DecimalTooWide { .. } => "decimal_too_wide",
            Fault::DateOutOfRange(_) => "date_out_of_range",
            Fault::TimestampOutOfRange(_) => "timestamp_out_of_range",
            Fault::TimeOutOfRange(_) => "time_out_of_range",
            Fault::MissingTime(_) => "missing_time",
            Fault::MissingId => "missing_id",
            Fault::WrongColumns => "wrong_columns",
        }
    }
}
