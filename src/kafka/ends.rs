//! Where partitions really end, open transactions included, and who topics are: asked by a client that fetches nothing.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::Offset;

use super::bounds::{list, raw};
use super::identity::{IdentityError, TopicIdentity, topic_identity};
use super::observer::Quiet;
use super::settings::{ConsumerSettings, SettingsError};
use crate::ports::{LogError, TopicPartition};

/// How long the question may hold up the thread that polls.
const PATIENCE: Duration = Duration::from_secs(1);

/// A client that sees uncommitted records. One that does not takes the beginning of an open transaction for the end of the
/// log; and what librdkafka remembers of its last fetch is of an unknown moment.
pub(super) struct Ends {
    consumer: BaseConsumer<Quiet>,
}

impl Ends {
    /// Connects in the background.
    pub(super) fn new(settings: &ConsumerSettings) -> Result<Ends, SettingsError> {
        let mut config = settings.client_config()?;
        config.set("isolation.level", "read_uncommitted");
        let consumer = config.create_with_context(Quiet::default());
        Ok(Ends { consumer: consumer.map_err(|error| SettingsError::Client(error.to_string()))? })
    }

    /// Who a topic is. A question over the client that fetches would wait behind its fetches, which wait for records.
    pub(super) fn identity(&self, topic: &str, patience: Duration) -> Result<TopicIdentity, IdentityError> {
        let _ = self.consumer.poll(Duration::ZERO);
        topic_identity(self.consumer.client(), topic, patience)
    }

    /// One past the last offset of each partition.
    pub(super) fn ask(&self, partitions: &[TopicPartition]) -> Vec<Result<u64, LogError>> {
        // Errors of the connection are served by a poll and say nothing that the answer does not.
        let _ = self.consumer.poll(Duration::ZERO);
        let failed = |name: &TopicPartition, why: &str| {
            Err(LogError::Passing(format!("cannot ask Kafka where {name} ends: {why}")))
        };
        let question = list(partitions.iter().map(|name| (name, Offset::End)));
        let ends = match self.consumer.offsets_for_times(question, PATIENCE) {
            Ok(ends) => ends,
            Err(error) => return partitions.iter().map(|name| failed(name, &error.to_string())).collect(),
        };
        let end = |name: &TopicPartition| {
            let found = ends.find_partition(&name.topic, name.partition);
            let found = found.filter(|element| element.error().is_ok()).and_then(|element| raw(element.offset()));
            found.map_or_else(|| failed(name, "no answer"), Ok)
        };
        partitions.iter().map(end).collect()
    }
}
