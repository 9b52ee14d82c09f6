//! The model of Kafka: logs, a group that gives a partition to somebody else whenever it likes, and commits that are lost,
//! late or reset.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use highwater::ports::{Bounds, Log, LogError, LogEvent, Record, TopicPartition};

use crate::truth;
use crate::world::Shared;

pub const TOPIC: &str = "ticks";

/// The broker's side.
#[derive(Default)]
pub struct Kafka {
    pub logs: Vec<Vec<truth::Record>>,
    /// First offset of each log that retention has left.
    pub starts: Vec<u64>,
    /// How much of each log has been produced.
    pub ends: Vec<u64>,
    pub committed: Vec<Option<u64>>,
    /// The member that each partition is given to.
    pub owners: Vec<Option<u32>>,
    /// Commits that are still on their way.
    pub delayed: Vec<(usize, u64)>,
}

/// A consumer's side.
pub struct ModelLog {
    shared: Rc<RefCell<Shared>>,
    member: u32,
    held: BTreeMap<i32, Held>,
}

#[derive(Default)]
struct Held {
    position: Option<u64>,
    paused: bool,
}

enum Owned {
    Assigned(i32),
    Revoked(i32),
    Record(i32, u64, truth::Record),
    End(i32, u64),
    OutOfRange(i32),
}

fn name(partition: i32) -> TopicPartition {
    TopicPartition { topic: Arc::from(TOPIC), partition }
}

impl ModelLog {
    pub fn new(shared: Rc<RefCell<Shared>>, member: u32) -> ModelLog {
        ModelLog { shared, member, held: BTreeMap::new() }
    }

    fn events(&mut self) -> Vec<Owned> {
        let shared = &mut *self.shared.borrow_mut();
        let mut events = Vec::new();
        // A member that slept, or whose heartbeats are late, goes on with partitions that are no longer its own.
        if shared.calm || shared.rng.u8(..) < 80 {
            for partition in 0..shared.kafka.owners.len() {
                let mine = shared.kafka.owners[partition] == Some(self.member);
                let partition = partition as i32;
                if mine && !self.held.contains_key(&partition) {
                    self.held.insert(partition, Held::default());
                    events.push(Owned::Assigned(partition));
                } else if !mine && self.held.remove(&partition).is_some() {
                    events.push(Owned::Revoked(partition));
                }
            }
        }
        for (&partition, held) in &mut self.held {
            let Some(position) = held.position.filter(|_| !held.paused) else { continue };
            let log = &shared.kafka.logs[partition as usize];
            let end = shared.kafka.ends[partition as usize];
            // Sometimes for no reason that the model knows: a client that went backwards reports the same.
            let astray = !shared.calm && shared.rng.u8(..) < 4;
            if astray || position < shared.kafka.starts[partition as usize] {
                *shared.counts.entry("position lost").or_default() += 1;
                held.position = None;
                events.push(Owned::OutOfRange(partition));
                continue;
            }
            let most = if shared.calm { 1_000 } else { shared.rng.u64(0..6) };
            let upto = end.min(position + most);
            for offset in position..upto {
                let record = &log[offset as usize];
                if !matches!(record.entry, truth::Entry::Gap) {
                    events.push(Owned::Record(partition, offset, record.clone()));
                }
            }
            held.position = Some(upto.max(position));
            if upto == end {
                events.push(Owned::End(partition, end));
            }
        }
        events
    }
}

impl Log for ModelLog {
    fn poll(&mut self, _wait: Duration, on: &mut dyn FnMut(LogEvent<'_>)) {
        for event in self.events() {
            match event {
                Owned::Assigned(partition) => on(LogEvent::Assigned(vec![name(partition)])),
                Owned::Revoked(partition) => on(LogEvent::Revoked(vec![name(partition)])),
                Owned::End(partition, offset) => on(LogEvent::End(name(partition), offset)),
                Owned::OutOfRange(partition) => on(LogEvent::OutOfRange(name(partition))),
                Owned::Record(partition, offset, record) => on(LogEvent::Record(Record {
                    topic: TOPIC,
                    partition,
                    offset,
                    timestamp_ms: record.timestamp_ms,
                    key: None,
                    payload: Some(&record.payload),
                })),
            }
        }
    }

    fn bounds(&mut self, partitions: &[TopicPartition]) -> Vec<Result<Bounds, LogError>> {
        let shared = &mut *self.shared.borrow_mut();
        if !shared.calm && shared.rng.u8(..) < 10 {
            return vec![Err(LogError::Passing("the broker did not answer".to_owned())); partitions.len()];
        }
        let kafka = &shared.kafka;
        let bounds = |name: &TopicPartition| {
            let partition = name.partition as usize;
            Bounds { start: kafka.starts[partition], end: kafka.ends[partition], committed: kafka.committed[partition] }
        };
        partitions.iter().map(|name| Ok(bounds(name))).collect()
    }

    fn start(&mut self, partition: &TopicPartition, offset: u64) -> Result<(), LogError> {
        let shared = &mut *self.shared.borrow_mut();
        if !shared.calm && shared.rng.u8(..) < 10 {
            return Err(LogError::Passing("not yet".to_owned()));
        }
        shared.say(|| format!("member {} starts {partition} at {offset}", self.member));
        if let Some(held) = self.held.get_mut(&partition.partition) {
            *held = Held { position: Some(offset), paused: false };
        }
        Ok(())
    }

    fn pause(&mut self, partition: &TopicPartition) {
        if let Some(held) = self.held.get_mut(&partition.partition) {
            held.paused = true;
        }
    }

    fn resume(&mut self, partition: &TopicPartition) {
        if let Some(held) = self.held.get_mut(&partition.partition) {
            held.paused = false;
        }
    }

    fn high_watermarks(&mut self, partitions: &[TopicPartition]) -> Vec<Result<u64, LogError>> {
        let ends = &self.shared.borrow().kafka.ends;
        partitions.iter().map(|name| Ok(ends[name.partition as usize])).collect()
    }

    fn commit(&mut self, offsets: &[(TopicPartition, u64)]) {
        let shared = &mut *self.shared.borrow_mut();
        for (name, offset) in offsets {
            let partition = name.partition as usize;
            match if shared.calm { 0 } else { shared.rng.u8(0..4) } {
                0 | 1 => shared.kafka.committed[partition] = Some(*offset),
                2 => shared.kafka.delayed.push((partition, *offset)),
                _ => shared.count("commit lost"),
            }
        }
    }
}
