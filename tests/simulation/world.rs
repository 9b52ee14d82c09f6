//! One schedule: workers, the servers' models, and a seeded scheduler that chooses what happens next.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use highwater::partition::{Lost, Partition, Tuning};
use highwater::worker::{Settings, Worker};

use crate::kafka::{Kafka, ModelLog, POLL, TOPIC};
use crate::log::{self, Repeats};
use crate::mutation::Mutation;
use crate::plans::plans;
use crate::redrive::Redriver;
use crate::shared::{Faults, INSERT_TIMEOUT, MARKS_LAST, SKEW, Shared};
use crate::store::ModelStore;

/// How a schedule ended.
pub struct Outcome {
    pub violation: Option<String>,
    pub counts: BTreeMap<&'static str, u64>,
    pub steps: u64,
    pub trace: Vec<String>,
}

pub struct World {
    pub shared: Rc<RefCell<Shared>>,
    pub slots: Vec<Slot>,
    repeats: Repeats,
    /// How often each action is chosen.
    weights: [u32; ACTIONS.len()],
    /// Names clients and members; a restarted worker is a new one.
    pub clients: u32,
    /// Commands that redrive letters.
    pub redrivers: Vec<Redriver>,
}

/// A place for a worker's process.
#[derive(Default)]
pub struct Slot {
    pub client: u32,
    pub worker: Option<Worker<ModelLog, ModelStore>>,
    /// Turns that it still sleeps.
    pub asleep: u32,
    /// Told to stop: how many more steps it has to write what it read.
    pub ending: Option<u32>,
    /// How far its clock is ahead.
    skew: Duration,
    /// Which of the two plans it has, or had.
    plan: usize,
    /// The topic's life that it claimed.
    life: u32,
    /// The restores that it has not lived through.
    restores: u32,
}

type Action = fn(&mut World, usize);

/// What may happen next, and how often beside the others.
const ACTIONS: [(u32, Action); 27] = [
    (480, World::work),
    (260, |world, _| world.shared.borrow_mut().deliver()),
    (50, World::produce),
    (70, World::pass_some),
    (10, |world, _| world.pass(INSERT_TIMEOUT)),
    (4, World::jump),
    (12, |world, _| world.shared.borrow_mut().settle_parts(true)),
    (14, World::rebalance),
    (4, World::crash),
    (6, World::freeze),
    (3, World::terminate),
    (12, World::operate),
    (10, |world, _| world.shared.borrow_mut().give_up()),
    (3, |world, _| world.shared.borrow_mut().kill_server()),
    (8, World::late_commit),
    (5, World::reset_commit),
    (8, World::expire_log),
    (15, |world, _| world.shared.borrow_mut().expire()),
    (2, |world, _| world.shared.borrow_mut().sicken()),
    (4, |world, _| world.shared.borrow_mut().fall_silent()),
    (20, World::redrive),
    (4, World::rewind),
    (200, World::work_redrive),
    (4, |world, _| world.shared.borrow_mut().back_up()),
    (2, |world, _| world.shared.borrow_mut().restore()),
    (1, World::make_anew),
    (2, World::grow),
];
/// Actions from here on are faults, which differ in frequency from schedule to schedule.
const FIRST_FAULT: usize = 4;
/// Actions that come more often where backups are restored.
const RESTORE: usize = 21;
const REBALANCE: usize = 7;

impl World {
    /// Runs the schedule of a seed.
    pub fn run(seed: u64, mutation: Mutation, tracing: bool) -> Outcome {
        let mut world = World::new(seed, mutation, tracing);
        let mut steps = world.draw(100..700);
        world.act(steps);
        let operated = (world.shared.borrow().faults.redrives, world.shared.borrow().faults.rewinds);
        if operated != (false, false) {
            // What is redriven or taken back has to be written first.
            world.rest();
            let more = world.draw(if operated == (true, true) { 400..1_200 } else { 100..400 });
            world.act(more);
            steps += more;
        }
        world.finish();
        drop((world.slots, world.redrivers));
        let shared = Rc::into_inner(world.shared).expect("all workers are gone").into_inner();
        Outcome {
            violation: shared.violation,
            counts: shared.counts,
            steps: u64::from(steps),
            trace: shared.trace.unwrap_or_default(),
        }
    }

    /// Lets chance choose what happens next, so often.
    fn act(&mut self, steps: u32) {
        let all: u32 = self.weights.iter().sum();
        for _ in 0..steps {
            let mut draw = self.draw(0..all);
            let index = self.draw(0..self.slots.len() as u32) as usize;
            for (action, weight) in self.weights.into_iter().enumerate() {
                if draw < weight {
                    ACTIONS[action].1(self, index);
                    break;
                }
                draw -= weight;
            }
            if self.shared.borrow().violation.is_some() {
                break;
            }
        }
    }

    pub fn draw(&mut self, range: std::ops::Range<u32>) -> u32 {
        self.shared.borrow_mut().rng.u32(range)
    }

    fn new(seed: u64, mutation: Mutation, tracing: bool) -> World {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut faults = Faults::random(&mut rng);
        faults.focus(mutation);
        let mut weights = ACTIONS.map(|(weight, _)| weight);
        weights[FIRST_FAULT..].iter_mut().for_each(|weight| *weight *= [0, 1, 1, 2, 4][rng.usize(0..5)]);
        if faults.restore {
            weights[RESTORE] *= 2;
            weights[REBALANCE] *= 4;
        }
        let repeats = match (faults.loss, faults.retention) {
            (true, _) => Repeats::Never,
            (_, true) => Repeats::Once,
            _ => Repeats::Often,
        };
        let partitions = [1, 1, 1, 2, 3][rng.usize(0..5)];
        let mut kafka = Kafka { life: 1, epoch: 1, ..Kafka::default() };
        for _ in 0..partitions {
            let records = log::log(&mut rng, repeats);
            // Sometimes the group has read here before, with another program: no raw rows have those ids.
            let before = repeats != Repeats::Once && rng.u8(0..8) == 0;
            let committed = before.then(|| rng.u64(0..6));
            kafka.add(records, committed);
        }
        let workers = rng.usize(2..4);
        let shared = Shared { faults, kafka, ..Shared::new(rng, mutation, tracing) };
        World::of(shared, repeats, weights, workers)
    }

    /// A world in which nothing happens by chance.
    pub fn still(mutation: Mutation, faults: Faults, logs: Vec<Vec<log::Record>>, workers: usize) -> World {
        let mut kafka = Kafka { life: 1, epoch: 1, ..Kafka::default() };
        logs.into_iter().for_each(|records| kafka.add(records, None));
        let rng = fastrand::Rng::with_seed(0);
        let shared = Shared { faults, kafka, calm: true, ..Shared::new(rng, mutation, true) };
        World::of(shared, Repeats::Never, [0; ACTIONS.len()], workers)
    }

    fn of(shared: Shared, repeats: Repeats, weights: [u32; ACTIONS.len()], workers: usize) -> World {
        let shared = Rc::new(RefCell::new(shared));
        let mut world = World { shared, slots: Vec::new(), repeats, weights, clients: 0, redrivers: Vec::new() };
        world.slots.resize_with(workers, Slot::default);
        for index in 0..workers {
            world.start(index);
        }
        world
    }

    pub fn settings(&self) -> Settings {
        let shared = self.shared.borrow();
        let insert_timeout = match shared.mutation {
            Mutation::NoSuffix => Duration::MAX,
            Mutation::BurnAtOnce => Duration::ZERO,
            _ => INSERT_TIMEOUT,
        };
        let tuning = Tuning {
            seal_after: Duration::from_secs(1),
            seal_events: shared.faults.seal_events,
            seal_bytes: 4_000,
            insert_timeout,
            lost: if shared.faults.stops_at_loss { Lost::Stop } else { Lost::Record },
            marks_last: MARKS_LAST,
            keep_events: shared.faults.keep_events.filter(|_| shared.mutation != Mutation::WaitForExpired),
        };
        let epochs = BTreeMap::from([(Arc::from(TOPIC), shared.kafka.epoch)]);
        Settings { tuning, memory: shared.faults.memory, epochs }
    }

    pub fn start(&mut self, index: usize) {
        if self.shared.borrow().kafka.shut.is_some() {
            return;
        }
        self.clients += 1;
        let client = self.clients;
        let settings = self.settings();
        let (life, restores, plan, skew) = {
            let shared = &mut *self.shared.borrow_mut();
            let plan = usize::from(shared.faults.second_plan && shared.rng.bool());
            let skew = SKEW.mul_f64(shared.rng.f64());
            if plan != self.slots[index].plan {
                shared.count("started with another plan than before");
            }
            shared.restores.insert(client, shared.clickhouse.restores);
            shared.say(client, || format!("starts in place {index} with plan {plan}"));
            (shared.kafka.life, shared.clickhouse.restores, plan, skew)
        };
        let log = ModelLog::new(Rc::clone(&self.shared), client, life);
        let store = ModelStore::new(Rc::clone(&self.shared), client, plan);
        let worker = Some(Worker::new(Arc::clone(&plans()[plan].plan), settings, log, store));
        self.slots[index] = Slot { client, worker, asleep: 0, ending: None, skew, plan, life, restores };
    }

    fn pass_some(&mut self, _: usize) {
        let wait = self.draw(10..2_000);
        self.pass(Duration::from_millis(u64::from(wait)));
    }

    pub fn pass(&mut self, time: Duration) {
        let shared = &mut *self.shared.borrow_mut();
        shared.now += time;
        shared.settle_parts(false);
    }

    /// One process's clock jumps: ahead, as none goes back while a process runs, and no further than clocks may differ.
    fn jump(&mut self, index: usize) {
        let left = SKEW.saturating_sub(self.slots[index].skew);
        let shared = &mut *self.shared.borrow_mut();
        let by = left.mul_f64(shared.rng.f64());
        self.slots[index].skew += by;
        shared.count("a clock jumped");
        shared.say(self.slots[index].client, || format!("its clock jumps by {} ms", by.as_millis()));
    }

    fn work(&mut self, index: usize) {
        if self.slots[index].worker.is_none() {
            return if self.draw(0..256) < 60 {
                self.start(index)
            };
        }
        if self.slots[index].asleep > 0 {
            self.slots[index].asleep -= 1;
            if self.slots[index].asleep == 0 {
                self.wake(index);
            }
            return;
        }
        match self.slots[index].ending {
            Some(left) => self.drain(index, left),
            None => self.step(index),
        }
    }

    pub fn step(&mut self, index: usize) {
        let now = self.shared.borrow().now;
        let Slot { worker: Some(worker), skew, .. } = &mut self.slots[index] else { return };
        worker.step(now + *skew, Duration::ZERO);
        let held: usize = worker.partitions().map(Partition::bytes).sum();
        let partitions = worker.partitions().count();
        // It is told to hold back after the step that went over, and does in the next.
        let bound = self.shared.borrow().faults.memory;
        if held > bound + 2 * partitions * POLL as usize * MESSAGE {
            self.shared.borrow_mut().wrong(format!("{held} bytes are held, though memory is bounded at {bound}"));
        }
        self.check_stops(index);
    }

    /// A partition stops only where something happened that needs an operator.
    fn check_stops(&mut self, index: usize) {
        let slot = &self.slots[index];
        let stopped: Vec<i32> = stopped(slot).collect();
        let shared = &mut *self.shared.borrow_mut();
        for partition in stopped {
            let overtaken = shared.kafka.partitions.get(partition as usize).is_some_and(|log| log.overtaken);
            let overtaken = overtaken && shared.faults.stops_at_loss;
            let reason = overtaken
                || shared.refused.contains(&slot.client)
                || shared.clickhouse.restores > slot.restores
                || shared.kafka.life != slot.life;
            if !reason {
                shared.wrong(format!("client {}: partition {partition} stopped without a reason", slot.client));
            }
        }
    }

    /// Writes what was read before a process ends.
    fn drain(&mut self, index: usize, left: u32) {
        let now = self.shared.borrow().now;
        let Slot { worker: Some(worker), skew, client, .. } = &mut self.slots[index] else { return };
        let done = worker.drain(now + *skew);
        if done {
            let ends: Vec<_> =
                worker.partitions().filter_map(|one| Some((one.source().partition, one.done()?))).collect();
            for (partition, end) in ends {
                let delivered = worker.log_mut().delivered(partition);
                if end < delivered {
                    let shared = &mut *self.shared.borrow_mut();
                    shared.wrong(format!("client {client}: ended at {end} of {partition}, having read {delivered}"));
                }
            }
            self.shared.borrow_mut().count("ended with all written");
        }
        self.check_stops(index);
        if done || left == 0 {
            self.crash(index);
        } else {
            self.slots[index].ending = Some(left - 1);
        }
    }

    fn terminate(&mut self, index: usize) {
        let patience = self.draw(1..80);
        if self.slots[index].worker.is_some() {
            self.shared.borrow_mut().say(self.slots[index].client, || "is told to stop".to_owned());
            self.slots[index].ending.get_or_insert(patience);
        }
    }

    /// A process is gone; its connection goes with it, what it sent stays on its way.
    pub fn crash(&mut self, index: usize) {
        if self.slots[index].worker.take().is_some() {
            let client = self.slots[index].client;
            let shared = &mut *self.shared.borrow_mut();
            shared.count("worker crashed");
            shared.say(client, || "is gone".to_owned());
            shared.hang_up(client);
            shared.clickhouse.network.answers.remove(&client);
        }
    }

    fn freeze(&mut self, index: usize) {
        // A moment, or for so long that others have gone on far meanwhile.
        let most = 1 << self.draw(2..8);
        self.slots[index].asleep = self.draw(1..most);
        let shared = &mut *self.shared.borrow_mut();
        shared.count("worker froze");
        shared.say(self.slots[index].client, || "falls asleep".to_owned());
    }

    /// It goes on where it was, and for a while may not hear what became of its partitions.
    fn wake(&mut self, index: usize) {
        let deaf = self.draw(0..12);
        if let Some(worker) = &mut self.slots[index].worker {
            worker.log_mut().deafen(deaf);
        }
    }

    /// The operator looks after a worker of which something stopped: records what is lost, and starts it again.
    pub fn operate(&mut self, index: usize) {
        let stopped: Vec<i32> = stopped(&self.slots[index]).collect();
        if stopped.is_empty() && !self.is_outdated(index) {
            return;
        }
        for partition in stopped {
            self.shared.borrow_mut().record_loss(partition as usize);
        }
        self.shared.borrow_mut().count("stopped and started again by the operator");
        self.crash(index);
        self.start(index);
    }

    /// Whether a worker has to be started again though nothing of it stopped: it claimed the topic's earlier life, or it
    /// has nothing to write and so did not see that the ledger went back.
    fn is_outdated(&self, index: usize) -> bool {
        let (slot, shared) = (&self.slots[index], self.shared.borrow());
        let restored = shared.calm && slot.restores != shared.clickhouse.restores;
        slot.worker.is_some() && (slot.life != shared.kafka.life || restored)
    }

    fn rebalance(&mut self, index: usize) {
        let client = self.slots[index].client;
        self.shared.borrow_mut().rebalance(client);
    }

    fn produce(&mut self, _: usize) {
        self.shared.borrow_mut().produce();
    }

    fn late_commit(&mut self, _: usize) {
        self.shared.borrow_mut().late_commit();
    }

    fn reset_commit(&mut self, _: usize) {
        self.shared.borrow_mut().reset_commit();
    }

    fn expire_log(&mut self, _: usize) {
        self.shared.borrow_mut().expire_log();
    }

    fn make_anew(&mut self, _: usize) {
        let repeats = self.repeats;
        self.shared.borrow_mut().make_anew(repeats);
    }

    fn grow(&mut self, _: usize) {
        let repeats = self.repeats;
        self.shared.borrow_mut().grow(repeats);
    }
}

/// Bytes that one message is counted as, at most.
const MESSAGE: usize = 450;

fn stopped(slot: &Slot) -> impl Iterator<Item = i32> + '_ {
    let partitions = slot.worker.iter().flat_map(Worker::partitions);
    partitions.filter(|partition| partition.is_stopped()).map(|partition| partition.source().partition)
}
