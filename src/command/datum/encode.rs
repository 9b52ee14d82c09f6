//! Avro's binary encoding, framed: what a producer sends.
//!
//! Avro 1.12, "Binary Encoding".

use uuid::Uuid;

use super::Datum;
use crate::event::EventType;
use crate::event::avro::{Primitive, Shape, Type};
use crate::event::binary::{block, bytes, long};
use crate::event::wire::Writer;

/// A value that its field can't hold: a mistake of the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}` of type {kind} can't hold {value}")]
pub struct EncodeError {
    /// The field.
    pub field: String,
    /// Its Avro type.
    pub kind: &'static str,
    /// The value.
    pub value: String,
}

/// Appends the message of these values, one per field in the schema's order, framed as `writer` says.
///
/// # Errors
/// A value does not suit its field.
pub fn encode(event: &EventType, writer: Writer, values: &[Datum], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    writer.frame(out);
    Body { event, values, next: 0 }.write(&event.schema.root, out)
}

/// The values that are still to be written.
struct Body<'a> {
    event: &'a EventType,
    values: &'a [Datum],
    /// Position of the next field.
    next: usize,
}

impl Body<'_> {
    fn write(&mut self, avro: &Type, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let schema = &self.event.schema;
        match avro {
            Type::Union(branches) => {
                let columns = self.next..self.next + schema.columns(avro);
                let is_null = columns.clone().all(|at| self.value(at) == &Datum::Null);
                let at = branches.iter().position(|branch| null(branch) == is_null).unwrap_or(0);
                long(at as i64, out);
                match branches.get(at) {
                    Some(branch) if !null(branch) => self.write(branch, out),
                    _ => {
                        self.next = columns.end;
                        Ok(())
                    }
                }
            }
            Type::Primitive(Primitive::Null, _) => Ok(()),
            Type::Named(name) => match schema.definition(name).map(|definition| &definition.of) {
                Some(Shape::Record(fields)) => fields.iter().try_for_each(|field| self.write(&field.avro, out)),
                _ => self.put(avro, out),
            },
            _ => self.put(avro, out),
        }
    }

    fn value(&self, at: usize) -> &Datum {
        self.values.get(at).unwrap_or(&Datum::Null)
    }

    /// Writes the next field.
    fn put(&mut self, avro: &Type, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let (at, event) = (self.next, self.event);
        self.next += 1;
        put(event, avro, self.value(at), out).ok_or_else(|| EncodeError {
            field: event.fields.get(at).map(|field| field.name.clone()).unwrap_or_default(),
            kind: event.fields.get(at).map_or("", |field| field.kind.name()),
            value: format!("{:?}", self.value(at)),
        })
    }
}

fn null(avro: &Type) -> bool {
    matches!(avro, Type::Primitive(Primitive::Null, _))
}

/// Appends a value of a type that has one column; `None`: the type can't hold it.
fn put(event: &EventType, avro: &Type, value: &Datum, out: &mut Vec<u8>) -> Option<()> {
    match (avro, value) {
        (Type::Primitive(primitive, _), value) => match (primitive, value) {
            (Primitive::Boolean, Datum::Boolean(flag)) => out.push(u8::from(*flag)),
            (Primitive::Int, Datum::Integer(number)) => long(i64::from(i32::try_from(*number).ok()?), out),
            (Primitive::Long, Datum::Integer(number)) => long(*number, out),
            (Primitive::Float, Datum::Float(number)) => out.extend_from_slice(&(*number as f32).to_le_bytes()),
            (Primitive::Double, Datum::Float(number)) => out.extend_from_slice(&number.to_le_bytes()),
            (Primitive::String, Datum::Text(text)) => bytes(text.as_bytes(), out),
            (Primitive::Bytes, Datum::Bytes(value)) => bytes(value, out),
            (Primitive::Bytes, Datum::Decimal(unscaled)) => bytes(&big_endian(*unscaled), out),
            _ => return None,
        },
        (Type::Array(items), Datum::List(values)) => block(values, out, |value, out| put(event, items, value, out))?,
        (Type::Map(values), Datum::Entries(entries)) => block(entries, out, |(key, value), out| {
            bytes(key.as_bytes(), out);
            put(event, values, value, out)
        })?,
        (Type::Union(branches), value) => {
            let is_null = *value == Datum::Null;
            let at = branches.iter().position(|branch| null(branch) == is_null)?;
            long(at as i64, out);
            if !is_null {
                put(event, &branches[at], value, out)?;
            }
        }
        (Type::Named(name), value) => match (&event.schema.definition(name)?.of, value) {
            (Shape::Enum { symbols, .. }, Datum::Symbol(at)) if *at < symbols.len() => long(*at as i64, out),
            (Shape::Fixed { size, .. }, value) => out.extend_from_slice(&fixed(*size, value)?),
            _ => return None,
        },
        _ => return None,
    }
    Some(())
}

/// The bytes of a `fixed`.
fn fixed(size: usize, value: &Datum) -> Option<Vec<u8>> {
    let bytes = match value {
        Datum::Bytes(bytes) => bytes.clone(),
        Datum::Text(id) => Uuid::try_parse(id).ok()?.into_bytes().to_vec(),
        Datum::Decimal(unscaled) => {
            let digits = big_endian(*unscaled);
            let sign = if *unscaled < 0 { 0xFF } else { 0 };
            [vec![sign; size.saturating_sub(digits.len())], digits].concat()
        }
        _ => return None,
    };
    (bytes.len() == size).then_some(bytes)
}

/// Two's complement, big-endian, as short as the sign allows.
fn big_endian(unscaled: i128) -> Vec<u8> {
    let all = unscaled.to_be_bytes();
    let sign = if unscaled < 0 { 0xFF } else { 0 };
    // The first byte kept must carry the sign in its highest bit.
    let skip = all.windows(2).take_while(|pair| pair[0] == sign && (pair[1] ^ sign) & 0x80 == 0).count();
    all[skip..].to_vec()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use apache_avro::Schema;
    use apache_avro::types::Value;

    use super::*;
    use crate::event::{Field, Item, Kind, wire};

    const EVERY_KIND: &str = r#"{"type": "record", "name": "every_kind", "doc": "d", "fields": [
        {"name": "event_id", "type": {"type": "string", "logicalType": "uuid"}, "highwater": {"role": "id"}},
        {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-micros"}, "highwater": {"role": "time"}},
        {"name": "app", "type": "string", "highwater": {"role": "dimension"}},
        {"name": "environment", "type": "string", "highwater": {"role": "dimension"}},
        {"name": "flag", "type": "boolean"},
        {"name": "small", "type": "int"},
        {"name": "big", "type": "long"},
        {"name": "single", "type": "float"},
        {"name": "double", "type": "double"},
        {"name": "raw", "type": "bytes"},
        {"name": "color", "type": {"type": "enum", "name": "Color", "symbols": ["red", "green"]}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "money", "type": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 9}},
        {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 5}},
        {"name": "trace", "type": {"type": "fixed", "name": "Trace", "size": 16, "logicalType": "uuid"}},
        {"name": "exact", "type": {"type": "fixed", "name": "Exact", "size": 17, "logicalType": "decimal", "precision": 38}},
        {"name": "nanos", "type": {"type": "long", "logicalType": "timestamp-nanos"}},
        {"name": "local", "type": {"type": "long", "logicalType": "local-timestamp-micros"}},
        {"name": "noon", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "tags", "type": {"type": "array", "items": ["null", "string"]}},
        {"name": "colors", "type": ["null", {"type": "array", "items": "Color"}]},
        {"name": "counts", "type": {"type": "map", "values": "long"}},
        {"name": "nothing", "type": "null"},
        {"name": "host", "type": {"type": "record", "name": "Host", "fields": [
            {"name": "name", "type": "string"},
            {"name": "disk", "type": ["null", {"type": "record", "name": "Disk", "fields": [
                {"name": "free", "type": ["null", "long"]}, {"name": "kind", "type": ["null", "Color"]}]}]}]}},
        {"name": "only", "type": ["int"]},
        {"name": "null_first", "type": ["null", "long"], "default": null},
        {"name": "null_last", "type": ["long", "null"], "default": 0}
    ]}"#;

    fn random(field: &Field, rng: &mut fastrand::Rng) -> Datum {
        if field.nullable && rng.bool() { Datum::Null } else { random_of(&field.kind, rng) }
    }

    fn random_of(kind: &Kind, rng: &mut fastrand::Rng) -> Datum {
        let shift = rng.u32(0..64);
        let item = |item: &Item, rng: &mut fastrand::Rng| match item.nullable && rng.bool() {
            true => Datum::Null,
            false => random_of(&item.kind, rng),
        };
        match kind {
            Kind::Boolean => Datum::Boolean(rng.bool()),
            Kind::Int | Kind::Date => Datum::Integer(i64::from(rng.i32(..) >> shift.min(31))),
            Kind::TimeOfDay(_) => Datum::Integer(rng.i64(0..86_400_000)),
            Kind::Long | Kind::Timestamp(_) | Kind::LocalTimestamp(_) => Datum::Integer(rng.i64(..) >> shift),
            Kind::Float => Datum::Float(f64::from(rng.f32() * 1e6 - 5e5)),
            Kind::Double => Datum::Float(rng.f64() * 1e12 - 5e11),
            Kind::Uuid => Datum::Text(uuid::Uuid::from_u128(rng.u128(..)).to_string()),
            Kind::String => Datum::Text("grüße€".chars().cycle().take(rng.usize(0..200)).collect()),
            Kind::Bytes => Datum::Bytes((0..rng.usize(0..200)).map(|_| rng.u8(..)).collect()),
            Kind::Fixed(size) => Datum::Bytes((0..*size).map(|_| rng.u8(..)).collect()),
            Kind::Enum(symbols) => Datum::Symbol(rng.usize(0..symbols.len())),
            Kind::Decimal { .. } => Datum::Decimal(rng.i128(..) >> rng.u32(0..128)),
            Kind::Array(of) => Datum::List((0..rng.usize(0..4)).map(|_| item(of, rng)).collect()),
            Kind::Map(of) => Datum::Entries((0..rng.usize(0..4)).map(|n| (format!("k{n}"), item(of, rng))).collect()),
        }
    }

    /// The values of a record's fields as ours; a nested record's in its place, `nulls` where it is null.
    fn theirs(value: Value, out: &mut Vec<Datum>) {
        match value {
            Value::Record(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::Null if name == "nothing" => {}
                        Value::Union(_, inner) if name == "disk" && *inner == Value::Null => {
                            out.extend([Datum::Null, Datum::Null]);
                        }
                        value => theirs(value, out),
                    }
                }
            }
            Value::Union(_, inner) => theirs(*inner, out),
            value => out.push(their(value)),
        }
    }

    fn their(value: Value) -> Datum {
        match value {
            Value::Null => Datum::Null,
            Value::Union(_, inner) => their(*inner),
            Value::Boolean(flag) => Datum::Boolean(flag),
            Value::Int(number) | Value::Date(number) | Value::TimeMillis(number) => Datum::Integer(i64::from(number)),
            Value::Long(number)
            | Value::TimestampMicros(number)
            | Value::TimestampMillis(number)
            | Value::TimestampNanos(number)
            | Value::LocalTimestampMicros(number) => Datum::Integer(number),
            Value::Float(number) => Datum::Float(f64::from(number)),
            Value::Double(number) => Datum::Float(number),
            Value::String(text) => Datum::Text(text),
            Value::Uuid(id) => Datum::Text(id.to_string()),
            Value::Bytes(bytes) | Value::Fixed(_, bytes) => Datum::Bytes(bytes),
            Value::Enum(at, _) => Datum::Symbol(at as usize),
            Value::Decimal(decimal) => {
                let bytes: Vec<u8> = Vec::try_from(&decimal).unwrap();
                let sign = if bytes.first().is_some_and(|first| first & 0x80 != 0) { -1 } else { 0 };
                Datum::Decimal(bytes.iter().fold(sign, |number: i128, byte| (number << 8) | i128::from(*byte)))
            }
            Value::Array(items) => Datum::List(items.into_iter().map(their).collect()),
            Value::Map(entries) => {
                let mut entries: Vec<_> = entries.into_iter().map(|(key, value)| (key, their(value))).collect();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                Datum::Entries(entries)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_avro_library_reads_what_was_meant() {
        let event = EventType::parse("every_kind.avsc", EVERY_KIND).unwrap();
        let schema = Schema::parse_str(EVERY_KIND).unwrap();
        let mut rng = fastrand::Rng::with_seed(11);
        for _ in 0..2_000 {
            let values: Vec<Datum> = event.fields.iter().map(|field| random(field, &mut rng)).collect();
            let mut message = Vec::new();
            let writer = [Writer::Fingerprint(event.fingerprint), Writer::Id(7)][rng.usize(0..2)];
            encode(&event, writer, &values, &mut message).unwrap();
            let (framed, mut rest) = wire::split(Some(&message)).unwrap();
            assert_eq!(framed, writer);
            let read = apache_avro::reader::datum::GenericDatumReader::builder(&schema)
                .build()
                .unwrap()
                .read_value(&mut rest)
                .unwrap();
            assert!(rest.is_empty());
            let mut found = Vec::new();
            theirs(read, &mut found);
            assert_eq!(found, values);
        }
    }

    #[test]
    fn decimals_are_as_short_as_their_sign_allows() {
        let cases: [(i128, &[u8]); 8] = [
            (0, &[0]),
            (127, &[0x7F]),
            (128, &[0, 0x80]),
            (-1, &[0xFF]),
            (-128, &[0x80]),
            (-129, &[0xFF, 0x7F]),
            (i128::MAX, &i128::MAX.to_be_bytes()),
            (i128::MIN, &i128::MIN.to_be_bytes()),
        ];
        for (number, expected) in cases {
            assert_eq!(big_endian(number), expected, "{number}");
        }
    }

    #[test]
    fn a_value_of_another_type_is_refused() {
        let event = EventType::parse("every_kind.avsc", EVERY_KIND).unwrap();
        let mut rng = fastrand::Rng::with_seed(1);
        let good: Vec<Datum> = event.fields.iter().map(|field| random(field, &mut rng)).collect();
        let bad = [
            ("app", Datum::Null),
            ("flag", Datum::Integer(1)),
            ("small", Datum::Integer(1 << 40)),
            ("color", Datum::Symbol(2)),
            ("money", Datum::Float(1.0)),
            ("hash", Datum::Bytes(vec![1; 4])),
            ("trace", Datum::Text("x".into())),
            ("tags", Datum::List(vec![Datum::Integer(1)])),
            ("counts", Datum::List(Vec::new())),
            ("counts", Datum::Entries(vec![("a".into(), Datum::Null)])),
            ("host_name", Datum::Null),
            ("only", Datum::Null),
        ];
        for (name, value) in bad {
            let mut values = good.clone();
            values[event.position(name).unwrap()] = value;
            assert_eq!(encode(&event, Writer::Id(1), &values, &mut Vec::new()).unwrap_err().field, name);
        }
        let error = encode(&event, Writer::Id(1), &[], &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "field `event_id` of type uuid can't hold Null");
    }
}
