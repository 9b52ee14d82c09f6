//! What a partition claims of event time, and when.

use super::*;
use crate::event::wire;
use crate::writers::Writers;

const HOUR: i64 = 3_600_000;

/// A partition that runs at the ledger's end 0, allows a lateness of a second, and accepts events of any time.
fn bench() -> Bench {
    let mut bench = Bench::new(Some(0), 0, 0, None);
    bench.plan.limits.lateness_ms = 1_000;
    bench.plan.limits.max_age_ms = i64::MAX;
    bench.plan.limits.max_skew_ms = 1_000 * HOUR;
    bench.now = Duration::from_secs(1_000_000);
    bench.run();
    bench
}

fn now_ms(bench: &Bench) -> i64 {
    bench.now.as_millis() as i64
}

impl Bench {
    /// An event of this time in a record of that timestamp.
    fn tick(&mut self, offset: u64, time_ms: i64, timestamp_ms: i64) {
        self.tick_of(&offset.to_string(), offset, time_ms, timestamp_ms);
    }

    /// The same with this id.
    pub(super) fn tick_of(&mut self, id: &str, offset: u64, time_ms: i64, timestamp_ms: i64) {
        let mut body = Vec::new();
        let long = |value: i64, body: &mut Vec<u8>| {
            let mut rest = ((value << 1) ^ (value >> 63)) as u64;
            while rest > 127 {
                body.push(rest as u8 | 128);
                rest >>= 7;
            }
            body.push(rest as u8);
        };
        let text = |text: &str, body: &mut Vec<u8>| {
            long(text.len() as i64, body);
            body.extend_from_slice(text.as_bytes());
        };
        text(id, &mut body);
        long(time_ms, &mut body);
        text("a", &mut body);
        text("e", &mut body);
        let mut payload = Vec::new();
        wire::frame(self.plan.types[0].event.fingerprint, &body, &mut payload);
        let payload = Some(&payload[..]);
        let record = Record { topic: "t", partition: 0, offset, timestamp_ms, key: None, payload };
        let terms =
            Terms { plan: &self.plan, writers: &Writers::default(), tuning: &self.tuning, now: self.now, meter: &() };
        self.partition.record(terms, &record);
    }

    fn next(&mut self) -> Option<Action> {
        let terms =
            Terms { plan: &self.plan, writers: &Writers::default(), tuning: &self.tuning, now: self.now, meter: &() };
        self.partition.next(terms)
    }

    fn quiet(&mut self, high: u64) {
        let terms =
            Terms { plan: &self.plan, writers: &Writers::default(), tuning: &self.tuning, now: self.now, meter: &() };
        self.partition.quiet(high, terms);
    }
}

#[test]
fn it_follows_the_greatest_event_time_once_the_ledger_has_it() {
    let mut bench = bench();
    let start = now_ms(&bench) - HOUR;
    for (offset, time) in [(0, start + 5_000), (1, start + 9_000), (2, start + 2_000)] {
        bench.tick(offset, time, start + 10_000);
    }
    assert_eq!(bench.partition.watermark(), None, "read, not written");
    // What ClickHouse takes and does not keep is not written either.
    (bench.lands, bench.insert) = (false, Err(StoreError::Passing("busy".to_owned())));
    bench.run();
    assert_eq!(bench.partition.watermark(), None, "sealed, not written");
    (bench.lands, bench.insert) = (true, Ok(()));
    bench.run();
    assert_eq!(bench.partition.watermark(), Some(start + 8_000), "less the lateness");
    // Late events do not take it back, and dead letters and duplicates do not move it.
    bench.tick(3, start, start + 10_000);
    bench.noise(4);
    bench.run();
    assert_eq!((bench.partition.watermark(), bench.partition.done()), (Some(start + 8_000), Some(5)));
}

#[test]
fn what_is_read_while_a_batch_is_in_flight_does_not_count_with_it() {
    let mut bench = bench();
    let start = now_ms(&bench) - HOUR;
    bench.tick(0, start, start);
    bench.now += Duration::from_secs(2);
    let Some(Action::Recognise) = bench.next() else { panic!("the batch is sealed") };
    bench.tick(1, start + 50_000, start + 50_000);
    let marks = Marks {
        connection: Connection(1),
        ledger: LedgerEnd { end: Some(1), ..LedgerEnd::default() },
        marks: BTreeMap::new(),
    };
    // Another writer's ledger row covers the sealed batch.
    let marks = || Reply::Marks(Ok(marks.clone()));
    for reply in [Reply::Recognised(Ok(())), marks(), marks()] {
        let terms = Terms {
            plan: &bench.plan,
            writers: &Writers::default(),
            tuning: &bench.tuning,
            now: bench.now,
            meter: &(),
        };
        bench.partition.reply(terms, reply);
        bench.next();
    }
    assert_eq!((bench.partition.done(), bench.partition.watermark()), (Some(1), Some(start - 1_000)));
}

#[test]
fn a_time_ahead_counts_as_its_record_or_as_now() {
    let mut bench = bench();
    let now = now_ms(&bench);
    bench.tick(0, now - 5_000, now - 8_000);
    bench.run();
    assert_eq!(bench.partition.watermark(), Some(now - 9_000), "no later than its record");
    let now = now_ms(&bench);
    bench.tick(1, now + HOUR, now + HOUR);
    bench.run();
    let watermark = bench.partition.watermark().unwrap();
    assert!((now - 1_000..now + 10_000).contains(&watermark), "no later than the clock: {watermark} at {now}");
}

#[test]
fn a_quiet_log_advances_with_the_clock() {
    let mut bench = bench();
    assert!(!bench.partition.is_quiet(), "nobody said that the log ends");
    bench.end(0);
    assert!(bench.partition.is_quiet());
    bench.quiet(0);
    let first = now_ms(&bench) - 6_000;
    assert_eq!(bench.partition.watermark(), Some(first), "lateness and slack behind");
    bench.now += Duration::from_secs(60);
    bench.quiet(0);
    assert_eq!(bench.partition.watermark(), Some(first + 60_000));
    // A clock that goes back moves nothing.
    bench.now -= Duration::from_secs(30);
    bench.quiet(0);
    assert_eq!(bench.partition.watermark(), Some(first + 60_000));
}

#[test]
fn an_open_transaction_or_anything_unwritten_holds_it() {
    let mut bench = bench();
    bench.end(0);
    bench.quiet(3);
    assert_eq!(bench.partition.watermark(), None, "the log holds three records that can't be read yet");
    bench.tick(3, 5_000, 5_000);
    bench.quiet(4);
    assert!(!bench.partition.is_quiet());
    assert_eq!(bench.partition.watermark(), None, "the end that was told is no longer the end");
    bench.end(4);
    bench.quiet(4);
    assert_eq!((bench.partition.is_quiet(), bench.partition.watermark()), (false, None), "read and not written");
    bench.run();
    assert!(bench.partition.is_quiet());
    assert_eq!(bench.partition.watermark(), Some(4_000));
    for other in [3, 5] {
        bench.quiet(other);
        assert_eq!(bench.partition.watermark(), Some(4_000), "more than was read, or another log");
    }
    bench.quiet(4);
    assert_eq!(bench.partition.watermark(), Some(now_ms(&bench) - 6_000));
}
