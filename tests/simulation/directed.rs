//! What a random search hardly reaches, step by step: one worker or one partition between answers that a test gives.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use highwater::batch::{Key, LedgerKind, Month, Source};
use highwater::partition::{Action, Lost, Partition, Reply, Terms, Tuning};
use highwater::plan::{TableId, TableKind};
use highwater::ports::{
    Answer, Bounds, Connection, Insert, LedgerEnd, Log, LogError, LogEvent, Marks, Question, Record, Rows, Store,
    StoreError, Ticket, TopicPartition,
};
use highwater::worker::{Settings, Worker};
use highwater::writers::Writers;

use crate::log::{self, Entry, START_MS};
use crate::plans::{Planned, plans};
use crate::shared::INSERT_TIMEOUT;

const NOW: Duration = Duration::from_millis(START_MS as u64 + 120_000);

fn tuning(keep_events: Option<Duration>) -> Tuning {
    Tuning {
        seal_after: Duration::from_secs(1),
        seal_events: 3,
        seal_bytes: 4_000,
        insert_timeout: INSERT_TIMEOUT,
        lost: Lost::Stop,
        keep_events,
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
            partition: Partition::new(Source { epoch, topic: "ticks".into(), partition: 0 }),
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
        let marks = rollups.flat_map(|table| [(Key { table, month }, 1), (Key { table, month: Month(month.0 + 1) }, 1)]);
        let ledger = LedgerEnd { end: Some(0), ..LedgerEnd::default() };
        self.reply(Reply::Marks(Ok(Marks { connection: self.connection, ledger, marks: marks.collect() })));
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
fn event(n: usize) -> log::Record {
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
    let there = |from: u64| {
        // A store tells no marks at or below the offset that is asked from.
        let marks = [month, Month(month.0 + 1)].map(|month| (Key { table: raw, month }, 1));
        let marks = marks.into_iter().filter(|&(_, mark)| mark > from).collect();
        let ledger = LedgerEnd { end: Some(1), ..LedgerEnd::default() };
        Reply::Marks(Ok(Marks { connection: Connection(1), ledger, marks }))
    };
    let tokens = |bench: &mut Bench| loop {
        match bench.wish() {
            Action::Ask(question) => bench.reply(there(question.from)),
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
    assert_eq!(tokens(&mut early), tokens(&mut late));
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

/// A log and a store that do what a test puts into them.
#[derive(Default)]
struct Script {
    events: VecDeque<Event>,
    answers: VecDeque<(Ticket, Answer)>,
    asked: Vec<(Ticket, Vec<Question>)>,
    inserted: Vec<(Ticket, Insert)>,
    bounds: u32,
    /// Where the log begins.
    start: u64,
    tickets: u64,
}

enum Event {
    Assigned,
    Revoked,
    OutOfRange,
    Record(u64),
}

#[derive(Clone, Default)]
struct Scripted(Rc<RefCell<Script>>);

fn name() -> TopicPartition {
    TopicPartition { topic: "ticks".into(), partition: 0 }
}

impl Log for Scripted {
    fn poll(&mut self, _wait: Duration, on: &mut dyn FnMut(LogEvent<'_>)) {
        let events: Vec<Event> = self.0.borrow_mut().events.drain(..).collect();
        for scripted in events {
            on(match scripted {
                Event::Assigned => LogEvent::Assigned(vec![name()]),
                Event::Revoked => LogEvent::Revoked(vec![name()]),
                Event::OutOfRange => LogEvent::OutOfRange(name()),
                Event::Record(offset) => {
                    let record = event(offset as usize);
                    on(LogEvent::Record(Record {
                        topic: "ticks",
                        partition: 0,
                        offset,
                        timestamp_ms: record.timestamp_ms,
                        key: None,
                        payload: record.payload.as_deref(),
                    }));
                    continue;
                }
            });
        }
    }

    fn bounds(&mut self, partitions: &[TopicPartition]) -> Vec<Result<Bounds, LogError>> {
        let script = &mut *self.0.borrow_mut();
        script.bounds += 1;
        vec![Ok(Bounds { start: script.start, end: 9, committed: None }); partitions.len()]
    }

    fn start(&mut self, _: &TopicPartition, _: u64) -> Result<(), LogError> {
        Ok(())
    }

    fn pause(&mut self, _: &TopicPartition) {}
    fn resume(&mut self, _: &TopicPartition) {}
    fn high_watermarks(&mut self, partitions: &[TopicPartition]) -> Vec<Result<u64, LogError>> {
        partitions.iter().map(|_| Err(LogError::Passing("not asked here".to_owned()))).collect()
    }

    fn commit(&mut self, _: &[(TopicPartition, u64)]) {}
}

impl Scripted {
    fn ticket(&self) -> Ticket {
        let script = &mut *self.0.borrow_mut();
        script.tickets += 1;
        Ticket(script.tickets)
    }
}

impl Store for Scripted {
    fn ask(&mut self, questions: Vec<Question>) -> Ticket {
        let ticket = self.ticket();
        self.0.borrow_mut().asked.push((ticket, questions));
        ticket
    }

    fn insert(&mut self, insert: Insert) -> Ticket {
        let ticket = self.ticket();
        self.0.borrow_mut().inserted.push((ticket, insert));
        ticket
    }

    fn report(&mut self, _: Vec<(Source, i64)>) -> Ticket {
        self.ticket()
    }

    fn ids(&mut self, _: &Source, _: u64, _: u64) -> Ticket {
        self.ticket()
    }

    fn poll(&mut self) -> Option<(Ticket, Answer)> {
        self.0.borrow_mut().answers.pop_front()
    }
}

fn located(end: u64) -> Answer {
    let ledger = LedgerEnd { end: Some(end), ..LedgerEnd::default() };
    Answer::Marks(Ok(vec![Marks { connection: Connection(1), ledger, marks: BTreeMap::new() }]))
}

/// Answers all that a worker asked and inserted, as a store would that takes everything.
fn serve(script: &mut Script, marks: &mut BTreeMap<Key, u64>, rows: &mut Vec<(LedgerKind, u64, u64)>) {
    for (ticket, insert) in script.inserted.drain(..) {
        match insert.rows {
            Rows::Ledger(row) => rows.push((row.kind, row.from, row.to)),
            Rows::Block(block) => drop(marks.insert(block.key(), block.batch().to())),
        }
        script.answers.push_back((ticket, Answer::Inserted(Ok(()))));
    }
    let end = rows.last().map(|&(_, _, to)| to);
    for (ticket, questions) in script.asked.drain(..) {
        let ledger = LedgerEnd { end, ..LedgerEnd::default() };
        let marks = Marks { connection: Connection(1), ledger, marks: marks.clone() };
        script.answers.push_back((ticket, Answer::Marks(Ok(vec![marks; questions.len()]))));
    }
}

#[test]
fn what_was_read_is_written_before_a_position_that_retention_ran_over_is_given_up() {
    let script = Scripted::default();
    let epochs = BTreeMap::from([(Arc::from("ticks"), 1)]);
    let tuning = Tuning { lost: Lost::Record, ..tuning(None) };
    let settings = Settings { tuning, memory: 10_000, epochs };
    let mut worker = Worker::new(Arc::clone(&plans()[0].plan), settings, script.clone(), script.clone());
    let (mut marks, mut rows, mut now) = (BTreeMap::new(), Vec::new(), NOW);
    let mut steps = |count: u32, rows: &mut Vec<(LedgerKind, u64, u64)>| {
        for _ in 0..count {
            now += Duration::from_millis(20);
            worker.step(now, Duration::ZERO);
            serve(&mut script.0.borrow_mut(), &mut marks, rows);
        }
    };
    script.0.borrow_mut().events.push_back(Event::Assigned);
    steps(10, &mut rows);
    script.0.borrow_mut().events.extend([Event::Record(0), Event::Record(1)]);
    steps(1, &mut rows);
    assert_eq!(rows, [(LedgerKind::Start, 0, 0)], "read, and too young and few to be sealed");
    // Retention takes those two, which nobody can read again, and three more.
    script.0.borrow_mut().start = 5;
    script.0.borrow_mut().events.push_back(Event::OutOfRange);
    steps(30, &mut rows);
    assert_eq!(rows, [(LedgerKind::Start, 0, 0), (LedgerKind::Batch, 0, 2), (LedgerKind::Lost, 2, 5)]);
}

#[test]
fn an_answer_to_an_earlier_assignment_is_not_taken_for_one_to_the_present() {
    let again: [fn() -> Vec<Event>; 2] = [|| vec![Event::OutOfRange], || vec![Event::Revoked, Event::Assigned]];
    for again in again {
        let script = Scripted::default();
        let epochs = BTreeMap::from([(Arc::from("ticks"), 1)]);
        let settings = Settings { tuning: tuning(None), memory: 10_000, epochs };
        let mut worker = Worker::new(Arc::clone(&plans()[0].plan), settings, script.clone(), script.clone());
        script.0.borrow_mut().events.push_back(Event::Assigned);
        worker.step(NOW, Duration::ZERO);
        script.0.borrow_mut().events.extend(again());
        worker.step(NOW, Duration::ZERO);
        let (old, new) = match &script.0.borrow().asked[..] {
            [(old, _), (new, _)] => (*old, *new),
            other => panic!("{other:?}"),
        };
        // The old question's answers, good and bad: none of them is for the present assignment.
        for answer in [located(3), Answer::Marks(Err(StoreError::Refused("too late".to_owned())))] {
            script.0.borrow_mut().answers.push_back((old, answer));
            worker.step(NOW, Duration::ZERO);
            assert_eq!(script.0.borrow().bounds, 0);
            assert!(worker.partitions().all(|partition| !partition.is_stopped() && partition.done().is_none()));
        }
        script.0.borrow_mut().answers.push_back((new, located(5)));
        worker.step(NOW, Duration::ZERO);
        worker.step(NOW, Duration::ZERO);
        assert_eq!(worker.partitions().map(Partition::done).collect::<Vec<_>>(), [Some(5)]);
    }
}
