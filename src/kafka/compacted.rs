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
/// How long Kafka may deliver nothing before that is told.
const SLOW: Duration = Duration::from_secs(5);
/// How long Kafka may deliver nothing before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A record that was read.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Where it stands.
    pub offset: i64,
    /// Its key, if any.
    pub key: Option<&'a [u8]>,
    /// Its value; `None`: a tombstone.
    pub payload: Option<&'a [u8]>,
}

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
    let mut count = 0;
    read_on(settings, topic, None, give_up, |entry| {
        count += 1;
        on(entry.offset, entry.payload)
    })?;
    Ok(count)
}

/// The same from an offset on, with keys; answers from where on to read next. Says once if it has to wait.
///
/// # Errors
/// As there.
pub fn read_on(
    settings: &ConsumerSettings,
    topic: &str,
    from: Option<i64>,
    give_up: &dyn Fn() -> bool,
    mut on: impl FnMut(Entry<'_>) -> Result<(), String>,
) -> Result<Option<i64>, LogError> {
    let consumer = assigned(settings, topic, from.map_or(Offset::Beginning, Offset::Offset))?;
    let (mut heard, mut next_offset, mut complaint, mut is_said) = (Instant::now(), from, None, false);
    loop {
        match next(&consumer, topic, &mut on)? {
            Next::Record(offset) => (heard, next_offset) = (Instant::now(), Some(offset + 1)),
            Next::End => return Ok(next_offset),
            Next::Complaint(what) => complaint = Some(what),
            Next::Nothing => {}
        }
        if give_up() {
            return Err(failed(topic, "it was given up"));
        }
        let reason = || complaint.as_ref().map_or(String::new(), |what| format!(": {what}"));
        if heard.elapsed() > PATIENCE {
            return Err(failed(topic, format!("nothing came within {} s{}", PATIENCE.as_secs(), reason())));
        }
        if heard.elapsed() > SLOW && !is_said {
            is_said = true;
            tracing::info!("waiting for the leader of partition 0 of the topic {topic}, to read it{}", reason());
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
    let mut entry = |entry: Entry<'_>| on(entry.offset, entry.payload);
    loop {
        next(&consumer, topic, &mut entry)?;
    }
}

/// What a look found.
enum Next {
    /// A record at this offset.
    Record(i64),
    /// No more for now.
    End,
    /// Why nothing comes.
    Complaint(String),
    Nothing,
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
    on: &mut impl FnMut(Entry<'_>) -> Result<(), String>,
) -> Result<Next, LogError> {
    match consumer.poll(SLICE) {
        Some(Ok(record)) => {
            let refused = |what| failed(topic, format!("offset {}: {what}", record.offset()));
            on(Entry { offset: record.offset(), key: record.key(), payload: record.payload() }).map_err(refused)?;
            Ok(Next::Record(record.offset()))
        }
        Some(Err(KafkaError::PartitionEOF(_))) => Ok(Next::End),
        Some(Err(error)) if error.rdkafka_error_code().is_some_and(is_denial) => {
            Err(failed(topic, format!("{error}; `highwater check` names the right that is missing")))
        }
        Some(Err(error)) => {
            tracing::debug!(topic, "reading a compacted topic: {error}");
            Ok(Next::Complaint(error.to_string()))
        }
        None => Ok(Next::Nothing),
    }
}

fn failed(topic: &str, what: impl Display) -> LogError {
    LogError::Passing(format!("cannot read the topic {topic}: {what}"))
}
