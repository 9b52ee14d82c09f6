//! A worker between a log and a store that always answer and a registry that does not. What the log and the store do to a
//! worker is the simulation's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::*;
use crate::batch::{Key, LedgerRow};
use crate::event::wire::Writer;
use crate::partition::Lost;
use crate::plan::{Limits, Sources, TableKind};
use crate::ports::{
    Bounds, Connection, Insert, LedgerEnd, LogError, Marks, Record, Registered, RegistryError, Rows, StoreError,
};

const TICK: &str = r#"{"type": "record", "name": "tick", "fields": [
    {"name": "event_id", "type": "string", "highwater": {"role": "id"}},
    {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "highwater": {"role": "time"}},
    {"name": "app", "type": "string", "highwater": {"role": "dimension"}},
    {"name": "environment", "type": "string", "highwater": {"role": "dimension"}}]}"#;

/// 2026-02-01 00:00 UTC.
const START_MS: u64 = 1_769_904_000_000;
/// Records that the log hands over at a time.
const POLL: usize = 4;
const KNOWN: u32 = 1;
const MISSING: u32 = 404;

#[derive(Default)]
struct Shared {
    /// Messages of each partition.
    logs: Vec<Vec<Vec<u8>>>,
    /// Next offset and whether it is paused, of each started partition.
    positions: BTreeMap<i32, (usize, bool)>,
    /// Offsets per table name of each source.
    rows: BTreeMap<(String, String), Vec<u64>>,
    ledger: BTreeMap<String, Vec<LedgerRow>>,
    /// Whether the registry answers.
    up: bool,
    asked: Vec<u32>,
}

type World = Rc<RefCell<Shared>>;

struct ModelLog(World);

impl Log for ModelLog {
    fn poll(&mut self, _: Duration, on: &mut dyn FnMut(LogEvent<'_>)) {
        let shared = &mut *self.0.borrow_mut();
        for (&partition, (next, paused)) in &mut shared.positions {
            let log = &shared.logs[partition as usize];
            let upto = if *paused { *next } else { log.len().min(*next + POLL) };
            for (offset, payload) in log.iter().enumerate().take(upto).skip(*next) {
                let (offset, payload) = (offset as u64, Some(payload.as_slice()));
                on(LogEvent::Record(Record {
                    topic: "t",
                    partition,
                    offset,
                    timestamp_ms: START_MS as i64,
                    key: None,
                    payload,
                }));
            }
            *next = upto;
            if !*paused && upto == log.len() {
                on(LogEvent::End(name(partition), upto as u64));
            }
        }
    }

    fn bounds(&mut self, partitions: &[TopicPartition]) -> Vec<Result<Bounds, LogError>> {
        let ends = |name: &TopicPartition| self.0.borrow().logs[name.partition as usize].len() as u64;
        partitions.iter().map(|name| Ok(Bounds { start: 0, end: ends(name), committed: None })).collect()
    }

    fn start(&mut self, partition: &TopicPartition, offset: u64) -> Result<(), LogError> {
        self.0.borrow_mut().positions.insert(partition.partition, (offset as usize, false));
        Ok(())
    }

    fn pause(&mut self, partition: &TopicPartition) {
        self.0.borrow_mut().positions.get_mut(&partition.partition).unwrap().1 = true;
    }

    fn resume(&mut self, partition: &TopicPartition) {
        self.0.borrow_mut().positions.get_mut(&partition.partition).unwrap().1 = false;
    }

    fn high_watermarks(&mut self, partitions: &[TopicPartition]) -> Vec<Result<u64, LogError>> {
        partitions.iter().map(|name| Ok(self.0.borrow().logs[name.partition as usize].len() as u64)).collect()
    }

    fn commit(&mut self, _: &[(TopicPartition, u64)]) {}
}

fn name(partition: i32) -> TopicPartition {
    TopicPartition { topic: "t".into(), partition }
}

struct ModelStore {
    shared: World,
    plan: Arc<Plan>,
    answers: VecDeque<(Ticket, Answer)>,
    tickets: u64,
}

impl ModelStore {
    fn answer(&mut self, answer: Answer) -> Ticket {
        self.tickets += 1;
        self.answers.push_back((Ticket(self.tickets), answer));
        Ticket(self.tickets)
    }
}

impl Store for ModelStore {
    fn ask(&mut self, questions: Vec<Question>) -> Ticket {
        let shared = self.shared.borrow();
        let marks = questions.iter().map(|question| {
            let source = question.source.to_string();
            let mark = |key: &Key| {
                let table = self.plan.table(key.table).name.clone();
                Some((*key, shared.rows.get(&(source.clone(), table))?.last()? + 1))
            };
            let end = shared.ledger.get(&source).map(|rows| rows.last().unwrap().to);
            let ledger = LedgerEnd { end, ..LedgerEnd::default() };
            Marks { connection: Connection(1), ledger, marks: question.keys.iter().filter_map(mark).collect() }
        });
        let answer = Answer::Marks(Ok(marks.collect()));
        drop(shared);
        self.answer(answer)
    }

    fn report(&mut self, _: Vec<(Source, i64)>) -> Ticket {
        self.answer(Answer::Inserted(Ok(())))
    }

    fn insert(&mut self, insert: Insert) -> Ticket {
        let shared = &mut *self.shared.borrow_mut();
        match insert.rows {
            Rows::Ledger(row) => shared.ledger.entry(row.source.to_string()).or_default().push(row),
            Rows::Block(block) => {
                let table = self.plan.table(block.key().table);
                let offsets = match table.kind {
                    TableKind::Rollup(_) => vec![block.batch().to() - 1],
                    TableKind::Raw(_) | TableKind::DeadLetters => {
                        let (columns, rows) = block.events(&self.plan);
                        columns.offsets[rows].to_vec()
                    }
                };
                let name = (block.batch().source().to_string(), table.name.clone());
                shared.rows.entry(name).or_default().extend(offsets);
            }
        }
        self.tickets += 1;
        self.answers.push_back((Ticket(self.tickets), Answer::Inserted(Ok(()))));
        Ticket(self.tickets)
    }

    fn ids(&mut self, _: &Source, _: u64, _: u64) -> Ticket {
        self.answer(Answer::Ids(Err(StoreError::Refused("the log has them all".to_owned()))))
    }

    fn poll(&mut self) -> Option<(Ticket, Answer)> {
        self.answers.pop_front()
    }
}

struct ModelRegistry {
    shared: World,
    out: VecDeque<u32>,
}

impl Registry for ModelRegistry {
    fn ask(&mut self, id: u32) {
        self.shared.borrow_mut().asked.push(id);
        self.out.push_back(id);
    }

    fn poll(&mut self) -> Option<(u32, Result<Registered, RegistryError>)> {
        let id = self.out.pop_front()?;
        Some(match id {
            _ if !self.shared.borrow().up => (id, Err(RegistryError("connection refused".to_owned()))),
            MISSING => (id, Ok(Registered::Missing)),
            _ => (id, Ok(Registered::Avro(TICK.to_owned()))),
        })
    }
}

struct Bench {
    shared: World,
    worker: Worker<ModelLog, ModelStore, ModelRegistry>,
    now: Duration,
}

impl Bench {
    /// A worker that was just given all these partitions.
    fn new(logs: Vec<Vec<Vec<u8>>>) -> Bench {
        let shared = World::default();
        shared.borrow_mut().logs = logs;
        let mut bench = Bench { worker: worker(&shared), shared, now: Duration::from_millis(START_MS) };
        bench.assign();
        bench
    }

    fn assign(&mut self) {
        let Worker { partitions, assignments, .. } = &mut self.worker;
        for partition in 0..self.shared.borrow().logs.len() as i32 {
            *assignments += 1;
            let source = Source { epoch: 1, redrive: None, topic: "t".into(), partition };
            let assigned =
                Assigned { serial: *assignments, partition: Partition::new(source, 1), told: None, astray: false };
            partitions.entry("t".into()).or_default().insert(partition, assigned);
        }
    }

    /// The process ends and another takes its place.
    fn restart(&mut self) {
        self.worker = worker(&self.shared);
        self.shared.borrow_mut().positions.clear();
        self.assign();
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.now += Duration::from_millis(100);
            self.worker.step(self.now, Duration::ZERO);
        }
    }

    fn end(&self, partition: i32) -> u64 {
        let shared = self.shared.borrow();
        shared.ledger.get(&format!("1/t/{partition}")).map_or(0, |rows| rows.last().unwrap().to)
    }

    fn rows(&self, partition: i32, table: &str) -> Vec<u64> {
        let name = (format!("1/t/{partition}"), table.to_owned());
        self.shared.borrow().rows.get(&name).cloned().unwrap_or_default()
    }

    fn up(&mut self, up: bool) {
        self.shared.borrow_mut().up = up;
    }
}

fn plan() -> Plan {
    let schemas = vec![("tick.avsc".to_owned(), TICK.to_owned())];
    let day = 86_400_000;
    let limits = Limits { horizon: 10, max_skew_ms: day, max_age_ms: day, lateness_ms: 0, max_series: 9 };
    Plan::compile(&Sources { schemas, registry: true, ..Sources::default() }, limits).unwrap()
}

fn worker(shared: &World) -> Worker<ModelLog, ModelStore, ModelRegistry> {
    let plan = Arc::new(plan());
    let second = Duration::from_secs(1);
    let tuning = Tuning {
        seal_after: second,
        seal_events: 100,
        seal_bytes: 1 << 20,
        insert_timeout: second,
        keep_events: None,
        marks_last: Duration::from_secs(60),
        lost: Lost::Stop,
    };
    let settings = Settings { tuning, memory: 1 << 20, epochs: BTreeMap::from([("t".into(), 1)]) };
    let log = ModelLog(Rc::clone(shared));
    let (answers, registry) = (VecDeque::new(), ModelRegistry { shared: Rc::clone(shared), out: VecDeque::new() });
    let store = ModelStore { shared: Rc::clone(shared), plan: Arc::clone(&plan), answers, tickets: 0 };
    Worker::with_registry(plan, settings, log, store, registry)
}

/// An event of this id, framed by the plan's fingerprint or by a registry's id.
fn event(id: u8, framing: Option<u32>) -> Vec<u8> {
    let mut out = Vec::new();
    framing.map_or_else(|| Writer::Fingerprint(plan().types[0].event.fingerprint), Writer::Id).frame(&mut out);
    out.extend_from_slice(&[2, id]);
    let mut time = START_MS << 1;
    while time >= 0x80 {
        out.push(time as u8 | 0x80);
        time >>= 7;
    }
    out.extend_from_slice(&[time as u8, 2, b'a', 2, b't']);
    out
}

fn events(framings: &[Option<u32>]) -> Vec<Vec<u8>> {
    (b'A'..).zip(framings).map(|(id, framing)| event(id, *framing)).collect()
}

const FINGERPRINT: Option<u32> = None;
const ID: Option<u32> = Some(KNOWN);

#[test]
fn while_the_registry_is_away_a_partition_waits_in_order_and_the_others_go_on() {
    let mut mixed = vec![FINGERPRINT, FINGERPRINT, ID, FINGERPRINT, Some(2), ID];
    mixed.extend([FINGERPRINT; 14]);
    let mut bench = Bench::new(vec![events(&mixed), events(&[FINGERPRINT; 20])]);
    bench.run(60);
    assert_eq!(bench.end(1), 20, "needs no registry");
    assert_eq!((bench.end(0), bench.rows(0, "tick")), (2, vec![0, 1]), "written up to the first id, and no further");
    let (next, paused) = bench.shared.borrow().positions[&0];
    assert!(paused && next <= 2 * POLL, "{next} records came in");
    assert!(!bench.worker.partitions().any(Partition::is_stopped));
    let asked = bench.shared.borrow().asked.len();
    assert!((10..60).contains(&asked), "asked {asked} times in a minute");

    bench.up(true);
    bench.run(30);
    assert_eq!((bench.end(0), bench.rows(0, "tick")), (20, (0..20).collect()), "all, once, in order");
    assert_eq!(bench.rows(0, "dead_letters"), Vec::<u64>::new());
    // What is known is not asked for again, and does not need the registry any more.
    bench.up(false);
    let asked = bench.shared.borrow().asked.len();
    bench.shared.borrow_mut().logs[0].extend([event(b'y', ID), event(b'z', Some(2))]);
    bench.run(5);
    assert_eq!((bench.end(0), bench.shared.borrow().asked.len()), (22, asked));
}

#[test]
fn an_id_that_is_missing_for_good_costs_one_dead_letter_and_ten_seconds() {
    let log = events(&[ID, Some(MISSING), FINGERPRINT, Some(MISSING), ID]);
    let mut bench = Bench::new(vec![log, events(&[FINGERPRINT; 3])]);
    bench.up(true);
    bench.run(5);
    assert_eq!((bench.end(0), bench.end(1)), (1, 3), "a replica of the registry may lag behind");
    bench.run(10);
    assert_eq!((bench.end(0), bench.rows(0, "tick"), bench.rows(0, "dead_letters")), (5, vec![0, 2, 4], vec![1, 3]));
}

/// The window is a function of the log: ids before the ledger's end count, whatever they are framed as, and though the
/// registry was away when they were read again.
#[test]
fn duplicates_are_known_across_a_restart_without_a_registry() {
    let mut bench = Bench::new(vec![events(&[ID, FINGERPRINT, ID])]);
    bench.up(true);
    bench.run(5);
    assert_eq!(bench.end(0), 3);
    bench.up(false);
    bench.restart();
    // The ids of offsets 0 and 1 again, each in the other framing, and a new one.
    let more = [event(b'A', FINGERPRINT), event(b'B', ID), event(b'Z', FINGERPRINT)];
    bench.shared.borrow_mut().logs[0].extend(more);
    bench.run(20);
    assert_eq!(bench.end(0), 3, "nothing is written before the ids are known");
    bench.up(true);
    bench.run(20);
    assert_eq!((bench.end(0), bench.rows(0, "tick")), (6, vec![0, 1, 2, 5]));
    let duplicates: u64 = bench.shared.borrow().ledger["1/t/0"].iter().map(|row| row.duplicates).sum();
    assert_eq!(duplicates, 2);
}

#[test]
fn a_partition_that_ends_while_it_waits_goes_on_elsewhere() {
    let mut bench = Bench::new(vec![events(&[FINGERPRINT, ID, FINGERPRINT])]);
    bench.run(5);
    assert_eq!(bench.end(0), 1);
    assert!(bench.worker.drain(bench.now), "a stop does not wait for the registry");
    bench.restart();
    bench.up(true);
    bench.run(5);
    assert_eq!((bench.end(0), bench.rows(0, "tick")), (3, vec![0, 1, 2]));
}
