//! The records of a schedule's logs: events on time, late and twice, bad messages of every kind, and gaps.

use highwater::event::wire;
use highwater::ports::{self, LogEvent};

use crate::kafka::TOPIC;
use crate::plans::{HORIZON, MAX_AGE_MS, MAX_SKEW_MS, MENDED, plans};

pub const APPS: [&str; 2] = ["ide", "web"];
/// 2026-01-31 23:59 UTC: a minute before a month ends.
pub const START_MS: i64 = 1_769_903_940_000;

/// What stands at an offset.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A control record or an aborted event: never delivered.
    Gap,
    /// What is no event of ours; `None` is a tombstone.
    Noise(Option<Vec<u8>>),
    /// An event of a schema that workers do not have: a dead letter, until somebody redrives it who has the schema.
    Letter(Event),
    Event(Event),
}

#[derive(Debug, Clone, Copy)]
pub struct Event {
    pub kind: usize,
    pub id: u128,
    pub micros: i64,
    pub app: usize,
    pub amount: i64,
}

/// One offset of a log.
#[derive(Debug, Clone)]
pub struct Record {
    pub entry: Entry,
    pub timestamp_ms: i64,
    pub payload: Option<Vec<u8>>,
}

impl Record {
    /// As a log delivers it.
    pub fn at(&self, partition: i32, offset: u64) -> LogEvent<'_> {
        let (timestamp_ms, payload) = (self.timestamp_ms, self.payload.as_deref());
        LogEvent::Record(ports::Record { topic: TOPIC, partition, offset, timestamp_ms, key: None, payload })
    }
}

/// How often an id may come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeats {
    /// Never: where offsets are lost for good, nobody knows which ids were.
    Never,
    /// Once, and only that of an event on time: so every duplicate's first is a raw row.
    Once,
    Often,
}

/// A random log of one partition.
pub fn log(rng: &mut fastrand::Rng, repeats: Repeats) -> Vec<Record> {
    let length = rng.usize(8..30);
    let chance = |rng: &mut fastrand::Rng, step: u32| rng.u32(0..3) * step;
    let (gaps, noise) = (chance(rng, 8), chance(rng, 8));
    let repeated = if repeats == Repeats::Never { 0 } else { chance(rng, 12) };
    let mut log: Vec<Record> = Vec::new();
    for _ in 0..length {
        let timestamp_ms = if rng.u8(0..40) == 0 { 0 } else { START_MS + rng.i64(0..120_000) };
        let draw = rng.u32(0..100);
        let entry = if draw < gaps {
            Entry::Gap
        } else if draw < gaps + noise {
            bad(rng, timestamp_ms)
        } else {
            let back = rng.usize(1..HORIZON as usize + 3);
            let twin = twin(&log, back, repeats).filter(|_| rng.u32(0..100) < repeated);
            Entry::Event(Event { ..event(rng, timestamp_ms, twin) })
        };
        let payload = payload(&entry);
        log.push(Record { entry, timestamp_ms, payload });
    }
    // Aborted transactions at the very end, which are never delivered.
    let tail = if rng.u8(0..4) == 0 { rng.usize(1..5) } else { 0 };
    log.extend((0..tail).map(|_| Record { entry: Entry::Gap, timestamp_ms: START_MS, payload: None }));
    log
}

/// The event `back` before the end, where it may come again.
fn twin(log: &[Record], back: usize, repeats: Repeats) -> Option<Event> {
    let event = |record: &Record| match record.entry {
        Entry::Event(event) => Some((event, record.timestamp_ms)),
        _ => None,
    };
    let (twin, timestamp_ms) = event(log.iter().rev().nth(back - 1)?)?;
    let once = || log.iter().filter_map(event).filter(|(other, _)| other.id == twin.id).count() == 1;
    let on_time = timestamp_ms == 0 || (twin.micros / 1_000 - timestamp_ms).abs() < MAX_SKEW_MS;
    (repeats == Repeats::Often || (on_time && once())).then_some(twin)
}

fn event(rng: &mut fastrand::Rng, timestamp_ms: i64, twin: Option<Event>) -> Event {
    let happened_ms = if timestamp_ms == 0 { START_MS + rng.i64(0..120_000) } else { timestamp_ms };
    // Sometimes written down a while after it happened: in another month than its record.
    let micros = (happened_ms - if rng.bool() { 0 } else { rng.i64(0..90_000) }) * 1_000;
    let fresh = Event { kind: usize::from(rng.u8(0..4) == 0), id: rng.u128(..), micros, app: 0, amount: 0 };
    Event { app: rng.usize(0..2), amount: rng.i64(0..1_000), micros, ..twin.unwrap_or(fresh) }
}

fn bad(rng: &mut fastrand::Rng, timestamp_ms: i64) -> Entry {
    let mut event = event(rng, timestamp_ms, None);
    match rng.u8(0..9) {
        6..=8 => Entry::Letter(Event { kind: 1, ..event }),
        0 => Entry::Noise(Some(b"no event at all".to_vec())),
        1 => Entry::Noise(None),
        2 => {
            let mut payload = Vec::new();
            wire::frame(0x00C0_FFEE, b"of a schema that nobody knows", &mut payload);
            Entry::Noise(Some(payload))
        }
        3 => {
            let mut payload = framed(&event);
            payload.truncate(payload.len() - 1 - rng.usize(0..20));
            Entry::Noise(Some(payload))
        }
        // Without a timestamp there is nothing to hold these against; then they are as good as any.
        4 if timestamp_ms > 0 => {
            event.micros = (timestamp_ms + MAX_SKEW_MS + 60_000) * 1_000;
            Entry::Event(event)
        }
        5 if timestamp_ms > 0 => {
            event.micros = (timestamp_ms - MAX_AGE_MS - 60_000) * 1_000;
            Entry::Event(event)
        }
        _ => Entry::Event(event),
    }
}

fn payload(entry: &Entry) -> Option<Vec<u8>> {
    match entry {
        Entry::Gap => None,
        Entry::Noise(payload) => payload.clone(),
        Entry::Event(event) => Some(framed(event)),
        Entry::Letter(event) => Some(letter(event)),
    }
}

fn framed(event: &Event) -> Vec<u8> {
    let mut out = Vec::new();
    wire::frame(plans()[0].plan.types[event.kind].event.fingerprint, &body(event), &mut out);
    out
}

/// As the mended plan's schema has it, with one field more.
fn letter(event: &Event) -> Vec<u8> {
    let (mut body, mut out) = (body(event), Vec::new());
    text(&mut body, "a note");
    wire::frame(plans()[MENDED].plan.types[event.kind].event.fingerprint, &body, &mut out);
    out
}

fn body(event: &Event) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, &uuid::Uuid::from_u128(event.id).to_string());
    long(&mut body, event.micros);
    text(&mut body, APPS[event.app]);
    text(&mut body, "test");
    long(&mut body, event.amount);
    body
}

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
