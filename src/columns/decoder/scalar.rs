//! Which values of one type are values of another.

use super::super::LowCardinality;
use super::super::{Strings, Values};
use super::read::{Digits, Form, Number, Read, Width};
use crate::columns::{Column, Nested};
use crate::event::avro::{Logical, Primitive};
use crate::event::{EventType, Item, Kind};

/// What a column takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) kind: &'a Kind,
    low_cardinality: bool,
    is_id: bool,
    is_time: bool,
}

impl<'a> Target<'a> {
    /// The column of a field.
    pub(super) fn column(event: &'a EventType, at: usize) -> Target<'a> {
        let field = &event.fields[at];
        let low_cardinality = field.is_low_cardinality();
        Target { kind: &field.kind, low_cardinality, is_id: at == event.id, is_time: at == event.time }
    }

    /// The items of an array, or the values of a map.
    pub(super) fn item(item: &'a Item) -> Target<'a> {
        Target { kind: &item.kind, low_cardinality: item.kind.is_enum(), is_id: false, is_time: false }
    }

    /// The keys of a map.
    pub(super) fn key() -> Target<'a> {
        Target { kind: &Kind::String, low_cardinality: false, is_id: false, is_time: false }
    }

    /// Whether it is the event's id or time, which no two events share for want of a value.
    pub(super) fn is_own(&self) -> bool {
        self.is_id || self.is_time
    }

    /// Its buffer without rows; the dictionary of an enum has its symbols.
    pub(super) fn values(&self) -> Values {
        match self.kind {
            Kind::Enum(symbols) => {
                let mut values = LowCardinality::default();
                for symbol in symbols {
                    values.intern(symbol);
                }
                Values::LowCardinality(values)
            }
            Kind::String if self.low_cardinality => Values::LowCardinality(LowCardinality::default()),
            Kind::String | Kind::Bytes | Kind::Fixed(_) => Values::String(Strings::default()),
            Kind::Boolean => Values::UInt8(Vec::new()),
            Kind::Int | Kind::Date => Values::Int32(Vec::new()),
            Kind::TimeOfDay(unit) if unit.per_second() == 1_000 => Values::Int32(Vec::new()),
            Kind::Long | Kind::TimeOfDay(_) | Kind::Timestamp(_) | Kind::LocalTimestamp(_) => Values::Int64(Vec::new()),
            Kind::Float => Values::Float32(Vec::new()),
            Kind::Double => Values::Float64(Vec::new()),
            Kind::Uuid => Values::Uuid(Vec::new()),
            Kind::Decimal { .. } => Values::Int128(Vec::new()),
            Kind::Array(item) => {
                Values::Nested(Nested { ends: Vec::new(), columns: vec![Target::item(item).inner(item)] })
            }
            Kind::Map(value) => {
                let keys = Item { kind: Kind::String, nullable: false };
                let columns = vec![Target::key().inner(&keys), Target::item(value).inner(value)];
                Values::Nested(Nested { ends: Vec::new(), columns })
            }
        }
    }

    /// The column of items, which has no name.
    fn inner(&self, item: &Item) -> Column {
        let nulls = item.is_nullable().then(Vec::new);
        Column { name: String::new(), clickhouse_type: item.clickhouse(), values: self.values(), nulls }
    }
}

/// How a primitive type is read into a column whose field is of another; `None`: it can't be.
pub(super) fn primitive(writer: Primitive, reader: Primitive, target: Target<'_>) -> Option<Read> {
    use Primitive::{Boolean, Bytes, Double, Float, Int, Long, String};
    let promotes = match (writer, reader) {
        (Int, Long | Float | Double) | (Long, Float | Double) | (Float, Double) => true,
        (Bytes, String) | (String, Bytes) => true,
        _ => writer == reader,
    };
    if !promotes {
        return None;
    }
    let width = match writer {
        Int => Some(Width::Int),
        Long => Some(Width::Long),
        _ => None,
    };
    let number = match writer {
        Int => Some(Number::Int),
        Long => Some(Number::Long),
        Float => Some(Number::Float),
        Double => Some(Number::Double),
        _ => None,
    };
    Some(match target.kind {
        Kind::Boolean if writer == Boolean => Read::Boolean,
        Kind::Int => Read::Int,
        Kind::TimeOfDay(unit) if unit.per_second() == 1_000 => Read::Int,
        Kind::Date => Read::Date,
        Kind::Long | Kind::TimeOfDay(_) => Read::Long(width?),
        Kind::Timestamp(unit) if target.is_time => Read::Time(width?, unit.per_second()),
        Kind::Timestamp(unit) | Kind::LocalTimestamp(unit) => Read::Timestamp(width?, unit.per_second()),
        Kind::Float => Read::Float(number?),
        Kind::Double => Read::Double(number?),
        Kind::String if target.is_id => Read::IdString,
        Kind::String if target.low_cardinality => Read::Dimension,
        // What is written as text is text, also where it is read as bytes.
        Kind::String => Read::String,
        Kind::Bytes if writer == String => Read::String,
        Kind::Bytes => Read::Bytes,
        Kind::Uuid if target.is_id => Read::IdUuid(Form::Text),
        Kind::Uuid => Read::Uuid(Form::Text),
        // Digits in text are not the number that a decimal's bytes are.
        Kind::Decimal { precision, .. } if writer == Bytes => Read::Decimal(Digits::Bytes, *precision),
        _ => return None,
    })
}

/// How a `fixed` is read into a column; `None`: it can't be.
pub(super) fn fixed(size: usize, target: Target<'_>) -> Option<Read> {
    Some(match target.kind {
        Kind::Fixed(_) => Read::Fixed(size),
        Kind::Uuid if target.is_id => Read::IdUuid(Form::Fixed),
        Kind::Uuid => Read::Uuid(Form::Fixed),
        Kind::Decimal { precision, .. } => Read::Decimal(Digits::Fixed(size), *precision),
        _ => return None,
    })
}

/// Why the bytes of one logical type are not those of another. A type without one may be read as either.
pub(super) fn logical_types_differ(writer: Option<Logical>, reader: Option<Logical>) -> Option<String> {
    match (writer?, reader?) {
        (Logical::Decimal { scale, .. }, Logical::Decimal { scale: other, .. }) if scale == other => None,
        (Logical::Decimal { scale, .. }, Logical::Decimal { scale: other, .. }) => {
            Some(format!("it is written with {scale} digits behind the point and read with {other}; use a new field"))
        }
        (writer, reader) if writer == reader => None,
        (writer, reader) => {
            Some(format!("it is written as {writer} and read as {reader}, which its bytes do not mean"))
        }
    }
}
