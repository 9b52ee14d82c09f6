//! [`KafkaLog`]: a member of a consumer group that delivers nothing before it is told where to start.
//!
//! Positions come from the caller alone. What the group assigns is not read at all until [`Log::start`] hands it to
//! librdkafka with an offset that is a number. To assign it at a logical offset (beginning, end, committed) and to seek
//! it afterwards loses a race in librdkafka 2.12: the answer to the look-up of the logical offset, though outdated by the
//! seek, sets the partition back to it, and records come twice or, from the end, never.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::context::{Context, Rebalance, accept, give_back};
use super::identity::{self, IdentityError, TopicIdentity};
use super::reach::{Limiter, Reach};
use super::settings::{ConsumerSettings, SettingsError};
use super::slots::{Slots, Stage};
use crate::ports::{Bounds, Log, LogError, LogEvent, Record, TopicPartition};

/// Events handed over by one [`Log::poll`], so that a caller with a full log still gets to its other work.
const POLL_EVENTS: usize = 4_096;
/// Bounds of every question to the broker.
const ASK: Duration = Duration::from_secs(5);
/// How long a seek may take: it is answered by librdkafka's own thread.
const SEEK: Duration = Duration::from_secs(2);
/// How long a revocation waits for its offsets to be committed.
const LAST_COMMIT: Duration = Duration::from_secs(2);
/// How long leaving the group may take.
const LEAVE: Duration = Duration::from_secs(5);
/// How long a probe of the brokers may hold up the thread that polls.
const PROBE: Duration = Duration::from_millis(300);

/// See the module.
pub struct KafkaLog {
    consumer: Arc<BaseConsumer<Context>>,
    topics: Vec<Arc<str>>,
    slots: Slots,
    /// What is done and not yet known to be committed.
    done: BTreeMap<TopicPartition, u64>,
    brokers: Reach,
    missing: Vec<Reach>,
    limiter: Limiter,
    /// Some partition stopped; which one is still to be found out.
    stopped: bool,
    fatal: Option<String>,
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
        let consumer: BaseConsumer<Context> = config
            .create_with_context(Context::default())
            .map_err(refused)?;
        let names: Vec<&str> = settings.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&names).map_err(refused)?;
        let consumer = Arc::new(consumer);
        let now = Instant::now();
        Ok(Self {
            _leave: Leave(Some(Arc::clone(&consumer))),
            consumer,
            topics: names.iter().copied().map(Arc::from).collect(),
            slots: Slots::default(),
            done: BTreeMap::new(),
            brokers: Reach::new(format!("Kafka at {}", settings.brokers)),
            missing: names
                .iter()
                .map(|name| {
                    Reach::doubtful(now, format!("the Kafka topic {name}"), "no such topic")
                })
                .collect(),
            limiter: Limiter::default(),
            stopped: false,
            fatal: None,
        })
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
    pub fn identity(
        &self,
        topic: &str,
        patience: Duration,
    ) -> Result<TopicIdentity, IdentityError> {
        identity::topic_identity(self.consumer.client(), topic, patience)
    }

    /// Commits what is done, waiting at most two seconds for it, and leaves the group, which then shares out the
    /// partitions at once; that takes at most five seconds more. Dropping does the same without the commit.
    pub fn close(mut self) {
        let done: Vec<_> = self.done.keys().cloned().collect();
        self.commit_last(&done);
    }

    /// Hands over what the group decided, then answers it. True if there was something.
    fn rebalance(&mut self, on: &mut dyn FnMut(LogEvent<'_>)) -> bool {
        let mut any = false;
        while let Some(rebalance) = self.consumer.context().next_rebalance() {
            any = true;
            match rebalance {
                Rebalance::Assign(partitions) => self.assigned(&partitions, on),
                Rebalance::Revoke { partitions, lost } => self.revoked(&partitions, lost, on),
            }
        }
        any
    }

    fn assigned(&mut self, partitions: &TopicPartitionList, on: &mut dyn FnMut(LogEvent<'_>)) {
        let names = self.names(partitions);
        if let Err(error) = accept(&self.consumer) {
            // Without an answer the group would wait for this member until it is thrown out.
            self.fatal = Some(format!(
                "cannot take the Kafka partitions assigned: {error}; restart this process"
            ));
            return;
        }
        for name in &names {
            self.slots.add(name.clone());
        }
        if !names.is_empty() {
            on(LogEvent::Assigned(names));
        }
        // Commits during the rebalance were refused, and nobody tells.
        let done: Vec<_> = self.done.clone().into_iter().collect();
        self.commit(&done);
    }

    fn revoked(
        &mut self,
        partitions: &TopicPartitionList,
        lost: bool,
        on: &mut dyn FnMut(LogEvent<'_>),
    ) {
        let names = self.names(partitions);
        for name in &names {
            self.slots.remove(name);
        }
        if !names.is_empty() {
            on(LogEvent::Revoked(names.clone()));
        }
        if lost && self.brokers.is_away() {
            tracing::debug!("{} partitions lost to the outage", names.len());
        } else if lost {
            tracing::warn!(
                "the group gave up on this consumer and took {} partitions away: is max.poll.interval.ms or session.timeout.ms too short?",
                names.len()
            );
        } else {
            self.commit_last(&names);
        }
        self.done.retain(|name, _| !names.contains(name));
        if let Err(error) = give_back(&self.consumer, partitions) {
            self.fatal = Some(format!(
                "cannot give Kafka partitions back: {error}; restart this process"
            ));
        }
    }

    fn names(&self, partitions: &TopicPartitionList) -> Vec<TopicPartition> {
        partitions
            .elements()
            .iter()
            .map(|element| TopicPartition {
                topic: self
                    .topics
                    .iter()
                    .find(|topic| ***topic == *element.topic())
                    .map_or_else(|| Arc::from(element.topic()), Arc::clone),
                partition: element.partition(),
            })
            .collect()
    }

    /// Commits what is done in these partitions and looks whether it arrived. librdkafka's own synchronous commit has
    /// no time-out; a question for the committed offsets has, and the broker answers it after the commit.
    fn commit_last(&mut self, partitions: &[TopicPartition]) {
        let offsets: Vec<(TopicPartition, u64)> = partitions
            .iter()
            .filter_map(|name| self.done.get(name).map(|offset| (name.clone(), *offset)))
            .collect();
        if offsets.is_empty() {
            return;
        }
        let list = list(
            offsets
                .iter()
                .map(|(name, offset)| (name, position(*offset))),
        );
        let outcome = self
            .consumer
            .commit(&list, CommitMode::Async)
            .and_then(|()| self.consumer.committed_offsets(list, LAST_COMMIT));
        let problem = match &outcome {
            Err(error) => Some(error.to_string()),
            Ok(found) => offsets.iter().find_map(|(name, offset)| {
                let element = found.find_partition(&name.topic, name.partition)?;
                (element.offset() != position(*offset)).then(|| {
                    format!(
                        "{name} stands at {:?} instead of {offset}",
                        element.offset()
                    )
                })
            }),
        };
        if let Some(problem) = problem {
            tracing::debug!(
                "the last offsets were not committed ({problem}); the next owner finds its place in ClickHouse"
            );
        }
    }

    fn trouble(&mut self, error: &KafkaError, on: &mut dyn FnMut(LogEvent<'_>)) {
        use RDKafkaErrorCode as Code;
        let (code, fatal) = match error {
            KafkaError::PartitionEOF(partition) => return self.end(*partition, on),
            KafkaError::MessageConsumptionFatal(code) => (*code, true),
            other => (other.rdkafka_error_code().unwrap_or(Code::Unknown), false),
        };
        let reason = self.consumer.context().take_reason();
        let now = Instant::now();
        match code {
            Code::AutoOffsetReset => self.stopped = true,
            _ if fatal => self.fail(code, &reason),
            Code::Fatal
            | Code::Fenced
            | Code::FencedInstanceId
            | Code::UnreleasedInstanceId
            | Code::InconsistentGroupProtocol
            | Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::GroupAuthorizationFailed
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed => self.fail(code, &reason),
            Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::Resolve
            | Code::OperationTimedOut => self.brokers.suspect(now, &reason),
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                for topic in &mut self.missing {
                    topic.suspect(now, "no such topic");
                }
            }
            _ => {
                if let Some(held) = self.limiter.pass(now, &code.to_string()) {
                    tracing::warn!(
                        held_back = held,
                        "Kafka consumer goes on after {code}: {reason}"
                    );
                }
            }
        }
    }

    fn fail(&mut self, code: RDKafkaErrorCode, reason: &str) {
        self.fatal.get_or_insert_with(|| {
            format!("Kafka refuses this consumer: {code} ({reason}); check its permissions, and that no other consumer uses its group.instance.id or another protocol in its group")
        });
    }

    /// librdkafka names only the number of the partition that has been read to its end.
    fn end(&mut self, number: i32, on: &mut dyn FnMut(LogEvent<'_>)) {
        let Ok(positions) = self.consumer.position() else {
            return;
        };
        let candidates: Vec<(TopicPartition, u64)> = self
            .slots
            .iter()
            .filter(|slot| slot.partition.partition == number)
            .filter_map(|slot| match slot.stage {
                Stage::Started { next, .. } => Some((slot.partition.clone(), next)),
                _ => None,
            })
            .map(|(name, next)| {
                // The client's own position is past the last transaction's marker, which is no record.
                let position = positions
                    .find_partition(&name.topic, number)
                    .and_then(|element| raw(element.offset()));
                (name, position.map_or(next, |position| position.max(next)))
            })
            .collect();
        let alone = candidates.len() == 1;
        for (name, position) in candidates {
            // With two topics, the one whose end is known to be reached.
            let at_end = alone
                || self
                    .consumer
                    .fetch_watermarks(&name.topic, number, PROBE)
                    .is_ok_and(|(_, high)| u64::try_from(high).is_ok_and(|high| position >= high));
            if at_end {
                on(LogEvent::End(name, position));
            }
        }
    }

    /// Finds the partitions that librdkafka stopped reading because their position does not exist: those that refuse
    /// a seek. The others are sought to where they stand.
    fn find_stopped(&mut self, on: &mut dyn FnMut(LogEvent<'_>)) {
        let started: Vec<(TopicPartition, u64)> = self
            .slots
            .iter()
            .filter_map(|slot| match slot.stage {
                Stage::Started { next, .. } => Some((slot.partition.clone(), next)),
                _ => None,
            })
            .collect();
        if started.is_empty() {
            self.stopped = false;
            return;
        }
        let sought = list(started.iter().map(|(name, next)| (name, position(*next))));
        let Ok(sought) = self.consumer.seek_partitions(sought, SEEK) else {
            return;
        };
        self.stopped = false;
        for element in sought.elements() {
            if element.error().is_ok() {
                continue;
            }
            if let Some(slot) = self.slots.get(element.topic(), element.partition()) {
                slot.stage = Stage::Stopped;
                on(LogEvent::OutOfRange(slot.partition.clone()));
            }
        }
    }

    /// While brokers or topics are away: looks whether they are back.
    fn tend(&mut self) {
        let now = Instant::now();
        let brokers = self.brokers.wants_probe(now);
        let mut answers = true;
        for (topic, reach) in self.topics.iter().zip(&mut self.missing) {
            if !answers || !(brokers || reach.wants_probe(now)) {
                continue;
            }
            match self.consumer.fetch_metadata(Some(topic), PROBE) {
                Err(error) => {
                    answers = false;
                    reach.postpone(now);
                    self.brokers.suspect(now, &error.to_string());
                }
                Ok(metadata) => {
                    let known = metadata
                        .topics()
                        .iter()
                        .find(|found| found.name() == &**topic);
                    let exists = known.is_some_and(|found| found.error().is_none());
                    answers &= known.is_none_or(|found| {
                        found
                            .partitions()
                            .iter()
                            .all(|partition| partition.leader() >= 0)
                    });
                    if let Some(line) = reach.probed(now, exists) {
                        line.out();
                    }
                }
            }
        }
        if brokers && let Some(line) = self.brokers.probed(Instant::now(), answers) {
            line.out();
        }
    }
}

impl Log for KafkaLog {
    fn poll(&mut self, wait: Duration, on: &mut dyn FnMut(LogEvent<'_>)) {
        self.tend();
        let mut wait = wait;
        for _ in 0..POLL_EVENTS {
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

    fn bounds(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Bounds>, LogError> {
        let deadline = Instant::now() + ASK;
        let left = || deadline.saturating_duration_since(Instant::now());
        let failed = |what: &str, error: KafkaError| {
            LogError(format!(
                "cannot ask Kafka for {what}: {error}; asked again later"
            ))
        };
        let ask = |offset: Offset| list(partitions.iter().map(|name| (name, offset)));
        let committed = self
            .consumer
            .committed_offsets(ask(Offset::Invalid), left())
            .map_err(|error| failed("committed offsets", error))?;
        // -2 and -1 in place of a time are the protocol's names for the first offset and the one past the last.
        let starts = self
            .consumer
            .offsets_for_times(ask(Offset::Beginning), left())
            .map_err(|error| failed("log starts", error))?;
        let ends = self
            .consumer
            .offsets_for_times(ask(Offset::End), left())
            .map_err(|error| failed("log ends", error))?;
        partitions
            .iter()
            .map(|name| {
                let of = |list: &TopicPartitionList, what: &str| {
                    let element = list
                        .find_partition(&name.topic, name.partition)
                        .ok_or_else(|| {
                            LogError(format!("Kafka did not answer with {what} of {name}"))
                        })?;
                    element
                        .error()
                        .map_err(|error| failed(&format!("{what} of {name}"), error))?;
                    Ok(raw(element.offset()))
                };
                let known = |list, what| {
                    of(list, what)?
                        .ok_or_else(|| LogError(format!("Kafka knows no {what} of {name} now")))
                };
                Ok(Bounds {
                    start: known(&starts, "log start")?,
                    end: known(&ends, "log end")?,
                    committed: of(&committed, "committed offset")?,
                })
            })
            .collect()
    }

    fn start(&mut self, partition: &TopicPartition, offset: u64) -> Result<(), LogError> {
        let failed = |error: &dyn std::fmt::Display| {
            LogError(format!(
                "cannot start {partition} at {offset}: {error}; tried again later"
            ))
        };
        let Some(slot) = self.slots.get(&partition.topic, partition.partition) else {
            return Err(failed(&"it is not assigned to this consumer"));
        };
        let list = list([(partition, position(offset))]);
        match slot.stage {
            Stage::Silent => self
                .consumer
                .incremental_assign(&list)
                .map_err(|error| failed(&error))?,
            Stage::Stopped => {
                // librdkafka refuses to seek a partition that it stopped, for ever.
                self.consumer
                    .incremental_unassign(&list)
                    .map_err(|error| failed(&error))?;
                slot.stage = Stage::Silent;
                self.consumer
                    .incremental_assign(&list)
                    .map_err(|error| failed(&error))?;
            }
            Stage::Started { .. } => {
                let sought = self
                    .consumer
                    .seek_partitions(list.clone(), SEEK)
                    .map_err(|error| failed(&error))?;
                for element in sought.elements() {
                    element.error().map_err(|error| failed(&error))?;
                }
            }
        }
        slot.stage = Stage::Started {
            from: offset,
            next: offset,
        };
        if slot.paused {
            self.consumer
                .resume(&list)
                .map_err(|error| failed(&error))?;
            slot.paused = false;
        }
        Ok(())
    }

    fn pause(&mut self, partition: &TopicPartition) {
        if let Some(slot) = self.slots.get(&partition.topic, partition.partition)
            && !slot.paused
        {
            match self.consumer.pause(&list([(partition, Offset::Invalid)])) {
                Ok(()) => slot.paused = true,
                Err(error) => tracing::warn!("cannot pause {partition}: {error}; it goes on"),
            }
        }
    }

    fn resume(&mut self, partition: &TopicPartition) {
        if let Some(slot) = self.slots.get(&partition.topic, partition.partition)
            && slot.paused
            && matches!(slot.stage, Stage::Started { .. })
        {
            match self.consumer.resume(&list([(partition, Offset::Invalid)])) {
                Ok(()) => slot.paused = false,
                Err(error) => tracing::warn!(
                    "cannot resume {partition}: {error}; tried again when it is asked again"
                ),
            }
        }
    }

    fn commit(&mut self, offsets: &[(TopicPartition, u64)]) {
        if offsets.is_empty() {
            return;
        }
        self.done.extend(offsets.iter().cloned());
        let list = list(
            offsets
                .iter()
                .map(|(name, offset)| (name, position(*offset))),
        );
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

impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.consumer.context().close();
        // What waits for an answer would never get one, and the consumer's destructor would wait for ever.
        while let Some(rebalance) = self.consumer.context().next_rebalance() {
            let answered = match &rebalance {
                Rebalance::Assign(_) => accept(&self.consumer),
                Rebalance::Revoke { partitions, .. } => give_back(&self.consumer, partitions),
            };
            if let Err(error) = answered {
                tracing::debug!("rebalance while closing: {error}");
            }
        }
    }
}

/// Leaves the group and ends librdkafka's client. That waits for every commit on its way, up to a minute where a broker
/// has stopped answering, so it is given a thread of its own and only so much time.
struct Leave(Option<Arc<BaseConsumer<Context>>>);

impl Drop for Leave {
    fn drop(&mut self) {
        let consumer = self.0.take();
        let (left, leaving) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("kafka-leave".to_owned())
            .spawn(move || {
                drop(consumer);
                // Nobody listens any more if it took too long.
                let _ = left.send(());
            });
        if thread.is_ok() && leaving.recv_timeout(LEAVE).is_err() {
            tracing::debug!("left the Kafka group without its answer");
        }
    }
}

fn list<'a>(offsets: impl IntoIterator<Item = (&'a TopicPartition, Offset)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (name, offset) in offsets {
        // Fails only for an offset that `position` does not make.
        if let Err(error) = list.add_partition_offset(&name.topic, name.partition, offset) {
            tracing::error!("{name}: {error}");
        }
    }
    list
}

/// An offset as librdkafka takes it; those beyond its range do not exist.
fn position(offset: u64) -> Offset {
    Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX))
}

/// An offset that is a number.
fn raw(offset: Offset) -> Option<u64> {
    match offset {
        Offset::Offset(offset) => u64::try_from(offset).ok(),
        _ => None,
    }
}
