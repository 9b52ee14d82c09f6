//! Ends and errors: what librdkafka reports beside records, and what becomes of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::super::access;
use super::super::complaint::{explain, is_refusal};
use super::super::identity::TopicIdentity;
use super::super::slots::Stage;
use super::{KafkaLog, SEEK, list, position, raw};
use crate::ports::{LogError, LogEvent, TopicPartition};

/// How long a probe of the brokers may hold up the thread that polls.
pub(super) const PROBE: Duration = Duration::from_millis(300);
/// How long brokers may take to say which rights are missing.
const RIGHTS: Duration = Duration::from_secs(2);
/// Between two questions for ends that were not answered.
const REASK: Duration = Duration::from_secs(1);
/// How often it is looked whether the topics are still those that were claimed.
const RECOGNISE: Duration = Duration::from_secs(10);

impl KafkaLog {
    /// Sorts an error: an end, a position that does not exist, brokers or topics away, or the end of this consumer.
    pub(super) fn trouble(&mut self, error: &KafkaError, on: &mut dyn FnMut(LogEvent<'_>)) {
        use RDKafkaErrorCode as Code;
        let (code, fatal) = match error {
            KafkaError::PartitionEOF(partition) => return self.end(*partition, on),
            KafkaError::MessageConsumptionFatal(code) => (*code, true),
            other => (other.rdkafka_error_code().unwrap_or(Code::Unknown), false),
        };
        let reason = explain(&self.consumer.context().take_reason());
        let now = Instant::now();
        match code {
            Code::AutoOffsetReset => self.stopped = true,
            _ if fatal => self.fail(code, &reason),
            // A broker that goes away while it looks at a password has refused nothing.
            Code::Authentication | Code::SaslAuthenticationFailed if !is_refusal(&reason) => {
                self.brokers.suspect(now, &reason);
            }
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
            // Which tells less than what each broker is down for.
            Code::AllBrokersDown if self.brokers.is_away() => {}
            Code::SSL
            | Code::AllBrokersDown
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
                    tracing::warn!(held_back = held, "Kafka consumer goes on after {code}: {reason}");
                }
            }
        }
    }

    fn fail(&mut self, code: RDKafkaErrorCode, reason: &str) {
        if self.fatal.is_none() && access::is_denial(code) {
            let lacking = access::consuming(self.consumer.client(), &self.settings, RIGHTS);
            let lacking = lacking.map_or_else(|_| String::new(), |access| access::lines(&access.lacking));
            let lacking = if lacking.is_empty() { "see `highwater check`" } else { &lacking };
            self.fatal = Some(format!("{code} ({reason}):\n{lacking}"));
        }
        self.fatal.get_or_insert_with(|| {
            format!("Kafka refuses this consumer: {code} ({reason}); check its permissions, and that no other consumer uses its group.instance.id or another protocol in its group")
        });
    }

    /// librdkafka names only the number of the partition that has been read to its end, and does so once.
    fn end(&mut self, number: i32, on: &mut dyn FnMut(LogEvent<'_>)) {
        match self.standing(|name| name.partition == number) {
            None => {}
            Some(standing) if standing.len() == 1 => {
                standing.into_iter().for_each(|(name, position)| on(LogEvent::End(name, position)));
            }
            // With two topics, the one whose end is known to be reached.
            Some(standing) => self.find_ends(standing, on),
        }
    }

    /// Where the partitions that deliver stand, of these.
    fn standing(&self, of: impl Fn(&TopicPartition) -> bool) -> Option<Vec<(TopicPartition, u64)>> {
        let positions = self.consumer.position().ok()?;
        let standing = self.slots.iter().filter(|slot| of(&slot.partition)).filter_map(|slot| match slot.stage {
            Stage::Started { next, .. } => {
                let name = slot.partition.clone();
                // The client's own position is past the last transaction's marker, which is no record.
                let position = positions.find_partition(&name.topic, name.partition);
                let position = position.and_then(|element| raw(element.offset()));
                Some((name, position.map_or(next, |position| position.max(next))))
            }
            _ => None,
        });
        Some(standing.collect())
    }

    /// Tells those that have been read to their ends. Where one has no answer the rest is not asked either, as each
    /// question holds up the poll: all these are asked again later.
    fn find_ends(&mut self, standing: Vec<(TopicPartition, u64)>, on: &mut dyn FnMut(LogEvent<'_>)) {
        let mut answers = true;
        for (name, position) in standing {
            let found = answers.then(|| self.consumer.fetch_watermarks(&name.topic, name.partition, PROBE));
            match found {
                Some(Ok((_, high))) => {
                    self.unsure.remove(&name);
                    if u64::try_from(high).is_ok_and(|high| position >= high) {
                        on(LogEvent::End(name, position));
                    }
                }
                Some(Err(_)) | None => {
                    answers = false;
                    self.unsure.insert(name);
                }
            }
        }
    }

    /// Asks again for ends that were not answered.
    fn find_unsure(&mut self, now: Instant, on: &mut dyn FnMut(LogEvent<'_>)) {
        if self.unsure.is_empty() || self.brokers.is_away() || now.duration_since(self.reasked) < REASK {
            return;
        }
        self.reasked = now;
        if let Some(standing) = self.standing(|name| self.unsure.contains(name)) {
            // What was taken away meanwhile, or begins anew, reaches its end anew.
            self.unsure = BTreeSet::new();
            self.find_ends(standing, on);
        }
    }

    /// Finds the partitions that librdkafka stopped reading because their position does not exist: those that refuse
    /// a seek. The others are sought to where they stand.
    pub(super) fn find_stopped(&mut self, on: &mut dyn FnMut(LogEvent<'_>)) {
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

    /// Whether a topic is still the one that was claimed.
    pub(super) fn ensure_claimed(&mut self, topic: &str, patience: Duration) -> Result<(), LogError> {
        if !self.claimed.contains_key(topic) {
            return Ok(());
        }
        let found = self.ends()?.identity(topic, patience).map_err(|error| LogError::Passing(error.to_string()))?;
        self.is_claimed(topic, &found)
    }

    /// Whether what was found of a topic is what was claimed.
    pub(super) fn is_claimed(&self, topic: &str, found: &TopicIdentity) -> Result<(), LogError> {
        let Some(claimed) = self.claimed.get(topic) else { return Ok(()) };
        if (&found.cluster_id, &found.topic_id) == (&claimed.cluster_id, &claimed.topic_id) {
            return Ok(());
        }
        Err(LogError::OtherTopic(format!(
            "the topic {topic} is another one than when it was claimed: it was topic id {} in cluster {}, now it is topic \
             id {} in cluster {}",
            claimed.topic_id, claimed.cluster_id, found.topic_id, found.cluster_id
        )))
    }

    /// Looks now and then whether a topic was made anew: its partitions have to be located again, which says so and
    /// stops them. librdkafka tells only if the new log happens to be shorter than what was read of the old.
    fn find_strangers(&mut self, now: Instant, on: &mut dyn FnMut(LogEvent<'_>)) {
        if now.duration_since(self.recognised) < RECOGNISE || self.brokers.is_away() {
            return;
        }
        self.recognised = now;
        let mut strangers = self.topics.clone();
        strangers.retain(|topic| matches!(self.ensure_claimed(topic, PROBE), Err(LogError::OtherTopic(_))));
        // What is done of the one would be committed to the other.
        self.done.retain(|name, _| !strangers.contains(&name.topic));
        for slot in self.slots.iter_mut().filter(|slot| strangers.contains(&slot.partition.topic)) {
            if matches!(slot.stage, Stage::Started { .. }) {
                slot.stage = Stage::Stopped;
                on(LogEvent::OutOfRange(slot.partition.clone()));
            }
        }
    }

    /// While brokers or topics are away: looks whether they are back.
    pub(super) fn tend(&mut self, on: &mut dyn FnMut(LogEvent<'_>)) {
        let now = Instant::now();
        self.find_strangers(now, on);
        self.find_unsure(now, on);
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
                    if !self.brokers.is_away() {
                        self.brokers.suspect(now, &error.to_string());
                    }
                }
                Ok(metadata) => {
                    let known = metadata.topics().iter().find(|found| found.name() == &**topic);
                    let exists = known.is_some_and(|found| found.error().is_none());
                    answers &=
                        known.is_none_or(|found| found.partitions().iter().all(|partition| partition.leader() >= 0));
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
