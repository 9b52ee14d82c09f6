//! The defaults that a schema gives its fields.

use serde_json::Value;
use uuid::Uuid;

use super::Datum;
use crate::event::avro::{RecordField, Shape, Type};
use crate::event::{EventType, Item, Kind, without_null};

/// What each field is where nobody says: null where it may be null, else the schema's default, if it has one.
pub fn defaults(event: &EventType) -> Vec<Option<Datum>> {
    let mut declared = Vec::with_capacity(event.fields.len());
    if let Some((_, members)) = event.schema.record() {
        gather(event, members, None, &mut declared);
    }
    let default = |(field, declared): (&crate::event::Field, Option<&Value>)| match field.nullable {
        true => Some(Datum::Null),
        false => read(&field.kind, declared?),
    };
    event.fields.iter().zip(declared).map(default).collect()
}

/// The defaults of a record's fields, those of nested records in their place; `given` is the default of the record.
fn gather<'a>(
    event: &'a EventType,
    members: &'a [RecordField],
    given: Option<&'a Value>,
    out: &mut Vec<Option<&'a Value>>,
) {
    for member in members {
        let default = given.and_then(|given| given.get(&member.name)).or(member.default.as_ref());
        let inner = without_null(&member.avro).map_or(&member.avro, |(inner, _)| inner);
        let shape = match inner {
            Type::Named(name) => event.schema.definition(name).map(|definition| &definition.of),
            _ => None,
        };
        match shape {
            Some(Shape::Record(members)) => gather(event, members, default, out),
            _ => out.extend(vec![default; event.schema.columns(inner)]),
        }
    }
}

/// Reads a default in Avro's JSON encoding, where a character of `bytes` and `fixed` is a byte.
fn read(kind: &Kind, value: &Value) -> Option<Datum> {
    let bytes = || value.as_str()?.chars().map(|char| u8::try_from(u32::from(char)).ok()).collect::<Option<Vec<u8>>>();
    let item = |item: &Item, value: &Value| match value {
        Value::Null if item.nullable => Some(Datum::Null),
        value => read(&item.kind, value),
    };
    match kind {
        Kind::Boolean => value.as_bool().map(Datum::Boolean),
        Kind::Int | Kind::Long | Kind::Date | Kind::TimeOfDay(_) | Kind::Timestamp(_) | Kind::LocalTimestamp(_) => {
            value.as_i64().map(Datum::Integer)
        }
        Kind::Float | Kind::Double => value.as_f64().map(Datum::Float),
        Kind::String => value.as_str().map(|text| Datum::Text(text.to_owned())),
        Kind::Uuid => {
            let text = value.as_str().and_then(|text| Uuid::try_parse(text).ok());
            let id = text.or_else(|| Uuid::from_slice(&bytes()?).ok());
            id.map(|id| Datum::Text(id.to_string()))
        }
        Kind::Bytes | Kind::Fixed(_) => bytes().map(Datum::Bytes),
        Kind::Enum(symbols) => {
            symbols.iter().position(|symbol| Some(symbol.as_str()) == value.as_str()).map(Datum::Symbol)
        }
        Kind::Decimal { .. } => bytes().filter(|bytes| bytes.len() <= 16).map(|bytes| {
            let sign = if bytes.first().is_some_and(|first| first & 0x80 != 0) { -1 } else { 0 };
            Datum::Decimal(bytes.iter().fold(sign, |number: i128, byte| (number << 8) | i128::from(*byte)))
        }),
        Kind::Array(of) => {
            value.as_array()?.iter().map(|value| item(of, value)).collect::<Option<_>>().map(Datum::List)
        }
        Kind::Map(of) => {
            let entries = value.as_object()?.iter().map(|(key, value)| Some((key.clone(), item(of, value)?)));
            entries.collect::<Option<_>>().map(Datum::Entries)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_null_or_the_schemas() {
        let json = r#"{"type": "record", "name": "e", "doc": "d", "fields": [
            {"name": "event_id", "type": "string", "highwater": {"role": "id"}},
            {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-micros"}, "highwater": {"role": "time"}},
            {"name": "app", "type": "string", "highwater": {"role": "dimension"}},
            {"name": "environment", "type": "string", "default": "production", "highwater": {"role": "dimension"}},
            {"name": "n", "type": "long", "default": 7},
            {"name": "maybe", "type": ["null", "long"], "default": null},
            {"name": "or_null", "type": ["long", "null"], "default": 3},
            {"name": "flag", "type": "boolean", "default": true},
            {"name": "color", "type": {"type": "enum", "name": "C", "symbols": ["red", "green"]}, "default": "green"},
            {"name": "raw", "type": "bytes", "default": "ÿ\u0000"},
            {"name": "money", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, "default": "\u00FF"},
            {"name": "tags", "type": {"type": "array", "items": ["null", "string"]}, "default": [null, "a"]},
            {"name": "counts", "type": {"type": "map", "values": "int"}, "default": {"a": 1}},
            {"name": "nothing", "type": "null"},
            {"name": "host", "type": {"type": "record", "name": "Host", "fields": [
                {"name": "name", "type": "string", "default": "unknown"},
                {"name": "port", "type": "int", "default": 80},
                {"name": "zone", "type": ["null", "string"], "default": null}]}, "default": {"name": "here"}}
        ]}"#;
        let event = EventType::parse("e.avsc", json).unwrap();
        let expected = [
            None,
            None,
            None,
            Some(Datum::Text("production".into())),
            Some(Datum::Integer(7)),
            Some(Datum::Null),
            Some(Datum::Null),
            Some(Datum::Boolean(true)),
            Some(Datum::Symbol(1)),
            Some(Datum::Bytes(vec![0xFF, 0])),
            Some(Datum::Decimal(-1)),
            Some(Datum::List(vec![Datum::Null, Datum::Text("a".into())])),
            Some(Datum::Entries(vec![("a".into(), Datum::Integer(1))])),
            Some(Datum::Text("here".into())),
            Some(Datum::Integer(80)),
            Some(Datum::Null),
        ];
        assert_eq!(defaults(&event), expected);
    }
}
