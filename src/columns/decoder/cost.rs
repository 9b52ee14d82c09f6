//! What decoding and encoding `llm_call` cost. Run it optimised:
//! `cargo test --release --lib -- --ignored --nocapture what_a_message_costs`

use std::hint::black_box;
use std::time::Instant;

use super::tests::{long, string};
use uuid::Uuid;

use super::*;
use crate::columns::native;
use crate::event::Kind;

/// A plausible body: examples of dimensions, measures within their range, a third of the nullable fields null.
pub(super) fn body(event: &EventType, rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut body = Vec::new();
    for (at, field) in event.fields.iter().enumerate() {
        if field.nullable {
            let null = rng.u8(0..3) == 0;
            // In this schema null is always the first branch.
            body.extend(long(i64::from(!null)));
            if null {
                continue;
            }
        }
        let [low, high] = field.range.unwrap_or([0.0, 1.0]);
        let number = low + rng.f64() * (high - low);
        let example = (!field.examples.is_empty()).then(|| rng.choice(&field.examples)).flatten();
        body.extend(match (&field.kind, example) {
            (Kind::Timestamp(_), _) if at == event.time => long(1_700_000_000_000_000 + rng.i64(0..600_000_000)),
            (Kind::Uuid, _) => string(Uuid::from_u128(rng.u128(1..)).to_string()),
            (Kind::Enum(symbols), Some(example)) => long(symbols.iter().position(|s| s == example).unwrap() as i64),
            (Kind::String, Some(example)) => string(example),
            (Kind::String, None) => string(format!("u-{}", rng.u32(0..5_000))),
            (Kind::Boolean, _) => vec![rng.u8(0..2)],
            (Kind::Int | Kind::Long, _) => long(number as i64),
            (Kind::Double, _) => number.to_le_bytes().to_vec(),
            (Kind::Decimal { scale, .. }, _) => string(((number * 10f64.powi((*scale).into())) as i64).to_be_bytes()),
            (kind, _) => panic!("llm_call has a {} now; sample it", kind.name()),
        });
    }
    body
}

#[test]
#[ignore = "a measurement, not a check"]
fn what_a_message_costs() {
    let event = EventType::parse("llm_call.avsc", include_str!("../../../schemas/llm_call.avsc")).unwrap();
    let decoder = Decoder::compile(&event);
    let mut rng = fastrand::Rng::with_seed(3);
    let bodies: Vec<Vec<u8>> = (0..50_000).map(|_| body(&event, &mut rng)).collect();
    let bytes: usize = bodies.iter().map(Vec::len).sum();
    let mut columns = decoder.new_columns();
    let (mut decoded, mut told, mut encoded, mut block) = (f64::MAX, f64::MAX, f64::MAX, Vec::new());
    for _ in 0..20 {
        columns.truncate(0);
        let start = Instant::now();
        for body in &bodies {
            black_box(decoder.decode(black_box(body), &mut columns).unwrap());
        }
        decoded = decoded.min(start.elapsed().as_secs_f64());
        let start = Instant::now();
        for body in &bodies {
            black_box(decoder.id(black_box(body)).unwrap());
        }
        told = told.min(start.elapsed().as_secs_f64());
        let fields: Vec<&Column> = columns.columns.iter().take(event.fields.len()).collect();
        block.clear();
        let start = Instant::now();
        native::encode(&fields, 0..bodies.len(), &mut block);
        encoded = encoded.min(start.elapsed().as_secs_f64());
    }
    let each = |seconds: f64| seconds * 1e9 / bodies.len() as f64;
    println!(
        "{} fields, {} bytes a message: decoding {:.0} ns, the id alone {:.0} ns, encoding {:.0} ns a row of {} bytes",
        event.fields.len(),
        bytes / bodies.len(),
        each(decoded),
        each(told),
        each(encoded),
        block.len() / bodies.len()
    );
}
