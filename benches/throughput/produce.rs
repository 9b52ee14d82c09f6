//! Writes a workload to a topic, once for all systems.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::workload::{Event, PARTITIONS, Truth, Workload};

/// How long the broker may take for the last messages.
const FLUSH: Duration = Duration::from_secs(60);
/// Events between two lines of progress.
const SAY_EVERY: u64 = 1_000_000;

/// A topic and what is true of it.
pub struct Topic {
    pub name: &'static str,
    pub truth: Truth,
}

impl Topic {
    /// Length of a message on average.
    pub fn event_bytes(&self) -> f64 {
        self.truth.bytes as f64 / self.truth.events.max(1) as f64
    }
}

/// Makes the topic and produces all events, each encoded by `encode`, to its partitions in turn.
pub fn produce(
    brokers: &str,
    name: &'static str,
    workload: Workload,
    encode: impl Fn(&Event, &mut Vec<u8>),
) -> Result<Topic> {
    println!("producing {} events to the topic {name} ({PARTITIONS} partitions, lz4)…", workload.events);
    let begun = Instant::now();
    create(brokers, name, PARTITIONS)?;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("compression.type", "lz4")
        .set("linger.ms", "50")
        .set("queue.buffering.max.kbytes", "131072")
        .create()?;
    let mut truth = Truth::default();
    let mut bytes = Vec::new();
    for at in 0..workload.events {
        let event = workload.event(at);
        encode(&event, &mut bytes);
        truth.add(&event, bytes.len());
        send(&producer, name, i32::try_from(at % PARTITIONS)?, event.time_us / 1_000, &bytes)?;
        if (at + 1) % SAY_EVERY == 0 {
            println!("  {} of {} events, {:.0} s", at + 1, workload.events, begun.elapsed().as_secs_f64());
        }
    }
    producer.flush(FLUSH).context("the broker did not take all messages")?;
    truth.finish();
    let topic = Topic { name, truth };
    println!("  done in {:.0} s: {:.0} bytes an event", begun.elapsed().as_secs_f64(), topic.event_bytes());
    Ok(topic)
}

/// Sends one message, waiting for room.
pub fn send(producer: &BaseProducer, topic: &str, partition: i32, timestamp_ms: i64, bytes: &[u8]) -> Result<()> {
    let mut record = BaseRecord::<(), [u8]>::to(topic).partition(partition).timestamp(timestamp_ms).payload(bytes);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(50));
            }
            Err((error, _)) => bail!("cannot produce to {topic}: {error}"),
        }
    }
}

/// Makes a topic of so many partitions.
pub fn create(brokers: &str, name: &str, partitions: u64) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let topic = NewTopic::new(name, i32::try_from(partitions)?, TopicReplication::Fixed(1)).set("retention.ms", "-1");
    let made = tokio::runtime::Runtime::new()?.block_on(admin.create_topics([&topic], &AdminOptions::new()))?;
    for topic in made {
        topic.map_err(|(name, error)| anyhow::anyhow!("cannot create the topic {name}: {error}"))?;
    }
    Ok(())
}
