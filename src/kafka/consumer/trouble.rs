//! Errors: what librdkafka reports beside records, and what becomes of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::super::access;
use super::super::complaint::{explain, is_refusal};
use super::super::identity::TopicIdentity;
use super::super::slots::{Slot, Stage};
use super::{KafkaLog, SEEK, list, position};
use crate::ports::{LogError, LogEvent, TopicPartition};

/// How long a probe of the brokers may hold up the thread that polls.
pub(super) const PROBE: Duration = Duration::from_millis(300);
/// What is wrong with a topic that is not there.
pub(super) const NO_TOPIC: &str = "no such topic";
/// How long brokers may take to say which rights are missing.
const RIGHTS: Duration = Duration::from_secs(2);
/// How often it is looked whether the topics are still those that were claimed.
const RECOGNISE: Duration = Duration::from_secs(10);

impl KafkaLog {
    /// Sorts an error that concerns no one partition.
    pub(super) fn refused(&mut self, error: &KafkaError) {
        let (code, fatal) = match error {
            KafkaError::MessageConsumptionFatal(code) => (*code, true),
            other => (other.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown), false),
        };
        let reason = explain(&self.consumer.context().take_reason());
        self.trouble(code, fatal, &reason);
    }

    /// Sorts an error: brokers or topics away, or the end of this consumer.
    pub(super) fn trouble(&mut self, code: RDKafkaErrorCode, fatal: bool, reason: &str) {
        use RDKafkaErrorCode as Code;
        let now = Instant::now();
        match code {
            _ if fatal => self.fail(code, reason),
            // A broker that goes away while it looks at a password has refused nothing.
            Code::Authentication | Code::SaslAuthenticationFailed if !is_refusal(reason) => {
                self.brokers.suspect(now, reason);
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
            | Code::ClusterAuthorizationFailed => self.fail(code, reason),
            // Which tells less than what each broker is down for.
            Code::AllBrokersDown if self.brokers.is_away() => {}
            Code::SSL
            | Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::Resolve
            | Code::OperationTimedOut => self.brokers.suspect(now, reason),
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                for topic in &mut self.missing {
                    topic.suspect(now, NO_TOPIC);
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

    /// Seeks what is read to where it stands, for librdkafka has paused it until this rebalance is answered and would have it
    /// go on from what it takes for the place. What it does not seek is started again.
    pub(super) fn stand(&mut self, on: &mut dyn FnMut(LogEvent<'_>)) {
        let standing = |slot: &Slot| match slot.stage {
            Stage::Started { next, .. } => Some((slot.partition.clone(), next, slot.is_pending())),
            _ => None,
        };
        let standing: Vec<(TopicPartition, u64, bool)> = self.slots.iter().filter_map(standing).collect();
        if standing.is_empty() {
            return;
        }
        let places = list(standing.iter().map(|(name, next, _)| (name, position(*next))));
        let sought = self.consumer.seek_partitions(places, SEEK);
        for (name, next, pending) in &standing {
            let why = match &sought {
                Ok(sought) => {
                    let found = sought.find_partition(&name.topic, name.partition);
                    found.and_then(|element| element.error().err())
                }
                Err(error) => Some(error.clone()),
            };
            let Some(why) = why else {
                // From there on it says where it is, or librdkafka has forgotten that the pause is over.
                if let Some(slot) = self.slots.get(&name.topic, name.partition) {
                    slot.await_from(Instant::now());
                }
                continue;
            };
            // What it has not begun to read begins where it was started.
            if !pending || why.rdkafka_error_code() != Some(RDKafkaErrorCode::State) {
                tracing::debug!("cannot seek {name} to {next} in a rebalance: {why}; it is started again");
                self.slots.stop(&name.topic, name.partition, on);
            }
        }
    }

    /// Whether a topic is still the one that was claimed.
    pub(super) fn ensure_claimed(&mut self, topic: &str, patience: Duration) -> Result<(), LogError> {
        if !self.claimed.contains_key(topic) {
            return Ok(());
        }
        let found = self.ends.identity(topic, patience).map_err(|error| LogError::Passing(error.to_string()))?;
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
        self.ends.serve();
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

    /// Starts what should be read and is not again. A pause that librdkafka makes for a rebalance can come after the answer that
    /// ends it, where a partition is started in that very moment: it would last until the next rebalance.
    /// What is away, or its topic, has nothing to say.
    pub(super) fn wake(&mut self, on: &mut dyn FnMut(LogEvent<'_>)) {
        let (now, all) = (Instant::now(), self.brokers.is_missed());
        let (topics, missing) = (&self.topics, &self.missing);
        let is_away = |topic: &Arc<str>| {
            all || topics.iter().zip(missing).any(|(name, reach)| name == topic && reach.is_missed())
        };
        let mute = self.slots.mute(now, is_away);
        for name in &mute {
            if let Some(held) = self.limiter.pass(now, "mute") {
                tracing::warn!(
                    held_back = held,
                    "the Kafka client has said nothing of {name} for five minutes or more, not even that it is at its end; it is \
                     started again"
                );
            }
            self.slots.stop(&name.topic, name.partition, on);
        }
    }

    /// While brokers or topics are away: looks whether they are back.
    pub(super) fn tend(&mut self, on: &mut dyn FnMut(LogEvent<'_>)) {
        let now = Instant::now();
        self.find_strangers(now, on);
        if self.consumer.context().take_doubt() {
            self.missing.iter_mut().for_each(|topic| topic.doubt(now, NO_TOPIC));
        }
        let brokers = self.brokers.wants_probe(now);
        let (mut answers, mut denied) = (true, None);
        for (topic, reach) in self.topics.iter().zip(&mut self.missing) {
            if !answers || !(brokers || reach.wants_probe(now)) {
                continue;
            }
            match self.ends.metadata(topic, PROBE) {
                Err(error) => {
                    answers = false;
                    reach.postpone(now);
                    if !self.brokers.is_away() {
                        self.brokers.suspect(now, &error.to_string());
                    }
                }
                Ok(metadata) => {
                    let known = metadata.topics().iter().find(|found| found.name() == &**topic);
                    let error = known.and_then(|found| found.error()).map(RDKafkaErrorCode::from);
                    if let Some(code) = error.filter(|code| access::is_denial(*code)) {
                        denied = Some((code, format!("the topic {topic}: {code}")));
                    }
                    let exists = known.is_some() && error.is_none();
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
        if let Some((code, reason)) = denied {
            self.trouble(code, false, &reason);
        }
    }
}
