//! The model of Kafka: logs, a group that gives a partition to somebody else whenever it likes, commits that are lost,
//! late or reset, retention, and a topic that is deleted and made anew.
//!
//! What the model takes as given: records of one partition come in order and each once; a topic that was made anew is never
//! taken for the earlier one where its identity is asked; where retention
//! may take ids, an id comes again only after a raw row, and where it took events for good, none comes again.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use highwater::ports::{Bounds, Log, LogError, LogEvent, TopicPartition};

use crate::clickhouse::SourceId;
use crate::log::{self, Entry};
use crate::mutation::Mutation;
use crate::shared::Shared;
use crate::truth::{Fate, Truth};

pub const TOPIC: &str = "ticks";
/// Records of a partition that one poll delivers at most.
pub const POLL: u64 = 6;
/// Questions in vain, one after the other, that are many.
const LONG: u32 = 5;

/// The broker's side.
#[derive(Default)]
pub struct Kafka {
    /// Which of its lives the topic is in.
    pub life: u32,
    /// Under which epoch it is written: each life has one of its own, and each rewind begins another.
    pub epoch: u32,
    /// The greatest epoch that a rewind has begun, if it did not come to claim it.
    pub begun: u32,
    /// Epochs that rewinds have begun and did not come to claim, of which nobody knows.
    pub unclaimed: BTreeSet<u32>,
    /// The epoch in which nobody writes, while a rewind has begun to take back and has not ended: no worker starts.
    pub shut: Option<u32>,
    pub partitions: Vec<Partition>,
    /// What must become of each log that there ever was.
    pub truths: BTreeMap<SourceId, Truth>,
    /// Commits that are still on their way.
    pub delayed: Vec<(usize, u64)>,
    /// When each log grew, and to what end.
    pub grown: BTreeMap<SourceId, Vec<(Duration, u64)>>,
    /// How far members were given records of partitions.
    pub read: BTreeMap<(u32, i32), u64>,
    /// Where the first row of each source's ledger may begin, by what members were told.
    pub beginnings: BTreeMap<SourceId, BTreeSet<u64>>,
    /// Records come, but nobody answers a question.
    pub silent: bool,
}

#[derive(Default)]
pub struct Partition {
    pub records: Vec<log::Record>,
    /// First offset that retention has left.
    pub start: u64,
    /// How much of it has been produced.
    pub end: u64,
    /// Up to where it may be read: what follows is of transactions that are still open.
    pub stable: u64,
    pub committed: Option<u64>,
    /// The member that it is given to.
    pub owner: Option<u32>,
    /// Retention has run over the ledger's end at some time.
    pub overtaken: bool,
}

impl Kafka {
    pub fn source(&self, partition: usize) -> SourceId {
        SourceId { epoch: self.epoch, redrive: None, partition: partition as i32 }
    }

    /// The epoch that whoever asks is told.
    pub fn in_force(&self) -> u32 {
        self.shut.unwrap_or(self.epoch)
    }

    pub fn add(&mut self, records: Vec<log::Record>, committed: Option<u64>) {
        let source = self.source(self.partitions.len());
        self.truths.insert(source, Truth::of(&records));
        self.partitions.push(Partition { records, committed, ..Partition::default() });
    }

    /// A producer has written up to `end`; `open`: in a transaction that goes on.
    pub fn append(&mut self, partition: usize, end: u64, open: bool, now: Duration) {
        let source = self.source(partition);
        let log = &mut self.partitions[partition];
        if end > log.end {
            self.grown.entry(source).or_default().push((now, end));
        }
        log.end = end;
        if !open {
            log.stable = end;
        }
    }

    /// Where a log ended at some time.
    pub fn ended(&self, source: SourceId, at: Duration) -> u64 {
        let grown = self.grown.get(&source).map_or(&[][..], Vec::as_slice);
        grown.iter().rev().find(|(when, _)| *when <= at).map_or(0, |&(_, end)| end)
    }

    /// Deletes the topic and makes another under its name. Its group's commits go with it, those on their way do not.
    pub fn make_anew(&mut self, logs: Vec<Vec<log::Record>>) {
        self.life += 1;
        self.epoch += 1;
        self.partitions.clear();
        for records in logs {
            self.add(records, None);
        }
    }
}

/// A consumer's side.
pub struct ModelLog {
    shared: Rc<RefCell<Shared>>,
    member: u32,
    /// The life of the topic that this process claimed.
    life: u32,
    held: BTreeMap<i32, Held>,
    /// Polls for which it hears nothing of its group: it goes on with partitions that are another's.
    deaf: u32,
    /// How often in a row it asked in vain whether the topic is the one that was claimed.
    unrecognised: u32,
}

#[derive(Default)]
struct Held {
    position: Option<u64>,
    paused: bool,
    /// One past the last record delivered.
    delivered: u64,
    /// The log's end when it was last read to where it may be, for a mutation.
    high: u64,
}

enum Owned {
    Assigned(i32),
    Revoked(i32),
    Record(i32, u64, log::Record),
    End(i32, u64),
    OutOfRange(i32),
}

fn name(partition: i32) -> TopicPartition {
    TopicPartition { topic: Arc::from(TOPIC), partition }
}

impl ModelLog {
    pub fn new(shared: Rc<RefCell<Shared>>, member: u32, life: u32) -> ModelLog {
        ModelLog { shared, member, life, held: BTreeMap::new(), deaf: 0, unrecognised: 0 }
    }

    /// One past the last record delivered of a partition since it was started.
    pub fn delivered(&self, partition: i32) -> u64 {
        self.held.get(&partition).map_or(0, |held| held.delivered)
    }

    /// Hears nothing of its group for so many polls at least.
    pub fn deafen(&mut self, polls: u32) {
        self.deaf = self.deaf.max(polls);
    }

    fn hear(&mut self, shared: &mut Shared, events: &mut Vec<Owned>) {
        let deaf = self.deaf > 0 && !shared.calm;
        if deaf {
            self.deaf -= 1;
            if !shared.faults.two_owners {
                return;
            }
        } else {
            let often = if shared.faults.two_owners { 2 } else { 12 };
            let long = shared.rng.u8(0..often) == 0;
            self.deaf = if long { shared.rng.u32(0..150) } else { shared.rng.u32(0..4) };
        }
        for partition in 0..shared.kafka.partitions.len() {
            let mine = shared.kafka.partitions[partition].owner == Some(self.member);
            let partition = partition as i32;
            if mine && !self.held.contains_key(&partition) {
                self.held.insert(partition, Held::default());
                shared.say(self.member, || format!("is assigned {partition}"));
                events.push(Owned::Assigned(partition));
            } else if !mine && !deaf && self.held.remove(&partition).is_some() {
                shared.say(self.member, || format!("is revoked {partition}"));
                events.push(Owned::Revoked(partition));
            }
        }
    }

    fn events(&mut self) -> Vec<Owned> {
        let shared = Rc::clone(&self.shared);
        let shared = &mut *shared.borrow_mut();
        let mut events = Vec::new();
        self.hear(shared, &mut events);
        for (&partition, held) in &mut self.held {
            let paused = held.paused && shared.mutation != Mutation::NeverPause;
            let Some(mut position) = held.position.filter(|_| !paused) else { continue };
            let log = &shared.kafka.partitions[partition as usize];
            // Sometimes for no reason that the model knows: a client that went backwards reports the same.
            let astray = !shared.calm && shared.rng.u8(..) < 4;
            // Who reads on in a topic made anew, where that is long enough, is told by no record of it.
            let anew = self.life != shared.kafka.life;
            let noticed = anew && (shared.calm || shared.rng.u8(0..16) == 0);
            let strange = noticed || position > log.stable;
            if shared.mutation == Mutation::ResetEarliest && !strange {
                position = position.max(log.start);
            }
            if astray || strange || position < log.start {
                shared.count("position lost");
                shared.say(self.member, || format!("{partition}: position {position} is out of range"));
                held.position = None;
                events.push(Owned::OutOfRange(partition));
                continue;
            }
            let most = if shared.calm { POLL } else { shared.rng.u64(0..=POLL) };
            let upto = log.stable.min(position + most);
            let done = shared.clickhouse.data.end(shared.kafka.source(partition as usize)).unwrap_or(0);
            for offset in position..upto {
                let log = &shared.kafka.partitions[partition as usize];
                let record = &log.records[offset as usize];
                let (is_gap, is_anothers) = (matches!(record.entry, Entry::Gap), log.owner != Some(self.member));
                if is_gap {
                    shared.count("gap passed over");
                    continue;
                }
                if anew {
                    shared.count("read on in a topic made anew");
                }
                if is_anothers {
                    shared.count("read of a partition that is another's");
                }
                let record = &shared.kafka.partitions[partition as usize].records[offset as usize];
                let source = shared.kafka.source(partition as usize);
                let kept = || matches!(shared.kafka.truths[&source].offsets[offset as usize].fate, Fate::Row { .. });
                if shared.mutation == Mutation::KeptIdsOnly && offset < done && !kept() {
                    continue;
                }
                held.delivered = offset + 1;
                shared.kafka.read.insert((self.member, partition), offset + 1);
                events.push(Owned::Record(partition, offset, record.clone()));
            }
            held.position = Some(upto);
            if upto > position {
                shared.say(self.member, || format!("{partition}: reads {position}..{upto}"));
            }
            let log = &shared.kafka.partitions[partition as usize];
            if upto == log.stable {
                held.high = log.end;
                events.push(Owned::End(partition, upto));
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
                Owned::Record(partition, offset, record) => on(record.at(partition, offset)),
            }
        }
    }

    fn bounds(&mut self, partitions: &[TopicPartition]) -> Vec<Result<Bounds, LogError>> {
        let shared = &mut *self.shared.borrow_mut();
        let bounds = |name: &TopicPartition| {
            if self.life != shared.kafka.life {
                return Err(LogError::OtherTopic("the topic was made anew".to_owned()));
            }
            if shared.is_unanswered() {
                return Err(LogError::Passing("the broker did not answer".to_owned()));
            }
            let log = &shared.kafka.partitions[name.partition as usize];
            let start = if shared.mutation == Mutation::ResetEarliest { 0 } else { log.start };
            // In the first epoch the group's commit counts, as far as the log has it; else all of the log.
            let first =
                log.committed.filter(|_| shared.kafka.epoch == 1).unwrap_or(log.start).min(log.stable).max(log.start);
            let committed = match shared.mutation {
                Mutation::StartAtLatest => log.committed.or(Some(log.stable)),
                _ => log.committed,
            };
            let bounds = Bounds { start, end: log.stable, committed };
            let source = shared.kafka.source(name.partition as usize);
            shared.kafka.beginnings.entry(source).or_default().insert(first);
            shared.say(self.member, || format!("{}: {bounds:?}", name.partition));
            Ok(bounds)
        };
        partitions.iter().map(bounds).collect()
    }

    fn recognise(&mut self, _topic: &str) -> Result<(), LogError> {
        let shared = &mut *self.shared.borrow_mut();
        if shared.is_unanswered() {
            self.unrecognised += 1;
            if self.unrecognised == LONG {
                shared.count("topic not recognised for long");
            }
            return Err(LogError::Passing("the broker did not answer".to_owned()));
        }
        if std::mem::take(&mut self.unrecognised) >= LONG {
            shared.count("topic recognised after long");
        }
        if self.life != shared.kafka.life && shared.mutation != Mutation::Unrecognised {
            return Err(LogError::OtherTopic("the topic was made anew".to_owned()));
        }
        Ok(())
    }

    fn start(&mut self, partition: &TopicPartition, offset: u64) -> Result<(), LogError> {
        let shared = &mut *self.shared.borrow_mut();
        if !shared.calm && shared.rng.u8(..) < 10 {
            return Err(LogError::Passing("not yet".to_owned()));
        }
        shared.say(self.member, || format!("{}: starts at {offset}", partition.partition));
        if let Some(held) = self.held.get_mut(&partition.partition) {
            *held = Held { position: Some(offset), ..Held::default() };
        }
        Ok(())
    }

    fn pause(&mut self, partition: &TopicPartition) {
        let shared = &mut *self.shared.borrow_mut();
        shared.count("paused");
        shared.say(self.member, || format!("{}: pauses", partition.partition));
        if let Some(held) = self.held.get_mut(&partition.partition) {
            held.paused = true;
        }
    }

    fn resume(&mut self, partition: &TopicPartition) {
        let shared = &mut *self.shared.borrow_mut();
        shared.say(self.member, || format!("{}: resumes", partition.partition));
        if let Some(held) = self.held.get_mut(&partition.partition) {
            held.paused = shared.mutation == Mutation::NeverResume;
        }
    }

    fn high_watermarks(&mut self, partitions: &[TopicPartition]) -> Vec<Result<u64, LogError>> {
        let shared = &mut *self.shared.borrow_mut();
        let high = |name: &TopicPartition| {
            if shared.is_unanswered() {
                return Err(LogError::Passing("the broker did not answer".to_owned()));
            }
            let log = &shared.kafka.partitions[name.partition as usize];
            Ok(match shared.mutation {
                Mutation::OldHighWatermark => self.held.get(&name.partition).map_or(0, |held| held.high),
                Mutation::OpenTransactionIgnored => log.stable,
                _ => log.end,
            })
        };
        partitions.iter().map(high).collect()
    }

    fn commit(&mut self, offsets: &[(TopicPartition, u64)]) {
        let shared = &mut *self.shared.borrow_mut();
        for (name, offset) in offsets {
            let partition = name.partition as usize;
            match if shared.calm { 0 } else { shared.rng.u8(0..8) } {
                0..4 => shared.kafka.partitions[partition].committed = Some(*offset),
                4 | 5 => shared.kafka.delayed.push((partition, *offset)),
                6 => {
                    // Applied, and by the client's own resending once more, later.
                    shared.kafka.partitions[partition].committed = Some(*offset);
                    shared.kafka.delayed.push((partition, *offset));
                }
                _ => shared.count("commit lost"),
            }
            shared.say(self.member, || format!("{partition}: commits {offset}"));
        }
    }
}
