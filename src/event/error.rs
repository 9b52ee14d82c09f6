//! What can be wrong with a schema.

use crate::config::nearest;

/// Why a schema can't be used: which file, which field, what is wrong there, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaError {
    /// The file, as the caller named it.
    pub file: String,
    /// The field, where it is about one.
    pub field: Option<String>,
    /// The line, from 1, that the field begins in.
    pub line: Option<u32>,
    /// What is wrong.
    pub problem: Problem,
}

impl std::fmt::Display for SchemaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ", field `{field}`")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for SchemaError {}

/// The keys of an annotation.
const ANNOTATIONS: [&str; 7] = ["role", "unit", "pii", "price", "examples", "range", "otel"];

/// "did you mean", if an annotation is near.
fn meant(key: &str) -> String {
    nearest(key, ANNOTATIONS.into_iter()).map_or_else(String::new, |near| format!("did you mean `{near}`? "))
}

/// What is wrong with a schema, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not JSON.
    #[error("it is not JSON ({0}); correct it at that place")]
    Json(String),
    /// Not an Avro schema.
    #[error("it is not a valid Avro schema: {0}; correct it by the Avro specification")]
    Avro(String),
    /// An Avro schema of something else.
    #[error("it is an Avro {0}, and an event is a record; make it `\"type\": \"record\"` with the fields of the event")]
    NotARecord(String),
    /// The table of that name is taken.
    #[error("the name `{0}` belongs to a table of highwater's own; call the record otherwise")]
    ReservedName(String),
    /// A column of that name is made by highwater.
    #[error("the column of this name is made by highwater; call the field otherwise")]
    ReservedColumn,
    /// A field that every event has is not there.
    #[error("it is missing, and every event has it; add {0}")]
    Missing(&'static str),
    /// A field that every event has, with another role than it must have.
    #[error("it must have the role `{0}`; add `\"highwater\": {{\"role\": \"{0}\"}}` to it")]
    MustHaveRole(&'static str),
    /// Id or time in a second field.
    #[error("it has the role `{role}`, which belongs to `{owner}`; take it from this field")]
    SecondRole {
        /// The role.
        role: &'static str,
        /// The field that has it in every event.
        owner: &'static str,
    },
    /// An Avro type without a column.
    #[error(
        "its type `{0}` is not supported; use boolean, int, long, float, double, string, bytes, an enum, \
         string + uuid, int + date, long + timestamp-millis or timestamp-micros, or bytes + decimal"
    )]
    Type(String),
    /// A union of something else than null and one type.
    #[error("a union may only be of null and one other type; write [\"null\", …] with exactly one type beside null")]
    Union,
    /// A logical type that Avro would ignore in silence.
    #[error(
        "the logical type `{0}` does not stand here, or not with these attributes; \
         supported are string + uuid, int + date, long + timestamp-millis or timestamp-micros, \
         and bytes + decimal with precision and scale"
    )]
    LogicalType(String),
    /// A logical type beside the type, where Avro ignores it.
    #[error(
        "`logicalType` stands beside the type, where Avro ignores it; \
         write `\"type\": {{\"type\": …, \"logicalType\": …}}`"
    )]
    MisplacedLogicalType,
    /// A decimal wider than ClickHouse's 128 bits.
    #[error("a decimal of precision {0} is too wide; use a precision of at most 38")]
    Precision(usize),
    /// The annotation is not an object.
    #[error("`highwater` must be an object such as {{\"role\": \"dimension\"}}")]
    NotAnObject,
    /// A key that means nothing.
    #[error("the annotation `{0}` is unknown; {meant}known are {known}", meant = meant(.0), known = ANNOTATIONS.join(", "))]
    UnknownKey(String),
    /// The same key twice.
    #[error("the annotation `{0}` stands there twice; take one away")]
    DuplicateKey(String),
    /// A value that the key can't have.
    #[error("the annotation `{key}` can't be {value}; it must be {allowed}")]
    Value {
        /// The annotation's key.
        key: String,
        /// Its value, as JSON.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// A role, price or rule on a type that can't carry it.
    #[error("`{annotation}` stands on a field of type {kind}; it needs {needed}")]
    Kind {
        /// The annotation, `key: value`.
        annotation: String,
        /// The field's type.
        kind: &'static str,
        /// Types it can stand on.
        needed: &'static str,
    },
    /// Null in a field that every event needs.
    #[error("an id or a time is never null; take null out of its type")]
    Nullable,
    /// An annotation that needs another role.
    #[error("`{annotation}` means nothing without the role `{role}`; add that role or take `{annotation}` away")]
    NeedsRole {
        /// The annotation's key.
        annotation: &'static str,
        /// The role it needs.
        role: &'static str,
    },
    /// An example that is none of the enum's symbols.
    #[error("the example `{0}` is not one of the symbols; take it out or add the symbol")]
    Example(String),
    /// A privacy rule on a field that every event needs.
    #[error("every event needs this field, so it can't have a privacy rule; take `pii` away")]
    PiiOnRequired,
    /// The same price annotation on two fields.
    #[error("`{other}` already has the price `{price}`; token classes are disjoint, so each has one field")]
    SecondPrice {
        /// The price annotation.
        price: &'static str,
        /// The field that has it already.
        other: String,
    },
    /// Prices that can't be applied.
    #[error("prices need a model and at least one token class; annotate {0}")]
    IncompletePrice(&'static str),
}
