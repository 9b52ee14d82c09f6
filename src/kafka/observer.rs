//! What commands ask Kafka without joining the group.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;

use super::bounds::bounds;
use super::identity::{IdentityError, TopicIdentity, topic_identity};
use super::settings::{ConsumerSettings, SettingsError};
use crate::ports::{Bounds, LogError, TopicPartition};

/// A consumer that never subscribes.
pub struct Observer {
    consumer: BaseConsumer<Quiet>,
    patience: Duration,
}

/// Each question has its answer or its error; what librdkafka says beside that, many times a second while a broker is
/// away, is for debugging.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", "{facility}: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", "{error}: {reason}");
    }
}

impl ConsumerContext for Quiet {}

impl Observer {
    /// Connects in the background; each question waits at most `patience`.
    ///
    /// # Errors
    /// The settings are refused.
    pub fn new(settings: &ConsumerSettings, patience: Duration) -> Result<Observer, SettingsError> {
        let consumer = settings.client_config()?.create_with_context(Quiet);
        let consumer = consumer.map_err(|error| SettingsError::Client(error.to_string()))?;
        Ok(Observer { consumer, patience })
    }

    /// Who a topic is.
    ///
    /// # Errors
    /// As [`topic_identity`].
    pub fn identity(&self, topic: &str) -> Result<TopicIdentity, IdentityError> {
        // Errors of the connection are served by a poll and say nothing that the answer does not.
        let _ = self.consumer.poll(Duration::ZERO);
        topic_identity(self.consumer.client(), topic, self.patience)
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
}
