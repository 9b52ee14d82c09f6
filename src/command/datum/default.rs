//! The defaults that a schema gives its fields.

use serde_json::Value;

use super::Datum;
use crate::event::{EventType, Field, Kind};

/// What each field is where nobody says: null where it may be null, else the schema's default, if it has one.
pub fn defaults(event: &EventType) -> Vec<Option<Datum>> {
    let schema: Value = serde_json::from_str(&event.json).unwrap_or_default();
    let declared = |name: &str| {
        let fields = schema.get("fields")?.as_array()?;
        fields.iter().find(|field| field.get("name").and_then(Value::as_str) == Some(name))?.get("default")
    };
    let default = |field: &Field| match declared(&field.name) {
        _ if field.null_branch.is_some() => Some(Datum::Null),
        Some(value) => read(field, value),
        None => None,
    };
    event.fields.iter().map(default).collect()
}

/// Reads a default in Avro's JSON encoding, where a character of `bytes` is a byte.
fn read(field: &Field, value: &Value) -> Option<Datum> {
    let bytes = || value.as_str()?.chars().map(|char| u8::try_from(u32::from(char)).ok()).collect::<Option<Vec<u8>>>();
    match &field.kind {
        Kind::Boolean => value.as_bool().map(Datum::Boolean),
        Kind::Int | Kind::Long | Kind::Date | Kind::Timestamp(_) => value.as_i64().map(Datum::Integer),
        Kind::Float | Kind::Double => value.as_f64().map(Datum::Float),
        Kind::String | Kind::Uuid => value.as_str().map(|text| Datum::Text(text.to_owned())),
        Kind::Bytes => bytes().map(Datum::Bytes),
        Kind::Enum(symbols) => {
            symbols.iter().position(|symbol| Some(symbol.as_str()) == value.as_str()).map(Datum::Symbol)
        }
        Kind::Decimal { .. } => bytes().filter(|bytes| bytes.len() <= 16).map(|bytes| {
            let sign = if bytes.first().is_some_and(|first| first & 0x80 != 0) { -1 } else { 0 };
            Datum::Decimal(bytes.iter().fold(sign, |number: i128, byte| (number << 8) | i128::from(*byte)))
        }),
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
            {"name": "money", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, "default": "\u00FF"}
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
        ];
        assert_eq!(defaults(&event), expected);
    }
}
