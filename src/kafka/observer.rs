//! What commands ask Kafka without joining the group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::bounds::bounds;
use super::complaint::{Complaints, diagnose, explain, is_refusal};
use super::identity::{IdentityError, TopicIdentity, topic_identity};
use super::settings::{ConsumerSettings, SettingsError};
use crate::ports::{Bounds, LogError, TopicPartition};

/// How long complaints are read after a question in vain.
const COMPLAINTS: Duration = Duration::from_millis(100);

/// A consumer that never subscribes.
pub struct Observer {
    consumer: BaseConsumer<Quiet>,
    patience: Duration,
    properties: BTreeMap<String, String>,
}

/// Each question has its answer or its error; what librdkafka says beside that, many times a second while a broker is
/// away, is for debugging. Only the latest complaint is kept: it says why there was no answer.
#[derive(Default)]
struct Quiet {
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
        Ok(Observer { consumer, patience, properties: settings.properties.clone() })
    }

    /// Who a topic is.
    ///
    /// # Errors
    /// As [`topic_identity`].
    pub fn identity(&self, topic: &str) -> Result<TopicIdentity, IdentityError> {
        topic_identity(self.consumer.client(), topic, self.patience).map_err(|error| self.because(error))
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
            Some(reason) => IdentityError::Away { topic: topic.clone(), reason: diagnose(&reason, &self.properties) },
        }
    }

    /// Bounds and commits of all partitions of a topic that has `partitions` of them.
    ///
    /// # Errors
    /// Kafka did not answer.
    pub fn bounds(&self, topic: &str, partitions: usize) -> Result<Vec<(TopicPartition, Bounds)>, LogError> {
        let topic: Arc<str> = Arc::from(topic);
        let numbers = 0..i32::try_from(partitions).unwrap_or(i32::MAX);
        let names: Vec<_> = numbers.map(|partition| TopicPartition { topic: Arc::clone(&topic), partition }).collect();
        let found = bounds(&self.consumer, &names, self.patience)?;
        Ok(names.into_iter().zip(found).collect())
    }
}
