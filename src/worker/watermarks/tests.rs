//! What is stored, and when; how far a partition has come is tested there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::VecDeque;

use super::super::Settings;
use super::*;
use crate::partition::{Lost, Tuning};
use crate::plan::{Limits, Plan, Sources};
use crate::ports::{Bounds, Connection, Insert, LedgerEnd, LogError, LogEvent, Marks, Question, StoreError};

const SCHEMA: &str = r#"{"type": "record", "name": "tick", "fields": [
    {"name": "event_id", "type": "string", "highwater": {"role": "id"}},
    {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "highwater": {"role": "time"}},
    {"name": "app", "type": "string", "highwater": {"role": "dimension"}},
    {"name": "environment", "type": "string", "highwater": {"role": "dimension"}}]}"#;

/// A log of empty partitions.
#[derive(Default)]
struct Empty {
    assigned: Vec<TopicPartition>,
    started: Vec<TopicPartition>,
    /// What is beyond the end that can be read.
    open: u64,
    away: bool,
    asked: u32,
}

impl Log for Empty {
    fn poll(&mut self, _wait: Duration, on: &mut dyn FnMut(LogEvent<'_>)) {
        if !self.assigned.is_empty() {
            on(LogEvent::Assigned(std::mem::take(&mut self.assigned)));
        }
        self.started.drain(..).for_each(|name| on(LogEvent::End(name, 7)));
    }
    fn bounds(&mut self, partitions: &[TopicPartition]) -> Vec<Result<Bounds, LogError>> {
        vec![Ok(Bounds { start: 7, end: 7, committed: None }); partitions.len()]
    }
    fn start(&mut self, partition: &TopicPartition, _offset: u64) -> Result<(), LogError> {
        self.started.push(partition.clone());
        Ok(())
    }
    fn pause(&mut self, _partition: &TopicPartition) {}
    fn resume(&mut self, _partition: &TopicPartition) {}
    fn high_watermarks(&mut self, partitions: &[TopicPartition]) -> Vec<Result<u64, LogError>> {
        self.asked += 1;
        let answer = if self.away { Err(LogError::Passing("away".to_owned())) } else { Ok(7 + self.open) };
        vec![answer; partitions.len()]
    }
    fn commit(&mut self, _offsets: &[(TopicPartition, u64)]) {}
}

/// A store whose ledgers end at 7.
#[derive(Default)]
struct Ready {
    reports: Vec<Vec<(String, i64)>>,
    /// Whether reports are answered, and how.
    outcome: Option<Result<(), StoreError>>,
    answers: VecDeque<(Ticket, Answer)>,
    tickets: u64,
}

impl Ready {
    fn answer(&mut self, answer: Option<Answer>) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.answers.extend(answer.map(|answer| (ticket, answer)));
        ticket
    }
}

impl Store for Ready {
    fn ask(&mut self, questions: Vec<Question>) -> Ticket {
        let ledger = LedgerEnd { end: Some(7), ..LedgerEnd::default() };
        let marks = Marks { connection: Connection(1), ledger, marks: BTreeMap::new() };
        self.answer(Some(Answer::Marks(Ok(vec![marks; questions.len()]))))
    }
    fn insert(&mut self, insert: Insert) -> Ticket {
        panic!("nothing was read: {insert:?}")
    }
    fn ids(&mut self, _source: &Source, _from: u64, _to: u64) -> Ticket {
        self.answer(Some(Answer::Ids(Ok(Vec::new()))))
    }
    fn report(&mut self, watermarks: Vec<(Source, i64)>) -> Ticket {
        self.reports.push(watermarks.into_iter().map(|(source, at)| (source.to_string(), at)).collect());
        let outcome = self.outcome.clone();
        self.answer(outcome.map(Answer::Inserted))
    }
    fn poll(&mut self) -> Option<(Ticket, Answer)> {
        self.answers.pop_front()
    }
}

fn worker(partitions: i32) -> Worker<Empty, Ready> {
    let sources = Sources { schemas: vec![("tick.avsc".to_owned(), SCHEMA.to_owned())], ..Sources::default() };
    let limits = Limits { horizon: 0, max_skew_ms: 1, max_age_ms: 1, lateness_ms: 2_000, max_series: 9 };
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
    let settings = Settings { tuning, memory: 1 << 20, epochs: [(Arc::from("t"), 3)].into() };
    let name = |partition| TopicPartition { topic: "t".into(), partition };
    let log = Empty { assigned: (0..partitions).map(name).collect(), ..Empty::default() };
    let store = Ready { outcome: Some(Ok(())), ..Ready::default() };
    Worker::new(Arc::new(Plan::compile(&sources, limits).unwrap()), settings, log, store)
}

/// Steps for so many tenths of seconds.
fn pass(worker: &mut Worker<Empty, Ready>, from: u64, to: u64) {
    (from..to).for_each(|tenth| worker.step(Duration::from_millis(tenth * 100), Duration::ZERO));
}

fn report(of: &[i64]) -> Vec<(String, i64)> {
    of.iter().enumerate().map(|(partition, at)| (format!("3/t/{partition}"), *at)).collect()
}

#[test]
fn an_assigned_partition_is_entered_at_once_and_advances_every_few_seconds() {
    let mut worker = worker(2);
    pass(&mut worker, 1_000, 1_061);
    let at = |tenth: i64| tenth * 100 - 7_000;
    let reports = [report(&[0, 0]), report(&[at(1_030); 2]), report(&[at(1_060); 2])];
    assert_eq!(worker.store.reports, reports, "lateness and 5 s behind the clock");
    assert_eq!(worker.log.asked, 2, "nobody was quiet the first time");
}

#[test]
fn nothing_advances_without_the_logs_word() {
    for (away, open) in [(true, 0), (false, 1)] {
        let mut worker = worker(1);
        (worker.log.away, worker.log.open) = (away, open);
        pass(&mut worker, 1_000, 1_100);
        assert_eq!((&worker.store.reports[..], worker.log.asked), (&[report(&[0])][..], 3));
        (worker.log.away, worker.log.open) = (false, 0);
        pass(&mut worker, 1_100, 1_130);
        assert_eq!(worker.store.reports.len(), 2);
    }
}

#[test]
fn what_was_not_stored_is_told_again_and_one_report_waits_for_the_other() {
    let mut worker = worker(1);
    (worker.log.open, worker.store.outcome) = (1, Some(Err(StoreError::Broken("gone".to_owned()))));
    pass(&mut worker, 1_000, 1_061);
    assert_eq!(worker.store.reports, vec![report(&[0]); 3]);
    worker.store.outcome = None;
    pass(&mut worker, 1_061, 1_200);
    assert_eq!(worker.store.reports.len(), 4, "no second report while the first has no answer");
    worker.store.answers.push_back((Ticket(worker.store.tickets), Answer::Inserted(Ok(()))));
    pass(&mut worker, 1_200, 1_300);
    assert_eq!(worker.store.reports.len(), 4, "told, and nothing moved");
}
