//! A compacted topic of one partition, read to its end or followed: what is said under each key.

use std::fmt::Display;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::access::is_denial;
use super::observer::Quiet;
use super::settings::ConsumerSettings;
use crate::ports::LogError;

/// How long one look waits.
const SLICE: Duration = Duration::from_millis(200);
/// How long Kafka may deliver nothing before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads the first partition of a topic from its begin to where it ends now, committed records only; `on` gets offset and
/// value of each, in their order. Answers how many there were. Gives up when `give_up` says so.
///
/// # Errors
/// Kafka did not answer, `on` refused a record, or it was given up.
pub fn read_to_end(
    settings: &ConsumerSettings,
    topic: &str,
    give_up: &dyn Fn() -> bool,
    mut on: impl FnMut(i64, Option<&[u8]>) -> Result<(), String>,
) -> Result<u64, LogError> {
    let consumer = assigned(settings, topic, Offset::Beginning)?;
    let (mut heard, mut count) = (Instant::now(), 0);
    loop {
        match next(&consumer, topic, &mut on)? {
            Some(Next::Record) => (heard, count) = (Instant::now(), count + 1),
            Some(Next::End) => return Ok(count),
            None => {}
        }
        if give_up() {
            return Err(failed(topic, "it was given up"));
        }
        if heard.elapsed() > PATIENCE {
            return Err(failed(topic, format!("nothing came within {} s", PATIENCE.as_secs())));
        }
    }
}

/// Reads the first partition of a topic for ever, from its begin or from where it ends now; otherwise as [`read_to_end`].
/// Brokers that are away are waited for.
///
/// # Errors
/// `on` refused a record, or we may not read the topic.
pub fn follow(
    settings: &ConsumerSettings,
    topic: &str,
    all: bool,
    mut on: impl FnMut(i64, Option<&[u8]>) -> Result<(), String>,
) -> Result<(), LogError> {
    let consumer = assigned(settings, topic, if all { Offset::Beginning } else { Offset::End })?;
    loop {
        next(&consumer, topic, &mut on)?;
    }
}

/// What a look found.
enum Next {
    Record,
    End,
}

fn assigned(settings: &ConsumerSettings, topic: &str, from: Offset) -> Result<BaseConsumer<Quiet>, LogError> {
    let mut settings = ConsumerSettings { topics: vec![topic.to_owned()], ..settings.clone() };
    // A follower near by may not know yet where the log is committed to: its end is not the end.
    settings.properties.remove("client.rack");
    let config = settings.client_config();
    let config = config.map_err(|error| failed(topic, error))?;
    let consumer: BaseConsumer<Quiet> =
        config.create_with_context(Quiet::default()).map_err(|error| failed(topic, error))?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, from).map_err(|error| failed(topic, error))?;
    consumer.assign(&list).map_err(|error| failed(topic, error))?;
    Ok(consumer)
}

/// Looks for a moment.
fn next(
    consumer: &BaseConsumer<Quiet>,
    topic: &str,
    on: &mut impl FnMut(i64, Option<&[u8]>) -> Result<(), String>,
) -> Result<Option<Next>, LogError> {
    match consumer.poll(SLICE) {
        Some(Ok(record)) => {
            let refused = |what| failed(topic, format!("offset {}: {what}", record.offset()));
            on(record.offset(), record.payload()).map_err(refused)?;
            Ok(Some(Next::Record))
        }
        Some(Err(KafkaError::PartitionEOF(_))) => Ok(Some(Next::End)),
        Some(Err(error)) if error.rdkafka_error_code().is_some_and(is_denial) => {
            Err(failed(topic, format!("{error}; `highwater check` names the right that is missing")))
        }
        Some(Err(error)) => {
            tracing::debug!(topic, "reading a compacted topic: {error}");
            Ok(None)
        }
        None => Ok(None),
    }
}

fn failed(topic: &str, what: impl Display) -> LogError {
    LogError::Passing(format!("cannot read the topic {topic}: {what}"))
}
