//! The decoder against the Avro library: generated schemas, generated records, damaged bytes.

use apache_avro::Schema;
use apache_avro::types::Value;
use proptest::prelude::*;

use super::tests::{Cell, cells, snapshot};
use super::*;

/// A supported type with the values to try it with.
#[derive(Debug, Clone, Copy)]
enum Avro {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    String,
    Dimension,
    Bytes,
    Enum,
    Uuid,
    Date,
    Millis,
    Micros,
    Decimal(u8),
}

const KINDS: [Avro; 16] = [
    Avro::Boolean,
    Avro::Int,
    Avro::Long,
    Avro::Float,
    Avro::Double,
    Avro::String,
    Avro::Dimension,
    Avro::Bytes,
    Avro::Enum,
    Avro::Uuid,
    Avro::Date,
    Avro::Millis,
    Avro::Micros,
    Avro::Decimal(7),
    Avro::Decimal(18),
    Avro::Decimal(38),
];

impl Avro {
    fn schema(self, at: usize) -> String {
        match self {
            Avro::Boolean => r#""boolean""#.to_owned(),
            Avro::Int => r#""int""#.to_owned(),
            Avro::Long => r#""long""#.to_owned(),
            Avro::Float => r#""float""#.to_owned(),
            Avro::Double => r#""double""#.to_owned(),
            Avro::String | Avro::Dimension => r#""string""#.to_owned(),
            Avro::Bytes => r#""bytes""#.to_owned(),
            Avro::Enum => format!(r#"{{"type": "enum", "name": "E{at}", "symbols": ["A", "B", "C"]}}"#),
            Avro::Uuid => r#"{"type": "string", "logicalType": "uuid"}"#.to_owned(),
            Avro::Date => r#"{"type": "int", "logicalType": "date"}"#.to_owned(),
            Avro::Millis => r#"{"type": "long", "logicalType": "timestamp-millis"}"#.to_owned(),
            Avro::Micros => r#"{"type": "long", "logicalType": "timestamp-micros"}"#.to_owned(),
            Avro::Decimal(precision) => {
                format!(r#"{{"type": "bytes", "logicalType": "decimal", "precision": {precision}, "scale": 2}}"#)
            }
        }
    }

    /// A value as the Avro library writes it, and as our column must show it.
    fn value(self) -> BoxedStrategy<(Value, Cell)> {
        match self {
            Avro::Boolean => any::<bool>().prop_map(|v| (Value::Boolean(v), Cell::Int(v.into()))).boxed(),
            Avro::Int => any::<i32>().prop_map(|v| (Value::Int(v), Cell::Int(v.into()))).boxed(),
            Avro::Long => any::<i64>().prop_map(|v| (Value::Long(v), Cell::Int(v.into()))).boxed(),
            Avro::Float => any::<u32>().prop_map(|v| (Value::Float(f32::from_bits(v)), Cell::Int(v.into()))).boxed(),
            Avro::Double => any::<u64>().prop_map(|v| (Value::Double(f64::from_bits(v)), Cell::Int(v.into()))).boxed(),
            Avro::String => ".{0,40}".prop_map(|v| (Value::String(v.clone()), Cell::Bytes(v.into()))).boxed(),
            Avro::Dimension => "[a-cä]{0,3}".prop_map(|v| (Value::String(v.clone()), Cell::Bytes(v.into()))).boxed(),
            Avro::Bytes => prop::collection::vec(any::<u8>(), 0..40)
                .prop_map(|v| (Value::Bytes(v.clone()), Cell::Bytes(v)))
                .boxed(),
            Avro::Enum => prop_oneof![Just((0, "A")), Just((1, "B")), Just((2, "C"))]
                .prop_map(|(at, v)| (Value::Enum(at, v.to_owned()), Cell::Bytes(v.into())))
                .boxed(),
            Avro::Uuid => any::<u128>().prop_map(|v| (Value::Uuid(Uuid::from_u128(v)), Cell::Uuid(v))).boxed(),
            Avro::Date => (-25_567..=120_529i32).prop_map(|v| (Value::Date(v), Cell::Int(v.into()))).boxed(),
            Avro::Millis => (-2_208_988_800_000..10_413_792_000_000i64)
                .prop_map(|v| (Value::TimestampMillis(v), Cell::Int(v.into())))
                .boxed(),
            Avro::Micros => (-2_208_988_800_000_000..10_413_792_000_000_000i64)
                .prop_map(|v| (Value::TimestampMicros(v), Cell::Int(v.into())))
                .boxed(),
            Avro::Decimal(precision) => {
                let limit = 10i128.pow(precision.into());
                (1 - limit..limit, 1..=20usize)
                    .prop_map(|(v, least)| (Value::Decimal(signed_bytes(v, least).into()), Cell::Int(v)))
                    .boxed()
            }
        }
    }
}

/// Two's complement of at least so many bytes, greatest first.
fn signed_bytes(value: i128, least: usize) -> Vec<u8> {
    let fits = |bytes: usize| bytes >= 16 || (value >> (8 * bytes - 1)) == 0 || (value >> (8 * bytes - 1)) == -1;
    let length = (least..=20).find(|&bytes| fits(bytes)).unwrap_or(20);
    let padding = if value < 0 { 0xff } else { 0 };
    let wide = [&[padding; 4][..], &value.to_be_bytes()].concat();
    wide[20 - length..].to_vec()
}

#[derive(Debug, Clone)]
struct Case {
    schema: String,
    /// Rows of (what the library encodes, what the columns must hold).
    rows: Vec<(Value, Vec<Cell>)>,
}

/// A field after the required ones: its type, and where null stands.
fn fields() -> impl Strategy<Value = Vec<(Avro, Option<u8>)>> {
    let null = prop_oneof![Just(None), Just(Some(0)), Just(Some(1))];
    prop::collection::vec((prop::sample::select(KINDS.to_vec()), null), 1..24)
}

fn case() -> impl Strategy<Value = Case> {
    (fields(), any::<bool>(), any::<bool>()).prop_flat_map(|(fields, uuid_id, micros)| {
        let schema = schema(&fields, uuid_id, micros);
        let row = fields.iter().map(|&(kind, null)| nullable(kind, null)).collect::<Vec<_>>();
        let rows = prop::collection::vec((required(uuid_id, micros), row), 1..6);
        rows.prop_map(move |rows| Case {
            schema: schema.clone(),
            rows: rows.into_iter().map(|(required, more)| record(required.into_iter().chain(more))).collect(),
        })
    })
}

fn nullable(kind: Avro, null: Option<u8>) -> BoxedStrategy<(Value, Cell)> {
    let Some(null) = null else { return kind.value() };
    let low_cardinality = matches!(kind, Avro::Dimension | Avro::Enum);
    let of_null = if low_cardinality { Cell::Bytes(Vec::new()) } else { Cell::Null };
    prop_oneof![
        Just((Value::Union(null.into(), Box::new(Value::Null)), of_null)),
        kind.value().prop_map(move |(value, cell)| (Value::Union(1 - u32::from(null), Box::new(value)), cell)),
    ]
    .boxed()
}

fn required(uuid_id: bool, micros: bool) -> impl Strategy<Value = Vec<(Value, Cell)>> {
    let id = match uuid_id {
        true => (1..=u128::MAX).prop_map(|v| (Value::Uuid(Uuid::from_u128(v)), Cell::Uuid(v))).boxed(),
        false => ".{1,20}".prop_map(|v| (Value::String(v.clone()), Cell::Bytes(v.into()))).boxed(),
    };
    let time = match micros {
        true => (1..4_291_747_200_000_000i64).prop_map(|v| (Value::TimestampMicros(v), Cell::Int(v.into()))).boxed(),
        false => (1..4_291_747_200_000i64).prop_map(|v| (Value::TimestampMillis(v), Cell::Int(v.into()))).boxed(),
    };
    (id, time, Avro::Dimension.value(), Avro::Dimension.value()).prop_map(|(a, b, c, d)| vec![a, b, c, d])
}

fn record(values: impl Iterator<Item = (Value, Cell)>) -> (Value, Vec<Cell>) {
    let names = ["event_id", "occurred_at", "app", "environment"].map(str::to_owned).into_iter();
    let names = names.chain((4..).map(|at| format!("f{at}")));
    let (values, cells): (Vec<_>, Vec<_>) = values.unzip();
    (Value::Record(names.zip(values).collect()), cells)
}

fn schema(fields: &[(Avro, Option<u8>)], uuid_id: bool, micros: bool) -> String {
    let id = if uuid_id { Avro::Uuid } else { Avro::String }.schema(0);
    let time = if micros { Avro::Micros } else { Avro::Millis }.schema(1);
    let mut text = format!(
        r#"{{"type": "record", "name": "e", "fields": [
            {{"name": "event_id", "type": {id}, "highwater": {{"role": "id"}}}},
            {{"name": "occurred_at", "type": {time}, "highwater": {{"role": "time"}}}},
            {{"name": "app", "type": "string", "highwater": {{"role": "dimension"}}}},
            {{"name": "environment", "type": "string", "highwater": {{"role": "dimension"}}}}"#
    );
    for (at, (kind, null)) in (4..).zip(fields) {
        let inner = kind.schema(at);
        let avro = match null {
            None => inner,
            Some(0) => format!(r#"["null", {inner}]"#),
            Some(_) => format!(r#"[{inner}, "null"]"#),
        };
        let role = if matches!(kind, Avro::Dimension) { r#", "highwater": {"role": "dimension"}"# } else { "" };
        text += &format!(r#", {{"name": "f{at}", "type": {avro}{role}}}"#);
    }
    text + "]}"
}

#[allow(deprecated)]
fn encode(schema: &Schema, value: &Value) -> Vec<u8> {
    apache_avro::to_avro_datum(schema, value.clone()).unwrap()
}

#[allow(deprecated)]
fn their_decode(schema: &Schema, mut body: &[u8]) -> Option<(Value, usize)> {
    let value = apache_avro::from_avro_datum(schema, &mut body, None).ok()?;
    Some((value, body.len()))
}

/// What a column must show of a value that the library decoded.
fn cell_of(value: &Value, low_cardinality: bool) -> Cell {
    match value {
        Value::Null if low_cardinality => Cell::Bytes(Vec::new()),
        Value::Null => Cell::Null,
        Value::Boolean(v) => Cell::Int((*v).into()),
        Value::Int(v) | Value::Date(v) => Cell::Int((*v).into()),
        Value::Long(v) | Value::TimestampMillis(v) | Value::TimestampMicros(v) => Cell::Int((*v).into()),
        Value::Float(v) => Cell::Int(v.to_bits().into()),
        Value::Double(v) => Cell::Int(v.to_bits().into()),
        Value::Bytes(v) => Cell::Bytes(v.clone()),
        Value::String(v) | Value::Enum(_, v) => Cell::Bytes(v.clone().into()),
        Value::Uuid(v) => Cell::Uuid(v.as_u128()),
        Value::Decimal(v) => {
            // The library reads a decimal of no bytes and can't give it back; it is 0, as in Java.
            let bytes: Vec<u8> = v.try_into().unwrap_or_default();
            let negative = bytes.first().is_some_and(|&first| first > 127);
            Cell::Int(bytes.iter().fold(if negative { -1 } else { 0 }, |sum, &b| (sum << 8) | i128::from(b)))
        }
        Value::Union(_, inner) => cell_of(inner, low_cardinality),
        other => panic!("{other:?} is no field of ours"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn records_come_out_as_the_avro_library_wrote_them(case in case()) {
        let schema = Schema::parse_str(&case.schema).unwrap();
        let decoder = Decoder::compile(&EventType::parse("e.avsc", &case.schema).unwrap());
        let mut columns = decoder.new_columns();
        for (at, (value, expected)) in case.rows.iter().enumerate() {
            let body = encode(&schema, value);
            let before = snapshot(&columns);
            for cut in 0..body.len() {
                let error = decoder.decode(&body[..cut], &mut columns).unwrap_err();
                prop_assert_eq!(error.name(), "truncated");
                prop_assert!(error.field.is_some());
                prop_assert_eq!(&snapshot(&columns), &before);
            }
            let trailing = [&body[..], &[0]].concat();
            prop_assert_eq!(decoder.decode(&trailing, &mut columns).unwrap_err().fault, Fault::TrailingBytes(1));
            prop_assert_eq!(&snapshot(&columns), &before);
            let row = decoder.decode(&body, &mut columns).unwrap();
            prop_assert_eq!(&cells(&columns, at), expected);
            prop_assert_eq!(columns.len(), at + 1);
            if let Cell::Uuid(id) = expected[0] { prop_assert_eq!(row.id, id); }
            let micros = if case.schema.contains("timestamp-micros\"}, \"highwater\"") { 1 } else { 1000 };
            prop_assert_eq!(Cell::Int(i128::from(row.time)), match expected[1] {
                Cell::Int(time) => Cell::Int(time * micros),
                _ => Cell::Null,
            });
            prop_assert_eq!(columns.times[at], row.time);
        }
        prop_assert!(columns.offsets.is_empty());
    }

    #[test]
    fn damage_is_an_error_or_another_record(
        case in case(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        apache_avro::util::max_allocation_bytes(1 << 16);
        let schema = Schema::parse_str(&case.schema).unwrap();
        let event = EventType::parse("e.avsc", &case.schema).unwrap();
        let decoder = Decoder::compile(&event);
        let mut columns = decoder.new_columns();
        for (value, _) in &case.rows {
            let mut body = encode(&schema, value);
            for (at, byte) in &damage {
                let at = at.index(body.len());
                body[at] = *byte;
            }
            let before = snapshot(&columns);
            match decoder.decode(&body, &mut columns) {
                Err(error) => {
                    prop_assert_eq!(&snapshot(&columns), &before);
                    prop_assert!(!error.to_string().is_empty());
                }
                Ok(_) => {
                    let row = columns.len() - 1;
                    let Some((Value::Record(theirs), 0)) = their_decode(&schema, &body) else {
                        return Err(TestCaseError::fail("we read what the library does not"));
                    };
                    let theirs: Vec<Cell> = theirs
                        .iter()
                        .zip(&event.fields)
                        .map(|((_, value), field)| cell_of(value, field.is_low_cardinality()))
                        .collect();
                    prop_assert_eq!(cells(&columns, row), theirs);
                }
            }
        }
    }

    #[test]
    fn noise_is_no_record_that_panics(case in case(), body in prop::collection::vec(any::<u8>(), 0..200)) {
        let decoder = Decoder::compile(&EventType::parse("e.avsc", &case.schema).unwrap());
        let mut columns = decoder.new_columns();
        let before = snapshot(&columns);
        if decoder.decode(&body, &mut columns).is_err() {
            prop_assert_eq!(snapshot(&columns), before);
        }
    }
}
