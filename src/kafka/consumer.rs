//! [`KafkaLog`]: a member of a consumer group that delivers nothing before it is told where to start.
//!
//! Positions come from the caller alone. What the group assigns is not read at all until [`Log::start`] hands it to
//! librdkafka with an offset that is a number. To assign it at a logical offset (beginning, end, committed) and to seek
//! it afterwards loses a race in librdkafka 2.12: the answer to the look-up of the logical offset, though outdated by the
//! seek, sets the partition back to it, and records come twice or, from the end, never. Nor does librdkafka's own note of
//! how far a partition was read decide anything: what is paused, by us or for a rebalance, is sought to where it stands
//! before it goes on.

mod membership;
mod noted;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;

use self::membership::Leave;
use super::bounds::{list, position};
use super::complaint::explain;
use super::context::Context;
use super::ends::Ends;
use super::identity::{IdentityError, TopicIdentity};
use super::inbox::{Arrival, Inbox};
use super::reach::{Limiter, Reach};
use super::settings::{ConsumerSettings, GroupProtocol, SettingsError};
use super::slots::{Slot, Slots, Stage, Untold};
use crate::ports::{Bounds, Log, LogError, LogEvent, TopicPartition};

/// Events handed over by one [`Log::poll`], so that a caller with a full log still gets to its other work.
const POLL_EVENTS: usize = 4_096;
/// Bytes of keys and values likewise, as far as the next records are as long as the last ones: a caller that may hold only so
/// much finds out after each poll, and more is fetched while it lasts.
const POLL_BYTES: usize = 1 << 20;
/// How long nothing may come of a partition that was just started until its messages are sent for again: at first, and at
/// last, twice as long each time.
const COLLECT: Duration = Duration::from_millis(10);
const COLLECT_AT_LAST: Duration = Duration::from_millis(500);
/// How long the thread that polls may wait for where partitions begin and end; what has no answer is asked again.
const ASK: Duration = Duration::from_secs(1);
/// How long a seek may take: it is answered by librdkafka's own thread.
const SEEK: Duration = Duration::from_secs(2);

/// See the module.
pub struct KafkaLog {
    /// What the partitions have for us; the group's decisions and the brokers' errors come over `consumer`.
    inbox: Inbox,
    /// Bytes of the longest of the records taken last, at least one.
    longest: usize,
    /// How long to wait for what comes of partitions just started.
    collected: Duration,
    consumer: Arc<BaseConsumer<Context>>,
    topics: Vec<Arc<str>>,
    /// Who the topics were when they were claimed.
    claimed: BTreeMap<Arc<str>, TopicIdentity>,
    /// When it was last looked whether they are still the same.
    recognised: Instant,
    slots: Slots,
    /// What is done and not yet known to be committed.
    done: BTreeMap<TopicPartition, u64>,
    brokers: Reach,
    missing: Vec<Reach>,
    limiter: Limiter,
    fatal: Option<String>,
    /// No member of the group any more: others may commit for its partitions.
    left: bool,
    settings: ConsumerSettings,
    ends: Ends,
    /// Declared last, to hold the last reference when the consumer is dropped.
    _leave: Leave,
}

impl KafkaLog {
    /// Joins the group. Returns at once; brokers or topics that are away are waited for in [`Log::poll`].
    ///
    /// # Errors
    /// The settings are refused, by the engine or by librdkafka.
    pub fn new(settings: &ConsumerSettings) -> Result<Self, SettingsError> {
        let config = settings.client_config()?;
        // Connects while the group is joined: by then there are questions.
        let ends = Ends::new(settings)?;
        let refused = |error: KafkaError| SettingsError::Client(error.to_string());
        // Under the brokers' own protocol nobody tells a member that it is assigned nothing.
        let context = Context::new(settings.protocol == GroupProtocol::Consumer);
        let consumer: BaseConsumer<Context> = config.create_with_context(context).map_err(refused)?;
        let names: Vec<&str> = settings.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&names).map_err(refused)?;
        let consumer = Arc::new(consumer);
        let inbox = Inbox::new(&consumer)
            .ok_or_else(|| SettingsError::Client("librdkafka has no queue for this consumer".to_owned()))?;
        let now = Instant::now();
        Ok(Self {
            inbox,
            longest: 1 << 12,
            collected: COLLECT,
            _leave: Leave(Some(Arc::clone(&consumer))),
            consumer,
            topics: names.iter().copied().map(Arc::from).collect(),
            claimed: BTreeMap::new(),
            recognised: now,
            slots: Slots::default(),
            done: BTreeMap::new(),
            brokers: Reach::new(format!("Kafka at {}", settings.brokers)),
            missing: names
                .iter()
                .map(|name| Reach::doubtful(now, format!("the Kafka topic {name}"), trouble::NO_TOPIC))
                .collect(),
            limiter: Limiter::default(),
            fatal: None,
            left: false,
            settings: settings.clone(),
            ends,
        })
    }

    /// Says who the topics are that may be read: under the name of another one nothing is delivered.
    #[must_use]
    pub fn claimed(mut self, topics: BTreeMap<Arc<str>, TopicIdentity>) -> Self {
        self.claimed = topics;
        self
    }

    /// Why this consumer will never deliver again, if so: a refused permission or an identity taken over. The process
    /// should end and say it.
    pub fn fatal(&self) -> Option<&str> {
        self.fatal.as_deref()
    }

    /// Who a topic is.
    ///
    /// # Errors
    /// As [`topic_identity`](super::identity::topic_identity).
    pub fn identity(&self, topic: &str, patience: Duration) -> Result<TopicIdentity, IdentityError> {
        self.ends.identity(topic, patience)
    }

    /// Pauses and resumes what is to be paused and resumed. Nobody asks for it twice, so what fails is tried again at the
    /// next poll.
    fn settle(&mut self, on: &mut dyn FnMut(LogEvent<'_>)) {
        let (mut mute, mut failed) = (Vec::new(), None);
        self.slots.settle(|slot, untold| {
            let partition = &slot.partition;
            let list = list([(partition, Offset::Invalid)]);
            let (told, what) = match untold {
                Untold::Pause => (self.consumer.pause(&list), "pause"),
                Untold::Seek(next) => (seek(&self.consumer, partition, next), "seek"),
                Untold::Resume => (self.consumer.resume(&list), "resume"),
            };
            let Err(error) = told else { return true };
            match error.rdkafka_error_code() {
                // librdkafka does not read it: not yet, or not any more.
                Some(RDKafkaErrorCode::State) if slot.is_pending() => {}
                Some(RDKafkaErrorCode::State) => mute.push(partition.clone()),
                _ => failed = Some(format!("cannot {what} {partition}: {error}; tried again")),
            }
            false
        });
        mute.iter().for_each(|name| self.slots.stop(&name.topic, name.partition, on));
        if let Some(failed) = failed
            && let Some(held) = self.limiter.pass(Instant::now(), "pause")
        {
            tracing::warn!(held_back = held, "{failed}");
        }
    }

    /// Sends for the messages of those that were started and of which nothing has come. Until when it is to be done again, if
    /// there are any.
    fn collect(&mut self) -> Option<Duration> {
        let mut any = false;
        let unheard = |slot: &&Slot| !slot.held && matches!(slot.stage, Stage::Started { heard: false, .. });
        for slot in self.slots.iter().filter(unheard) {
            self.inbox.collect(&slot.partition);
            any = true;
        }
        let after = if any { (self.collected * 2).min(COLLECT_AT_LAST) } else { COLLECT };
        any.then_some(std::mem::replace(&mut self.collected, after))
    }

    /// Takes in the group's decisions and what brokers have to say. True if there was something.
    fn serve(&mut self, on: &mut dyn FnMut(LogEvent<'_>)) -> bool {
        let mut any = false;
        while self.inbox.has_other() {
            any = true;
            match self.consumer.poll(Duration::ZERO) {
                None => {}
                Some(Err(error)) => self.refused(&error),
                Some(Ok(message)) => {
                    // What came the other way may have overtaken it: neither is safe to go by.
                    let (topic, partition) = (message.topic(), message.partition());
                    tracing::error!(
                        topic,
                        partition,
                        "the Kafka client mixed up its queues; the partition is started again"
                    );
                    self.slots.stop(topic, partition, on);
                }
            }
            self.rebalance(on);
        }
        any
    }

    /// Takes in what partitions have, at most so much; how many things and how many bytes these were.
    fn take(&mut self, count: usize, on: &mut dyn FnMut(LogEvent<'_>)) -> (usize, usize) {
        let Self { inbox, slots, .. } = self;
        let (mut bytes, mut longest, mut errors) = (0, 1, Vec::new());
        let taken = inbox.take(count.max(1), &mut |arrival| match arrival {
            Arrival::Record(record) => {
                let size = record.key.map_or(0, <[u8]>::len) + record.payload.map_or(0, <[u8]>::len);
                (bytes, longest) = (bytes + size, longest.max(size));
                slots.deliver(record, on);
            }
            Arrival::End { topic, partition, offset } => slots.end(topic, partition, offset, on),
            Arrival::Error { topic, partition, code: RDKafkaErrorCode::AutoOffsetReset, .. } => {
                slots.stop(topic, partition, on);
            }
            Arrival::Error { topic, partition, code, reason } => {
                if let Some(slot) = slots.get(topic, partition) {
                    slot.excuse(Instant::now()); // It does say something.
                }
                errors.push((code, reason));
            }
        });
        if bytes > 0 {
            self.longest = longest;
        }
        for (code, reason) in errors {
            self.trouble(code, false, &explain(&reason));
        }
        (taken, bytes)
    }

    /// Commits what is done, and leaves the group unless it has left already; each takes at most three seconds or so. Dropping
    /// does the same without the commit.
    pub fn close(mut self) {
        let done: Vec<_> = self.done.keys().cloned().collect();
        self.commit_last(&done);
    }
}

impl Log for KafkaLog {
    fn poll(&mut self, wait: Duration, on: &mut dyn FnMut(LogEvent<'_>)) {
        self.tend(on);
        self.settle(on);
        let mut wait = self.collect().map_or(wait, |again| wait.min(again));
        let (mut events, mut bytes) = (0, 0);
        while events < POLL_EVENTS && bytes < POLL_BYTES {
            if !wait.is_zero() {
                self.inbox.hush();
            }
            // In this order: nothing is taken before what was paused for a rebalance is where it is to go on.
            let served = self.serve(on);
            let (taken, size) = self.take((POLL_BYTES - bytes) / self.longest, on);
            (events, bytes) = (events + taken, bytes + size);
            if served || taken > 0 {
                wait = Duration::ZERO;
            } else if wait.is_zero() {
                break;
            } else {
                self.inbox.wait(std::mem::take(&mut wait));
            }
        }
        // Where there is more than a poll takes, what it has to say may lie there yet.
        if events < POLL_EVENTS && bytes < POLL_BYTES {
            self.wake(on);
        }
    }

    fn bounds(&mut self, partitions: &[TopicPartition]) -> Vec<Result<Bounds, LogError>> {
        let found = self.ends.bounds(partitions);
        // Afterwards, so that what was found is of the topic that is recognised.
        let topics: BTreeSet<&Arc<str>> = partitions.iter().map(|name| &name.topic).collect();
        let strange: BTreeMap<Arc<str>, LogError> = topics
            .into_iter()
            .filter_map(|topic| Some((Arc::clone(topic), self.ensure_claimed(topic, ASK).err()?)))
            .collect();
        let of =
            |(name, found): (&TopicPartition, _)| strange.get(&name.topic).map_or(found, |error| Err(error.clone()));
        partitions.iter().zip(found).map(of).collect()
    }

    fn recognise(&mut self, topic: &str) -> Result<(), LogError> {
        if !self.claimed.contains_key(topic) {
            return Ok(());
        }
        // Away may mean that one broker of many is.
        let patience = if self.brokers.is_away() { trouble::PROBE } else { ASK };
        let found = match self.ends.identity(topic, patience) {
            Ok(found) => self.is_claimed(topic, &found),
            Err(error) => {
                if matches!(error, IdentityError::Away { .. }) {
                    self.brokers.suspect(Instant::now(), &error.to_string());
                }
                if let Some(held) = self.limiter.pass(Instant::now(), "recognise") {
                    tracing::warn!(
                        held_back = held,
                        "cannot ask Kafka for the identity of {topic}: {error}; what was read of it is written once it is known"
                    );
                }
                Err(LogError::Passing(error.to_string()))
            }
        };
        if matches!(found, Err(LogError::OtherTopic(_))) {
            // What is done of the one would be committed to the other.
            self.done.retain(|name, _| *name.topic != *topic);
        }
        found
    }

    fn start(&mut self, partition: &TopicPartition, offset: u64) -> Result<(), LogError> {
        let failed = |error: &dyn std::fmt::Display| {
            LogError::Passing(format!("cannot start {partition} at {offset}: {error}; tried again later"))
        };
        let Some(slot) = self.slots.get(&partition.topic, partition.partition) else {
            return Err(failed(&"it is not assigned to this consumer"));
        };
        let list = list([(partition, position(offset))]);
        match slot.stage {
            Stage::Silent => {
                self.inbox.detach(partition);
                self.consumer.incremental_assign(&list).map_err(|error| failed(&error))?;
            }
            Stage::Stopped => {
                // librdkafka refuses to seek a partition that it stopped, for ever. Detached twice, for a topic that is thought to be
                // gone meanwhile has a partition that is forgotten, and then another one.
                self.inbox.detach(partition);
                self.consumer.incremental_unassign(&list).map_err(|error| failed(&error))?;
                slot.stage = Stage::Silent;
                self.inbox.detach(partition);
                self.consumer.incremental_assign(&list).map_err(|error| failed(&error))?;
            }
            Stage::Started { .. } => seek(&self.consumer, partition, offset).map_err(|error| failed(&error))?,
        }
        slot.start(offset);
        self.collected = COLLECT;
        if slot.paused {
            self.consumer.resume(&list).map_err(|error| failed(&error))?;
            slot.paused = false;
        }
        Ok(())
    }

    fn pause(&mut self, partition: &TopicPartition) {
        if let Some(slot) = self.slots.get(&partition.topic, partition.partition) {
            slot.held = true;
        }
    }

    fn resume(&mut self, partition: &TopicPartition) {
        if let Some(slot) = self.slots.get(&partition.topic, partition.partition) {
            slot.held = false;
        }
    }

    fn high_watermarks(&mut self, partitions: &[TopicPartition]) -> Vec<Result<u64, LogError>> {
        self.ends.ask(partitions)
    }

    fn commit(&mut self, offsets: &[(TopicPartition, u64)]) {
        if offsets.is_empty() {
            return;
        }
        self.done.extend(offsets.iter().cloned());
        if self.left {
            return; // Once, by `close`.
        }
        let list = list(offsets.iter().map(|(name, offset)| (name, position(*offset))));
        if let Err(error) = self.consumer.commit(&list, CommitMode::Async)
            && let Some(held) = self.limiter.pass(Instant::now(), "commit")
        {
            tracing::warn!(
                held_back = held,
                "cannot commit offsets to Kafka: {error}; lag looks larger than it is until the next commit"
            );
        }
    }
}

/// Has a started partition go on from an offset.
fn seek(consumer: &BaseConsumer<Context>, partition: &TopicPartition, offset: u64) -> KafkaResult<()> {
    let sought = consumer.seek_partitions(list([(partition, position(offset))]), SEEK)?;
    sought.elements().iter().try_for_each(|element| element.error())
}
