//! Letters that are redriven while all else goes on: by commands that are killed, run again, or run several at once.
//!
//! The worker that writes them is the real one, and so is what is left to write of a run. The rest of the command is modelled:
//! letters are listed as the dead letters that the ledger has, that the mended plan reads and that no run lists; a list is
//! one insert under its token, of which the first stands. No letter repeats an event, none expires, and nothing is restored.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use highwater::clickhouse::redrives::{Listed, unwritten};
use highwater::partition::Partition;
use highwater::ports::{Bounds, Log, LogError, LogEvent, TopicPartition};
use highwater::worker::Worker;

use crate::clickhouse::{Place, SourceId};
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
    run: u32,
    stage: Stage,
}

enum Stage {
    /// It has listed letters; the list is to be fixed as the run's.
    Listed(Vec<Listed>),
    Working(Box<Worker<Letters, ModelStore>>),
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
    /// The letters that may be redriven now.
    fn listable(&self) -> Vec<Listed> {
        let mut letters = Vec::new();
        for (partition, log) in self.kafka.partitions.iter().enumerate() {
            let source = self.kafka.source(partition);
            let done = self.clickhouse.data.end(source).unwrap_or(0);
            let is_there = |offset: u64| {
                let is_of = |place: &Place| place.source == source && place.table == DEAD_LETTERS;
                let mut cells = self.clickhouse.data.cells.iter().filter(|(place, _)| is_of(place));
                cells.any(|(_, cell)| cell.offsets.contains(&offset))
            };
            let is_listed = |offset: u64| {
                let is_it = |listed: &Listed| (listed.partition, listed.offset) == (source.partition, offset);
                self.clickhouse.data.runs.values().flatten().any(is_it)
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

    /// What is not written of a run, by partition.
    fn unwritten(&self, run: u32) -> BTreeMap<i32, Vec<u64>> {
        let listed = self.clickhouse.data.runs.get(&run).map_or(&[][..], Vec::as_slice);
        let end = |listed: &Listed| {
            let source = SourceId { epoch: self.kafka.epoch, redrive: Some(run), partition: listed.partition };
            Some((listed.partition, self.clickhouse.data.end(source)?))
        };
        let letters = unwritten(listed, &listed.iter().filter_map(end).collect());
        let offsets = |letters: Vec<(u64, u64)>| letters.into_iter().map(|(offset, _)| offset).collect();
        letters.into_iter().map(|(partition, letters)| (partition, offsets(letters))).collect()
    }

    /// The first run of which something is not written.
    fn unfinished(&self) -> Option<u32> {
        self.clickhouse.data.runs.keys().copied().find(|&run| !self.unwritten(run).is_empty())
    }

    /// Fixes what a run comprises, unless that stands already; the run.
    fn fix(&mut self, mut run: u32, letters: Vec<Listed>) -> u32 {
        if self.clickhouse.data.runs.contains_key(&run) {
            self.count("redrive found another's list");
            if self.mutation != Mutation::ListPerRedrive {
                return run;
            }
            run = self.last_run() + 1;
        }
        let mut offsets: BTreeMap<i32, Vec<u64>> = BTreeMap::new();
        letters.iter().for_each(|listed| offsets.entry(listed.partition).or_default().push(listed.offset));
        for (partition, offsets) in offsets {
            let source = SourceId { epoch: self.kafka.epoch, redrive: Some(run), partition };
            let truth = Truth::of_letters(&self.kafka.partitions[partition as usize].records, &offsets);
            self.kafka.truths.insert(source, truth);
        }
        self.clickhouse.data.runs.insert(run, letters);
        run
    }

    /// 0: there was none.
    fn last_run(&self) -> u32 {
        self.clickhouse.data.runs.keys().last().copied().unwrap_or(0)
    }

    /// No letter is a row twice, and each has its row that was listed; that it is whole, the ledger's rows are held to.
    pub fn check_redriven(&self) -> Result<(), String> {
        let mut listed: Vec<(i32, u64)> =
            self.clickhouse.data.runs.values().flatten().map(|listed| (listed.partition, listed.offset)).collect();
        listed.sort_unstable();
        match listed.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("the letter {:?} is redriven twice", pair[0])),
            None if self.unfinished().is_some() => Err("a redrive is stuck".to_owned()),
            None => Ok(()),
        }
    }
}

impl World {
    /// Somebody redrives letters: goes on with what is not finished, or lists what may be redriven.
    pub fn redrive(&mut self, _: usize) {
        if !self.shared.borrow().faults.redrives || self.redrivers.len() > 1 {
            return;
        }
        let client = self.clients + 1;
        let (unfinished, letters, last) = {
            let shared = self.shared.borrow();
            (shared.unfinished(), shared.listable(), shared.last_run())
        };
        let (run, stage) = match unfinished {
            Some(run) => {
                self.shared.borrow_mut().count("redrive goes on with a run");
                (run, self.redriving(client, run))
            }
            None if letters.is_empty() => return,
            None => (last + 1, Stage::Listed(letters)),
        };
        self.clients = client;
        self.shared.borrow_mut().count("redrive begun");
        self.shared.borrow_mut().say(client, || format!("redrives run {run}"));
        self.redrivers.push(Redriver { client, run, stage });
    }

    fn redriving(&self, client: u32, run: u32) -> Stage {
        let tracks = self.shared.borrow().unwritten(run).into_iter();
        let tracks = tracks.map(|(partition, offsets)| (partition, Track { offsets, ..Track::default() })).collect();
        let log = Letters { shared: Rc::clone(&self.shared), tracks, assigned: false };
        let store = ModelStore::new(Rc::clone(&self.shared), client, MENDED);
        let worker = Worker::new(Arc::clone(&plans()[MENDED].plan), self.settings(), log, store);
        Stage::Working(Box::new(worker.redriving(run)))
    }

    /// One of the commands goes on a step, or is killed.
    pub fn work_redrive(&mut self, _: usize) {
        if self.redrivers.is_empty() {
            return;
        }
        let index = self.draw(0..self.redrivers.len() as u32) as usize;
        if self.shared.borrow_mut().chance(6) {
            self.shared.borrow_mut().count("redrive gone");
            return self.end_redrive(index);
        }
        self.step_redrive(index);
    }

    fn step_redrive(&mut self, index: usize) {
        let (now, run) = (self.shared.borrow().now, self.redrivers[index].run);
        let worker = match &mut self.redrivers[index].stage {
            Stage::Working(worker) => worker,
            Stage::Listed(letters) => {
                let letters = std::mem::take(letters);
                let run = self.shared.borrow_mut().fix(run, letters);
                let client = self.redrivers[index].client;
                self.redrivers[index] = Redriver { client, run, stage: self.redriving(client, run) };
                return;
            }
        };
        worker.step(now, Duration::ZERO);
        if worker.log_mut().tracks.values().all(|track| track.ended) && worker.partitions().all(Partition::is_running) {
            worker.drain(now);
        }
        let stopped = worker.partitions().any(Partition::is_stopped);
        let (client, done) = (self.redrivers[index].client, self.shared.borrow().unwritten(run).is_empty());
        if stopped && !self.shared.borrow().refused.contains(&client) {
            self.shared.borrow_mut().wrong(format!("client {client}: a redrive stopped without a reason"));
        }
        if done {
            self.shared.borrow_mut().count("redrive done");
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

    /// Faults have ended: all commands go on, and one begins if there is something left to redrive.
    pub fn redrive_on(&mut self) {
        for index in (0..self.redrivers.len()).rev() {
            self.step_redrive(index);
        }
        if self.redrivers.is_empty() {
            self.redrive(0);
        }
    }

    /// Whether nothing is left to redrive.
    pub fn is_redriven(&self) -> bool {
        let shared = self.shared.borrow();
        let left = shared.faults.redrives && !(shared.unfinished().is_none() && shared.listable().is_empty());
        self.redrivers.is_empty() && !left
    }
}
