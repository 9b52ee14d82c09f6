//! What each stage of the way costs, over 10,000 model calls: `cargo bench --bench stages`, or one stage with its name
//! behind it.
//!
//! - `decode`: Avro bytes to columns, and nothing else
//! - `take_in`: the same with all that is decided of an event: duplicate, limits, late
//! - `window`: columns to the rows of a rollup; `window_two_rollups` with the second one that the type has
//! - `encode`: columns to ClickHouse's Native format
//! - `compress`: that to LZ4 frames
//! - `seal`: a batch to the bodies of all its inserts and the ledger's row; `seal_no_distribution` with a rollup that only
//!   counts
#![allow(clippy::unwrap_used, clippy::panic)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use highwater::batch::{Batch, Block, Progress, Source, Window};
use highwater::clickhouse::compress;
use highwater::columns::{Column, Columns, native};
use highwater::event::{EventType, Kind};
use highwater::plan::{Limits, Plan, Sources};
use highwater::ports::Record;
use highwater::rollup::Marker;
use highwater::writers::{Opened, Writers};
use uuid::Uuid;

const EVENTS: u64 = 10_000;
const SCHEMA: &str = include_str!("../schemas/llm_call.avsc");
/// 2026-01-15 00:00 UTC, microseconds since 1970.
const BEGIN_US: i64 = 1_768_435_200_000_000;
/// Ten minutes have all events.
const STEP_US: i64 = 600_000_000 / EVENTS as i64;

const ONE: &str = r#"
[[rollup]]
event = "llm_call"
by = ["app", "environment", "provider", "model", "operation", "status"]
sum = ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "retries"]
distribution = ["latency_ms", "time_to_first_token_ms", "input_tokens", "output_tokens"]
"#;
const SECOND: &str = r#"
[[rollup]]
event = "llm_call"
name = "llm_call_route_1m"
by = ["app", "environment", "feature", "endpoint", "upgraded_from"]
distribution = ["latency_ms"]
"#;
const COUNTS: &str = r#"
[[rollup]]
event = "llm_call"
by = ["app"]
"#;

fn plan(pack: &str) -> Plan {
    let (schemas, packs) =
        (vec![("llm_call.avsc".to_owned(), SCHEMA.to_owned())], vec![("p.toml".to_owned(), pack.to_owned())]);
    let sources = Sources { schemas, packs, ..Sources::default() };
    let day_ms = 86_400_000;
    let limits = Limits {
        horizon: 10_000,
        max_skew_ms: 600_000,
        max_age_ms: 30 * day_ms,
        lateness_ms: 30_000,
        max_series: 50_000,
    };
    Plan::compile(&sources, limits).unwrap()
}

fn long(value: i64, out: &mut Vec<u8>) {
    let mut left = (value << 1 ^ value >> 63) as u64;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn bytes(value: &[u8], out: &mut Vec<u8>) {
    long(value.len() as i64, out);
    out.extend_from_slice(value);
}

/// A message of this event: dimensions by the schema's examples, measures in their range, a third of what may be null is.
fn message(event: &EventType, time_us: i64, rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut out = Vec::new();
    highwater::event::wire::Writer::Fingerprint(event.fingerprint).frame(&mut out);
    for (at, field) in event.fields.iter().enumerate() {
        if field.nullable {
            let is_null = rng.u8(0..3) == 0;
            // In this schema null is always the first branch.
            long(i64::from(!is_null), &mut out);
            if is_null {
                continue;
            }
        }
        let [low, high] = field.range.unwrap_or([0.0, 1.0]);
        let number = low + rng.f64() * (high - low);
        let example = rng.choice(&field.examples);
        match (&field.kind, example) {
            (Kind::Timestamp(_), _) if at == event.time => long(time_us, &mut out),
            (Kind::Uuid, _) => bytes(Uuid::from_u128(rng.u128(1..)).to_string().as_bytes(), &mut out),
            (Kind::Enum(symbols), Some(example)) => {
                long(symbols.iter().position(|symbol| symbol == example).unwrap() as i64, &mut out);
            }
            (Kind::String, Some(example)) => bytes(example.as_bytes(), &mut out),
            (Kind::String, None) => bytes(format!("someone-{}", rng.u32(0..5_000)).as_bytes(), &mut out),
            (Kind::Boolean, _) => out.push(rng.u8(0..2)),
            (Kind::Int | Kind::Long, _) => long(number as i64, &mut out),
            (Kind::Double, _) => out.extend_from_slice(&number.to_le_bytes()),
            (Kind::Decimal { scale, .. }, _) => {
                bytes(&((number * 10f64.powi((*scale).into())) as i64).to_be_bytes(), &mut out);
            }
            (kind, _) => panic!("llm_call has a {} now: draw it here", kind.name()),
        }
    }
    out
}

fn messages(plan: &Plan) -> Vec<Vec<u8>> {
    let mut rng = fastrand::Rng::with_seed(3);
    (0..EVENTS as i64).map(|at| message(&plan.types[0].event, BEGIN_US + at * STEP_US, &mut rng)).collect()
}

fn decode(plan: &Plan, messages: &[Vec<u8>], columns: &mut Columns) {
    columns.truncate(0);
    for message in messages {
        plan.types[0].decoder.decode(&message[10..], columns).unwrap();
    }
}

fn batch(plan: &Plan, messages: &[Vec<u8>]) -> Batch {
    let writers = Writers::default();
    let (mut window, mut progress) = (Window::new(plan.limits.horizon), Progress::default());
    let mut batch = Batch::new(Source { epoch: 1, redrive: None, topic: "events".into(), partition: 0 }, 0, false);
    for (at, message) in messages.iter().enumerate() {
        let record = Record {
            topic: "events",
            partition: 0,
            offset: at as u64,
            timestamp_ms: (BEGIN_US + at as i64 * STEP_US) / 1_000,
            key: None,
            payload: Some(message),
        };
        let Opened::Known(content) = writers.open(plan, &record, Duration::ZERO) else { panic!("no such schema") };
        batch.push(plan, &record, content, &mut window, &mut progress);
    }
    batch
}

fn seal(plan: &Plan, batch: &Arc<Batch>) -> usize {
    let mut sent = 0;
    let keys = batch.keys(plan, 0);
    for &key in keys.keys() {
        let mut native = Vec::new();
        Block::new(Arc::clone(batch), key, 0).encode(plan, &mut native, &mut |_| {});
        sent += compress(&native).bytes();
    }
    black_box(batch.ledger_row(plan, 0, keys));
    sent
}

fn stages(criterion: &mut Criterion) {
    let (one, two, counts) = (plan(ONE), plan(&format!("{ONE}{SECOND}")), plan(COUNTS));
    let messages = messages(&one);
    let sealed = Arc::new(batch(&one, &messages));
    assert_eq!(sealed.keys(&one, 0).len(), 2, "all events are rows: one raw table and one rollup");
    let raw = sealed.keys(&one, 0).into_keys().find(|key| key.table == one.types[0].table).unwrap();
    let raw = Block::new(Arc::clone(&sealed), raw, 0);
    let (columns, rows) = raw.events(&one);
    let fields: Vec<&Column> = columns.columns.iter().collect();
    let mut block = Vec::new();
    native::encode(&fields, rows.clone(), &mut block);

    let mut group = criterion.benchmark_group("stages");
    group.throughput(Throughput::Elements(EVENTS)).sample_size(30);
    let mut scratch = one.types[0].decoder.new_columns();
    group.bench_function("decode", |bencher| bencher.iter(|| decode(&one, black_box(&messages), &mut scratch)));
    group.bench_function("take_in", |bencher| {
        bencher.iter_batched(|| (), |()| batch(&one, black_box(&messages)), BatchSize::LargeInput);
    });
    let marker = Marker { source: "1/events/0", month_start_seconds: (BEGIN_US / 1_000_000) as u32, through: EVENTS };
    for (name, plan) in [("window", &one), ("window_two_rollups", &two)] {
        let build = || plan.rollups.iter().map(|rollup| rollup.build(columns, rows.clone(), &marker, 50_000).len());
        group.bench_function(name, |bencher| bencher.iter(|| black_box(build().sum::<usize>())));
    }
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            let mut out = Vec::new();
            native::encode(black_box(&fields), rows.clone(), &mut out);
            out
        });
    });
    group.bench_function("compress", |bencher| bencher.iter(|| compress(black_box(&block))));
    for (name, plan) in [("seal", &one), ("seal_no_distribution", &counts)] {
        group.bench_function(name, |bencher| bencher.iter(|| seal(plan, black_box(&sealed))));
    }
    group.finish();
}

criterion_group!(benches, stages);
criterion_main!(benches);
