//! Where partitions begin and end, and what a group committed there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::access::is_denial;
use crate::ports::{Bounds, LogError, TopicPartition};

/// Asks for all at once, waiting at most `patience` for the lot; one answer each, in order. The end is that of committed
/// transactions.
pub(super) fn bounds<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[TopicPartition],
    patience: Duration,
) -> Vec<Result<Bounds, LogError>> {
    let deadline = Instant::now() + patience;
    let left = || deadline.saturating_duration_since(Instant::now());
    // One partition without a leader would keep the answers for all the others back.
    let led = match leaders(consumer, partitions, left()) {
        Ok(led) => led,
        Err(error) => return vec![Err(error); partitions.len()],
    };
    let ready: Vec<&TopicPartition> = partitions.iter().filter(|name| led.contains(name)).collect();
    let ask = |offset: Offset| list(ready.iter().map(|&name| (name, offset)));
    let asked = || {
        let committed = consumer
            .committed_offsets(ask(Offset::Invalid), left())
            .map_err(|error| failed("committed offsets", &error))?;
        // -2 and -1 in place of a time are the protocol's names for the first offset and the one past the last.
        let starts =
            consumer.offsets_for_times(ask(Offset::Beginning), left()).map_err(|error| failed("log starts", &error))?;
        let ends = consumer.offsets_for_times(ask(Offset::End), left()).map_err(|error| failed("log ends", &error))?;
        Ok((committed, starts, ends))
    };
    let asked = if ready.is_empty() { Ok(Default::default()) } else { asked() };
    let of = |name: &TopicPartition| {
        if !led.contains(name) {
            return Err(LogError::Passing(format!("{name} has no leader now; asked again later")));
        }
        let (committed, starts, ends) = asked.as_ref().map_err(LogError::clone)?;
        Ok(Bounds {
            start: known(starts, "log start", name)?,
            end: known(ends, "log end", name)?,
            committed: answered(committed, "committed offset", name)?,
        })
    };
    partitions.iter().map(of).collect()
}

/// Those of `partitions` that have a leader.
fn leaders<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[TopicPartition],
    patience: Duration,
) -> Result<BTreeSet<TopicPartition>, LogError> {
    let topics: BTreeSet<&Arc<str>> = partitions.iter().map(|name| &name.topic).collect();
    let mut led = BTreeSet::new();
    for topic in topics {
        let metadata = consumer.fetch_metadata(Some(topic), patience).map_err(|error| failed("its brokers", &error))?;
        let found = metadata.topics().iter().flat_map(|topic| topic.partitions());
        let with = found.filter(|partition| partition.leader() >= 0);
        led.extend(with.map(|found| TopicPartition { topic: Arc::clone(topic), partition: found.id() }));
    }
    Ok(led)
}

fn known(list: &TopicPartitionList, what: &str, name: &TopicPartition) -> Result<u64, LogError> {
    answered(list, what, name)?.ok_or_else(|| LogError::Passing(format!("Kafka knows no {what} of {name} now")))
}

fn answered(list: &TopicPartitionList, what: &str, name: &TopicPartition) -> Result<Option<u64>, LogError> {
    let element = list
        .find_partition(&name.topic, name.partition)
        .ok_or_else(|| LogError::Passing(format!("Kafka did not answer with {what} of {name}")))?;
    element.error().map_err(|error| failed(&format!("{what} of {name}"), &error))?;
    Ok(raw(element.offset()))
}

fn failed(what: &str, error: &KafkaError) -> LogError {
    let denied = error.rdkafka_error_code().is_some_and(is_denial);
    let advice = if denied { "`highwater check` names the right that is missing" } else { "asked again later" };
    LogError::Passing(format!("cannot ask Kafka for {what}: {error}; {advice}"))
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

/// An offset as librdkafka takes it; those beyond its range do not exist.
pub(super) fn position(offset: u64) -> Offset {
    Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX))
}
