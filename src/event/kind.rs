//! What the values of a field are, and the ClickHouse type that holds them.

use super::avro::{Logical, Primitive, Schema, Shape, Type};
use super::error::Problem;

/// The Avro type of a field, logical type included, null and the form of its bytes apart.
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
    /// `fixed` of so many bytes
    Fixed(usize),
    /// `enum` with its symbols
    Enum(Vec<String>),
    /// `string` or `fixed` of 16 bytes with logical type `uuid`
    Uuid,
    /// `int` with logical type `date`: days since 1970-01-01
    Date,
    /// `int` or `long` with a logical type of a time of day
    TimeOfDay(TimeUnit),
    /// `long` with a timestamp logical type
    Timestamp(TimeUnit),
    /// `long` with a local timestamp logical type: what a clock on a wall showed
    LocalTimestamp(TimeUnit),
    /// `bytes` or `fixed` with logical type `decimal`
    Decimal {
        /// Decimal digits in all, at most 38.
        precision: u8,
        /// Digits behind the point.
        scale: u8,
    },
    /// `array`
    Array(Box<Item>),
    /// `map`, from strings
    Map(Box<Item>),
}

/// What an array or a map holds: none of them is an array or a map again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What its values are.
    pub kind: Kind,
    /// Whether it may be null.
    pub nullable: bool,
}

/// The unit of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
}

impl TimeUnit {
    /// How many make a second.
    pub fn per_second(self) -> i64 {
        match self {
            TimeUnit::Millis => 1_000,
            TimeUnit::Micros => 1_000_000,
            TimeUnit::Nanos => 1_000_000_000,
        }
    }

    /// Decimal digits of a second.
    fn digits(self) -> u8 {
        match self {
            TimeUnit::Millis => 3,
            TimeUnit::Micros => 6,
            TimeUnit::Nanos => 9,
        }
    }
}

/// A type without null, and whether null stood beside it.
pub(crate) fn without_null(avro: &Type) -> Result<(&Type, bool), Problem> {
    let is_null = |avro: &Type| matches!(avro, Type::Primitive(Primitive::Null, _));
    let Type::Union(branches) = avro else { return Ok((avro, is_null(avro))) };
    match branches.as_slice() {
        [only] => Ok((only, is_null(only))),
        [null, other] | [other, null] if is_null(null) => Ok((other, true)),
        _ => Err(Problem::Union),
    }
}

impl Kind {
    /// The kind of a type that has one column.
    pub(super) fn of(avro: &Type, schema: &Schema) -> Result<Kind, Problem> {
        let unsupported = || Problem::Type(schema.name(avro));
        Ok(match avro {
            Type::Primitive(primitive, None) => match primitive {
                Primitive::Null => return Err(unsupported()),
                Primitive::Boolean => Kind::Boolean,
                Primitive::Int => Kind::Int,
                Primitive::Long => Kind::Long,
                Primitive::Float => Kind::Float,
                Primitive::Double => Kind::Double,
                Primitive::Bytes => Kind::Bytes,
                Primitive::String => Kind::String,
            },
            Type::Primitive(_, Some(logical)) => Kind::logical(*logical).ok_or_else(unsupported)??,
            Type::Array(items) => Kind::Array(Box::new(Item::of(items, schema)?)),
            Type::Map(values) => Kind::Map(Box::new(Item::of(values, schema)?)),
            Type::Union(_) => return Err(Problem::Union),
            Type::Named(name) => match schema.definition(name).map(|definition| &definition.of) {
                Some(Shape::Enum { symbols, .. }) => Kind::Enum(symbols.clone()),
                Some(Shape::Fixed { size: 0, .. }) => return Err(unsupported()),
                Some(Shape::Fixed { size, logical: None }) => Kind::Fixed(*size),
                Some(Shape::Fixed { logical: Some(logical), .. }) => {
                    Kind::logical(*logical).ok_or_else(unsupported)??
                }
                Some(Shape::Record(_)) | None => return Err(unsupported()),
            },
        })
    }

    /// The kind of a logical type; `None`: it has no column.
    fn logical(logical: Logical) -> Option<Result<Kind, Problem>> {
        Some(Ok(match logical {
            Logical::Uuid => Kind::Uuid,
            Logical::Date => Kind::Date,
            Logical::Time(unit) => Kind::TimeOfDay(unit),
            Logical::Timestamp(unit) => Kind::Timestamp(unit),
            Logical::LocalTimestamp(unit) => Kind::LocalTimestamp(unit),
            Logical::Decimal { precision, scale } => match (u8::try_from(precision), u8::try_from(scale)) {
                (Ok(precision @ 1..=38), Ok(scale)) => Kind::Decimal { precision, scale },
                _ => return Some(Err(Problem::Precision(precision))),
            },
            Logical::Duration => return Some(Err(Problem::Duration)),
            Logical::BigDecimal => return None,
        }))
    }

    /// Whether its values are few and repeat, so that a dictionary holds them.
    pub(crate) fn is_enum(&self) -> bool {
        matches!(self, Kind::Enum(_))
    }

    /// Whether a null among its values can be told from a zero; arrays and maps are empty instead, enums ''.
    pub(crate) fn has_null(&self) -> bool {
        !matches!(self, Kind::Enum(_) | Kind::Array(_) | Kind::Map(_))
    }

    /// What Avro calls it: the logical type where it has one.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Boolean => "boolean",
            Kind::Int => "int",
            Kind::Long => "long",
            Kind::Float => "float",
            Kind::Double => "double",
            Kind::String => "string",
            Kind::Bytes => "bytes",
            Kind::Fixed(_) => "fixed",
            Kind::Enum(_) => "enum",
            Kind::Uuid => "uuid",
            Kind::Date => "date",
            Kind::TimeOfDay(TimeUnit::Millis) => "time-millis",
            Kind::TimeOfDay(_) => "time-micros",
            Kind::Timestamp(TimeUnit::Millis) => "timestamp-millis",
            Kind::Timestamp(TimeUnit::Micros) => "timestamp-micros",
            Kind::Timestamp(TimeUnit::Nanos) => "timestamp-nanos",
            Kind::LocalTimestamp(TimeUnit::Millis) => "local-timestamp-millis",
            Kind::LocalTimestamp(TimeUnit::Micros) => "local-timestamp-micros",
            Kind::LocalTimestamp(TimeUnit::Nanos) => "local-timestamp-nanos",
            Kind::Decimal { .. } => "decimal",
            Kind::Array(_) => "array",
            Kind::Map(_) => "map",
        }
    }

    /// The ClickHouse type that holds it, null apart.
    ///
    /// `fixed` is a `String`, as `FixedString` is refused beyond 256 bytes and takes zeros at the end for nothing.
    pub(super) fn clickhouse(&self) -> String {
        match self {
            Kind::Boolean => "Bool".to_owned(),
            Kind::Int | Kind::TimeOfDay(TimeUnit::Millis) => "Int32".to_owned(),
            Kind::Long | Kind::TimeOfDay(_) => "Int64".to_owned(),
            Kind::Float => "Float32".to_owned(),
            Kind::Double => "Float64".to_owned(),
            Kind::String | Kind::Bytes | Kind::Fixed(_) => "String".to_owned(),
            Kind::Enum(_) => "LowCardinality(String)".to_owned(),
            Kind::Uuid => "UUID".to_owned(),
            Kind::Date => "Date32".to_owned(),
            // A local time has no zone: in UTC ClickHouse shows what the clock showed.
            Kind::Timestamp(unit) | Kind::LocalTimestamp(unit) => format!("DateTime64({}, 'UTC')", unit.digits()),
            Kind::Decimal { precision, scale } => format!("Decimal({precision}, {scale})"),
            Kind::Array(item) => format!("Array({})", item.clickhouse()),
            Kind::Map(value) => format!("Map(String, {})", value.clickhouse()),
        }
    }

    /// What a number of this kind counts, where its column does not say it.
    pub(super) fn implied_unit(&self) -> Option<&'static str> {
        match self {
            Kind::TimeOfDay(TimeUnit::Millis) => Some("ms since midnight"),
            Kind::TimeOfDay(_) => Some("µs since midnight"),
            Kind::LocalTimestamp(_) => Some("local time, of no zone"),
            _ => None,
        }
    }
}

impl Item {
    fn of(avro: &Type, schema: &Schema) -> Result<Item, Problem> {
        let (inner, nullable) = without_null(avro)?;
        match Kind::of(inner, schema) {
            Ok(Kind::Array(_) | Kind::Map(_)) | Err(Problem::Type(_)) => Err(Problem::Item(schema.name(inner))),
            kind => Ok(Item { kind: kind?, nullable }),
        }
    }

    /// Whether its values are `Nullable` in ClickHouse.
    pub(crate) fn is_nullable(&self) -> bool {
        self.nullable && self.kind.has_null()
    }

    /// The ClickHouse type that holds it.
    pub(crate) fn clickhouse(&self) -> String {
        let inner = self.kind.clickhouse();
        if self.is_nullable() { format!("Nullable({inner})") } else { inner }
    }
}
