//! What a consumer asks Kafka beside records, over a client of its own that fetches nothing: where partitions begin and end,
//! and who topics are. Over the client that fetches, a question waits until the fetch before it is answered, and that waits
//! for records.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::metadata::Metadata;
use rdkafka::topic_partition_list::Offset;

use super::bounds::{bounds, known, list};
use super::identity::{IdentityError, TopicIdentity, topic_identity};
use super::native::{self, Isolation, Offsets};
use super::observer::Quiet;
use super::settings::{ConsumerSettings, SettingsError};
use crate::ports::{Bounds, LogError, TopicPartition};

/// How long a question may hold up the thread that polls.
const PATIENCE: Duration = Duration::from_secs(1);
/// Errors and lines of its log that are served before each question, and every ten seconds or so: more than come.
const SERVED: usize = 64;

/// The client that fetches nothing.
pub(super) struct Ends {
    consumer: BaseConsumer<Quiet>,
}

impl Ends {
    /// Connects in the background.
    pub(super) fn new(settings: &ConsumerSettings) -> Result<Ends, SettingsError> {
        let consumer = settings.client_config()?.create_with_context(Quiet::default());
        Ok(Ends { consumer: consumer.map_err(|error| SettingsError::Client(error.to_string()))? })
    }

    /// Who a topic is.
    pub(super) fn identity(&self, topic: &str, patience: Duration) -> Result<TopicIdentity, IdentityError> {
        self.serve();
        topic_identity(self.consumer.client(), topic, patience)
    }

    /// What brokers say of a topic.
    pub(super) fn metadata(&self, topic: &str, patience: Duration) -> KafkaResult<Metadata> {
        self.serve();
        self.consumer.fetch_metadata(Some(topic), patience)
    }

    /// Where partitions begin, where those of committed transactions end, and what the group committed.
    pub(super) fn bounds(&self, partitions: &[TopicPartition]) -> Vec<Result<Bounds, LogError>> {
        self.serve();
        bounds(&self.consumer, partitions, PATIENCE)
    }

    /// One past the last offset of each partition, open transactions included: the end of those that are committed is the
    /// beginning of one that is open, and what librdkafka remembers of its last fetch is of an unknown moment.
    pub(super) fn ask(&self, partitions: &[TopicPartition]) -> Vec<Result<u64, LogError>> {
        self.serve();
        let wanted = list(partitions.iter().map(|name| (name, Offset::End)));
        match native::offsets(self.consumer.client(), &wanted, Isolation::Uncommitted, PATIENCE) {
            Ok(ends) => {
                self.hear_anew(&ends);
                partitions.iter().map(|name| known(&ends, "end", name)).collect()
            }
            Err((_, reason)) => {
                let error = LogError::Passing(format!("cannot ask Kafka where partitions end: {reason}"));
                vec![Err(error); partitions.len()]
            }
        }
    }

    /// Hears for the next time who leads, where somebody refused to answer: librdkafka does not by itself where a leader leads
    /// since another epoch than it knew.
    fn hear_anew(&self, answers: &Offsets) {
        let refused: BTreeSet<&str> =
            answers.iter().filter(|(_, answer)| answer.is_err()).map(|(name, _)| &*name.topic).collect();
        for topic in refused {
            // Who is away has not refused: this is answered soon, or it is for the next time.
            let _ = self.consumer.fetch_metadata(Some(topic), PATIENCE / 4);
        }
    }

    /// Errors of the connection are served by a poll, one by each, and say nothing that an answer does not.
    pub(super) fn serve(&self) {
        for _ in 0..SERVED {
            let _ = self.consumer.poll(Duration::ZERO);
        }
    }
}
