//! One worker: drives the partitions that the group gave it, between a [`Log`] and a [`Store`].
//!
//! Shared-nothing and single-threaded: each [`Worker::step`] hands over what the log delivered, takes in what the store and
//! the schema registry answered, and does what the partitions want next. It spawns nothing and reads no clock, so a simulation runs this
//! very code.

mod watermarks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::batch::Source;
use crate::failpoint::{self, Point};
use crate::meter::{Errand, Meter, Note};
use crate::partition::{Action, Partition, Reply, Terms, Tuning};
use crate::plan::Plan;
use crate::ports::{Answer, Log, LogEvent, NoRegistry, Question, Registry, Store, StoreError, Ticket, TopicPartition};
use crate::writers::Writers;
use watermarks::Reports;

/// Between two questions whether topics are those that were claimed; batches sealed meanwhile wait for the second.
const RECOGNISE_AGAIN: Duration = Duration::from_millis(200);
/// The same after one without a good answer, for which the thread may have waited a second.
const RECOGNISE_LATER: Duration = Duration::from_secs(2);

/// Settings of a worker.
#[derive(Debug, Clone)]
pub struct Settings {
    /// When batches are sealed.
    pub tuning: Tuning,
    /// Bytes that all its partitions may hold together before the log is held back.
    pub memory: usize,
    /// The epoch in which each topic was claimed, or found by a redrive: nothing is written in a later one.
    pub epochs: BTreeMap<Arc<str>, u32>,
}

/// A consumer's thread, without the thread.
#[derive(Debug)]
pub struct Worker<L, S, R = NoRegistry> {
    plan: Arc<Plan>,
    settings: Settings,
    /// The run of `dead-letters redrive` that this is, and the epoch of its letters; `None`: it reads the log itself.
    redrive: Option<(u32, u32)>,
    log: L,
    store: S,
    meter: Arc<dyn Meter>,
    registry: R,
    writers: Writers,
    /// By topic and partition number, so that a record finds its own without a key being made.
    partitions: BTreeMap<Arc<str>, BTreeMap<i32, Assigned>>,
    /// Counts assignments, so that an answer to an earlier one is not taken for one to a later.
    assignments: u64,
    waiting: FxHashMap<Ticket, Vec<Home>>,
    /// Who waits for its topic to be recognised, and when the log is asked next.
    unrecognised: Vec<Home>,
    recognise_at: Duration,
    throttled: bool,
    reports: Reports,
}

#[derive(Debug)]
struct Assigned {
    serial: u64,
    partition: Partition,
    /// The watermark that the store was told last.
    told: Option<i64>,
    /// Whether the log said that it has no such position.
    astray: bool,
}

/// Whom an answer goes to.
#[derive(Debug, Clone)]
struct Home {
    name: TopicPartition,
    serial: u64,
}

impl<L: Log, S: Store> Worker<L, S> {
    /// A worker with no partitions yet, and no schema registry.
    pub fn new(plan: Arc<Plan>, settings: Settings, log: L, store: S) -> Worker<L, S> {
        Worker::with_registry(plan, settings, log, store, NoRegistry)
    }
}

impl<L: Log, S: Store, R: Registry> Worker<L, S, R> {
    /// A worker with no partitions yet.
    pub fn with_registry(plan: Arc<Plan>, settings: Settings, log: L, store: S, registry: R) -> Worker<L, S, R> {
        Worker {
            plan,
            settings,
            redrive: None,
            log,
            store,
            meter: Arc::new(()),
            registry,
            writers: Writers::default(),
            partitions: BTreeMap::new(),
            assignments: 0,
            waiting: FxHashMap::default(),
            unrecognised: Vec::new(),
            recognise_at: Duration::ZERO,
            throttled: false,
            reports: Reports::default(),
        }
    }

    /// Tells `meter` what happens from here on.
    #[must_use]
    pub fn told_to(mut self, meter: Arc<dyn Meter>) -> Self {
        self.meter = meter;
        self
    }

    /// Reads the dead letters of a run again, which `log` delivers: what it writes is that run's, under the epoch that the
    /// letters are of, whichever is in force; and it says nothing of how far event time has come.
    #[must_use]
    pub fn redriving(mut self, run: u32, epoch: u32) -> Self {
        self.redrive = Some((run, epoch));
        self
    }

    /// Does what there is to do at `now`, the time since 1970, waiting at most `wait` for the log.
    pub fn step(&mut self, now: Duration, wait: Duration) {
        self.read(now, wait);
        self.hear(now);
        self.relocate();
        self.look_up(now);
        self.drive(now);
        self.bound_memory();
        self.report(now);
    }

    /// Writes what has been read and reads no more; answers whether all is written. To be called until then.
    pub fn drain(&mut self, now: Duration) -> bool {
        // Who has not begun has nothing to write, and would only ask servers that may be away.
        self.partitions
            .values_mut()
            .for_each(|numbered| numbered.retain(|_, assigned| assigned.partition.is_running()));
        self.each().for_each(Partition::flush);
        self.hear(now);
        self.drive(now);
        self.partitions().all(Partition::is_idle)
    }

    /// Whether an answer of the store or the registry is awaited.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty() || !self.unrecognised.is_empty() || self.writers.is_waiting()
    }

    /// Bytes that its partitions hold together, roughly.
    pub fn held(&self) -> usize {
        self.partitions().map(Partition::bytes).sum()
    }

    /// The partitions it has.
    pub fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.partitions.values().flat_map(BTreeMap::values).map(|assigned| &assigned.partition)
    }

    fn each(&mut self) -> impl Iterator<Item = &mut Partition> {
        self.partitions.values_mut().flat_map(BTreeMap::values_mut).map(|assigned| &mut assigned.partition)
    }

    /// The log it reads.
    pub fn log_mut(&mut self) -> &mut L {
        &mut self.log
    }

    /// Gives the log back, to be closed.
    pub fn into_log(self) -> L {
        self.log
    }

    /// The store it writes.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    fn read(&mut self, now: Duration, wait: Duration) {
        let Worker { plan, settings, redrive, writers, log, partitions, assignments, meter, .. } = self;
        let terms = Terms { plan, writers, tuning: &settings.tuning, now, meter: &**meter };
        log.poll(wait, &mut |event| match event {
            LogEvent::Record(record) => {
                if let Some(assigned) = find(partitions, record.topic, record.partition) {
                    assigned.partition.record(terms, &record);
                }
            }
            LogEvent::End(name, offset) => {
                if let Some(assigned) = find(partitions, &name.topic, name.partition) {
                    assigned.partition.end_of_log(terms, offset);
                }
            }
            LogEvent::OutOfRange(name) => {
                if let Some(assigned) = find(partitions, &name.topic, name.partition) {
                    assigned.astray = !assigned.partition.is_stopped();
                }
            }
            LogEvent::Assigned(names) => {
                for name in names {
                    let Some(&in_force) = settings.epochs.get(&name.topic) else {
                        tracing::error!(topic = %name.topic, "assigned a topic that was not claimed; it is not read");
                        continue;
                    };
                    tracing::debug!(topic = %name.topic, partition = name.partition, "assigned");
                    *assignments += 1;
                    let (topic, partition) = (Arc::clone(&name.topic), name.partition);
                    let (redrive, epoch) = redrive.map_or((None, in_force), |(run, epoch)| (Some(run), epoch));
                    let partition = Partition::new(Source { epoch, redrive, topic, partition }, in_force);
                    let assigned = Assigned { serial: *assignments, partition, told: None, astray: false };
                    partitions.entry(name.topic).or_default().insert(name.partition, assigned);
                }
            }
            LogEvent::Revoked(names) => {
                for name in names {
                    let gone = partitions.get_mut(&name.topic).and_then(|numbered| numbered.remove(&name.partition));
                    let unwritten = gone.is_some_and(|assigned| !assigned.partition.is_empty_handed());
                    tracing::info!(topic = %name.topic, partition = name.partition, unwritten, "revoked");
                }
            }
        });
    }

    /// Has the partitions whose position the log no longer has begin again at the ledger's end, where the log's bounds say
    /// what happened. What they have read is written before: it may be gone from the log. They begin as new assignments, so
    /// that no answer to the old one is taken for an answer to the new.
    fn relocate(&mut self) {
        let Worker { partitions, assignments, .. } = self;
        for assigned in partitions.values_mut().flat_map(BTreeMap::values_mut).filter(|assigned| assigned.astray) {
            if assigned.partition.is_empty_handed() {
                *assignments += 1;
                let partition = assigned.partition.anew();
                *assigned = Assigned { serial: *assignments, partition, told: None, astray: false };
            } else {
                assigned.partition.flush();
            }
        }
    }

    /// Takes in the store's answers.
    fn hear(&mut self, now: Duration) {
        while let Some((ticket, answer)) = self.store.poll() {
            if self.reported(ticket, &answer) {
                continue;
            }
            let homes = self.waiting.remove(&ticket).unwrap_or_default();
            match answer {
                Answer::Marks(Ok(all)) => {
                    for (home, marks) in homes.iter().zip(all) {
                        self.reply(home, Reply::Marks(Ok(marks)), now);
                    }
                }
                Answer::Marks(Err(error)) => {
                    for home in &homes {
                        self.reply(home, Reply::Marks(Err(error.clone())), now);
                    }
                }
                Answer::Inserted(result) => {
                    if let Some(home) = homes.first() {
                        self.reply(home, Reply::Inserted(result), now);
                    }
                }
                Answer::Ids(result) => {
                    if let Some(home) = homes.first() {
                        self.reply(home, Reply::Ids(result), now);
                    }
                }
            }
        }
    }

    /// Takes in the registry's answers and asks for the schemas that partitions wait for.
    fn look_up(&mut self, now: Duration) {
        while let Some((id, answer)) = self.registry.poll() {
            self.writers.answered(&self.plan, id, answer, now);
        }
        let Worker { plan, writers, settings, meter, .. } = &*self;
        let terms = Terms { plan, writers, tuning: &settings.tuning, now, meter: &**meter };
        let wanted: BTreeSet<u32> = self.partitions().flat_map(|partition| partition.wanted(terms)).collect();
        for id in self.writers.due(&wanted, now) {
            self.registry.ask(id);
        }
    }

    fn reply(&mut self, home: &Home, reply: Reply, now: Duration) {
        if let Some(assigned) = find(&mut self.partitions, &home.name.topic, home.name.partition)
            && assigned.serial == home.serial
        {
            let terms = Terms {
                plan: &self.plan,
                writers: &self.writers,
                tuning: &self.settings.tuning,
                now,
                meter: &*self.meter,
            };
            if let Some(errand) = failed(&reply) {
                self.meter.note(Note::Retry(errand));
            }
            assigned.partition.reply(terms, reply);
        }
    }

    /// Does what the partitions want. What several of them ask goes out as one question.
    fn drive(&mut self, now: Duration) {
        let mut round = Round::default();
        let Worker { plan, settings, writers, log, store, partitions, waiting, unrecognised, meter, .. } = self;
        let terms = Terms { plan, writers, tuning: &settings.tuning, now, meter: &**meter };
        for (topic, numbered) in partitions.iter_mut() {
            for (&number, Assigned { serial, partition, .. }) in numbered.iter_mut() {
                let name = || TopicPartition { topic: Arc::clone(topic), partition: number };
                let home = || Home { name: name(), serial: *serial };
                while let Some(action) = partition.next(terms) {
                    match action {
                        Action::Ask(question) => round.questions.push((home(), question)),
                        Action::Insert(insert) => {
                            waiting.insert(store.insert(insert), vec![home()]);
                        }
                        Action::Ids { from, to } => {
                            waiting.insert(store.ids(partition.source(), from, to), vec![home()]);
                        }
                        Action::Bounds => round.bounds.push(home()),
                        Action::Recognise => unrecognised.push(home()),
                        Action::Start(offset) => round.starts.push((home(), offset)),
                        Action::Pause => log.pause(&name()),
                        Action::Resume => log.resume(&name()),
                        Action::Commit(offset) => round.commits.push((name(), offset)),
                    }
                }
            }
        }
        self.finish(round, now);
        if self.recognise(now) {
            self.drive(now);
        }
    }

    /// Asks the log whether topics are still those that were claimed, for all partitions that wait to know: one question
    /// for each topic, and not too often, since the thread waits for the answer. True if it was asked.
    fn recognise(&mut self, now: Duration) -> bool {
        if self.unrecognised.is_empty() || now < self.recognise_at {
            return false;
        }
        let homes = std::mem::take(&mut self.unrecognised);
        let topics: BTreeSet<&Arc<str>> = homes.iter().map(|home| &home.name.topic).collect();
        let known: BTreeMap<_, _> = topics.into_iter().map(|topic| (topic, self.log.recognise(topic))).collect();
        let all = known.values().all(Result::is_ok);
        self.recognise_at = now + if all { RECOGNISE_AGAIN } else { RECOGNISE_LATER };
        for home in &homes {
            self.reply(home, Reply::Recognised(known[&home.name.topic].clone()), now);
        }
        true
    }

    fn finish(&mut self, round: Round, now: Duration) {
        if !round.questions.is_empty() {
            let (homes, questions): (Vec<Home>, Vec<Question>) = round.questions.into_iter().unzip();
            self.waiting.insert(self.store.ask(questions), homes);
        }
        if !round.commits.is_empty() {
            failpoint::reach(Point::BeforeCommit);
            self.log.commit(&round.commits);
            failpoint::reach(Point::AfterCommit);
        }
        for (home, offset) in round.starts {
            let started = self.log.start(&home.name, offset);
            self.reply(&home, Reply::Started(started), now);
        }
        if round.bounds.is_empty() {
            return;
        }
        let names: Vec<TopicPartition> = round.bounds.iter().map(|home| home.name.clone()).collect();
        for (home, bounds) in round.bounds.iter().zip(self.log.bounds(&names)) {
            self.reply(home, Reply::Bounds(bounds), now);
        }
    }

    /// Holds the log back while the partitions hold more than they may, and writes early what they hold.
    fn bound_memory(&mut self) {
        let held = self.held();
        let limit = if self.throttled { self.settings.memory / 2 } else { self.settings.memory };
        let throttle = held > limit;
        if throttle || self.throttled {
            for partition in self.each() {
                partition.throttle(throttle);
                if throttle {
                    partition.flush();
                }
            }
        }
        self.throttled = throttle;
    }
}

/// What the partitions want of the log and the store in one round, beside inserts.
#[derive(Default)]
struct Round {
    questions: Vec<(Home, Question)>,
    bounds: Vec<Home>,
    starts: Vec<(Home, u64)>,
    commits: Vec<(TopicPartition, u64)>,
}

/// What failed and will be tried again, if so.
fn failed(reply: &Reply) -> Option<Errand> {
    let passes = |error: &StoreError| !matches!(error, StoreError::Refused(_));
    match reply {
        Reply::Marks(Err(error)) if passes(error) => Some(Errand::Marks),
        Reply::Inserted(Err(error)) if passes(error) => Some(Errand::Insert),
        Reply::Ids(Err(_)) => Some(Errand::Ids),
        Reply::Bounds(Err(_)) => Some(Errand::Bounds),
        Reply::Started(Err(_)) => Some(Errand::Start),
        Reply::Recognised(Err(_)) => Some(Errand::Recognise),
        _ => None,
    }
}

fn find<'a>(
    partitions: &'a mut BTreeMap<Arc<str>, BTreeMap<i32, Assigned>>,
    topic: &str,
    partition: i32,
) -> Option<&'a mut Assigned> {
    partitions.get_mut(topic)?.get_mut(&partition)
}

#[cfg(test)]
mod tests;
