//! The messages of producers: events of the types there are, out of order, some late, and some that nobody can read.

use apache_avro::Schema;
use apache_avro::schema::RecordField;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use fastrand::Rng;

use crate::shared::kind::{Kind, LLM_CALL};

/// The event type that comes up while everything runs.
pub const VISIT: Kind = Kind {
    name: "visit",
    schema: include_str!("visit.avsc"),
    by: &["app", "environment", "outcome"],
    sums: &["pages"],
    distributions: &["duration_ms"],
    priced: false,
};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const DAY: i64 = 24 * 60 * MINUTE;

/// Draws messages of one event type.
struct Type {
    schema: Schema,
    fingerprint: [u8; 8],
}

impl Type {
    fn new(kind: Kind) -> Type {
        Type { schema: Schema::parse_str(kind.schema).unwrap(), fingerprint: kind.fingerprint() }
    }

    fn message(&self, micros: i64, rng: &mut Rng) -> Vec<u8> {
        let Schema::Record(record) = &self.schema else { panic!("an event is a record") };
        let mut value = |field: &RecordField| match field.name.as_str() {
            "event_id" => Value::Uuid(uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid()),
            "occurred_at" => Value::TimestampMicros(micros),
            name => draw(name, &field.schema, rng),
        };
        let fields = record.fields.iter().map(|field| (field.name.clone(), value(field))).collect();
        let writer = GenericDatumWriter::builder(&self.schema).build().unwrap();
        let body = writer.write_value_to_vec(Value::Record(fields)).unwrap();
        [&[0xC3, 0x01], &self.fingerprint[..], &body].concat()
    }
}

fn draw(name: &str, schema: &Schema, rng: &mut Rng) -> Value {
    match schema {
        Schema::Union(union) if rng.u8(..4) == 0 => {
            assert_eq!(union.variants()[0], Schema::Null, "{name}");
            Value::Union(0, Box::new(Value::Null))
        }
        Schema::Union(union) => Value::Union(1, Box::new(draw(name, &union.variants()[1], rng))),
        Schema::String if name == "model" => Value::String(
            (*rng.choice(["haiku", "sonnet", "opus", "gpt-4o", "nobody-priced-this"].iter()).unwrap()).to_owned(),
        ),
        Schema::String => Value::String(format!("{name}-{}", rng.u8(..2))),
        Schema::Enum(symbols) => {
            let at = rng.usize(..symbols.symbols.len());
            Value::Enum(at as u32, symbols.symbols[at].clone())
        }
        Schema::Int => Value::Int(rng.i32(0..10)),
        Schema::Long => Value::Long(rng.i64(0..20_000)),
        Schema::Boolean => Value::Boolean(rng.bool()),
        Schema::Double => Value::Double((rng.f64() * 12.0).exp() / 10.0),
        Schema::Decimal(_) => Value::Decimal(rng.u32(1 << 16..1 << 23).to_be_bytes().into()),
        other => panic!("nobody has drawn {name} yet, which is {other:?}"),
    }
}

/// Draws whatever producers send.
pub struct Events {
    llm_call: Type,
    visit: Type,
    rng: Rng,
}

impl Events {
    pub fn new(rng: Rng) -> Events {
        Events { llm_call: Type::new(LLM_CALL), visit: Type::new(VISIT), rng }
    }

    /// The next message at `now`, in microseconds since 1970. `visits`: whether everybody knows that type by now.
    pub fn next(&mut self, now: i64, visits: bool) -> Option<Vec<u8>> {
        let rng = &mut self.rng;
        let kind = if visits && rng.u8(..5) == 0 { &self.visit } else { &self.llm_call };
        let time = match rng.u32(..1_000) {
            // Its month may be another than its record's.
            0 => now - rng.i64(20 * DAY..28 * DAY),
            1..10 => now - rng.i64(2 * MINUTE..30 * MINUTE),
            _ => now - rng.i64(0..20 * SECOND),
        };
        if rng.u32(..1_000) >= 6 {
            return Some(kind.message(time, rng));
        }
        let whole = kind.message(time, rng);
        match rng.u8(..7) {
            0 => None,
            1 => Some((0..rng.usize(1..400)).map(|_| rng.u8(..)).collect()),
            2 => Some([&[0xC3, 0x01], &[0x5A; 8][..], &whole[10..]].concat()),
            3 => Some(whole[..rng.usize(10..whole.len())].to_vec()),
            4 => Some(kind.message(0, rng)),
            5 => Some(kind.message(now + 3 * DAY, rng)),
            _ => Some(kind.message(now - 400 * DAY, rng)),
        }
    }
}
