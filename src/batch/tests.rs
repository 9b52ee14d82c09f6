//! Batches, held against what was pushed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::event::wire;
use crate::plan::{Limits, Sources, TableId};
use crate::writers::{Opened, Writers};

const SCHEMA: &str = r#"{"type": "record", "name": "tick", "fields": [
    {"name": "event_id", "type": "string", "highwater": {"role": "id"}},
    {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "highwater": {"role": "time"}},
    {"name": "app", "type": "string", "highwater": {"role": "dimension"}},
    {"name": "environment", "type": "string", "highwater": {"role": "dimension"}}]}"#;
/// 2026-02-01 00:00 UTC.
const FEBRUARY: i64 = 1_769_904_000_000;
const MINUTE: i64 = 60_000;

fn plan() -> Plan {
    let sources = Sources { schemas: vec![("tick.avsc".to_owned(), SCHEMA.to_owned())], ..Sources::default() };
    let limits =
        Limits { horizon: 4, max_skew_ms: MINUTE, max_age_ms: 60 * MINUTE, lateness_ms: MINUTE, max_series: 9 };
    Plan::compile(&sources, limits).unwrap()
}

fn message(plan: &Plan, id: &str, time_ms: i64) -> Vec<u8> {
    let mut body = vec![(id.len() * 2) as u8];
    body.extend_from_slice(id.as_bytes());
    let mut left = (time_ms << 1) as u64;
    while left >= 0x80 {
        body.push(left as u8 | 0x80);
        left >>= 7;
    }
    body.extend_from_slice(&[left as u8, 2, b'a', 2, b't']);
    let mut framed = Vec::new();
    wire::frame(plan.types[0].event.fingerprint, &body, &mut framed);
    framed
}

struct Bench {
    plan: Plan,
    batch: Batch,
    window: Window,
    progress: Progress,
}

impl Bench {
    fn new(from: u64) -> Bench {
        let plan = plan();
        let source = Source { epoch: 1, redrive: None, topic: "t".into(), partition: 0 };
        let window = Window::new(plan.limits.horizon);
        Bench { plan, batch: Batch::new(source, from, false), window, progress: Progress::default() }
    }

    fn push(&mut self, offset: u64, timestamp_ms: i64, payload: Option<&[u8]>) {
        let record = Record { topic: "t", partition: 0, offset, timestamp_ms, key: Some(b"key"), payload };
        let writers = Writers::default();
        let Opened::Known(content) = writers.open(&self.plan, &record, Duration::ZERO) else {
            panic!("asks a registry")
        };
        self.batch.push(&self.plan, &record, content, &mut self.window, &mut self.progress);
    }

    fn event(&mut self, offset: u64, timestamp_ms: i64, id: &str, time_ms: i64) {
        let payload = message(&self.plan, id, time_ms);
        self.push(offset, timestamp_ms, Some(&payload));
    }

    fn row(&self, at: u64) -> LedgerRow {
        self.batch.ledger_row(&self.plan, at, BTreeMap::new())
    }

    /// Offsets per table name and month.
    fn offsets(&self, at: u64) -> Vec<(String, u32, Vec<u64>)> {
        let batch = std::sync::Arc::new(self.batch.clone());
        let of = |key: &Key| {
            let block = Block::new(std::sync::Arc::clone(&batch), *key, at);
            let (events, rows) = block.events(&self.plan);
            (self.plan.table(key.table).name.clone(), key.month.0, events.offsets[rows].to_vec())
        };
        self.batch.keys(&self.plan, at).keys().map(of).collect()
    }
}

#[test]
fn a_message_becomes_a_row_of_its_month_a_dead_letter_or_a_duplicate() {
    let mut bench = Bench::new(5);
    bench.event(5, FEBRUARY + 10, "a", FEBRUARY - 10); // written down in February, happened in January
    bench.event(7, FEBRUARY + 20, "b", FEBRUARY + 20);
    bench.event(8, FEBRUARY + 30, "a", FEBRUARY + 30); // the id of offset 5
    bench.event(9, FEBRUARY, "c", FEBRUARY + MINUTE + 1); // too far ahead
    bench.event(10, FEBRUARY, "d", FEBRUARY - 60 * MINUTE - 1); // too old
    bench.push(11, FEBRUARY, Some(b"noise"));
    bench.push(12, FEBRUARY, None);
    let parts = |month| ("tick_1m_parts".to_owned(), month);
    assert_eq!(
        bench.offsets(0),
        [
            ("tick".to_owned(), 202_601, vec![5]),
            ("tick".to_owned(), 202_602, vec![7]),
            (parts(202_601).0, 202_601, vec![5]),
            (parts(202_602).0, 202_602, vec![7]),
            ("dead_letters".to_owned(), 202_602, vec![9, 10, 11, 12]),
        ]
    );
    let row = bench.row(5);
    assert_eq!((row.from, row.to, row.events, row.dead_letters, row.duplicates), (5, 13, 7, 4, 1));
    assert_eq!(row.rows, BTreeMap::from([(TableId(0), 2)]));
    assert_eq!((row.min_time, row.max_time), (Some((FEBRUARY - 10) * 1_000), Some((FEBRUARY + 20) * 1_000)));
}

#[test]
fn it_tells_its_dead_letters_apart_by_reason() {
    let mut bench = Bench::new(3);
    bench.event(3, FEBRUARY + 9, "a", FEBRUARY);
    bench.push(4, FEBRUARY + 7, Some(b"noise"));
    bench.event(6, FEBRUARY, "b", FEBRUARY + MINUTE + 1); // too far ahead
    bench.push(8, FEBRUARY - 86_400_000, Some(b"noise")); // a day and so a month before
    bench.push(9, 0, None);
    let reasons = |at| bench.batch.dead_letters(&bench.plan, at).into_iter().collect::<Vec<_>>();
    assert_eq!(reasons(0), [("in_the_future", (1, 6)), ("not_framed", (3, 4))]);
    assert_eq!(reasons(7), [("not_framed", (2, 8))]);
    assert_eq!(reasons(10), []);
    assert_eq!(bench.batch.stamps(), Some((FEBRUARY - 86_400_000, FEBRUARY + 9)), "a record without one has no part");
    let event = message(&bench.plan, "a", FEBRUARY).len();
    assert_eq!(bench.batch.payload_bytes(), 2 * event + 2 * b"noise".len());
}

#[test]
fn a_rejected_event_counts_for_the_duplicates_window() {
    let mut bench = Bench::new(0);
    bench.event(0, FEBRUARY, "a", FEBRUARY + 2 * MINUTE); // a dead letter, but it was there
    bench.event(1, FEBRUARY, "a", FEBRUARY);
    assert_eq!((bench.row(0).dead_letters, bench.row(0).duplicates), (1, 1));
}

#[test]
fn an_event_in_a_record_without_timestamp_is_not_judged_by_it() {
    for absent in [-1, 0] {
        let mut bench = Bench::new(0);
        bench.event(0, absent, "a", FEBRUARY);
        bench.event(1, absent, "b", FEBRUARY - 2 * MINUTE);
        assert_eq!((bench.row(0).rows[&TableId(0)], bench.row(0).late), (2, 1), "timestamp {absent}");
    }
}

#[test]
fn a_dead_letter_keeps_the_message_whole() {
    let mut bench = Bench::new(0);
    bench.push(0, i64::MAX, Some(b"\xff\x00noise"));
    let key = *bench.batch.tables.keys().next().unwrap();
    assert_eq!(key.month, Month(210_512), "an absurd timestamp is held to what a table can have");
    let text = |column: usize| match &bench.batch.tables[&key].columns[column].values {
        crate::columns::Values::String(values) => values.get(0).to_vec(),
        crate::columns::Values::LowCardinality(values) => values.get(0).into(),
        other => panic!("{other:?}"),
    };
    assert_eq!((text(1), text(3), text(4)), (b"not_framed".to_vec(), b"key".to_vec(), b"\xff\x00noise".to_vec()));
}

proptest! {
    /// Whatever another writer has already done: the rest is what is left, in rows and in the ledger.
    #[test]
    fn a_later_beginning_leaves_the_rest(
        messages in prop::collection::vec((0u8..4, 0u8..6, 0i64..240_000, 1u64..3), 1..40),
        at in 0u64..90,
    ) {
        let mut bench = Bench::new(0);
        let mut offset = 0;
        for (kind, id, back, gap) in messages {
            match kind {
                0 => bench.push(offset, FEBRUARY, Some(b"noise")),
                _ => bench.event(offset, FEBRUARY, &id.to_string(), FEBRUARY + 30_000 - back),
            }
            offset += gap;
        }
        let (all, rest) = (bench.row(0), bench.row(at));
        let written = |row: &LedgerRow| row.rows.values().sum::<u64>() + row.dead_letters + row.duplicates;
        prop_assert_eq!(all.events, written(&all));
        prop_assert_eq!(rest.events, written(&rest));
        for ((table, month, left), kept) in bench.offsets(at).into_iter().zip(std::iter::repeat(at)) {
            let whole = bench.offsets(0).into_iter().find(|(name, of, _)| *name == table && *of == month).unwrap().2;
            let expected: Vec<u64> = whole.into_iter().filter(|&offset| offset >= kept).collect();
            prop_assert_eq!(left, expected);
        }
        for (name, month, whole) in bench.offsets(0) {
            let there = bench.offsets(at).iter().any(|(other, of, _)| *other == name && *of == month);
            prop_assert_eq!(there, whole.last().unwrap() >= &at);
        }
    }
}
