//! Avro's binary encoding, framed: what a producer sends.
//!
//! Avro 1.12, "Binary Encoding".

use super::Datum;
use crate::event::wire::Writer;
use crate::event::{EventType, Field, Kind};

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
    for (at, field) in event.fields.iter().enumerate() {
        let value = values.get(at).unwrap_or(&Datum::Null);
        put(field, value, out).ok_or_else(|| EncodeError {
            field: field.name.clone(),
            kind: field.kind.name(),
            value: format!("{value:?}"),
        })?;
    }
    Ok(())
}

fn put(field: &Field, value: &Datum, out: &mut Vec<u8>) -> Option<()> {
    if let Some(null) = field.null_branch {
        let is_null = *value == Datum::Null;
        long(i64::from(if is_null { null } else { 1 - null }), out);
        if is_null {
            return Some(());
        }
    }
    match (&field.kind, value) {
        (Kind::Boolean, Datum::Boolean(flag)) => out.push(u8::from(*flag)),
        (Kind::Int | Kind::Date, Datum::Integer(number)) => long(i64::from(i32::try_from(*number).ok()?), out),
        (Kind::Long | Kind::Timestamp(_), Datum::Integer(number)) => long(*number, out),
        (Kind::Float, Datum::Float(number)) => out.extend_from_slice(&(*number as f32).to_le_bytes()),
        (Kind::Double, Datum::Float(number)) => out.extend_from_slice(&number.to_le_bytes()),
        (Kind::String | Kind::Uuid, Datum::Text(text)) => bytes(text.as_bytes(), out)?,
        (Kind::Bytes, Datum::Bytes(value)) => bytes(value, out)?,
        (Kind::Enum(symbols), Datum::Symbol(at)) if *at < symbols.len() => long(i64::try_from(*at).ok()?, out),
        (Kind::Decimal { .. }, Datum::Decimal(unscaled)) => bytes(&big_endian(*unscaled), out)?,
        _ => return None,
    }
    Some(())
}

/// Zigzag, then seven bits a byte, least significant first.
fn long(number: i64, out: &mut Vec<u8>) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn bytes(value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    long(i64::try_from(value.len()).ok()?, out);
    out.extend_from_slice(value);
    Some(())
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
    use crate::event::wire;

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
        {"name": "null_first", "type": ["null", "long"], "default": null},
        {"name": "null_last", "type": ["long", "null"], "default": 0}
    ]}"#;

    fn random(field: &Field, rng: &mut fastrand::Rng) -> Datum {
        if field.null_branch.is_some() && rng.bool() {
            return Datum::Null;
        }
        let shift = rng.u32(0..64);
        match &field.kind {
            Kind::Boolean => Datum::Boolean(rng.bool()),
            Kind::Int | Kind::Date => Datum::Integer(i64::from(rng.i32(..) >> shift.min(31))),
            Kind::Long | Kind::Timestamp(_) => Datum::Integer(rng.i64(..) >> shift),
            Kind::Float => Datum::Float(f64::from(rng.f32() * 1e6 - 5e5)),
            Kind::Double => Datum::Float(rng.f64() * 1e12 - 5e11),
            Kind::Uuid => Datum::Text(uuid::Uuid::from_u128(rng.u128(..)).to_string()),
            Kind::String => Datum::Text("grüße€".chars().cycle().take(rng.usize(0..200)).collect()),
            Kind::Bytes => Datum::Bytes((0..rng.usize(0..200)).map(|_| rng.u8(..)).collect()),
            Kind::Enum(symbols) => Datum::Symbol(rng.usize(0..symbols.len())),
            Kind::Decimal { .. } => Datum::Decimal(rng.i128(..) >> rng.u32(0..128)),
        }
    }

    fn theirs(field: &Field, value: Value) -> Datum {
        let value = match value {
            Value::Union(_, inner) => *inner,
            other => other,
        };
        match value {
            Value::Null => Datum::Null,
            Value::Boolean(flag) => Datum::Boolean(flag),
            Value::Int(number) | Value::Date(number) => Datum::Integer(i64::from(number)),
            Value::Long(number) | Value::TimestampMicros(number) | Value::TimestampMillis(number) => {
                Datum::Integer(number)
            }
            Value::Float(number) => Datum::Float(f64::from(number)),
            Value::Double(number) => Datum::Float(number),
            Value::String(text) => Datum::Text(text),
            Value::Uuid(id) => Datum::Text(id.to_string()),
            Value::Bytes(bytes) => Datum::Bytes(bytes),
            Value::Enum(at, _) => Datum::Symbol(at as usize),
            Value::Decimal(decimal) => {
                let bytes: Vec<u8> = Vec::try_from(&decimal).unwrap();
                let sign = if bytes.first().is_some_and(|first| first & 0x80 != 0) { -1 } else { 0 };
                Datum::Decimal(bytes.iter().fold(sign, |number: i128, byte| (number << 8) | i128::from(*byte)))
            }
            other => panic!("{}: {other:?}", field.name),
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
            let Value::Record(fields) = read else { panic!("no record") };
            assert!(rest.is_empty());
            let read: Vec<Datum> =
                fields.into_iter().zip(&event.fields).map(|((_, value), field)| theirs(field, value)).collect();
            assert_eq!(read, values);
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
        let field = |name: &str| &event.fields[event.position(name).unwrap()];
        let bad = [
            ("app", Datum::Null),
            ("flag", Datum::Integer(1)),
            ("small", Datum::Integer(1 << 40)),
            ("color", Datum::Symbol(2)),
            ("money", Datum::Float(1.0)),
        ];
        for (name, value) in bad {
            assert_eq!(put(field(name), &value, &mut Vec::new()), None, "{name}");
        }
        let error = encode(&event, Writer::Id(1), &[], &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "field `event_id` of type uuid can't hold Null");
    }
}
