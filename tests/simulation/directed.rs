//! What a random search hardly reaches, step by step: one partition between answers that a test gives.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater::batch::{Key, Month, Source};
use highwater::partition::{Action, Lost, Partition, Reply, Terms, Tuning};
use highwater::plan::{TableId, TableKind};
use highwater::ports::{Bounds, Connection, Insert, LedgerEnd, Marks, Question, Record, Rows, StoreError};
use highwater::writers::Writers;

use crate::log::{self, Entry, START_MS};
use crate::plans::{Planned, plans};
use crate::shared::{INSERT_TIMEOUT, MARKS_LAST};

pub const NOW: Duration = Duration::from_millis(START_MS as u64 + 120_000);

pub fn tuning(keep_events: Option<Duration>) -> Tuning {
    Tuning {
        seal_after: Duration::from_secs(1),
        seal_events: 3,
        seal_bytes: 4_000,
        insert_timeout: INSERT_TIMEOUT,
        lost: Lost::Stop,
        keep_events,
        marks_last: MARKS_LAST,
    }
}

/// A partition whose every wish the test sees and answers.
struct Bench {
    partition: Partition,
    tuning: Tuning,
    now: Duration,
    connection: Connection,
    committed: Option<u64>,
}

impl Bench {
    fn new(epoch: u32, keep_events: Option<Duration>) -> Bench {
        Bench {
            partition: Partition::new(Source { epoch, redrive: None, topic: "ticks".into(), partition: 0 }, epoch),
            tuning: tuning(keep_events),
            now: NOW,
            connection: Connection(1),
            committed: None,
        }
    }

    fn terms(&self) -> Terms<'static> {
        // Leaked once per test: terms outlive every borrow of the bench.
        let tuning: &'static Tuning = Box::leak(Box::new(self.tuning.clone()));
        let writers: &'static Writers = Box::leak(Box::default());
        Terms { plan: &plans()[0].plan, writers, tuning, now: self.now, meter: &() }
    }

    /// The next wish that has an answer, after at most a minute of its clock.
    fn wish(&mut self) -> Action {
        for _ in 0..60 {
            while let Some(action) = self.partition.next(self.terms()) {
                match action {
                    Action::Pause | Action::Resume | Action::Commit(_) => {}
                    Action::Recognise => self.reply(Reply::Recognised(Ok(()))),
                    action => return action,
                }
            }
            self.now += Duration::from_secs(1);
        }
        panic!("it wants nothing any more");
    }

    fn reply(&mut self, reply: Reply) {
        self.partition.reply(self.terms(), reply);
    }

    /// The ledger and the tables answer: an end, and no row at all.
    fn nothing_there(&mut self, end: Option<u64>) {
        let ledger = LedgerEnd { end, ..LedgerEnd::default() };
        self.reply(Reply::Marks(Ok(Marks { connection: self.connection, ledger, marks: BTreeMap::new() })));
    }

    /// As [`Bench::nothing_there`] with a ledger that ends at 0, but that every rollup has the first event.
    fn rollups_there(&mut self) {
        let Planned { plan, .. } = &plans()[0];
        let month = Month::of(START_MS * 1_000);
        let rollups = (0..plan.tables.len()).map(|id| TableId(id as u16));
        let rollups = rollups.filter(|&id| matches!(plan.table(id).kind, TableKind::Rollup(_)));
        let marks =
            rollups.flat_map(|table| [(Key { table, month }, 1), (Key { table, month: Month(month.0 + 1) }, 1)]);
        let ledger = LedgerEnd { end: Some(0), ..LedgerEnd::default() };
        self.reply(Reply::Marks(Ok(Marks { connection: self.connection, ledger, marks: marks.collect() })));
    }

    /// The ledger answers with an end and what it recorded of the table of events; the tables have no row beyond.
    fn recorded(&mut self, end: u64, mark: u64) {
        let (raw, month) =
            (plans()[0].plan.table_named("tick").expect("the table of events"), Month::of(START_MS * 1_000));
        let recorded = [month, Month(month.0 + 1)].map(|month| (Key { table: raw, month }, mark));
        let ledger = LedgerEnd { end: Some(end), recorded: recorded.into(), ..LedgerEnd::default() };
        self.reply(Reply::Marks(Ok(Marks { connection: self.connection, ledger, marks: BTreeMap::new() })));
    }

    /// Brings it to where the batch in flight is done, for another writer has come to `end` and written the table of events
    /// up to `mark`; the batch that follows begins at 3 and is full.
    fn overtaken(&mut self, end: u64, mark: u64) {
        self.begin();
        (0..3).for_each(|offset| self.event(offset));
        assert!(matches!(self.wish(), Action::Ask(_)));
        self.nothing_there(Some(end));
        (3..6).for_each(|offset| self.event(offset));
        assert!(matches!(self.wish(), Action::Ask(Question { recorded: true, .. })));
        self.recorded(end, mark);
        assert_eq!(self.partition.done(), Some(end));
        assert!(matches!(self.wish(), Action::Ask(Question { from: 3, .. })));
    }

    fn bounds(&mut self) {
        self.reply(Reply::Bounds(Ok(Bounds { start: 0, end: 9, committed: self.committed })));
    }

    /// Brings it to where it reads from offset 0 on.
    fn begin(&mut self) {
        assert!(matches!(self.wish(), Action::Ask(_)));
        self.nothing_there(Some(0));
        assert!(matches!(self.wish(), Action::Bounds));
        self.bounds();
        assert!(matches!(self.wish(), Action::Start(0)));
        self.reply(Reply::Started(Ok(())));
    }

    /// Delivers a good event, another for each offset.
    fn event(&mut self, offset: u64) {
        let record = event(offset as usize);
        let payload = record.payload.as_deref();
        let timestamp_ms = record.timestamp_ms;
        let record = Record { topic: "ticks", partition: 0, offset, timestamp_ms, key: None, payload };
        self.partition.record(self.terms(), &record);
    }

    /// Lets it ask, finds nothing, and acknowledges all that it sends; answers the tokens.
    fn round(&mut self, end: u64) -> Vec<String> {
        let mut tokens = Vec::new();
        loop {
            match self.wish() {
                Action::Ask(_) if tokens.is_empty() => self.nothing_there(Some(end)),
                Action::Insert(Insert { token, .. }) => {
                    tokens.push(token);
                    self.reply(Reply::Inserted(Ok(())));
                }
                Action::Ask(_) => return tokens,
                other => panic!("unexpected: {other:?}"),
            }
        }
    }
}

/// A row of the type `tick` in the second of the months, the n-th of random logs.
pub fn event(n: usize) -> log::Record {
    let mut rng = fastrand::Rng::with_seed(1);
    let good = |record: &log::Record| match record.entry {
        Entry::Event(event) => {
            let on_time = (event.micros / 1_000 - record.timestamp_ms).abs() < 90_000;
            event.kind == 0 && on_time && event.micros >= (START_MS + 60_000) * 1_000
        }
        _ => false,
    };
    let logs = (0..).map(|_| log::log(&mut rng, log::Repeats::Never));
    logs.flatten().filter(good).nth(n).expect("one of them is good")
}

fn is_suffixed(token: &str) -> bool {
    token.split('/').count() > 6
}

#[test]
fn rows_go_out_before_what_is_computed_from_them() {
    let mut bench = Bench::new(1, None);
    bench.begin();
    bench.event(0);
    let tables: Vec<String> =
        bench.round(0).iter().map(|token| token.split('/').nth(3).unwrap_or_default().to_owned()).collect();
    assert_eq!(tables, ["tick", "tick_1m_parts"]);
    // What only ran out of time or was refused for now has nothing follow it.
    bench.nothing_there(Some(0));
    let Action::Insert(Insert { token, .. }) = bench.wish() else { panic!("nothing is there") };
    assert!(token.contains("/tick/"), "{token}");
    bench.reply(Reply::Inserted(Err(StoreError::Passing("too many parts".to_owned()))));
    assert!(matches!(bench.wish(), Action::Ask(_)), "its rollup without it");
}

#[test]
fn a_token_is_not_burnt_by_an_answer_that_was_heard_late() {
    let mut bench = Bench::new(1, None);
    bench.begin();
    bench.event(0);
    let first = bench.round(0);
    assert!(first.len() == 2 && !first.iter().any(|token| is_suffixed(token)), "{first:?}");
    // The second question has been asked. Its answer is heard when the insert time-out has long passed: what it did not
    // find may have come since.
    bench.now += INSERT_TIMEOUT * 3;
    bench.nothing_there(Some(0));
    assert_eq!(bench.round(0), first, "the same tokens once more");
    // The third was asked after the time-out: now they are burnt.
    bench.nothing_there(Some(0));
    let burnt = bench.round(0);
    assert!(burnt.iter().all(|token| is_suffixed(token)), "{burnt:?}");
}

#[test]
fn nothing_goes_out_on_marks_that_are_too_old() {
    let mut bench = Bench::new(1, None);
    assert!(matches!(bench.wish(), Action::Ask(_)));
    bench.nothing_there(None);
    assert!(matches!(bench.wish(), Action::Bounds));
    bench.bounds();
    // Asleep before the first row went out. On the same connection others may have spent its token, and the store may have
    // forgotten it.
    bench.now += MARKS_LAST + Duration::from_secs(1);
    assert!(matches!(bench.wish(), Action::Ask(_)), "a row on what was asked long ago");
    let mut bench = Bench::new(1, None);
    bench.begin();
    bench.event(0);
    assert!(matches!(bench.wish(), Action::Ask(_)));
    bench.nothing_there(Some(0));
    bench.now += MARKS_LAST + Duration::from_secs(1);
    assert!(matches!(bench.wish(), Action::Ask(_)), "a block on what was asked long ago");
    // Asleep between two blocks.
    bench.nothing_there(Some(0));
    assert!(matches!(bench.wish(), Action::Insert(_)));
    bench.reply(Reply::Inserted(Ok(())));
    bench.now += MARKS_LAST + Duration::from_secs(1);
    assert!(matches!(bench.wish(), Action::Ask(_)), "the second block on what was asked long ago");
}

#[test]
fn what_is_known_of_a_token_is_forgotten_with_its_connection() {
    let mut bench = Bench::new(1, None);
    bench.begin();
    bench.event(0);
    let first = bench.round(0);
    bench.now += INSERT_TIMEOUT * 3;
    bench.nothing_there(Some(0));
    assert_eq!(bench.round(0), first);
    // By now they would be burnt. But the server was restored from a backup meanwhile, and may not know them any more.
    bench.connection = Connection(2);
    bench.nothing_there(Some(0));
    assert_eq!(bench.round(0), first);
}

#[test]
fn a_ledger_that_went_back_is_noticed_even_where_the_batch_begins_at_its_end() {
    let mut bench = Bench::new(1, None);
    bench.begin();
    (0..3).for_each(|offset| bench.event(offset));
    assert!(matches!(bench.wish(), Action::Ask(_)));
    // Another writer has written offset 0, and what the ledger recorded of it is asked for and remembered.
    bench.nothing_there(Some(1));
    assert!(matches!(bench.wish(), Action::Ask(Question { recorded: true, .. })));
    // A backup is restored in which the ledger ends where the batch begins: what was recorded since is no longer true.
    bench.nothing_there(Some(0));
    assert!(bench.partition.is_stopped());
}

#[test]
fn a_ledger_that_went_back_between_two_batches_is_noticed() {
    let mut bench = Bench::new(1, None);
    bench.overtaken(5, 5);
    // A backup is restored in which the ledger ends within the batch that follows: offset 4 has to be written again.
    bench.connection = Connection(2);
    bench.recorded(4, 4);
    assert!(bench.partition.is_stopped());
}

#[test]
fn what_the_ledger_recorded_is_forgotten_with_its_connection() {
    let mut bench = Bench::new(1, None);
    // Another writer's rows were there up to 6 when the ledger came to 4, and the ledger says so.
    bench.overtaken(4, 6);
    // A backup is restored and the ledger comes to 4 once more: without those rows.
    bench.connection = Connection(2);
    bench.nothing_there(Some(4));
    assert!(matches!(bench.wish(), Action::Ask(Question { recorded: true, .. })), "builds on what was recorded before");
    bench.recorded(4, 4);
    let Action::Insert(Insert { token, rows: Rows::Block(block), .. }) = bench.wish() else { panic!("no rows") };
    assert!(token.starts_with("1/ticks/0/tick/") && token.ends_with("/4"), "{token}");
    assert_eq!(block.events(&plans()[0].plan).1.len(), 2, "offsets 4 and 5");
}

#[test]
fn expired_rows_are_sent_before_they_are_not_waited_for() {
    let mut bench = Bench::new(1, Some(Duration::from_secs(1)));
    bench.begin();
    bench.event(0);
    let sent = bench.round(0);
    assert!(sent.iter().any(|token| token.contains("/tick/")), "the token has to be spent for every writer: {sent:?}");
}

#[test]
fn expired_rows_are_waited_for_as_long_as_their_part_may_still_come() {
    let mut bench = Bench::new(1, Some(Duration::from_secs(1)));
    bench.begin();
    bench.event(0);
    let sent = bench.round(0);
    let raw = sent.iter().find(|token| token.contains("/tick/")).expect("a raw block").clone();
    // Acknowledged and not there. A TTL may have taken it as it landed; or a token dropped it whose own part, of another
    // writer and of more rows, is still to come: a batch built behind this one would write those a second time.
    bench.rollups_there();
    let Action::Insert(Insert { token, .. }) = bench.wish() else { panic!("the row may still come") };
    assert_eq!(token, raw, "once more, under the same token");
    bench.reply(Reply::Inserted(Ok(())));
    assert!(matches!(bench.wish(), Action::Ask(_)));
    // Heard late, asked early: says nothing of what came in between.
    bench.now += INSERT_TIMEOUT * 3;
    bench.rollups_there();
    let Action::Insert(Insert { token, .. }) = bench.wish() else { panic!("the answer is an old one") };
    assert_eq!(token, raw);
    bench.reply(Reply::Inserted(Ok(())));
    // Asked when even the slowest part would have landed: a TTL took it.
    assert!(matches!(bench.wish(), Action::Ask(_)));
    bench.rollups_there();
    let Action::Insert(Insert { rows: Rows::Ledger(row), .. }) = bench.wish() else { panic!("nothing more can come") };
    assert_eq!((row.from, row.to, row.events), (0, 1, 1));
}

#[test]
fn every_writer_builds_on_the_same_mark_behind_a_lost_range() {
    // Somebody wrote offset 0 and died; retention took it, and the ledger has 0..1 as lost, without marks.
    let month = Month::of(START_MS * 1_000);
    let raw = plans()[0].plan.table_named("tick").expect("the table of events");
    let there = |end: u64| {
        let marks = [month, Month(month.0 + 1)].map(|month| (Key { table: raw, month }, 1));
        let ledger = LedgerEnd { end: Some(end), ..LedgerEnd::default() };
        Reply::Marks(Ok(Marks { connection: Connection(1), ledger, marks: marks.into() }))
    };
    let tokens = |bench: &mut Bench, end: u64| loop {
        match bench.wish() {
            Action::Ask(_) => bench.reply(there(end)),
            Action::Insert(Insert { token, .. }) if token.contains("/tick/") => return token,
            Action::Insert(_) => bench.reply(Reply::Inserted(Ok(()))),
            other => panic!("unexpected: {other:?}"),
        }
    };
    // One has read it too, and asks from there.
    let mut early = Bench::new(1, None);
    early.begin();
    (0..3).for_each(|offset| early.event(offset));
    // The other begins behind it.
    let mut late = Bench::new(1, None);
    assert!(matches!(late.wish(), Action::Ask(_)));
    late.nothing_there(Some(1));
    assert!(matches!(late.wish(), Action::Bounds));
    late.bounds();
    assert!(matches!(late.wish(), Action::Start(0)));
    late.reply(Reply::Started(Ok(())));
    (0..4).for_each(|offset| late.event(offset));
    let token = tokens(&mut early, 1);
    assert_eq!(token, tokens(&mut late, 1));
    // A third asked before the ledger had the row, and what it builds on that is still on its way.
    let mut earliest = Bench::new(1, None);
    earliest.begin();
    (0..3).for_each(|offset| earliest.event(offset));
    assert_eq!(token, tokens(&mut earliest, 0));
}

#[test]
fn the_first_start_of_a_topic_made_anew_does_not_believe_a_commit() {
    // A process that read the topic before may have committed after it was made anew.
    for (epoch, at) in [(1, 7), (2, 0)] {
        let mut bench = Bench::new(epoch, None);
        bench.committed = Some(7);
        assert!(matches!(bench.wish(), Action::Ask(_)));
        bench.nothing_there(None);
        assert!(matches!(bench.wish(), Action::Bounds));
        bench.bounds();
        let Action::Insert(Insert { rows: Rows::Ledger(row), .. }) = bench.wish() else { panic!("no first row") };
        assert_eq!((row.from, row.to), (at, at), "epoch {epoch}");
    }
}

#[test]
fn the_ledger_is_asked_again_before_offsets_are_called_lost() {
    let mut bench = Bench::new(1, None);
    assert!(matches!(bench.wish(), Action::Ask(_)));
    bench.nothing_there(Some(0));
    assert!(matches!(bench.wish(), Action::Bounds));
    let cut = Bounds { start: 5, end: 9, committed: None };
    bench.reply(Reply::Bounds(Ok(cut)));
    // Another writer moved the ledger between the two answers.
    assert!(matches!(bench.wish(), Action::Ask(_)));
    bench.nothing_there(Some(6));
    assert!(matches!(bench.wish(), Action::Bounds));
    bench.reply(Reply::Bounds(Ok(cut)));
    assert!(!bench.partition.is_stopped());
}
