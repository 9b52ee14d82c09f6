//! The guards, and where a partition begins. What happens in between is the simulation's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod moments;
mod watermark;

use std::collections::BTreeMap;

use std::sync::Mutex;

use super::*;
use crate::batch::LedgerKind;
use crate::meter::Note;
use crate::plan::{Limits, Sources};
use crate::ports::{Connection, LedgerEnd, Rows};

const SCHEMA: &str = r#"{"type": "record", "name": "tick", "fields": [
    {"name": "event_id", "type": "string", "highwater": {"role": "id"}},
    {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "highwater": {"role": "time"}},
    {"name": "app", "type": "string", "highwater": {"role": "dimension"}},
    {"name": "environment", "type": "string", "highwater": {"role": "dimension"}}]}"#;

/// A partition with a ledger and a log that answer at once.
struct Bench {
    plan: Plan,
    writers: Writers,
    tuning: Tuning,
    now: Duration,
    partition: Partition,
    ledger: Option<u64>,
    /// The epoch in force.
    epoch: Option<u32>,
    bounds: Result<Bounds, LogError>,
    topic: Result<(), LogError>,
    ids: Result<Vec<(u64, usize, u128)>, StoreError>,
    /// What the store says to an insert, and whether it lands.
    insert: Result<(), StoreError>,
    lands: bool,
    started: Vec<u64>,
    rows: Vec<(LedgerKind, u64, u64)>,
    paused: u32,
    asked: u32,
    tokens: Vec<String>,
    notes: Notes,
}

/// What was told, in words.
#[derive(Debug, Default)]
struct Notes(Mutex<Vec<String>>);

impl Meter for Notes {
    fn note(&self, note: Note<'_>) {
        self.0.lock().unwrap().push(match note {
            Note::Sealed { batch, why, age } => format!("sealed {} {} {age:?}", batch.events(), why.name()),
            Note::Written { row, took, .. } => {
                format!("written {}..{} {} {took:?}", row.from, row.to, row.dead_letters)
            }
            Note::Burnt { table } => format!("burnt {table}"),
            other => format!("{other:?}"),
        });
    }
}

impl Bench {
    fn new(ledger: Option<u64>, start: u64, end: u64, committed: Option<u64>) -> Bench {
        let sources = Sources { schemas: vec![("tick.avsc".to_owned(), SCHEMA.to_owned())], ..Sources::default() };
        let limits = Limits { horizon: 10, max_skew_ms: 1, max_age_ms: 1, lateness_ms: 0, max_series: 9 };
        let second = Duration::from_secs(1);
        let tuning = Tuning {
            seal_after: second,
            seal_events: 100,
            seal_bytes: 1 << 20,
            insert_timeout: second,
            keep_events: None,
            marks_last: Duration::from_secs(60),
            lost: Lost::Record,
        };
        Bench {
            plan: Plan::compile(&sources, limits).unwrap(),
            writers: Writers::default(),
            tuning,
            now: second * 1_000,
            partition: Partition::new(Source { epoch: 1, redrive: None, topic: "t".into(), partition: 0 }, 1),
            ledger,
            epoch: Some(1),
            bounds: Ok(Bounds { start, end, committed }),
            topic: Ok(()),
            ids: Ok(Vec::new()),
            insert: Ok(()),
            lands: true,
            started: Vec::new(),
            rows: Vec::new(),
            paused: 0,
            asked: 0,
            tokens: Vec::new(),
            notes: Notes::default(),
        }
    }

    fn run(&mut self) {
        for _ in 0..50 {
            let terms = Terms {
                plan: &self.plan,
                writers: &self.writers,
                tuning: &self.tuning,
                now: self.now,
                meter: &self.notes,
            };
            let Some(action) = self.partition.next(terms) else {
                self.now += Duration::from_secs(2);
                continue;
            };
            let reply = match action {
                Action::Ask(question) => {
                    self.asked += 1;
                    // Every mark asked for is there: blocks are not what these tests are about.
                    let marks = question.keys.iter().map(|&key| (key, u64::MAX)).collect();
                    let ledger = LedgerEnd { end: self.ledger, epoch: self.epoch, ..LedgerEnd::default() };
                    Reply::Marks(Ok(Marks { connection: Connection(1), ledger, marks }))
                }
                Action::Insert(insert) => {
                    self.tokens.push(insert.token.clone());
                    if let Rows::Ledger(row) = &insert.rows
                        && self.lands
                    {
                        self.rows.push((row.kind, row.from, row.to));
                        self.ledger = Some(row.to);
                    }
                    Reply::Inserted(self.insert.clone())
                }
                Action::Ids { .. } => Reply::Ids(self.ids.clone()),
                Action::Bounds => Reply::Bounds(self.bounds.clone()),
                Action::Recognise => Reply::Recognised(self.topic.clone()),
                Action::Start(offset) => {
                    self.started.push(offset);
                    Reply::Started(Ok(()))
                }
                Action::Pause => {
                    self.paused += 1;
                    continue;
                }
                Action::Resume | Action::Commit(_) => continue,
            };
            let terms = Terms {
                plan: &self.plan,
                writers: &self.writers,
                tuning: &self.tuning,
                now: self.now,
                meter: &self.notes,
            };
            self.partition.reply(terms, reply);
        }
    }

    fn end(&mut self, offset: u64) {
        let terms =
            Terms { plan: &self.plan, writers: &self.writers, tuning: &self.tuning, now: self.now, meter: &self.notes };
        self.partition.end_of_log(terms, offset);
    }

    fn noise(&mut self, offset: u64) {
        let record = Record { topic: "t", partition: 0, offset, timestamp_ms: 1, key: None, payload: Some(b"noise") };
        let terms =
            Terms { plan: &self.plan, writers: &self.writers, tuning: &self.tuning, now: self.now, meter: &self.notes };
        self.partition.record(terms, &record);
    }
}

#[test]
fn it_begins_at_the_ledgers_end_whatever_was_committed() {
    for committed in [None, Some(3), Some(90)] {
        let mut bench = Bench::new(Some(40), 0, 100, committed);
        bench.run();
        assert_eq!((bench.started, bench.partition.done()), (vec![30], Some(40)), "ids from 10 before are read again");
    }
}

#[test]
fn the_first_start_believes_the_commit_and_says_so_in_the_ledger() {
    for (committed, at) in [(Some(60), 60), (None, 20), (Some(5), 20), (Some(500), 100)] {
        let mut bench = Bench::new(None, 20, 100, committed);
        bench.run();
        assert_eq!((bench.rows, bench.partition.done()), (vec![(LedgerKind::Start, at, at)], Some(at)));
    }
}

#[test]
fn a_later_life_of_a_topic_begins_at_its_start_whatever_was_committed_in_an_earlier() {
    let mut bench = Bench::new(None, 20, 100, Some(60));
    bench.partition = Partition::new(Source { epoch: 2, redrive: None, topic: "t".into(), partition: 0 }, 2);
    bench.run();
    assert_eq!(bench.rows, vec![(LedgerKind::Start, 20, 20)]);
}

/// What was said at the level `warn`.
fn warnings(of: impl FnOnce()) -> String {
    let lines: std::sync::Arc<Mutex<Vec<u8>>> = std::sync::Arc::default();
    let to = std::sync::Arc::clone(&lines);
    let writer = move || Lines(std::sync::Arc::clone(&to));
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(writer).finish();
    tracing::subscriber::with_default(subscriber, of);
    let lines = lines.lock().unwrap();
    String::from_utf8_lossy(&lines).into_owned()
}

struct Lines(std::sync::Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_a_first_start_leaves_out_of_the_log_is_said() {
    let said = warnings(|| Bench::new(None, 20, 100, Some(60)).run());
    assert!(said.contains("offsets 20..60"), "{said}");
    for (start, committed) in [(20, None), (20, Some(20))] {
        let said = warnings(|| Bench::new(None, start, 100, committed).run());
        assert!(!said.contains("left out"), "{said}");
    }
}

#[test]
fn what_the_log_lost_is_a_row_of_the_ledger_before_anything_else_is_read() {
    let mut bench = Bench::new(Some(40), 60, 100, Some(40));
    bench.run();
    assert_eq!((bench.rows, bench.started), (vec![(LedgerKind::Lost, 40, 60)], vec![60]));
    assert_eq!(bench.partition.done(), Some(60));
    // Another writer says it first, or moves the ledger on meanwhile: asked again, nothing is lost twice.
    let mut bench = Bench::new(Some(40), 60, 100, None);
    (bench.lands, bench.insert) = (false, Err(StoreError::Broken("gone".to_owned())));
    bench.run();
    assert_eq!((bench.rows.len(), bench.started.len()), (0, 0));
    (bench.ledger, bench.insert) = (Some(70), Ok(()));
    bench.run();
    assert_eq!((bench.rows.len(), bench.started.clone(), bench.partition.done()), (0, vec![60], Some(70)));
}

#[test]
fn the_token_of_a_lost_range_is_that_of_any_row_on_that_end() {
    // Acknowledged and never seen: burnt, and suffixed like any other.
    let mut bench = Bench::new(Some(0), 60, 100, None);
    bench.lands = false;
    bench.run();
    assert!(bench.tokens.len() > 2 && bench.tokens.contains(&"1/t/0/ledger/0/1".to_owned()), "{:?}", bench.tokens);
    assert_eq!(bench.tokens[0], "1/t/0/ledger/0");
    assert!(bench.started.is_empty());
}

#[test]
fn it_stops_where_the_log_lost_what_was_not_read_if_told_so() {
    let mut bench = Bench::new(Some(40), 41, 100, Some(40));
    bench.tuning.lost = Lost::Stop;
    bench.run();
    assert!(bench.partition.is_stopped());
    assert_eq!((bench.asked, bench.paused, bench.started.len()), (2, 1, 0), "asked twice, silenced once");
}

#[test]
fn it_stops_where_the_log_ends_before_the_ledger() {
    let mut bench = Bench::new(Some(40), 0, 39, None);
    bench.run();
    assert!(bench.partition.is_stopped());
}

#[test]
fn it_follows_the_log_over_gaps_so_that_retention_of_a_gap_is_no_loss() {
    let mut bench = Bench::new(Some(40), 0, 40, None);
    bench.run();
    // Aborted transactions: the log goes on to 70 and delivers nothing.
    bench.end(70);
    bench.run();
    assert_eq!((bench.partition.done(), bench.rows.pop()), (Some(70), Some((LedgerKind::Batch, 40, 70))));
    // A gap behind records belongs to their batch, and an end that is known already is no news.
    bench.noise(70);
    bench.end(75);
    bench.end(75);
    bench.run();
    bench.end(75);
    bench.end(12);
    bench.run();
    assert_eq!((bench.partition.done(), bench.rows), (Some(75), vec![(LedgerKind::Batch, 70, 75)]));
    // Retention took all of it meanwhile.
    let mut bench = Bench::new(Some(75), 75, 75, None);
    bench.run();
    assert!(!bench.partition.is_stopped());
}

#[test]
fn it_stops_where_its_epoch_is_over() {
    // Assigned to a process that slept through a rewind: the ledger of its epoch ends earlier, and the next epoch begins there.
    let mut bench = Bench::new(Some(40), 0, 100, None);
    bench.epoch = Some(2);
    bench.run();
    assert_eq!((bench.partition.status().stopped, bench.started.len()), (Some("epoch_over"), 0));
    // A rewind begins while it is at work: nothing more of it is built on any answer from then on.
    let mut bench = Bench::new(Some(40), 0, 100, None);
    bench.run();
    bench.epoch = Some(3);
    bench.noise(40);
    bench.run();
    assert_eq!((bench.partition.status().stopped, bench.tokens.len(), bench.rows.len()), (Some("epoch_over"), 0, 0));
    // Its own epoch is in force, or the row that says so was deleted: who is at work goes on.
    for epoch in [Some(1), None] {
        let mut bench = Bench::new(Some(40), 0, 100, None);
        bench.epoch = epoch;
        bench.run();
        bench.noise(40);
        bench.run();
        assert_eq!((bench.partition.status().stopped, bench.partition.done()), (None, Some(41)));
    }
}

#[test]
fn it_stops_when_the_topic_is_another() {
    let mut bench = Bench::new(Some(40), 0, 100, None);
    bench.bounds = Err(LogError::Passing("away".to_owned()));
    bench.run();
    assert!(!bench.partition.is_stopped() && bench.partition.done().is_none());
    bench.bounds = Err(LogError::OtherTopic("made anew".to_owned()));
    bench.run();
    assert!(bench.partition.is_stopped());
}

#[test]
fn nothing_goes_out_before_the_topic_is_recognised() {
    let mut bench = Bench::new(Some(40), 0, 100, None);
    bench.run();
    bench.topic = Err(LogError::Passing("away".to_owned()));
    (40..45).for_each(|offset| bench.noise(offset));
    bench.run();
    assert_eq!((bench.partition.is_stopped(), bench.tokens.len()), (false, 0));
    bench.topic = Ok(());
    bench.run();
    assert_eq!(bench.partition.done(), Some(45));
    let sent = bench.tokens.len();
    bench.topic = Err(LogError::OtherTopic("made anew".to_owned()));
    (45..50).for_each(|offset| bench.noise(offset));
    bench.run();
    assert_eq!((bench.partition.is_stopped(), bench.tokens.len(), bench.ledger), (true, sent, Some(45)));
}

#[test]
fn a_log_whose_end_lies_before_its_start_does_not_panic() {
    let mut bench = Bench::new(None, 20, 10, Some(15));
    bench.run();
    assert!(bench.partition.is_stopped(), "the ledger begins at 20 and the log ends at 10");
}

#[test]
fn ids_that_are_refused_stop_it() {
    let mut bench = Bench::new(Some(40), 38, 100, None);
    bench.ids = Err(StoreError::Refused("no such column".to_owned()));
    bench.run();
    assert!(bench.partition.is_stopped());
}

#[test]
fn it_writes_a_batch_and_stops_when_the_ledger_goes_back() {
    let mut bench = Bench::new(Some(40), 0, 100, None);
    bench.run();
    (40..45).for_each(|offset| bench.noise(offset));
    bench.run();
    assert_eq!((bench.partition.done(), bench.rows.pop()), (Some(45), Some((LedgerKind::Batch, 40, 45))));
    // Restored from an older backup: the server was restarted, so the connection is gone and the ledger is asked anew.
    (bench.ledger, bench.insert, bench.lands) = (Some(42), Err(StoreError::Broken("gone".to_owned())), false);
    bench.noise(50);
    bench.run();
    assert!(bench.partition.is_stopped());
    assert!(bench.rows.is_empty(), "nothing was written onto the gap");
}

#[test]
fn it_tells_what_it_does_and_how_it_stands() {
    let mut bench = Bench::new(Some(40), 0, 100, None);
    assert_eq!(bench.partition.status(), Status::default());
    bench.run();
    bench.end(40);
    let status = bench.partition.status();
    assert_eq!((status.position, status.done, status.oldest_ms), (Some(40), Some(40), None));
    (40..45).for_each(|offset| bench.noise(offset));
    let status = bench.partition.status();
    assert_eq!(
        (status.position, status.done, status.oldest_ms, status.latest_ms),
        (Some(45), Some(40), Some(1), Some(1))
    );
    assert!(status.bytes > 0 && status.stopped.is_none());
    bench.run();
    // A marker of a transaction follows the last record.
    bench.end(46);
    let status = bench.partition.status();
    assert_eq!((status.position, status.done, status.oldest_ms, status.latest_ms), (Some(46), Some(45), None, Some(1)));
    assert_eq!(*bench.notes.0.lock().unwrap(), ["sealed 5 age 2s", "written 40..45 5 0ns"]);
    // It is refused: what stood last stays to be seen.
    bench.insert = Err(StoreError::Refused("code 60".to_owned()));
    bench.noise(50);
    bench.run();
    let status = bench.partition.status();
    assert_eq!((status.stopped, status.done, status.oldest_ms), (Some("refused"), Some(45), Some(1)));
}

#[test]
fn it_tells_of_a_token_without_a_part() {
    let mut bench = Bench::new(Some(0), 0, 100, None);
    bench.run();
    bench.lands = false;
    bench.noise(0);
    bench.run();
    let notes = bench.notes.0.lock().unwrap();
    assert_eq!(notes[..2], ["sealed 1 age 2s", "burnt ledger"]);
    assert!(notes.iter().all(|note| !note.starts_with("written")), "{notes:?}");
}

#[test]
fn a_refusal_stops_it_and_passing_errors_do_not() {
    let error = || "code 60".to_owned();
    for (insert, stops) in [
        (StoreError::Refused(error()), true),
        (StoreError::Passing(error()), false),
        (StoreError::Broken(error()), false),
    ] {
        let mut bench = Bench::new(Some(0), 0, 100, None);
        bench.insert = Err(insert);
        bench.run();
        bench.noise(0);
        bench.run();
        assert_eq!((bench.partition.is_stopped(), bench.partition.done()), (stops, (!stops).then_some(1)));
    }
}

/// A partition of a redrive that found this epoch in force; its letters are of the second.
fn redrive(in_force: u32) -> Partition {
    Partition::new(Source { epoch: 2, redrive: Some(7), topic: "t".into(), partition: 0 }, in_force)
}

#[test]
fn a_redrive_stops_where_the_epoch_that_it_found_is_over() {
    for (in_force, now, over) in
        [(2, Some(2), false), (3, Some(3), false), (3, None, false), (2, Some(3), true), (3, Some(5), true)]
    {
        // It slept before it asked where to begin.
        let mut bench = Bench::new(None, 0, 100, Some(60));
        bench.partition = redrive(in_force);
        bench.epoch = now;
        bench.run();
        let rows = if over { 0 } else { 1 };
        assert_eq!((bench.partition.is_stopped(), bench.rows.len()), (over, rows), "{in_force}, {now:?}");
        // It slept when it had letters.
        let mut bench = Bench::new(Some(60), 0, 100, Some(60));
        bench.partition = redrive(in_force);
        bench.epoch = Some(in_force);
        bench.run();
        bench.tick_of("one", 60, 5, 5);
        bench.epoch = now;
        bench.run();
        assert_eq!((bench.partition.is_stopped(), bench.tokens.is_empty()), (over, over), "{in_force}, {now:?}");
        assert_eq!(bench.partition.status().stopped, over.then_some("redrive_over"));
    }
}

#[test]
fn a_redrive_begins_at_its_first_letter_and_makes_no_second_letter_of_one() {
    let mut bench = Bench::new(None, 0, 100, Some(60));
    bench.partition = redrive(3);
    bench.run();
    assert_eq!((bench.rows.clone(), bench.partition.done()), (vec![(LedgerKind::Start, 60, 60)], Some(60)));
    assert_eq!(bench.tokens, ["2r7/t/0/ledger/new"]);
    bench.end(60);
    bench.noise(60);
    bench.run();
    assert!(bench.partition.is_stopped() && bench.rows.len() == 1, "{:?}", bench.rows);
    assert_eq!(bench.partition.status().stopped, Some("unreadable"));
}

#[test]
fn a_redrive_goes_on_at_the_ledgers_end_without_what_is_written_and_makes_no_duplicate() {
    let mut bench = Bench::new(Some(40), 0, 100, Some(5));
    bench.partition = redrive(3);
    bench.run();
    assert_eq!((bench.started.clone(), bench.partition.done()), (vec![40], Some(40)), "no ids are read again");
    bench.tick_of("one", 50, 5, 5);
    assert!(!bench.partition.is_stopped());
    bench.tick_of("one", 55, 5, 5);
    bench.run();
    assert_eq!(bench.partition.status().stopped, Some("unreadable"));
    assert!(bench.rows.is_empty(), "{:?}", bench.rows);
}
