//! Defaults of a schema in Avro's binary encoding.

use serde_json::Value;

use crate::event::avro::{Primitive, Schema, Shape, Type};
use crate::event::binary::{block, bytes, long};

/// Appends a default, given in Avro's JSON encoding of defaults; `None`: it is none of the type.
///
/// That of a union is the first branch that takes it. Bytes are text, each character a byte.
pub(super) fn write(schema: &Schema, avro: &Type, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    match avro {
        Type::Primitive(primitive, _) => match primitive {
            Primitive::Null => value.as_null()?,
            Primitive::Boolean => out.push(u8::from(value.as_bool()?)),
            Primitive::Int => long(i64::from(i32::try_from(value.as_i64()?).ok()?), out),
            Primitive::Long => long(value.as_i64()?, out),
            Primitive::Float => out.extend_from_slice(&(number(value)? as f32).to_le_bytes()),
            Primitive::Double => out.extend_from_slice(&number(value)?.to_le_bytes()),
            Primitive::Bytes => bytes(&raw(value)?, out),
            Primitive::String => bytes(value.as_str()?.as_bytes(), out),
        },
        Type::Array(items) => block(value.as_array()?, out, |item, out| write(schema, items, item, out))?,
        Type::Map(values) => {
            let entries: Vec<(&String, &Value)> = value.as_object()?.iter().collect();
            block(&entries, out, |(key, value), out| {
                bytes(key.as_bytes(), out);
                write(schema, values, value, out)
            })?;
        }
        Type::Union(branches) => {
            let start = out.len();
            for (at, branch) in branches.iter().enumerate() {
                out.truncate(start);
                long(at as i64, out);
                if write(schema, branch, value, out).is_some() {
                    return Some(());
                }
            }
            return None;
        }
        Type::Named(name) => match &schema.definition(name)?.of {
            Shape::Enum { symbols, .. } => {
                let symbol = value.as_str()?;
                long(symbols.iter().position(|other| other == symbol)? as i64, out);
            }
            Shape::Fixed { size, .. } => {
                let raw = raw(value)?;
                out.extend_from_slice((raw.len() == *size).then_some(&raw)?);
            }
            Shape::Record(fields) => {
                let members = value.as_object()?;
                for field in fields {
                    let value = members.get(&field.name).or(field.default.as_ref())?;
                    write(schema, &field.avro, value, out)?;
                }
            }
        },
    }
    Some(())
}

fn number(value: &Value) -> Option<f64> {
    match value.as_str() {
        None => value.as_f64(),
        // JSON has no other way to say them.
        Some("NaN") => Some(f64::NAN),
        Some("INF" | "Infinity") => Some(f64::INFINITY),
        Some("-INF" | "-Infinity") => Some(f64::NEG_INFINITY),
        Some(_) => None,
    }
}

fn raw(value: &Value) -> Option<Vec<u8>> {
    value.as_str()?.chars().map(|char| u8::try_from(u32::from(char)).ok()).collect()
}
