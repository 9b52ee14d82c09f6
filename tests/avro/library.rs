//! What the Avro library reads, as cells.

use apache_avro::Schema;
use apache_avro::types::Value;
use highwater::event::{EventType, Field, Kind};

use crate::cells::Cell;
use crate::model::Ty;

/// Reads a message with the writer's schema, and resolves it against the reader's where there is one; the bytes left.
#[allow(deprecated)]
pub fn decode(writer: &Schema, mut body: &[u8], reader: Option<&Schema>) -> Result<(Value, usize), String> {
    // Hostile lengths ask for memory that is not there.
    apache_avro::util::max_allocation_bytes(1 << 16);
    let value = apache_avro::from_avro_datum(writer, &mut body, reader).map_err(|error| error.to_string())?;
    Ok((value, body.len()))
}

/// The cells of an event.
pub fn cells(value: &Value, avro: &Ty, event: &EventType) -> Vec<Cell> {
    let (mut fields, mut out) = (event.fields.iter(), Vec::new());
    flatten(value, avro, &mut fields, &mut out);
    assert!(fields.next().is_none(), "fields without a value");
    out
}

fn flatten<'f>(value: &Value, avro: &Ty, fields: &mut impl Iterator<Item = &'f Field>, out: &mut Vec<Cell>) {
    let mut avro = avro;
    let mut value = value;
    if let (Ty::Union(branches), Value::Union(_, inner)) = (avro, value) {
        avro = branches.iter().find(|branch| **branch != Ty::Plain("null")).unwrap();
        value = inner;
    }
    match (avro, value) {
        (Ty::Record { fields: members, .. }, Value::Record(values)) => {
            members.iter().zip(values).for_each(|(member, (_, value))| flatten(value, &member.avro, fields, out));
        }
        (Ty::Record { fields: members, .. }, Value::Null) => {
            members.iter().for_each(|member| flatten(&Value::Null, &member.avro, fields, out));
        }
        (Ty::Union(branches), Value::Null) => {
            let inner = branches.iter().find(|branch| **branch != Ty::Plain("null")).unwrap();
            flatten(value, inner, fields, out);
        }
        (_, value) => {
            let field = fields.next().unwrap();
            out.push(cell(value, &field.kind, field.is_low_cardinality()));
        }
    }
}

fn cell(value: &Value, kind: &Kind, low_cardinality: bool) -> Cell {
    match (value, kind) {
        (Value::Union(_, inner), _) => cell(inner, kind, low_cardinality),
        (Value::Null, Kind::Array(_)) => Cell::List(Vec::new()),
        (Value::Null, Kind::Map(_)) => Cell::Map(Default::default()),
        (Value::Null, _) if low_cardinality => Cell::Bytes(Vec::new()),
        (Value::Null, _) => Cell::Null,
        (Value::Boolean(v), _) => Cell::Int((*v).into()),
        (Value::Int(v) | Value::Date(v) | Value::TimeMillis(v), _) => Cell::Int((*v).into()),
        (
            Value::Long(v)
            | Value::TimeMicros(v)
            | Value::TimestampMillis(v)
            | Value::TimestampMicros(v)
            | Value::TimestampNanos(v)
            | Value::LocalTimestampMillis(v)
            | Value::LocalTimestampMicros(v)
            | Value::LocalTimestampNanos(v),
            _,
        ) => Cell::Int((*v).into()),
        (Value::Float(v), _) => Cell::Int(v.to_bits().into()),
        (Value::Double(v), _) => Cell::Int(v.to_bits().into()),
        (Value::Bytes(v) | Value::Fixed(_, v), _) => Cell::Bytes(v.clone()),
        (Value::String(v) | Value::Enum(_, v), _) => Cell::Bytes(v.clone().into()),
        (Value::Uuid(v), _) => Cell::Uuid(v.as_u128()),
        (Value::Decimal(v), _) => {
            // The library reads a decimal of no bytes and can't give it back; it is 0, as in Java.
            let bytes: Vec<u8> = v.try_into().unwrap_or_default();
            let negative = bytes.first().is_some_and(|&first| first > 127);
            Cell::Int(bytes.iter().fold(if negative { -1 } else { 0 }, |sum, &b| (sum << 8) | i128::from(b)))
        }
        (Value::Array(items), Kind::Array(item)) => {
            let low_cardinality = matches!(item.kind, Kind::Enum(_));
            Cell::List(items.iter().map(|value| cell(value, &item.kind, low_cardinality)).collect())
        }
        (Value::Map(entries), Kind::Map(item)) => {
            let low_cardinality = matches!(item.kind, Kind::Enum(_));
            let entry =
                |(key, value): (&String, &Value)| (key.clone().into(), cell(value, &item.kind, low_cardinality));
            Cell::Map(entries.iter().map(entry).collect())
        }
        (other, kind) => panic!("{other:?} is no {kind:?}"),
    }
}
