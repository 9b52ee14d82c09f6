//! One schedule: workers, the servers' models, and a seeded scheduler that chooses what happens next.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use highwater::batch::{Key, Month, Source};
use highwater::partition::{Partition, Tuning};
use highwater::plan::{Plan, TableKind};
use highwater::ports::Connection;
use highwater::worker::{Settings, Worker};

use crate::clickhouse::{Cell, ClickHouse, ModelStore};
use crate::kafka::{Kafka, ModelLog, TOPIC};
use crate::truth::{self, Truth};

/// A rule of the protocol, broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// The protocol as it is.
    None,
    /// The server keeps no tokens.
    NoTokens,
    /// Marks are not looked at.
    NoMarks,
    /// A rollup block carries no marker.
    NoMarker,
    /// The mark is asked for a table and not for its month.
    MarkPerTable,
    /// The token does not name the mark.
    TokenWithoutMark,
    /// A successful insert counts as done without its mark being seen.
    BelieveSuccess,
    /// An insert goes out on a connection that was opened after its mark was asked.
    SilentReconnect,
    /// A burnt token gets no suffix.
    NoSuffix,
    /// Work begins at the group's commit instead of the ledger's end.
    StartAtCommit,
    /// Rows that expire as they land are waited for.
    WaitForExpired,
    /// Ids that the log no longer has are not looked up in the raw rows.
    ForgetIds,
}

impl Mutation {
    pub const ALL: [Mutation; 11] = [
        Mutation::NoTokens,
        Mutation::NoMarks,
        Mutation::NoMarker,
        Mutation::MarkPerTable,
        Mutation::TokenWithoutMark,
        Mutation::BelieveSuccess,
        Mutation::SilentReconnect,
        Mutation::NoSuffix,
        Mutation::StartAtCommit,
        Mutation::WaitForExpired,
        Mutation::ForgetIds,
    ];
}

/// What the servers' models and the clients' sides have in common.
pub struct Shared {
    pub rng: fastrand::Rng,
    pub mutation: Mutation,
    pub plan: Arc<Plan>,
    pub kafka: Kafka,
    pub clickhouse: ClickHouse,
    /// Each client's open connection and the server's start that it belongs to.
    pub connections: BTreeMap<u32, (Connection, u64)>,
    /// Faults have ended.
    pub calm: bool,
    /// Time since 1970.
    pub now: Duration,
    /// How long the server keeps events; what is older is gone as it lands.
    pub keep_events: Option<Duration>,
    pub counts: BTreeMap<&'static str, u64>,
    violation: Option<String>,
    trace: Option<Vec<String>>,
}

impl Shared {
    pub fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub fn wrong(&mut self, what: String) {
        self.say(|| format!("!! {what}"));
        self.violation.get_or_insert(what);
    }
}

/// How a schedule ended.
pub struct Outcome {
    pub violation: Option<String>,
    pub counts: BTreeMap<&'static str, u64>,
    pub trace: Vec<String>,
}

pub struct World {
    shared: Rc<RefCell<Shared>>,
    workers: Vec<Slot>,
    settings: Settings,
    /// Whether the logs lose their beginning, once it is written.
    retention: bool,
    /// Names clients and members; a restarted worker is a new one.
    clients: u32,
    truths: Vec<Truth>,
}

struct Slot {
    client: u32,
    worker: Option<Worker<ModelLog, ModelStore>>,
    frozen: bool,
}

const INSERT_TIMEOUT: Duration = Duration::from_secs(10);

fn plan() -> Arc<Plan> {
    static PLAN: OnceLock<Arc<Plan>> = OnceLock::new();
    Arc::clone(PLAN.get_or_init(|| Arc::new(truth::plan())))
}

impl World {
    /// Runs the schedule of a seed.
    pub fn run(seed: u64, mutation: Mutation, tracing: bool) -> Outcome {
        let mut world = World::new(seed, mutation, tracing);
        let steps = world.shared.borrow_mut().rng.usize(100..700);
        for _ in 0..steps {
            world.step();
        }
        world.finish();
        drop(world.workers);
        let shared = world.shared.replace(Shared::empty());
        Outcome { violation: shared.violation, counts: shared.counts, trace: shared.trace.unwrap_or_default() }
    }

    fn new(seed: u64, mutation: Mutation, tracing: bool) -> World {
        let mut rng = fastrand::Rng::with_seed(seed);
        let plan = plan();
        let partitions = [1, 1, 1, 2, 3][rng.usize(0..5)];
        let workers = rng.usize(2..4);
        let retention = rng.u8(0..5) == 0;
        let logs: Vec<_> = (0..partitions).map(|_| truth::log(&mut rng, &plan, retention)).collect();
        let truths = logs.iter().map(|log| truth::truth(log)).collect();
        let kafka = Kafka {
            starts: vec![0; partitions],
            ends: vec![2; partitions],
            committed: vec![None; partitions],
            owners: vec![None; partitions],
            delayed: Vec::new(),
            logs,
        };
        let seal_events = rng.u64(1..12);
        // Events span two minutes and a half around the start; in some schedules the older of them have expired.
        let keep_events = (!retention && rng.u8(0..6) == 0).then(|| Duration::from_secs(rng.u64(1..200)));
        let now = Duration::from_millis(truth::START_MS as u64 + 120_000);
        let trace = tracing.then(Vec::new);
        let shared = Shared { rng, mutation, plan, kafka, trace, now, keep_events, ..Shared::empty() };
        let insert_timeout = if mutation == Mutation::NoSuffix { Duration::MAX } else { INSERT_TIMEOUT };
        let tuning = Tuning {
            seal_after: Duration::from_secs(1),
            seal_events,
            seal_bytes: 4_000,
            insert_timeout,
            lost: highwater::partition::Lost::Record,
            keep_events: keep_events.filter(|_| mutation != Mutation::WaitForExpired),
        };
        let settings = Settings { tuning, memory: 3_000, epochs: BTreeMap::from([(Arc::from(TOPIC), 1)]) };
        let shared = Rc::new(RefCell::new(shared));
        let mut world = World { shared, workers: Vec::new(), settings, retention, clients: 0, truths };
        for _ in 0..workers {
            world.workers.push(Slot { client: 0, worker: None, frozen: false });
        }
        for index in 0..workers {
            world.start(index);
        }
        world
    }

    fn start(&mut self, index: usize) {
        self.clients += 1;
        let client = self.clients;
        let plan = Arc::clone(&self.shared.borrow().plan);
        let log = ModelLog::new(Rc::clone(&self.shared), client);
        let store = ModelStore::new(Rc::clone(&self.shared), client);
        let worker = Worker::new(plan, self.settings.clone(), log, store);
        self.workers[index] = Slot { client, worker: Some(worker), frozen: false };
        self.shared.borrow_mut().say(|| format!("worker {index} starts as {client}"));
    }

    fn step(&mut self) {
        let draw = self.shared.borrow_mut().rng.u32(0..1_000);
        let index = self.shared.borrow_mut().rng.usize(0..self.workers.len());
        match draw {
            0..500 => self.work(index),
            500..760 => self.shared.borrow_mut().deliver(),
            760..810 => self.produce(),
            810..880 => {
                let wait = self.shared.borrow_mut().rng.u64(10..2_000);
                self.pass(Duration::from_millis(wait));
            }
            880..890 => self.pass(INSERT_TIMEOUT),
            890..930 => self.rebalance(),
            930..945 => self.crash(index),
            945..960 => self.freeze(index),
            960..970 => self.shared.borrow_mut().give_up(),
            970..975 => self.shared.borrow_mut().kill_server(),
            975..985 => self.late_commit(),
            985..990 => self.expire_log(),
            _ => self.reset_commit(),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.shared.borrow_mut().now += time;
    }

    fn work(&mut self, index: usize) {
        let now = self.shared.borrow().now;
        let slot = &mut self.workers[index];
        match &mut slot.worker {
            Some(worker) if !slot.frozen => worker.step(now, Duration::ZERO),
            Some(_) => slot.frozen = self.shared.borrow_mut().rng.u8(..) > 20,
            None => {
                if self.shared.borrow_mut().rng.u8(..) < 60 {
                    self.start(index);
                }
            }
        }
    }

    fn produce(&mut self) {
        let shared = &mut *self.shared.borrow_mut();
        let partition = shared.rng.usize(0..shared.kafka.logs.len());
        let end = shared.kafka.ends[partition] + shared.rng.u64(1..7);
        shared.kafka.ends[partition] = end.min(shared.kafka.logs[partition].len() as u64);
    }

    fn rebalance(&mut self) {
        let index = self.shared.borrow_mut().rng.usize(0..self.workers.len());
        let client = self.workers[index].client;
        let shared = &mut *self.shared.borrow_mut();
        let partition = shared.rng.usize(0..shared.kafka.owners.len());
        if shared.kafka.owners[partition].is_some_and(|owner| owner != client) {
            shared.count("partition given to another");
        }
        shared.kafka.owners[partition] = Some(client);
        shared.say(|| format!("partition {partition} goes to {client}"));
    }

    fn crash(&mut self, index: usize) {
        if self.workers[index].worker.take().is_some() {
            let client = self.workers[index].client;
            let shared = &mut *self.shared.borrow_mut();
            shared.count("worker crashed");
            shared.connections.remove(&client);
            shared.say(|| format!("{client} crashes"));
        }
    }

    fn freeze(&mut self, index: usize) {
        self.workers[index].frozen = true;
        self.shared.borrow_mut().count("worker froze");
    }

    fn late_commit(&mut self) {
        let shared = &mut *self.shared.borrow_mut();
        if !shared.kafka.delayed.is_empty() {
            let index = shared.rng.usize(0..shared.kafka.delayed.len());
            let (partition, offset) = shared.kafka.delayed.remove(index);
            shared.kafka.committed[partition] = Some(offset);
            shared.count("commit applied late");
        }
    }

    /// Retention takes what is written already, and with it ids of the duplicates window.
    fn expire_log(&mut self) {
        let shared = &mut *self.shared.borrow_mut();
        let partition = shared.rng.usize(0..shared.kafka.starts.len());
        let rows = shared.clickhouse.ledger.get(&source(partition));
        let done = rows.and_then(|rows| rows.last()).map_or(0, |row| row.to);
        let start = shared.kafka.starts[partition];
        if self.retention && done > start {
            shared.kafka.starts[partition] = shared.rng.u64(start..=done);
            shared.say(|| format!("partition {partition}: retention moves the log's start from {start}"));
        }
    }

    fn reset_commit(&mut self) {
        let shared = &mut *self.shared.borrow_mut();
        let partition = shared.rng.usize(0..shared.kafka.committed.len());
        let back = shared.kafka.committed[partition].map(|offset| shared.rng.u64(0..=offset));
        shared.kafka.committed[partition] = back.filter(|_| shared.rng.bool());
    }

    /// Faults end, everything that slept wakes, all is delivered; then the tables are held against the truth.
    fn finish(&mut self) {
        {
            let shared = &mut *self.shared.borrow_mut();
            shared.calm = true;
            shared.say(|| "-- faults end --".to_owned());
            for partition in 0..shared.kafka.logs.len() {
                shared.kafka.ends[partition] = shared.kafka.logs[partition].len() as u64;
            }
        }
        for index in 0..self.workers.len() {
            self.workers[index].frozen = false;
            if self.workers[index].worker.is_none() {
                self.start(index);
            }
        }
        let clients: Vec<u32> = self.workers.iter().map(|slot| slot.client).collect();
        for lap in 0..2_000 {
            for (index, owner) in self.shared.borrow_mut().kafka.owners.iter_mut().enumerate() {
                if !owner.is_some_and(|owner| clients.contains(&owner)) {
                    *owner = Some(clients[index % clients.len()]);
                }
            }
            let now = self.shared.borrow().now;
            for slot in &mut self.workers {
                if let Some(worker) = &mut slot.worker {
                    worker.step(now, Duration::ZERO);
                }
            }
            while !self.shared.borrow().clickhouse.net.is_empty() {
                self.shared.borrow_mut().deliver();
            }
            self.pass(Duration::from_millis(if lap % 10 == 9 { 11_000 } else { 300 }));
            if self.shared.borrow().violation.is_some() || self.is_settled() {
                break;
            }
        }
        self.check();
    }

    fn is_settled(&self) -> bool {
        let idle = self.workers.iter().flat_map(|slot| &slot.worker).all(|worker| {
            !worker.is_waiting()
                && worker.partitions().all(|partition| partition.is_idle() && partition.done().is_some())
        });
        let shared = self.shared.borrow();
        let ends = (0..self.truths.len()).all(|partition| {
            let rows = shared.clickhouse.ledger.get(&source(partition));
            rows.and_then(|rows| rows.last()).is_some_and(|row| row.to >= self.truths[partition].end)
        });
        idle && ends
    }

    fn check(&self) {
        let stopped =
            self.workers.iter().flat_map(|slot| &slot.worker).flat_map(Worker::partitions).any(Partition::is_stopped);
        let shared = &mut *self.shared.borrow_mut();
        if stopped {
            shared.wrong("a partition stopped".to_owned());
        }
        for (partition, truth) in self.truths.iter().enumerate() {
            if let Err(wrong) = check_partition(shared, partition, truth) {
                shared.wrong(format!("partition {partition}: {wrong}"));
            }
        }
    }
}

fn source(partition: usize) -> String {
    Source { epoch: 1, topic: Arc::from(TOPIC), partition: partition as i32 }.to_string()
}

/// Every table equals the truth and the ledger tiles it.
fn check_partition(shared: &Shared, partition: usize, truth: &Truth) -> Result<(), String> {
    let source = source(partition);
    let months = [202_601, 202_602].map(Month);
    for (id, table) in shared.plan.tables.iter().enumerate() {
        for month in months {
            let key = Key { table: highwater::plan::TableId(id as u16), month };
            let found = shared.clickhouse.cells.get(&(source.clone(), key)).cloned().unwrap_or_default();
            let Cell { mut offsets, series, .. } = found;
            offsets.sort_unstable();
            let expected = |of: &BTreeMap<u32, Vec<u64>>| {
                let mut all = of.get(&month.0).cloned().unwrap_or_default();
                // What has expired may be there or not; what is there must be there once.
                all.retain(|offset| offsets.contains(offset) || !shared.has_expired(&truth.times, *offset));
                all
            };
            let (expected, expected_series) = match table.kind {
                TableKind::Raw(_) => (expected(&truth.raw), truth::Series::new()),
                TableKind::DeadLetters => (expected(&truth.dead), truth::Series::new()),
                TableKind::Rollup(_) => (Vec::new(), truth.rollup.get(&month.0).cloned().unwrap_or_default()),
            };
            if offsets != expected {
                return Err(format!("{} {month}: offsets {offsets:?} instead of {expected:?}", table.name));
            }
            if series != expected_series {
                return Err(format!("{} {month}: {series:?} instead of {expected_series:?}", table.name));
            }
        }
    }
    check_ledger(shared, &source, truth)
}

fn check_ledger(shared: &Shared, source: &str, truth: &Truth) -> Result<(), String> {
    let rows = shared.clickhouse.ledger.get(source).ok_or("no ledger")?;
    let end = rows.last().map_or(0, |row| row.to);
    if end != truth.end {
        return Err(format!("stuck: the ledger ends at {end} instead of {}", truth.end));
    }
    for row in rows {
        let inside = |offset: &&u64| (row.from..row.to).contains(*offset);
        let raw = truth.raw.values().flatten().filter(inside).count() as u64;
        let dead = truth.dead.values().flatten().filter(inside).count() as u64;
        let duplicates = truth.duplicates.iter().filter(inside).count() as u64;
        let claimed = (row.rows.values().sum::<u64>(), row.dead_letters, row.duplicates, row.events);
        if claimed != (raw, dead, duplicates, raw + dead + duplicates) {
            return Err(format!("ledger {}..{} claims {claimed:?}: {raw} {dead} {duplicates}", row.from, row.to));
        }
    }
    Ok(())
}

impl Shared {
    /// Whether a raw row is older than the server keeps it.
    pub fn has_expired(&self, times: &BTreeMap<u64, i64>, offset: u64) -> bool {
        let horizon = self.keep_events.map_or(0, |keep| (self.now - keep).as_micros() as i64);
        times.get(&offset).is_some_and(|&time| time < horizon)
    }

    fn empty() -> Shared {
        Shared {
            rng: fastrand::Rng::with_seed(0),
            mutation: Mutation::None,
            plan: plan(),
            kafka: Kafka::default(),
            clickhouse: ClickHouse::default(),
            connections: BTreeMap::new(),
            calm: false,
            now: Duration::ZERO,
            keep_events: None,
            counts: BTreeMap::new(),
            violation: None,
            trace: None,
        }
    }
}
