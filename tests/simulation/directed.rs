//! What a random search hardly reaches, step by step: one worker or one partition between answers that a test gives.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use highwater::batch::Source;
use highwater::partition::{Action, Lost, Partition, Reply, Terms, Tuning};
use highwater::ports::{
    Answer, Bounds, Connection, Insert, LedgerEnd, Log, LogError, LogEvent, Marks, Question, Record, Rows, Store,
    StoreError, Ticket, TopicPartition,
};
use highwater::worker::{Settings, Worker};
use highwater::writers::Writers;

use crate::log::{self, Entry, START_MS};
use crate::plans::plans;
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
            partition: Partition::new(Source { epoch, redrive: None, topic: "ticks".into(), partition: 0 }),
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

    /// Delivers a good event.
    fn event(&mut self, offset: u64) {
        let record = event();
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

/// A row of the type `tick` from a random log.
fn event() -> log::Record {
    let mut rng = fastrand::Rng::with_seed(1);
    let good = |record: &log::Record| match record.entry {
        Entry::Event(event) => event.kind == 0 && (event.micros / 1_000 - record.timestamp_ms).abs() < 90_000,
        _ => false,
    };
    let logs = (0..).map(|_| log::log(&mut rng, log::Repeats::Never));
    logs.flatten().find(good).expect("one of them is good")
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
    bounds: u32,
    tickets: u64,
}

enum Event {
    Assigned,
    Revoked,
    OutOfRange,
}

#[derive(Clone, Default)]
struct Scripted(Rc<RefCell<Script>>);

fn name() -> TopicPartition {
    TopicPartition { topic: "ticks".into(), partition: 0 }
}

impl Log for Scripted {
    fn poll(&mut self, _wait: Duration, on: &mut dyn FnMut(LogEvent<'_>)) {
        let events: Vec<Event> = self.0.borrow_mut().events.drain(..).collect();
        for event in events {
            on(match event {
                Event::Assigned => LogEvent::Assigned(vec![name()]),
                Event::Revoked => LogEvent::Revoked(vec![name()]),
                Event::OutOfRange => LogEvent::OutOfRange(name()),
            });
        }
    }

    fn bounds(&mut self, partitions: &[TopicPartition]) -> Vec<Result<Bounds, LogError>> {
        self.0.borrow_mut().bounds += 1;
        vec![Ok(Bounds { start: 0, end: 9, committed: None }); partitions.len()]
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

    fn insert(&mut self, _: Insert) -> Ticket {
        self.ticket()
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
