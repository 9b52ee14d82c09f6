//! A producer for many events: generated ones and replayed ones. It waits where librdkafka's queue is full, and a
//! delivery that failed is counted and comes out of [`Producer::flush`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};

use super::access::{Asker, Resource, Right, is_denial};
use super::settings::{SettingsError, base};

/// Sends between two looks at the deliveries that came in.
const POLL_EVERY: u64 = 256;
/// How long a send waits for room before it looks again.
const ROOM: Duration = Duration::from_millis(20);

/// A record to send.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// Partition; `None` leaves it to the key, or to chance where there is none.
    pub partition: Option<i32>,
    /// Milliseconds since 1970; `None` is now.
    pub timestamp_ms: Option<i64>,
    /// Key, if any.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is a tombstone.
    pub payload: Option<&'a [u8]>,
}

/// Why records were not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// librdkafka does not take the record.
    #[error(
        "cannot send a record to the Kafka topic {topic}: {reason}; check the topic, the partition number and the size of the record"
    )]
    Refused {
        /// Where to.
        topic: String,
        /// What librdkafka says.
        reason: String,
    },
    /// Some records are not in the log.
    #[error("{failed} of {sent} records were not delivered to Kafka; the first: {first}")]
    Undelivered {
        /// Records sent since the producer was made.
        sent: u64,
        /// Records that failed, or that were still on their way when time was up.
        failed: u64,
        /// What became of the first that failed.
        first: String,
    },
    /// Our user lacks a right.
    #[error("{0}")]
    Denied(Right),
    /// The topic could not be created.
    #[error("cannot create the Kafka topic {topic}: {reason}; check its name and its settings")]
    Create {
        /// Which topic.
        topic: String,
        /// What the broker says.
        reason: String,
    },
}

/// Idempotent, compressed with lz4, batched for throughput. Used by one thread.
pub struct Producer {
    inner: BaseProducer<Deliveries>,
    sent: u64,
}

impl Producer {
    /// A producer for these brokers, with further librdkafka properties, which win over the recommended.
    ///
    /// # Errors
    /// librdkafka refuses a property.
    pub fn new(brokers: &str, client_id: &str, properties: &BTreeMap<String, String>) -> Result<Self, SettingsError> {
        let mut config = base(brokers, client_id);
        config
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", "20")
            .set("batch.size", "1000000")
            .set("queue.buffering.max.kbytes", "65536");
        for (key, value) in properties {
            config.set(key, value);
        }
        let inner = config
            .create_with_context(Deliveries::default())
            .map_err(|error: KafkaError| SettingsError::Client(error.to_string()))?;
        Ok(Self { inner, sent: 0 })
    }

    /// Takes a record to be sent; waits while too many are on their way.
    ///
    /// # Errors
    /// The record can never be sent. That a delivery failed comes out of [`Producer::flush`].
    pub fn send(&mut self, record: Outgoing<'_>) -> Result<(), ProduceError> {
        let mut next = BaseRecord::<[u8], [u8]>::to(record.topic);
        next.partition = record.partition;
        next.timestamp = record.timestamp_ms;
        next.key = record.key;
        next.payload = record.payload;
        if self.sent.is_multiple_of(POLL_EVERY) {
            self.inner.poll(Duration::ZERO);
        }
        loop {
            match self.inner.send(next) {
                Ok(()) => {
                    self.sent += 1;
                    return Ok(());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    self.inner.poll(ROOM);
                    next = back;
                }
                Err((error, _)) => {
                    return Err(ProduceError::Refused { topic: record.topic.to_owned(), reason: error.to_string() });
                }
            }
        }
    }

    /// Waits until everything sent is in the log, at most `patience`. Returns how many records that are, since the
    /// producer was made.
    ///
    /// # Errors
    /// Some records failed at any time since the producer was made, or are still on their way.
    pub fn flush(&mut self, patience: Duration) -> Result<u64, ProduceError> {
        let deadline = Instant::now() + patience;
        while self.inner.in_flight_count() > 0 && Instant::now() < deadline {
            // A failure to flush in time shows in the count below.
            let _ = self.inner.flush(ROOM.max(Duration::from_millis(100)));
        }
        self.inner.poll(Duration::ZERO);
        let context = self.inner.context();
        let delivered = context.delivered.load(Ordering::Relaxed);
        if delivered == self.sent {
            return Ok(delivered);
        }
        let first = context.first_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Err(ProduceError::Undelivered {
            sent: self.sent,
            failed: self.sent - delivered,
            first: first.unwrap_or_else(|| format!("no answer within {patience:?}")),
        })
    }
}

/// Counts what became of the records.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    pub(super) delivered: AtomicU64,
    pub(super) first_error: Mutex<Option<String>>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        tracing::debug!(target: "librdkafka", severity = ?level, facility, "{line}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // What it costs shows in the deliveries.
        tracing::debug!("Kafka producer: {error}: {reason}");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.delivered.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, message)) => {
                self.first_error
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert_with(|| format!("{}/{}: {error}", message.topic(), message.partition()));
            }
        }
    }
}

/// Creates a topic, by a client with these librdkafka properties. `replication` of −1 is the broker's default. False if it was there already, whatever its settings.
///
/// # Errors
/// The brokers are away, or refuse.
pub async fn create_topic(
    brokers: &str,
    properties: &BTreeMap<String, String>,
    topic: &str,
    partitions: u16,
    replication: i32,
    settings: &BTreeMap<String, String>,
) -> Result<bool, ProduceError> {
    let failed = |reason: String| ProduceError::Create { topic: topic.to_owned(), reason };
    let mut config = base(brokers, "highwater-admin");
    for (key, value) in properties {
        config.set(key, value);
    }
    let admin: AdminClient<DefaultClientContext> = config.create().map_err(|error| failed(error.to_string()))?;
    let mut new = NewTopic::new(topic, i32::from(partitions), TopicReplication::Fixed(replication));
    for (key, value) in settings {
        new = new.set(key, value);
    }
    let options = AdminOptions::new()
        .request_timeout(Some(Duration::from_secs(15)))
        .operation_timeout(Some(Duration::from_secs(10)));
    let answers = admin.create_topics([&new], &options).await.map_err(|error| failed(error.to_string()))?;
    match answers.into_iter().next() {
        Some(Ok(_)) => Ok(true),
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
        Some(Err((_, code))) if is_denial(code) => {
            let right = Asker::new(brokers, properties).lacks("Create", Resource::Topic(topic.to_owned()));
            Err(ProduceError::Denied(right))
        }
        Some(Err((_, code))) => Err(failed(code.to_string())),
        None => Err(failed("no answer".to_owned())),
    }
}
