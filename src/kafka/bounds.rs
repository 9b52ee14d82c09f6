//! Where partitions begin and end, and what a group committed there.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::access::is_denial;
use super::native::{self, Isolation, Offsets};
use crate::ports::{Bounds, LogError, TopicPartition};

/// Asks for all at once, waiting at most `patience` for the lot; one answer each, in order. The end is that of committed
/// transactions.
///
/// All of it is asked over one client, which first hears anew which partitions there are and who leads them: one that was
/// added a moment ago has its answer at once, and nobody is asked who had stopped leading by then. Brokers are told since
/// when (in which epoch) they lead as far as we know, and refuse if that is not what they know themselves: the old end of a
/// broker that leads no longer is taken for the end only where that broker is cut off and told us itself that it leads. A
/// partition without an answer, or with a refusal, keeps no other back and is asked again later.
///
/// The client should fetch nothing: a fetch waits for records at the broker, and what is asked of it waits behind the fetch.
pub(super) fn bounds<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[TopicPartition],
    patience: Duration,
) -> Vec<Result<Bounds, LogError>> {
    let deadline = Instant::now() + patience;
    let left = || deadline.saturating_duration_since(Instant::now());
    let asked = || -> Result<_, LogError> {
        let topics: BTreeSet<&Arc<str>> = partitions.iter().map(|name| &name.topic).collect();
        for topic in topics {
            let known = consumer.fetch_metadata(Some(topic), left());
            known.map_err(|error| failed("its brokers", error.rdkafka_error_code(), &error))?;
        }
        let committed = consumer.committed_offsets(list(partitions.iter().map(|name| (name, Offset::Invalid))), left());
        let committed = committed.map_err(|error| failed("committed offsets", error.rdkafka_error_code(), &error))?;
        // Half of the time, so that a broker that does not answer leaves the others time for their ends.
        let starts = offsets(consumer, partitions.iter(), (Offset::Beginning, "log starts"), left() / 2)?;
        let begun = partitions.iter().filter(|name| known(&starts, "log start", name).is_ok());
        let ends = offsets(consumer, begun, (Offset::End, "log ends"), left())?;
        Ok((committed, starts, ends))
    };
    let asked = asked();
    let of = |name: &TopicPartition| {
        let (committed, starts, ends) = asked.as_ref().map_err(LogError::clone)?;
        Ok(Bounds {
            start: known(starts, "log start", name)?,
            end: known(ends, "log end", name)?,
            committed: committed_of(committed, name)?,
        })
    };
    partitions.iter().map(of).collect()
}

/// Asks for an offset of each partition, as far as transactions are committed.
fn offsets<'a, C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: impl Iterator<Item = &'a TopicPartition>,
    (which, what): (Offset, &str),
    patience: Duration,
) -> Result<Offsets, LogError> {
    let wanted = list(partitions.map(|name| (name, which)));
    let found = native::offsets(consumer.client(), &wanted, Isolation::Committed, patience);
    found.map_err(|(code, reason)| failed(what, Some(code.into()), &reason))
}

/// The answer for one partition.
pub(super) fn known(offsets: &Offsets, what: &str, name: &TopicPartition) -> Result<u64, LogError> {
    let offset = match offsets.get(name) {
        Some(Ok(offset)) => u64::try_from(*offset).ok(),
        Some(Err(code)) => {
            let code = RDKafkaErrorCode::from(*code);
            return Err(failed(&format!("the {what} of {name}"), Some(code), &code));
        }
        None => None,
    };
    offset.ok_or_else(|| failed(&format!("the {what} of {name}"), None, &"its leader did not answer in time"))
}

fn committed_of(list: &TopicPartitionList, name: &TopicPartition) -> Result<Option<u64>, LogError> {
    let what = || format!("the committed offset of {name}");
    let element = list.find_partition(&name.topic, name.partition);
    let element = element.ok_or_else(|| failed(&what(), None, &"the answer is of others"))?;
    element.error().map_err(|error| failed(&what(), error.rdkafka_error_code(), &error))?;
    Ok(raw(element.offset()))
}

fn failed(what: &str, code: Option<RDKafkaErrorCode>, reason: &dyn fmt::Display) -> LogError {
    let denied = code.is_some_and(is_denial);
    let advice = if denied { "`highwater check` names the right that is missing" } else { "asked again later" };
    LogError::Passing(format!("cannot ask Kafka for {what}: {reason}; {advice}"))
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
