//! [`KafkaLog`]: a member of a consumer group that delivers nothing before it is told where to start.
//!
//! Positions come from the caller alone. What the group assigns is not read at all until [`Log::start`] hands it to
//! librdkafka with an offset that is a number. To assign it at a logical offset (beginning, end, committed) and to seek
//! it afterwards loses a race in librdkafka 2.12: the answer to the look-up of the logical offset, though outdated by the
//! seek, sets the partition back to it, and records come twice or, from the end, never.

mod membership;
mod noted;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;

use self::membership::Leave;
use super::bounds::{bounds, list, position, raw};
use super::context::Context;
use super::ends::Ends;
use super::identity::{self, IdentityError, TopicIdentity};
use super::reach::{Limiter, Reach};
use super::settings::{ConsumerSettings, GroupProtocol, SettingsError};
use super::slots::{Slots, Stage};
use crate::ports::{Bounds, Log, LogError, LogEvent, Record, TopicPartition};

/// Events handed over by one [`Log::poll`], so that a caller with a full log still gets to its other work.
const POLL_EVENTS: usize = 4_096;
/// Bytes of keys and values likewise: a caller that may hold only so much finds out after each poll, and more is fetched while
/// it lasts.
const POLL_BYTES: usize = 1 << 20;
/// How long the thread that polls may wait for where partitions begin and end; what has no answer is asked again.
const ASK: Duration = Duration::from_secs(1);
/// How long a seek may take: it is answered by librdkafka's own thread.
const SEEK: Duration = Duration::from_secs(2);

/// See the module.
pub struct KafkaLog {
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
    /// Perhaps read to their ends: where these are was not answered in time, and is asked again.
    unsure: BTreeSet<TopicPartition>,
    /// When it was asked again.
    reasked: Instant,
    /// Some partition stopped; which one is still to be found out.
    stopped: bool,
    fatal: Option<String>,
    /// No member of the group any more: others may commit for its partitions.
    left: bool,
    settings: ConsumerSettings,
    /// Made when it is asked for the first time.
    ends: Option<Ends>,
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
        let refused = |error: KafkaError| SettingsError::Client(error.to_string());
        // Under the brokers' own protocol nobody tells a member that it is assigned nothing.
        let context = Context::new(settings.protocol == GroupProtocol::Consumer);
        let consumer: BaseConsumer<Context> = config.create_with_context(context).map_err(refused)?;
        let names: Vec<&str> = settings.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&names).map_err(refused)?;
        let consumer = Arc::new(consumer);
        let now = Instant::now();
        Ok(Self {
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
                .map(|name| Reach::doubtful(now, format!("the Kafka topic {name}"), "no such topic"))
                .collect(),
            limiter: Limiter::default(),
            unsure: BTreeSet::new(),
            reasked: now,
            stopped: false,
            fatal: None,
            left: false,
            settings: settings.clone(),
            ends: None,
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

    /// Who a topic is, asked over this consumer's connection.
    ///
    /// # Errors
    /// As [`identity::topic_identity`].
    pub fn identity(&self, topic: &str, patience: Duration) -> Result<TopicIdentity, IdentityError> {
        identity::topic_identity(self.consumer.client(), topic, patience)
    }

    /// Pauses and resumes what is to be paused and resumed. Nobody asks for it twice, so what fails is tried again at the
    /// next poll.
    fn settle(&mut self) {
        let failed = self.slots.settle(|partition, pause| {
            let list = list([(partition, Offset::Invalid)]);
            let (told, what) = match pause {
                true => (self.consumer.pause(&list), "pause"),
                false => (self.consumer.resume(&list), "resume"),
            };
            told.map_err(|error| format!("cannot {what} {partition}: {error}; tried again"))
        });
        if let Some(failed) = failed
            && let Some(held) = self.limiter.pass(Instant::now(), "pause")
        {
            tracing::warn!(held_back = held, "{failed}");
        }
    }

    /// The client that fetches nothing, made when it is first needed.
    fn ends(&mut self) -> Result<&Ends, LogError> {
        let ends = match self.ends.take() {
            Some(ends) => ends,
            None => Ends::new(&self.settings).map_err(|error| LogError::Passing(error.to_string()))?,
        };
        Ok(self.ends.insert(ends))
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
        self.settle();
        let (mut wait, mut bytes) = (wait, 0);
        for _ in 0..POLL_EVENTS {
            if bytes >= POLL_BYTES {
                break;
            }
            if self.stopped {
                self.find_stopped(on);
            }
            let error = match self.consumer.poll(wait) {
                None => None,
                Some(Err(error)) => Some(error),
                Some(Ok(message)) => {
                    let Ok(offset) = u64::try_from(message.offset()) else {
                        continue;
                    };
                    let record = Record {
                        topic: message.topic(),
                        partition: message.partition(),
                        offset,
                        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
                        key: message.key(),
                        payload: message.payload(),
                    };
                    bytes += record.key.map_or(0, <[u8]>::len) + record.payload.map_or(0, <[u8]>::len);
                    self.slots.deliver(record, on);
                    wait = Duration::ZERO;
                    continue;
                }
            };
            wait = Duration::ZERO;
            match error {
                Some(error) => self.trouble(&error, on),
                None if self.rebalance(on) => {}
                None => break,
            }
        }
    }

    fn bounds(&mut self, partitions: &[TopicPartition]) -> Vec<Result<Bounds, LogError>> {
        let found = bounds(&*self.consumer, partitions, ASK);
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
        let found = match self.ends()?.identity(topic, patience) {
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
            Stage::Silent => self.consumer.incremental_assign(&list).map_err(|error| failed(&error))?,
            Stage::Stopped => {
                // librdkafka refuses to seek a partition that it stopped, for ever.
                self.consumer.incremental_unassign(&list).map_err(|error| failed(&error))?;
                slot.stage = Stage::Silent;
                self.consumer.incremental_assign(&list).map_err(|error| failed(&error))?;
            }
            Stage::Started { .. } => {
                let sought = self.consumer.seek_partitions(list.clone(), SEEK).map_err(|error| failed(&error))?;
                for element in sought.elements() {
                    element.error().map_err(|error| failed(&error))?;
                }
            }
        }
        slot.stage = Stage::Started { from: offset, next: offset };
        slot.held = false;
        if slot.paused {
            self.consumer.resume(&list).map_err(|error| failed(&error))?;
            slot.paused = false;
        }
        Ok(())
    }

    fn pause(&mut self, partition: &TopicPartition) {
        if let Some(slot) = self.slots.get(&partition.topic, partition.partition) {
            slot.held = true;
            self.settle();
        }
    }

    fn resume(&mut self, partition: &TopicPartition) {
        if let Some(slot) = self.slots.get(&partition.topic, partition.partition) {
            slot.held = false;
            self.settle();
        }
    }

    fn high_watermarks(&mut self, partitions: &[TopicPartition]) -> Vec<Result<u64, LogError>> {
        match self.ends() {
            Ok(ends) => ends.ask(partitions),
            Err(error) => vec![Err(error); partitions.len()],
        }
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
