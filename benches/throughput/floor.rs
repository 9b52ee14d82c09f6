//! The floors: what it costs to receive the messages and throw them away, which no consumer on librdkafka gets below.
#![allow(
    unsafe_code,
    reason = "rdkafka has no safe call for librdkafka's batch queue; every unsafe block of the benches is in this file"
)]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::bindings as native;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use crate::workload::PARTITIONS;

/// Messages fetched by one call of the batch queue.
const BATCH: usize = 4_096;
/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was received.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Received {
    pub events: u64,
    pub bytes: u64,
}

/// A consumer that fetches with highwater's own settings, on all partitions from their beginning.
fn consumer(brokers: &str, topic: &str) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "floor")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("queued.max.messages.kbytes", "32768")
        .set("fetch.queue.backoff.ms", "20")
        .set("fetch.wait.max.ms", "250")
        .create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::try_from(PARTITIONS)? {
        list.add_partition_offset(topic, partition, Offset::Offset(0))?;
    }
    consumer.assign(&list)?;
    Ok(consumer)
}

/// One message after the other.
pub fn poll(brokers: &str, topic: &str, events: u64) -> Result<Received> {
    let consumer = consumer(brokers, topic)?;
    let mut received = Received::default();
    while received.events < events {
        let message = consumer.poll(PATIENCE).context("no message came any more")??;
        received.events += 1;
        received.bytes += message.payload().map_or(0, <[u8]>::len) as u64;
    }
    Ok(received)
}

/// Thousands of messages at a time.
pub fn batch_queue(brokers: &str, topic: &str, events: u64) -> Result<Received> {
    let consumer = consumer(brokers, topic)?;
    // SAFETY: the client is alive as long as `consumer`, which outlives the queue: it is dropped at the end of this
    // function, after the queue's destruction below (or the process ends by an error).
    let queue = unsafe { native::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
    if queue.is_null() {
        bail!("the consumer has no queue");
    }
    let mut messages = vec![std::ptr::null_mut(); BATCH];
    let mut received = Received::default();
    let mut heard = Instant::now();
    while received.events < events {
        // SAFETY: `queue` is not null and not yet destroyed; `messages` has room for as many pointers as are named.
        let fetched =
            unsafe { native::rd_kafka_consume_batch_queue(queue, 100, messages.as_mut_ptr(), messages.len()) };
        let fetched = usize::try_from(fetched).context("the batch queue failed")?;
        for &message in &messages[..fetched] {
            // SAFETY: librdkafka has filled so many pointers, each to a message that is ours until it is destroyed,
            // which happens once, here; nothing of it is used afterwards.
            let (error, length) = unsafe {
                let read = ((*message).err, (*message).len);
                native::rd_kafka_message_destroy(message);
                read
            };
            if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                received.events += 1;
                received.bytes += length as u64;
            }
        }
        if fetched > 0 {
            heard = Instant::now();
        } else if heard.elapsed() > PATIENCE {
            bail!("no message came any more");
        }
    }
    // SAFETY: got above and destroyed once; the client still lives.
    unsafe { native::rd_kafka_queue_destroy(queue) };
    Ok(received)
}
