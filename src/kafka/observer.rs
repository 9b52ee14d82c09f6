//! What commands ask Kafka without joining the group.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::bounds::bounds;
use super::identity::{IdentityError, TopicIdentity, topic_identity};
use super::settings::{ConsumerSettings, SettingsError};
use crate::ports::{Bounds, LogError, TopicPartition};

/// A consumer that never subscribes.
pub struct Observer {
    consumer: BaseConsumer,
    patience: Duration,
}

impl Observer {
    /// Connects in the background; each question waits at most `patience`.
    ///
    /// # Errors
    /// The settings are refused.
    pub fn new(settings: &ConsumerSettings, patience: Duration) -> Result<Observer, SettingsError> {
        let consumer = settings.client_config()?.create();
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
        let names: Vec<_> =
            numbers.map(|partition| TopicPartition { topic: Arc::clone(&topic), partition }).collect();
        let found = bounds(&self.consumer, &names, self.patience)?;
        Ok(names.into_iter().zip(found).collect())
    }
}
