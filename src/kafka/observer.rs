//! What commands ask Kafka without joining the group.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;

use super::access::{self, Access, Asker, Resource, Right};
use super::bounds::{bounds, list, position, raw};
use super::complaint::{Complaints, diagnose, explain, is_refusal};
use super::identity::{self, IdentityError, TopicIdentity, topic_identity};
use super::settings::{ConsumerSettings, SettingsError};
use crate::ports::{Bounds, LogError, TopicPartition};

/// How long complaints are read after a question in vain.
const COMPLAINTS: Duration = Duration::from_millis(100);

/// A consumer that never subscribes.
pub struct Observer {
    consumer: BaseConsumer<Quiet>,
    patience: Duration,
    settings: ConsumerSettings,
}

/// Each question has its answer or its error; what librdkafka says beside that, many times a second while a broker is
/// away, is for debugging. Only the latest complaint is kept: it says why there was no answer.
#[derive(Default)]
pub(super) struct Quiet {
    complaints: Complaints,
}

impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", "{facility}: {message}");
        // A connection that is closed without a word is no error to librdkafka, but a line of its log.
        if facility == "FAIL" {
            self.complaints.note(message.split_once("]: ").map_or(message, |(_, complaint)| complaint));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", "{error}: {reason}");
        // Which tells less than what each broker is down for.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            self.complaints.note(reason);
        }
    }
}

impl ConsumerContext for Quiet {}

impl Observer {
    /// Connects in the background; each question waits at most `patience`.
    ///
    /// # Errors
    /// The settings are refused.
    pub fn new(settings: &ConsumerSettings, patience: Duration) -> Result<Observer, SettingsError> {
        let mut config = settings.client_config()?;
        let consumer = config.set("log.connection.close", "true").create_with_context(Quiet::default());
        let consumer = consumer.map_err(|error| SettingsError::Client(error.to_string()))?;
        Ok(Observer { consumer, patience, settings: settings.clone() })
    }

    /// Who a topic is.
    ///
    /// # Errors
    /// As [`topic_identity`].
    pub fn identity(&self, topic: &str) -> Result<TopicIdentity, IdentityError> {
        topic_identity(self.consumer.client(), topic, self.patience).map_err(|error| self.because(error))
    }

    /// The cluster's id, asked for the sake of a topic.
    ///
    /// # Errors
    /// It was not told in time.
    pub fn cluster_id(&self, topic: &str) -> Result<String, IdentityError> {
        identity::cluster_id(self.consumer.client(), topic, self.patience).map_err(|error| self.because(error))
    }

    /// An error with its cause, where librdkafka complained of one: the answer itself says only that none came.
    fn because(&self, error: IdentityError) -> IdentityError {
        let IdentityError::Away { topic, .. } = &error else { return error };
        // Complaints wait in the queue, behind log lines, until somebody polls.
        let begun = Instant::now();
        while begun.elapsed() < COMPLAINTS {
            let _ = self.consumer.poll(COMPLAINTS);
        }
        match self.consumer.context().complaints.latest() {
            None => error,
            Some(reason) if is_refusal(&reason) => {
                IdentityError::Credentials { topic: topic.clone(), reason: explain(&reason) }
            }
            Some(reason) => {
                IdentityError::Away { topic: topic.clone(), reason: diagnose(&reason, &self.settings.properties) }
            }
        }
    }

    /// What our user lacks to consume the settings' topics in their group.
    ///
    /// # Errors
    /// Kafka did not answer.
    pub fn access(&self) -> Result<Access, LogError> {
        access::consuming(self.consumer.client(), &self.settings, self.patience)
    }

    /// The right that our user lacks to write a topic, if that is known.
    pub fn unwritable(&self, topic: &str) -> Option<Right> {
        let asker = Asker::new(&self.settings.brokers, &self.settings.properties);
        access::producing(self.consumer.client(), &asker, topic, self.patience)
    }

    /// What our user lacks to write the settings' topics and to read them back.
    ///
    /// # Errors
    /// Kafka did not answer.
    pub fn unpublishable(&self) -> Result<Vec<Right>, LogError> {
        let mut lacking = self.access()?.lacking;
        lacking.retain(|right| matches!(right.resource, Resource::Topic(_)));
        lacking.extend(self.settings.topics.iter().filter_map(|topic| self.unwritable(topic)));
        Ok(lacking)
    }

    /// Looks whether a topic can be read, and its commits for the group, by reading a little of its first partition.
    ///
    /// # Errors
    /// It can't, and why not.
    pub fn readable(&self, topic: &str) -> Result<(), LogError> {
        let name = TopicPartition { topic: Arc::from(topic), partition: 0 };
        let failed = |error: KafkaError| LogError::Passing(format!("cannot read the topic {topic}: {error}"));
        let committed = self.consumer.committed_offsets(list([(&name, Offset::Invalid)]), self.patience);
        let committed = committed.map_err(failed)?;
        committed.elements().iter().try_for_each(|element| element.error()).map_err(failed)?;
        self.consumer.assign(&list([(&name, Offset::Beginning)])).map_err(failed)?;
        let begun = Instant::now();
        let seconds = self.patience.as_secs();
        let mut outcome = Err(LogError::Passing(format!(
            "Kafka delivered nothing of {name} within {seconds} s; has the partition a leader, and can its address, as the \
             broker tells it, be reached from here?"
        )));
        // A first message, or the end where there is none, says that we may; errors of connections say nothing yet.
        while begun.elapsed() < self.patience {
            match self.consumer.poll(COMPLAINTS) {
                Some(Ok(_)) | Some(Err(KafkaError::PartitionEOF(_))) => {
                    outcome = Ok(());
                    break;
                }
                Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                    outcome = Err(failed(error));
                    break;
                }
                _ => {}
            }
        }
        self.consumer.unassign().map_err(failed)?;
        outcome
    }

    /// The first offset of a partition whose record's timestamp is at or after a time, in milliseconds since 1970; `None`:
    /// none is.
    ///
    /// # Errors
    /// Kafka did not answer.
    pub fn offset_at(&self, name: &TopicPartition, millis: i64) -> Result<Option<u64>, LogError> {
        let asked = list([(name, Offset::Offset(millis))]);
        let failed =
            |error: KafkaError| LogError::Passing(format!("cannot ask Kafka for an offset of {name}: {error}"));
        let found = self.consumer.offsets_for_times(asked, self.patience).map_err(failed)?;
        let element = found.find_partition(&name.topic, name.partition);
        element.as_ref().map_or(Ok(()), |element| element.error()).map_err(failed)?;
        Ok(element.and_then(|element| raw(element.offset())))
    }

    /// Commits offsets for the group, which Kafka allows to somebody outside of it only while it has no member.
    ///
    /// # Errors
    /// The group has members, or Kafka did not answer.
    pub fn commit_alone(&self, offsets: &[(TopicPartition, u64)]) -> Result<(), LogError> {
        let list = list(offsets.iter().map(|(name, offset)| (name, position(*offset))));
        self.consumer.commit(&list, CommitMode::Sync).map_err(|error| {
            LogError::Passing(match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::IllegalGeneration) => {
                    "the consumer group has members: stop all replicas first".to_owned()
                }
                _ => format!("cannot commit to Kafka: {error}"),
            })
        })
    }

    /// Bounds and commits of all partitions of a topic that has `partitions` of them.
    ///
    /// # Errors
    /// Kafka did not answer.
    pub fn bounds(&self, topic: &str, partitions: usize) -> Result<Vec<(TopicPartition, Bounds)>, LogError> {
        let topic: Arc<str> = Arc::from(topic);
        let numbers = 0..i32::try_from(partitions).unwrap_or(i32::MAX);
        let names: Vec<_> = numbers.map(|partition| TopicPartition { topic: Arc::clone(&topic), partition }).collect();
        let found = bounds(&self.consumer, &names, self.patience);
        names.into_iter().zip(found).map(|(name, found)| Ok((name, found?))).collect()
    }

    /// Bounds and commits of some partitions, in their order.
    ///
    /// # Errors
    /// Kafka did not answer.
    pub fn bounds_of(&self, partitions: &[TopicPartition]) -> Result<Vec<Bounds>, LogError> {
        // Errors of the connection are served by a poll and say nothing that the answer does not.
        let _ = self.consumer.poll(Duration::ZERO);
        bounds(&self.consumer, partitions, self.patience).into_iter().collect()
    }

    /// Looks whether Kafka answers, by asking for a topic, which need not be there.
    ///
    /// # Errors
    /// Kafka did not answer.
    pub fn reach(&self, topic: &str) -> Result<(), LogError> {
        let _ = self.consumer.poll(Duration::ZERO);
        let asked = self.consumer.fetch_metadata(Some(topic), self.patience);
        asked.map(drop).map_err(|error| {
            LogError::Passing(format!("cannot ask Kafka for the topic {topic}: {error}; asked again later"))
        })
    }
}
