//! What a random search hardly reaches, step by step: one worker between a log and a store that a test writes the script of.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use highwater::batch::{Key, LedgerKind, Source};
use highwater::partition::{Lost, Partition, Tuning};
use highwater::ports::{
    Answer, Bounds, Connection, Insert, LedgerEnd, Log, LogError, LogEvent, Marks, Question, Record, Rows, Store,
    StoreError, Ticket, TopicPartition,
};
use highwater::worker::{Settings, Worker};

use crate::directed::{NOW, event, tuning};
use crate::plans::plans;

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
    /// So many questions whether the topic is the one that was claimed have no answer.
    unanswered: u32,
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

    fn recognise(&mut self, _: &str) -> Result<(), LogError> {
        let unanswered = &mut self.0.borrow_mut().unanswered;
        match unanswered.checked_sub(1) {
            Some(left) => {
                *unanswered = left;
                Err(LogError::Passing("no broker answers".to_owned()))
            }
            None => Ok(()),
        }
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
fn a_batch_waits_for_as_long_as_nobody_says_whose_the_topic_is() {
    let script = Scripted::default();
    let epochs = BTreeMap::from([(Arc::from("ticks"), 1)]);
    let settings = Settings { tuning: tuning(None), memory: 10_000, epochs };
    let mut worker = Worker::new(Arc::clone(&plans()[0].plan), settings, script.clone(), script.clone());
    let (mut marks, mut rows, mut now) = (BTreeMap::new(), Vec::new(), NOW);
    script.0.borrow_mut().unanswered = 200;
    script.0.borrow_mut().events.extend([Event::Assigned]);
    let mut minutes = 0;
    while script.0.borrow().unanswered > 0 {
        for _ in 0..60 {
            now += Duration::from_secs(1);
            worker.step(now, Duration::ZERO);
            serve(&mut script.0.borrow_mut(), &mut marks, &mut rows);
        }
        if script.0.borrow().unanswered > 0 {
            assert_eq!(
                (rows.as_slice(), marks.len()),
                (&[(LedgerKind::Start, 0, 0)][..], 0),
                "after {minutes} minutes"
            );
        }
        // More comes meanwhile, as long as it is not held back.
        script.0.borrow_mut().events.extend((minutes < 2).then_some(Event::Record(minutes)));
        minutes += 1;
        assert!(minutes < 60 && worker.partitions().all(|partition| !partition.is_stopped()));
    }
    assert!(minutes > 5, "asked again and again within {minutes} minutes");
    for _ in 0..60 {
        now += Duration::from_secs(1);
        worker.step(now, Duration::ZERO);
        serve(&mut script.0.borrow_mut(), &mut marks, &mut rows);
    }
    assert_eq!(rows, [(LedgerKind::Start, 0, 0), (LedgerKind::Batch, 0, 1), (LedgerKind::Batch, 1, 2)]);
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
