//! Notes beside committed offsets: Kafka's metadata of a commit, which the next commit without a note takes away.

use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{KafkaLog, list, position};
use crate::ports::{LogError, TopicPartition};

/// How long the group's coordinator may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

impl KafkaLog {
    /// Commits an offset of an assigned partition with a note, and looks whether it arrived.
    ///
    /// # Errors
    /// It did not, or that is not known.
    pub fn commit_with(&mut self, partition: &TopicPartition, offset: u64, note: &str) -> Result<(), LogError> {
        let failed = |error: &dyn std::fmt::Display| {
            LogError::Passing(format!("cannot commit {offset} of {partition} to Kafka: {error}; tried again later"))
        };
        let mut committed = TopicPartitionList::new();
        let mut element = committed.add_partition(&partition.topic, partition.partition);
        element.set_offset(position(offset)).map_err(|error| failed(&error))?;
        element.set_metadata(note);
        self.consumer.commit(&committed, CommitMode::Async).map_err(|error| failed(&error))?;
        // The coordinator answers what is asked after the commit after it too.
        let found = self.committed(partition).map_err(|error| failed(&error))?;
        match found.find_partition(&partition.topic, partition.partition) {
            Some(element) if element.offset() == position(offset) && element.metadata() == note => Ok(()),
            _ => Err(failed(&"it did not arrive")),
        }
    }

    /// The note beside the committed offset of an assigned partition; "" where there is none.
    ///
    /// # Errors
    /// Kafka did not answer.
    pub fn note(&self, partition: &TopicPartition) -> Result<String, LogError> {
        let failed = |error: KafkaError| {
            LogError::Passing(format!(
                "cannot ask Kafka for what is committed of {partition}: {error}; asked again later"
            ))
        };
        let found = self.committed(partition).map_err(failed)?;
        let element = found.find_partition(&partition.topic, partition.partition);
        Ok(element.map_or_else(String::new, |element| element.metadata().to_owned()))
    }

    fn committed(&self, partition: &TopicPartition) -> Result<TopicPartitionList, KafkaError> {
        let found = self.consumer.committed_offsets(list([(partition, Offset::Invalid)]), PATIENCE)?;
        found.elements().iter().try_for_each(|element| element.error())?;
        Ok(found)
    }
}
