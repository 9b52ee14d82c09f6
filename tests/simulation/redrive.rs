//! Letters that are redriven while all else goes on: by commands that are killed, run again, or run several at once.
//!
//! The worker that writes them is the real one, and so is what is left to write of a run. The rest of the command is modelled,
//! in its steps, between which it may sleep or be killed: it asks for the last number, finds a run that is not finished or lists
//! letters, fixes the list under the next number, asks which epoch is in force, and works. Letters are listed as the dead letters that
//! the ledger has, that the mended plan reads and that no run lists; a list is one insert under its token, of which the
//! first stands. No letter repeats an event, none expires, and nothing is restored.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use highwater::clickhouse::redrives::{Listed, unwritten};
use highwater::partition::Partition;
use highwater::ports::{Bounds, Log, LogError, LogEvent, TopicPartition};
use highwater::worker::{Settings, Worker};

use crate::clickhouse::{Place, SourceId, Taken};
use crate::kafka::{POLL, TOPIC};
use crate::log::Entry;
use crate::mutation::Mutation;
use crate::plans::{DEAD_LETTERS, MENDED, plans};
use crate::shared::Shared;
use crate::store::ModelStore;
use crate::truth::Truth;
use crate::world::World;

/// One run of the command.
pub struct Redriver {
    client: u32,
    stage: Stage,
    /// Turns that it still sleeps.
    asleep: u32,
}

/// What it has done last: it may sleep, or be killed, after each.
enum Stage {
    /// It has asked for the last number, and whether a rewind has it that has begun.
    Counted {
        last: u32,
        rewinding: bool,
    },
    /// It has listed letters of one epoch; the list is to be fixed as the run's.
    Listed {
        run: u32,
        epoch: u32,
        letters: Vec<Listed>,
    },
    /// It has found or fixed a run to finish.
    Found {
        run: u32,
    },
    /// It has asked which epoch is in force.
    Asked {
        run: u32,
        in_force: u32,
    },
    Working {
        in_force: u32,
        worker: Box<Worker<Letters, ModelStore>>,
    },
}

/// What a run has yet to write, as a log.
struct Letters {
    shared: Rc<RefCell<Shared>>,
    tracks: BTreeMap<i32, Track>,
    assigned: bool,
}

#[derive(Default)]
struct Track {
    offsets: Vec<u64>,
    next: Option<usize>,
    paused: bool,
    ended: bool,
}

impl Track {
    fn end(&self) -> u64 {
        self.offsets.last().map_or(0, |last| last + 1)
    }
}

fn name(partition: i32) -> TopicPartition {
    TopicPartition { topic: Arc::from(TOPIC), partition }
}

impl Log for Letters {
    fn poll(&mut self, _: Duration, on: &mut dyn FnMut(LogEvent<'_>)) {
        if !std::mem::replace(&mut self.assigned, true) {
            return on(LogEvent::Assigned(self.tracks.keys().map(|&partition| name(partition)).collect()));
        }
        for (&partition, track) in self.tracks.iter_mut().filter(|(_, track)| !track.paused && !track.ended) {
            let Some(next) = track.next else { continue };
            let upto = track.offsets.len().min(next + POLL as usize);
            for &offset in &track.offsets[next..upto] {
                let record = self.shared.borrow().kafka.partitions[partition as usize].records[offset as usize].clone();
                on(record.at(partition, offset));
            }
            track.next = Some(upto);
            if upto == track.offsets.len() {
                track.ended = true;
                on(LogEvent::End(name(partition), track.end()));
            }
        }
    }

    fn bounds(&mut self, partitions: &[TopicPartition]) -> Vec<Result<Bounds, LogError>> {
        let bounds = |name: &TopicPartition| {
            let track = &self.tracks[&name.partition];
            Ok(Bounds { start: 0, end: track.end(), committed: track.offsets.first().copied() })
        };
        partitions.iter().map(bounds).collect()
    }

    fn start(&mut self, name: &TopicPartition, offset: u64) -> Result<(), LogError> {
        let track = self.tracks.get_mut(&name.partition).expect("it was assigned");
        track.next = Some(track.offsets.partition_point(|&letter| letter < offset));
        (track.paused, track.ended) = (false, false);
        Ok(())
    }

    fn pause(&mut self, name: &TopicPartition) {
        self.tracks.get_mut(&name.partition).expect("it was assigned").paused = true;
    }

    fn resume(&mut self, name: &TopicPartition) {
        self.tracks.get_mut(&name.partition).expect("it was assigned").paused = false;
    }

    fn high_watermarks(&mut self, partitions: &[TopicPartition]) -> Vec<Result<u64, LogError>> {
        partitions.iter().map(|name| Ok(self.tracks[&name.partition].end())).collect()
    }

    fn commit(&mut self, _: &[(TopicPartition, u64)]) {}
}

impl Shared {
    /// The letters that may be redriven now, of the first epoch that has any.
    fn listable(&self) -> Option<(u32, Vec<Listed>)> {
        self.epochs().map(|epoch| (epoch, self.listable_of(epoch))).find(|(_, letters)| !letters.is_empty())
    }

    fn listable_of(&self, epoch: u32) -> Vec<Listed> {
        let mut letters = Vec::new();
        for (partition, log) in self.kafka.partitions.iter().enumerate() {
            let source = SourceId { epoch, ..self.kafka.source(partition) };
            let done = self.clickhouse.data.end(source).unwrap_or(0);
            let is_there = |offset: u64| {
                let is_of = |place: &Place| place.source == source && place.table == DEAD_LETTERS;
                let mut cells = self.clickhouse.data.cells.iter().filter(|(place, _)| is_of(place));
                cells.any(|(_, cell)| cell.offsets.contains(&offset))
            };
            let is_listed = |offset: u64| {
                let is_it = |listed: &Listed| (listed.partition, listed.offset) == (source.partition, offset);
                self.lists().any(|(_, of, letters)| of == epoch && letters.iter().any(is_it))
            };
            for (offset, record) in (0..done).zip(&log.records) {
                if matches!(record.entry, Entry::Letter(_)) && is_there(offset) && !is_listed(offset) {
                    let partition = source.partition;
                    letters.push(Listed { partition, offset, event: "tock".to_owned(), bytes: 1, duplicate: false });
                }
            }
        }
        letters
    }

    /// Number, epoch and letters of each run.
    pub fn lists(&self) -> impl Iterator<Item = (u32, u32, &[Listed])> {
        self.clickhouse.data.runs.iter().filter_map(|(&run, taken)| match taken {
            Taken::Run { epoch, letters } => Some((run, *epoch, letters.as_slice())),
            Taken::Rewind { .. } => None,
        })
    }

    /// A run in the ledger and the tables.
    pub fn source_of(&self, run: u32, partition: i32) -> SourceId {
        let epoch = self.lists().find(|(number, ..)| *number == run).map_or(0, |(_, epoch, _)| epoch);
        SourceId { epoch, redrive: Some(run), partition }
    }

    /// What is not written of a run, by partition.
    pub fn unwritten(&self, run: u32) -> BTreeMap<i32, Vec<u64>> {
        let listed = self.lists().find(|(number, ..)| *number == run).map_or(&[][..], |(.., letters)| letters);
        let end = |listed: &Listed| {
            Some((listed.partition, self.clickhouse.data.end(self.source_of(run, listed.partition))?))
        };
        let letters = unwritten(listed, &listed.iter().filter_map(end).collect());
        let offsets = |letters: Vec<(u64, u64)>| letters.into_iter().map(|(offset, _)| offset).collect();
        letters.into_iter().map(|(partition, letters)| (partition, offsets(letters))).collect()
    }

    /// The runs of which something is not written.
    pub fn unfinished(&self) -> Vec<u32> {
        self.lists().map(|(run, ..)| run).filter(|&run| !self.unwritten(run).is_empty()).collect()
    }

    /// Fixes what a run comprises, unless its number is taken; the run, if it is this one.
    fn fix(&mut self, mut run: u32, epoch: u32, letters: Vec<Listed>) -> Option<u32> {
        if let Some(taken) = self.clickhouse.data.runs.get(&run) {
            let (what, broken) = match taken {
                Taken::Run { .. } => ("redrive found another's list", Mutation::ListPerRedrive),
                Taken::Rewind { .. } => ("redrive found a rewind's number", Mutation::ListPastRewind),
            };
            self.count(what);
            if self.mutation != broken {
                return None;
            }
            run = self.last_number().0 + 1;
        }
        let mut offsets: BTreeMap<i32, Vec<u64>> = BTreeMap::new();
        letters.iter().for_each(|listed| offsets.entry(listed.partition).or_default().push(listed.offset));
        for (partition, offsets) in offsets {
            let source = SourceId { epoch, redrive: Some(run), partition };
            let truth = Truth::of_letters(&self.kafka.partitions[partition as usize].records, &offsets);
            self.kafka.truths.insert(source, truth);
        }
        self.clickhouse.data.runs.insert(run, Taken::Run { epoch, letters });
        Some(run)
    }

    /// The last number that was taken, and whether a rewind has it that has begun; 0: none was.
    pub fn last_number(&self) -> (u32, bool) {
        let last = self.clickhouse.data.runs.last_key_value();
        last.map_or((0, false), |(&number, taken)| (number, matches!(taken, Taken::Rewind { begun: true })))
    }

    /// No letter is a row twice, and each has its row that was listed; that it is whole, the ledger's rows are held to.
    pub fn check_redriven(&self) -> Result<(), String> {
        let letters = self.lists().flat_map(|(.., letters)| letters);
        let mut listed: Vec<(i32, u64)> = letters.map(|listed| (listed.partition, listed.offset)).collect();
        listed.sort_unstable();
        match listed.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("the letter {:?} is redriven twice", pair[0])),
            None if !self.unfinished().is_empty() => Err("a redrive is stuck".to_owned()),
            None => Ok(()),
        }
    }
}

impl World {
    /// Somebody redrives letters, if there are some.
    pub fn redrive(&mut self, _: usize) {
        if !self.shared.borrow().faults.redrives || self.redrivers.len() > 1 {
            return;
        }
        let shared = &mut *self.shared.borrow_mut();
        if shared.unfinished().is_empty() && shared.listable().is_none() {
            return;
        }
        self.clients += 1;
        let client = self.clients;
        let (last, rewinding) = shared.last_number();
        shared.count("redrive begun");
        shared.say(client, || format!("redrives, after number {last}"));
        self.redrivers.push(Redriver { client, stage: Stage::Counted { last, rewinding }, asleep: 0 });
    }

    fn redriving(&self, client: u32, run: u32, in_force: u32, letters: BTreeMap<i32, Vec<u64>>) -> Stage {
        let tracks = letters.into_iter();
        let tracks = tracks.map(|(partition, offsets)| (partition, Track { offsets, ..Track::default() })).collect();
        let log = Letters { shared: Rc::clone(&self.shared), tracks, assigned: false };
        let store = ModelStore::new(Rc::clone(&self.shared), client, MENDED);
        let settings = Settings { epochs: BTreeMap::from([(Arc::from(TOPIC), in_force)]), ..self.settings() };
        let epoch = self.shared.borrow().source_of(run, 0).epoch;
        let worker = Worker::new(Arc::clone(&plans()[MENDED].plan), settings, log, store).redriving(run, epoch);
        Stage::Working { in_force, worker: Box::new(worker) }
    }

    /// One of the commands goes on a step, sleeps, or is killed.
    pub fn work_redrive(&mut self, _: usize) {
        if self.redrivers.is_empty() {
            return;
        }
        let index = self.draw(0..self.redrivers.len() as u32) as usize;
        if self.redrivers[index].asleep > 0 {
            self.redrivers[index].asleep -= 1;
            return;
        }
        if self.shared.borrow_mut().chance(6) {
            self.shared.borrow_mut().count("redrive gone");
            return self.end_redrive(index);
        }
        if self.shared.borrow_mut().chance(12) {
            // A moment, or for so long that another finishes what it has begun.
            let most = 1 << self.draw(2..8);
            self.redrivers[index].asleep = self.draw(1..most);
            self.shared.borrow_mut().say(self.redrivers[index].client, || "falls asleep".to_owned());
        }
        self.step_redrive(index);
    }

    fn step_redrive(&mut self, index: usize) {
        let client = self.redrivers[index].client;
        let counted = |shared: &Shared| {
            let (last, rewinding) = shared.last_number();
            Stage::Counted { last, rewinding }
        };
        let next = match &mut self.redrivers[index].stage {
            Stage::Working { .. } => return self.work_on_run(index),
            Stage::Counted { last, rewinding } => {
                let (run, rewinding) = (*last + 1, *rewinding);
                let shared = &mut *self.shared.borrow_mut();
                match (shared.unfinished().first(), shared.listable()) {
                    (Some(&run), _) => {
                        shared.count("redrive goes on with a run");
                        Some(Stage::Found { run })
                    }
                    (None, _) if rewinding && shared.mutation != Mutation::ListDuringRewind => {
                        shared.count("redrive refused during a rewind");
                        None
                    }
                    (None, listable) => listable.map(|(epoch, letters)| Stage::Listed { run, epoch, letters }),
                }
            }
            Stage::Listed { run, epoch, letters } => {
                let shared = &mut *self.shared.borrow_mut();
                let fixed = shared.fix(*run, *epoch, std::mem::take(letters));
                shared.say(client, || format!("fixes its list as run {run}: {fixed:?}"));
                Some(fixed.map_or_else(|| counted(shared), |run| Stage::Found { run }))
            }
            Stage::Found { run } => {
                let (run, shared) = (*run, &mut *self.shared.borrow_mut());
                if shared.kafka.shut.is_some() {
                    shared.count("redrive refused during a rewind");
                }
                let in_force = shared.kafka.in_force();
                shared.kafka.shut.is_none().then_some(Stage::Asked { run, in_force })
            }
            &mut Stage::Asked { run, in_force } => {
                let letters = self.shared.borrow().unwritten(run);
                (!letters.is_empty()).then(|| self.redriving(client, run, in_force, letters))
            }
        };
        match next {
            Some(stage) => self.redrivers[index].stage = stage,
            None => self.end_redrive(index),
        }
    }

    fn work_on_run(&mut self, index: usize) {
        let Redriver { client, stage: Stage::Working { in_force, worker }, .. } = &mut self.redrivers[index] else {
            return;
        };
        let now = self.shared.borrow().now;
        worker.step(now, Duration::ZERO);
        if worker.log_mut().tracks.values().all(|track| track.ended) && worker.partitions().all(Partition::is_running) {
            worker.drain(now);
        }
        let stopped = worker.partitions().any(Partition::is_stopped);
        // By what it was told itself: who slept does not know what another has written meanwhile.
        let ends: BTreeMap<i32, u64> =
            worker.partitions().filter_map(|one| Some((one.source().partition, one.done()?))).collect();
        let is_done = |(partition, track): (&i32, &Track)| ends.get(partition).is_some_and(|&end| end >= track.end());
        let done = worker.log_mut().tracks.iter().all(is_done);
        {
            let shared = &mut *self.shared.borrow_mut();
            if stopped && shared.kafka.in_force() > *in_force {
                shared.count("redrive stopped as its epoch was over");
            } else if stopped && !shared.refused.contains(client) {
                shared.wrong(format!("client {client}: a redrive stopped without a reason"));
            }
            if done {
                shared.count("redrive done");
            }
        }
        if done || stopped {
            self.end_redrive(index);
        }
    }

    fn end_redrive(&mut self, index: usize) {
        let Redriver { client, .. } = self.redrivers.swap_remove(index);
        let shared = &mut *self.shared.borrow_mut();
        shared.say(client, || "is gone".to_owned());
        shared.hang_up(client);
        shared.clickhouse.network.answers.remove(&client);
    }

    /// Their connections end, so that nothing goes out on marks that were asked on them.
    pub fn redrivers_hang_up(&mut self) {
        let shared = &mut *self.shared.borrow_mut();
        self.redrivers.iter().for_each(|redriver| shared.hang_up(redriver.client));
    }

    /// Faults have ended: all commands go on, and one begins if there is something left to redrive.
    pub fn redrive_on(&mut self) {
        for index in (0..self.redrivers.len()).rev() {
            self.redrivers[index].asleep = 0;
            self.step_redrive(index);
        }
        if self.redrivers.is_empty() {
            self.redrive(0);
        }
    }

    /// Whether nothing is left to redrive.
    pub fn is_redriven(&self) -> bool {
        let shared = self.shared.borrow();
        let left = shared.faults.redrives && !(shared.unfinished().is_empty() && shared.listable().is_none());
        self.redrivers.is_empty() && !left
    }
}
