//! A compacted topic read from its begin to its end: what was last said under each key.

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
    let failed = |what: String| LogError::Passing(format!("cannot read the topic {topic}: {what}"));
    let config = ConsumerSettings { topics: vec![topic.to_owned()], ..settings.clone() }.client_config();
    let config = config.map_err(|error| failed(error.to_string()))?;
    let consumer: BaseConsumer<Quiet> =
        config.create_with_context(Quiet::default()).map_err(|error| failed(error.to_string()))?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).map_err(|error| failed(error.to_string()))?;
    consumer.assign(&list).map_err(|error| failed(error.to_string()))?;
    let (mut heard, mut count) = (Instant::now(), 0);
    loop {
        match consumer.poll(SLICE) {
            Some(Ok(record)) => {
                (heard, count) = (Instant::now(), count + 1);
                on(record.offset(), record.payload())
                    .map_err(|what| failed(format!("offset {}: {what}", record.offset())))?;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(count),
            Some(Err(error)) if error.rdkafka_error_code().is_some_and(is_denial) => {
                return Err(failed(format!("{error}; `highwater check` names the right that is missing")));
            }
            Some(Err(error)) => tracing::debug!(topic, "reading back: {error}"),
            None => {}
        }
        if give_up() {
            return Err(failed("it was given up".to_owned()));
        }
        if heard.elapsed() > PATIENCE {
            return Err(failed(format!("nothing came within {} s", PATIENCE.as_secs())));
        }
    }
}
