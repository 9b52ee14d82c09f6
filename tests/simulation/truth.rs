//! The events of a schedule and what must become of them, computed from the log alone.

use std::collections::BTreeMap;

use highwater::batch::Month;
use highwater::event::wire;
use highwater::plan::{Limits, Plan, Sources};

/// Offsets within which an equal id is a duplicate.
pub const HORIZON: u64 = 5;

const SCHEMA: &str = r#"{
  "type": "record", "name": "tick", "doc": "a test event", "fields": [
    {"name": "event_id", "type": {"type": "string", "logicalType": "uuid"}, "doc": "id", "highwater": {"role": "id"}},
    {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-micros"}, "doc": "time",
     "highwater": {"role": "time"}},
    {"name": "app", "type": "string", "doc": "app", "highwater": {"role": "dimension"}},
    {"name": "environment", "type": "string", "doc": "environment", "highwater": {"role": "dimension"}},
    {"name": "amount", "type": "long", "doc": "amount", "highwater": {"role": "measure", "unit": "tokens"}}
  ]}"#;

/// The plan that all schedules run under.
pub fn plan() -> Plan {
    let sources = Sources { schemas: vec![("tick.avsc".to_owned(), SCHEMA.to_owned())], ..Sources::default() };
    let limits = Limits {
        horizon: HORIZON,
        max_skew_ms: 600_000,
        max_age_ms: 90 * 86_400_000,
        lateness_ms: 30_000,
        max_series: 1_000,
    };
    Plan::compile(&sources, limits).unwrap_or_else(|errors| panic!("{errors:?}"))
}

/// What stands at an offset.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A control record or an aborted event: never delivered.
    Gap,
    /// Bytes that are no event.
    Bad,
    /// An event.
    Event { id: u128, micros: i64, app: usize, amount: i64 },
}

/// One offset of a log.
#[derive(Debug, Clone)]
pub struct Record {
    pub entry: Entry,
    pub timestamp_ms: i64,
    pub payload: Vec<u8>,
}

/// 2026-01-31 23:59 UTC: a minute before a month ends.
pub const START_MS: i64 = 1_769_903_940_000;

/// A random log of one partition. With `once` no id comes more than twice: then every duplicate's first is a raw row.
pub fn log(rng: &mut fastrand::Rng, plan: &Plan, once: bool) -> Vec<Record> {
    let length = rng.usize(8..30);
    let (gaps, bad, repeats) = (rng.u32(0..3) * 8, rng.u32(0..3) * 8, rng.u32(0..3) * 12);
    let mut ids: Vec<Option<u128>> = Vec::new();
    (0..length)
        .map(|_| {
            let timestamp_ms = START_MS + rng.i64(0..120_000);
            let draw = rng.u32(0..100);
            let back = rng.usize(1..HORIZON as usize + 3);
            let free = |id: &u128| !once || ids.iter().flatten().filter(|other| *other == id).count() == 1;
            let earlier = ids.iter().rev().nth(back - 1).copied().flatten().filter(free);
            let repeated = earlier.filter(|_| rng.u32(0..100) < repeats);
            let entry = if draw < gaps {
                Entry::Gap
            } else if draw < gaps + bad {
                Entry::Bad
            } else {
                // Sometimes written down a while after it happened: in another month than its record.
                let micros = (timestamp_ms - if rng.bool() { 0 } else { rng.i64(0..90_000) }) * 1_000;
                let id = repeated.unwrap_or_else(|| rng.u128(..));
                Entry::Event { id, micros, app: rng.usize(0..2), amount: rng.i64(0..1_000) }
            };
            ids.push(if let Entry::Event { id, .. } = entry { Some(id) } else { None });
            let payload = payload(&entry, plan);
            Record { entry, timestamp_ms, payload }
        })
        .collect()
}

fn payload(entry: &Entry, plan: &Plan) -> Vec<u8> {
    let mut out = Vec::new();
    match entry {
        Entry::Gap => {}
        Entry::Bad => out.extend_from_slice(b"no event at all"),
        Entry::Event { id, micros, app, amount } => {
            let mut body = Vec::new();
            text(&mut body, &uuid::Uuid::from_u128(*id).to_string());
            long(&mut body, *micros);
            text(&mut body, APPS[*app]);
            text(&mut body, "test");
            long(&mut body, *amount);
            wire::frame(plan.types[0].event.fingerprint, &body, &mut out);
        }
    }
    out
}

pub const APPS: [&str; 2] = ["ide", "web"];

fn long(out: &mut Vec<u8>, value: i64) {
    let mut left = ((value << 1) ^ (value >> 63)) as u64;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn text(out: &mut Vec<u8>, value: &str) {
    long(out, value.len() as i64);
    out.extend_from_slice(value.as_bytes());
}

/// Count and sum of each (minute in seconds, app) of a month.
pub type Series = BTreeMap<(u32, String), (u64, i64)>;

/// What a partition's log must become.
#[derive(Debug, Default, Clone)]
pub struct Truth {
    /// Offsets of raw rows, per month.
    pub raw: BTreeMap<u32, Vec<u64>>,
    /// Per-minute aggregates, per month.
    pub rollup: BTreeMap<u32, Series>,
    /// Offsets of dead letters, per month of the record.
    pub dead: BTreeMap<u32, Vec<u64>>,
    /// Offsets of duplicates.
    pub duplicates: Vec<u64>,
    /// Event time of each raw row, microseconds since 1970.
    pub times: BTreeMap<u64, i64>,
    /// End of the log: the ledger follows over gaps as well.
    pub end: u64,
}

/// Computes it by looking back from each event.
pub fn truth(log: &[Record]) -> Truth {
    let mut truth = Truth { end: log.len() as u64, ..Truth::default() };
    for (offset, record) in log.iter().enumerate() {
        let at = offset as u64;
        match &record.entry {
            Entry::Gap => continue,
            Entry::Bad => truth.dead.entry(Month::of(record.timestamp_ms * 1_000).0).or_default().push(at),
            Entry::Event { id, micros, app, amount } => {
                let before = &log[offset.saturating_sub(HORIZON as usize)..offset];
                if before.iter().any(|other| matches!(&other.entry, Entry::Event { id: twin, .. } if twin == id)) {
                    truth.duplicates.push(at);
                } else {
                    let month = Month::of(*micros).0;
                    truth.raw.entry(month).or_default().push(at);
                    truth.times.insert(at, *micros);
                    let minute = (micros / 60_000_000 * 60) as u32;
                    let series = truth.rollup.entry(month).or_default();
                    let (count, sum) = series.entry((minute, APPS[*app].to_owned())).or_default();
                    *count += 1;
                    *sum += amount;
                }
            }
        }
    }
    truth
}
