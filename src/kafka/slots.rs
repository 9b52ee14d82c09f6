//! The partitions assigned to a consumer and where each stands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ports::{LogEvent, Record, TopicPartition};

/// How long librdkafka may take to begin to read what it was told to.
const PENDING: Duration = Duration::from_secs(5);
/// How long nothing may come of a partition that is read, at first; twice as long each time that it was started in vain, for
/// a broker may have others to serve first, and a reader be busy with a long stretch of aborted transactions.
const MUTE: Duration = Duration::from_secs(300);
const MUTE_AT_MOST: Duration = Duration::from_secs(3_600);

/// Where a partition is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Assigned by the group and not handed to librdkafka's reader.
    Silent,
    /// Delivering.
    Started {
        /// Nothing below is delivered.
        from: u64,
        /// Where it goes on: one past the last record delivered, or its end, or `from`.
        next: u64,
        /// Whether anything was heard of it since it was started.
        heard: bool,
    },
    /// The client has stopped reading it; only a new assignment of the same partition gets it going again.
    Stopped,
}

/// What librdkafka is still to be told of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Untold {
    /// To pause it.
    Pause,
    /// Where it stands: what librdkafka noted when it paused it may be one too far.
    Seek(u64),
    /// To let it go on.
    Resume,
}

/// An assigned partition.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) partition: TopicPartition,
    pub(super) stage: Stage,
    /// Whether librdkafka was told to pause it. To resume a partition that is not paused rewinds it to where it was
    /// last started, so this must be known.
    pub(super) paused: bool,
    /// Whether it was paused and not yet sought to where it stands.
    pub(super) unsought: bool,
    /// Whether it is to be paused.
    pub(super) held: bool,
    /// When it was started last.
    since: Option<Instant>,
    /// Since when something is awaited of it: what was started, sought or resumed has a record to tell, or its end.
    awaited: Option<Instant>,
    /// How often in a row it was started in vain.
    vain: u32,
}

impl Slot {
    /// One that does not deliver is sought and resumed by its start.
    fn untold(&self) -> Option<Untold> {
        match (self.held, self.paused, self.unsought, self.stage) {
            (true, false, ..) => Some(Untold::Pause),
            (_, true, true, Stage::Started { next, .. }) => Some(Untold::Seek(next)),
            (false, true, false, Stage::Started { .. }) => Some(Untold::Resume),
            _ => None,
        }
    }

    fn told(&mut self, what: Untold) {
        match what {
            Untold::Pause => (self.paused, self.unsought) = (true, true),
            Untold::Seek(_) => self.unsought = false,
            Untold::Resume => (self.paused, self.awaited) = (false, Some(Instant::now())),
        }
    }

    /// Starts it; nothing that was told before counts.
    pub(super) fn start(&mut self, offset: u64) {
        self.stage = Stage::Started { from: offset, next: offset, heard: false };
        self.vain = if self.awaited.is_some() { self.vain + 1 } else { 0 };
        let now = Some(Instant::now());
        (self.held, self.unsought, self.since, self.awaited) = (false, false, now, now);
    }

    fn hear(&mut self, from: u64, next: u64) {
        self.stage = Stage::Started { from, next, heard: true };
        (self.awaited, self.vain) = (None, 0);
    }

    /// From now on something is awaited of it, if it is read.
    pub(super) fn await_from(&mut self, now: Instant) {
        self.awaited = Some(now);
    }

    /// What is awaited of it is awaited from now on.
    pub(super) fn excuse(&mut self, now: Instant) {
        self.awaited = self.awaited.map(|_| now);
    }

    /// Whether it is read, and nothing came of it for longer than can be: librdkafka has forgotten it, or paused it for itself.
    fn is_mute(&self, now: Instant) -> bool {
        let is_read = matches!(self.stage, Stage::Started { .. }) && !self.held && !self.paused;
        let patience = MUTE.saturating_mul(1 << self.vain.min(16)).min(MUTE_AT_MOST);
        is_read && self.awaited.is_some_and(|since| now.duration_since(since) >= patience)
    }

    /// Whether its messages may be collected without librdkafka having begun to read it.
    pub(super) fn is_unread(&self) -> bool {
        matches!(self.stage, Stage::Started { heard: false, .. } | Stage::Stopped)
    }

    /// Whether librdkafka may still be about to begin to read it.
    pub(super) fn is_pending(&self) -> bool {
        let is_new = self.since.is_some_and(|since| since.elapsed() < PENDING);
        is_new && matches!(self.stage, Stage::Started { heard: false, .. })
    }
}

/// All assigned partitions.
#[derive(Debug, Default)]
pub(super) struct Slots {
    list: Vec<Slot>,
    /// The slot found last: records come in runs of one partition.
    last: usize,
}

impl Slots {
    /// Adds a silent partition.
    pub(super) fn add(&mut self, partition: TopicPartition) {
        self.remove(&partition);
        self.list.push(Slot {
            partition,
            stage: Stage::Silent,
            paused: false,
            unsought: false,
            held: false,
            since: None,
            awaited: None,
            vain: 0,
        });
    }

    /// Forgets a partition.
    pub(super) fn remove(&mut self, partition: &TopicPartition) {
        self.list.retain(|slot| slot.partition != *partition);
        self.last = 0;
    }

    /// The slot of a partition, if it is assigned.
    pub(super) fn get(&mut self, topic: &str, partition: i32) -> Option<&mut Slot> {
        let is = |slot: &Slot| slot.partition.partition == partition && *slot.partition.topic == *topic;
        if !self.list.get(self.last).is_some_and(is) {
            self.last = self.list.iter().position(is)?;
        }
        self.list.get_mut(self.last)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.list.iter()
    }

    /// All of them, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.list.iter_mut()
    }

    /// Tells librdkafka what it is still to be told; what it does not take is told again next time.
    pub(super) fn settle(&mut self, mut is_taken: impl FnMut(&Slot, Untold) -> bool) {
        for slot in &mut self.list {
            while let Some(untold) = slot.untold()
                && is_taken(slot, untold)
            {
                slot.told(untold);
            }
        }
    }

    /// Those that are read and say nothing. What is away is excused.
    pub(super) fn mute(&mut self, now: Instant, is_away: impl Fn(&Arc<str>) -> bool) -> Vec<TopicPartition> {
        let mut mute = Vec::new();
        for slot in self.list.iter_mut().filter(|slot| slot.awaited.is_some()) {
            match is_away(&slot.partition.topic) {
                true => slot.excuse(now),
                false if slot.is_mute(now) => mute.push(slot.partition.clone()),
                false => {}
            }
        }
        mute
    }

    /// Hands a record over if its partition is started and the record is due.
    pub(super) fn deliver(&mut self, record: Record<'_>, on: &mut dyn FnMut(LogEvent<'_>)) {
        let Some(slot) = self.get(record.topic, record.partition) else {
            return;
        };
        let Stage::Started { from, next, .. } = slot.stage else {
            return;
        };
        if record.offset >= next {
            slot.hear(from, record.offset + 1);
            on(LogEvent::Record(record));
        } else if record.offset >= from {
            // The order of the log is what everything stands on. Neither skipping nor repeating would be right, so the
            // partition is read again from where the data itself says it ended.
            tracing::error!(
                topic = record.topic,
                partition = record.partition,
                offset = record.offset,
                expected = next,
                "the Kafka client went backwards; the partition is started again"
            );
            slot.stage = Stage::Stopped;
            on(LogEvent::OutOfRange(slot.partition.clone()));
        }
    }

    /// Tells that a partition has been read to its end, which may be past its last record: markers of transactions and what was
    /// aborted are no records.
    pub(super) fn end(&mut self, topic: &str, partition: i32, offset: u64, on: &mut dyn FnMut(LogEvent<'_>)) {
        if let Some(slot) = self.get(topic, partition)
            && let Stage::Started { from, next, .. } = slot.stage
        {
            let next = next.max(offset);
            slot.hear(from, next);
            on(LogEvent::End(slot.partition.clone(), next));
        }
    }

    /// Stops a partition that the client does not read any more; only a new start gets it going.
    pub(super) fn stop(&mut self, topic: &str, partition: i32, on: &mut dyn FnMut(LogEvent<'_>)) {
        if let Some(slot) = self.get(topic, partition)
            && matches!(slot.stage, Stage::Started { .. })
        {
            slot.stage = Stage::Stopped;
            on(LogEvent::OutOfRange(slot.partition.clone()));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn partition(number: i32) -> TopicPartition {
        TopicPartition { topic: "events".into(), partition: number }
    }

    fn deliver(slots: &mut Slots, number: i32, offset: u64) -> Vec<String> {
        let mut seen = Vec::new();
        let record = Record { topic: "events", partition: number, offset, timestamp_ms: 0, key: None, payload: None };
        slots.deliver(record, &mut |event| {
            seen.push(match event {
                LogEvent::Record(record) => format!("{}", record.offset),
                other => format!("{other:?}"),
            });
        });
        seen
    }

    #[test]
    fn only_started_partitions_deliver_and_nothing_below_the_start() {
        let mut slots = Slots::default();
        slots.add(partition(0));
        slots.add(partition(1));
        assert!(deliver(&mut slots, 0, 5).is_empty());
        slots.get("events", 1).unwrap().stage = Stage::Started { from: 10, next: 10, heard: false };
        assert!(deliver(&mut slots, 1, 9).is_empty());
        assert_eq!(deliver(&mut slots, 1, 10), ["10"]);
        assert_eq!(deliver(&mut slots, 1, 14), ["14"]);
        assert!(deliver(&mut slots, 0, 15).is_empty());
        assert!(deliver(&mut slots, 7, 15).is_empty());
        assert!(slots.get("other", 1).is_none());
        slots.remove(&partition(1));
        assert!(deliver(&mut slots, 1, 15).is_empty());
    }

    #[test]
    fn a_log_that_goes_backwards_is_read_again_from_the_start() {
        let mut slots = Slots::default();
        slots.add(partition(0));
        slots.get("events", 0).unwrap().stage = Stage::Started { from: 3, next: 10, heard: true };
        let seen = deliver(&mut slots, 0, 4);
        assert!(seen.len() == 1 && seen[0].starts_with("OutOfRange"), "{seen:?}");
        assert!(deliver(&mut slots, 0, 10).is_empty());
    }

    #[test]
    fn what_the_client_does_not_take_is_told_again() {
        let mut slots = Slots::default();
        slots.add(partition(0));
        slots.get("events", 0).unwrap().stage = Stage::Started { from: 0, next: 7, heard: true };
        let told = |slots: &mut Slots, is_taken: bool| {
            let mut told = Vec::new();
            slots.settle(|slot, untold| {
                told.push((slot.partition.partition, untold));
                is_taken
            });
            told
        };
        assert!(told(&mut slots, true).is_empty());
        let (pause, seek, resume) = ((0, Untold::Pause), (0, Untold::Seek(7)), (0, Untold::Resume));
        slots.get("events", 0).unwrap().held = true;
        assert_eq!(told(&mut slots, false), [pause]);
        assert_eq!(told(&mut slots, false), [pause], "asked once, told until it is taken");
        assert_eq!(told(&mut slots, true), [pause, seek]);
        assert!(told(&mut slots, true).is_empty());
        slots.get("events", 0).unwrap().held = false;
        assert_eq!(told(&mut slots, false), [resume]);
        assert_eq!(told(&mut slots, true), [resume]);
        // Paused, and the seek was not taken: it goes on from where it stands all the same.
        slots.get("events", 0).unwrap().held = true;
        slots.settle(|_, untold| untold == Untold::Pause);
        slots.get("events", 0).unwrap().held = false;
        assert_eq!(told(&mut slots, false), [seek]);
        assert_eq!(told(&mut slots, true), [seek, resume]);
        // Taken back before it was taken: nothing to tell. And a stopped one is resumed by its start.
        slots.get("events", 0).unwrap().held = true;
        told(&mut slots, false);
        slots.get("events", 0).unwrap().held = false;
        assert!(told(&mut slots, true).is_empty());
        let slot = slots.get("events", 0).unwrap();
        (slot.paused, slot.unsought, slot.stage) = (true, true, Stage::Stopped);
        assert!(told(&mut slots, true).is_empty());
    }

    #[test]
    fn what_is_read_and_says_nothing_is_mute_and_has_longer_each_time() {
        let mut slots = Slots::default();
        slots.add(partition(0));
        let later = |seconds: u64| Instant::now() + Duration::from_secs(seconds);
        let is_mute = |slots: &mut Slots, seconds| slots.mute(later(seconds), |_| false) == [partition(0)];
        assert!(!is_mute(&mut slots, 9_999), "nobody reads it");
        slots.get("events", 0).unwrap().start(5);
        assert!(!is_mute(&mut slots, 299) && is_mute(&mut slots, 301));
        slots.end("events", 0, 5, &mut |_| {});
        assert!(!is_mute(&mut slots, 9_999), "it has been read to its end");
        slots.get("events", 0).unwrap().excuse(Instant::now());
        assert!(!is_mute(&mut slots, 9_999), "nothing more is awaited");
        slots.get("events", 0).unwrap().held = true;
        assert!(!is_mute(&mut slots, 9_999), "nobody wants it");
        slots.settle(|_, _| true);
        slots.get("events", 0).unwrap().held = false;
        assert!(!is_mute(&mut slots, 9_999), "it is still paused");
        slots.settle(|_, _| true);
        assert!(!is_mute(&mut slots, 299) && is_mute(&mut slots, 301), "once it goes on it says where it is");
        slots.end("events", 0, 5, &mut |_| {});
        slots.get("events", 0).unwrap().await_from(Instant::now());
        assert!(is_mute(&mut slots, 301), "a seek says the end again");
        assert!(slots.mute(later(301), |topic| **topic == *"events").is_empty(), "its topic is away");
        assert!(!is_mute(&mut slots, 600) && is_mute(&mut slots, 602), "it has as long again once that is back");
        assert!(slots.mute(Instant::now(), |_| true).is_empty());
        slots.get("events", 0).unwrap().start(5);
        assert!(!is_mute(&mut slots, 599) && is_mute(&mut slots, 601));
        assert_eq!(deliver(&mut slots, 0, 5), ["5"]);
        slots.get("events", 0).unwrap().await_from(Instant::now());
        assert!(is_mute(&mut slots, 301), "what was in vain is past");
        (0..99).for_each(|_| slots.get("events", 0).unwrap().start(6));
        assert!(!is_mute(&mut slots, 3_599) && is_mute(&mut slots, 3_601));
    }
}
