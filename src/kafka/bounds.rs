//! Where partitions begin and end, and what a group committed there.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::ports::{Bounds, LogError, TopicPartition};

/// Asks for all at once, waiting at most `patience`. The end is that of committed transactions.
///
/// # Errors
/// Kafka did not answer, or not for each.
pub(super) fn bounds<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[TopicPartition],
    patience: Duration,
) -> Result<Vec<Bounds>, LogError> {
    let deadline = Instant::now() + patience;
    let left = || deadline.saturating_duration_since(Instant::now());
    let ask = |offset: Offset| list(partitions.iter().map(|name| (name, offset)));
    let committed = consumer
        .committed_offsets(ask(Offset::Invalid), left())
        .map_err(|error| failed("committed offsets", &error))?;
    // -2 and -1 in place of a time are the protocol's names for the first offset and the one past the last.
    let starts =
        consumer.offsets_for_times(ask(Offset::Beginning), left()).map_err(|error| failed("log starts", &error))?;
    let ends = consumer.offsets_for_times(ask(Offset::End), left()).map_err(|error| failed("log ends", &error))?;
    let known = |list: &TopicPartitionList, what: &str, name: &TopicPartition| {
        answered(list, what, name)?.ok_or_else(|| LogError(format!("Kafka knows no {what} of {name} now")))
    };
    let of = |name: &TopicPartition| {
        Ok(Bounds {
            start: known(&starts, "log start", name)?,
            end: known(&ends, "log end", name)?,
            committed: answered(&committed, "committed offset", name)?,
        })
    };
    partitions.iter().map(of).collect()
}

fn answered(list: &TopicPartitionList, what: &str, name: &TopicPartition) -> Result<Option<u64>, LogError> {
    let element = list
        .find_partition(&name.topic, name.partition)
        .ok_or_else(|| LogError(format!("Kafka did not answer with {what} of {name}")))?;
    element.error().map_err(|error| failed(&format!("{what} of {name}"), &error))?;
    Ok(raw(element.offset()))
}

fn failed(what: &str, error: &KafkaError) -> LogError {
    LogError(format!("cannot ask Kafka for {what}: {error}; asked again later"))
}

pub(super) fn list<'a>(offsets: impl IntoIterator<Item = (&'a TopicPartition, Offset)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (name, offset) in offsets {
        // Fails only for an offset that `position` does not make.
        if let Err(error) = list.add_partition_offset(&name.topic, name.partition, offset) {
            tracing::error!("{name}: {error}");
        }
    }
    list
}

/// An offset that is a number.
pub(super) fn raw(offset: Offset) -> Option<u64> {
    match offset {
        Offset::Offset(offset) => u64::try_from(offset).ok(),
        _ => None,
    }
}
