//! Messages that could not be read: why, and the columns that keep them whole.

use crate::columns::{Column, Columns, DecodeError, LowCardinality, Strings, Values};
use crate::event::wire::FrameError;
use crate::ports::Record;

/// Why a message is a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Not framed as an event.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// Framed with a schema that is not among ours.
    #[error(
        "no schema in the plan has the fingerprint {0:016x}; add its .avsc to the schemas (a former one to former/ beside them), then \
         write it by `highwater dead-letters redrive`"
    )]
    UnknownSchema(u64),
    /// Framed with an id that the schema registry does not have.
    #[error("the schema registry has no schema of the id {0}; register it, or correct the producer")]
    UnknownId(u32),
    /// Written as an event type that is not among ours.
    #[error(
        "the schema of the id {id} is of `{name}`, and no schema in the plan describes it; add its .avsc, then write it by \
         `highwater dead-letters redrive`"
    )]
    UnknownType {
        /// The id in the schema registry.
        id: u32,
        /// The record's full name.
        name: String,
    },
    /// Its writer's schema can't be read with ours.
    #[error("the schema of the id {id} can't be read: {problem}")]
    Unresolvable {
        /// The id in the schema registry.
        id: u32,
        /// Why not.
        problem: String,
    },
    /// The body is not what the schema says.
    #[error("{event}: {error}")]
    Decode {
        /// The event type.
        event: String,
        /// What is wrong.
        error: DecodeError,
    },
    /// The event's time is too far ahead of its record's timestamp.
    #[error("event time {time_ms} ms is more than {limit_ms} ms ahead of the record's timestamp {timestamp_ms} ms")]
    Future {
        /// Event time, ms since 1970.
        time_ms: i64,
        /// Record timestamp, ms since 1970.
        timestamp_ms: i64,
        /// Allowed skew.
        limit_ms: i64,
    },
    /// The event's time is too far behind its record's timestamp.
    #[error("event time {time_ms} ms is more than {limit_ms} ms behind the record's timestamp {timestamp_ms} ms")]
    TooOld {
        /// Event time, ms since 1970.
        time_ms: i64,
        /// Record timestamp, ms since 1970.
        timestamp_ms: i64,
        /// Acceptance age.
        limit_ms: i64,
    },
}

impl Reason {
    /// A short name to group by, as stored in the column `reason`.
    pub fn name(&self) -> &'static str {
        match self {
            Reason::Frame(_) => "not_framed",
            Reason::UnknownSchema(_) | Reason::UnknownId(_) | Reason::UnknownType { .. } => "unknown_schema",
            Reason::Unresolvable { .. } => "unresolvable_schema",
            Reason::Decode { error, .. } => error.name(),
            Reason::Future { .. } => "in_the_future",
            Reason::TooOld { .. } => "too_old",
        }
    }
}

/// Columns of the table `dead_letters` beside `_source` and `_offset`: name, type, comment.
pub const COLUMNS: [(&str, &str, &str); 5] = [
    ("timestamp", "DateTime64(3, 'UTC')", "the record's own timestamp"),
    ("reason", "LowCardinality(String)", "short reason, to group by"),
    ("detail", "String", "what exactly is wrong"),
    ("key", "String", "the record's key"),
    ("payload", "String", "the record's value, whole"),
];

/// Empty columns for dead letters.
pub(super) fn new_columns() -> Columns {
    let values = [
        Values::Int64(Vec::new()),
        Values::LowCardinality(LowCardinality::default()),
        Values::String(Strings::default()),
        Values::String(Strings::default()),
        Values::String(Strings::default()),
    ];
    let column = |((name, kind, _), values): (&(&str, &str, &str), Values)| Column {
        name: (*name).to_owned(),
        clickhouse_type: (*kind).to_owned(),
        values,
        nulls: None,
    };
    Columns { columns: COLUMNS.iter().zip(values).map(column).collect(), ..Columns::default() }
}

/// The reason in this row.
pub(super) fn reason(columns: &Columns, row: usize) -> &str {
    let named = columns.columns.iter().find(|column| column.name == "reason");
    match named.map(|column| &column.values) {
        Some(Values::LowCardinality(values)) => values.get(row),
        _ => "",
    }
}

/// The record's timestamp within what `DateTime64(3)` and a month can hold: it comes from outside, and a bad one must
/// not keep the message from being kept.
pub(super) fn timestamp_ms(record: &Record<'_>) -> i64 {
    const YEAR_2106: i64 = 4_291_747_200_000;
    record.timestamp_ms.clamp(0, YEAR_2106 - 1)
}

/// Keeps a message whole, with the reason why it could not be read. Answers how long the words for it are.
pub(super) fn push(columns: &mut Columns, record: &Record<'_>, reason: &Reason) -> usize {
    let detail = reason.to_string();
    for (column, (name, ..)) in columns.columns.iter_mut().zip(COLUMNS) {
        match (&mut column.values, name) {
            (Values::Int64(values), _) => values.push(timestamp_ms(record)),
            (Values::LowCardinality(values), _) => values.push(reason.name()),
            (Values::String(values), "detail") => values.push(detail.as_bytes()),
            (Values::String(values), "key") => values.push(record.key.unwrap_or_default()),
            (Values::String(values), _) => values.push(record.payload.unwrap_or_default()),
            (other, name) => unreachable!("dead letter column {name} holds {other:?}"),
        }
    }
    columns.times.push(timestamp_ms(record) * 1_000);
    columns.offsets.push(record.offset);
    detail.len()
}
