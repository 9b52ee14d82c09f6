//! A broker, topics, and a consumer's events as owned values.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use devstack::Kafka;
use highwater::kafka::identity::topic_identity;
use highwater::kafka::producer::{Outgoing, create_topic};
use highwater::kafka::{ConsumerSettings, GroupProtocol, KafkaLog, Producer};
use highwater::ports::{Bounds, Log, LogError, LogEvent, TopicPartition};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

fn kafka() -> &'static Kafka {
    static KAFKA: OnceLock<Kafka> = OnceLock::new();
    KAFKA.get_or_init(|| Kafka::options().start().unwrap())
}

/// One broker for all tests that leave it alone.
pub(crate) fn broker() -> String {
    kafka().bootstrap()
}

/// The id of that broker's cluster.
pub(crate) fn cluster_id() -> String {
    kafka().cluster_id().to_owned()
}

/// The bounds of partitions, asked again where a busy broker did not answer in time.
pub(crate) fn bounds(log: &mut KafkaLog, names: &[TopicPartition]) -> Vec<Bounds> {
    let begun = Instant::now();
    loop {
        match log.bounds(names).into_iter().collect::<Result<Vec<_>, _>>() {
            Ok(bounds) => return bounds,
            Err(error) => assert!(matches!(error, LogError::Passing(_)) && begun.elapsed() < PATIENCE, "{error}"),
        }
    }
}

/// One past the last offset of one partition.
pub(crate) fn log_end(log: &mut KafkaLog, names: &[TopicPartition]) -> u64 {
    bounds(log, names)[0].end
}

pub(crate) fn none() -> BTreeMap<String, String> {
    BTreeMap::new()
}

pub(crate) fn topic(brokers: &str, name: &str, partitions: u16) {
    let (properties, settings) = (none(), none());
    let made = create_topic(brokers, &properties, name, partitions, 1, &settings);
    assert!(futures::executor::block_on(made).unwrap());
    // The controller has it; the broker that clients ask learns of it a moment later.
    let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    until(|| topic_identity(client.client(), name, Duration::from_secs(3)).is_ok());
}

pub(crate) fn until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not so after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends `count` records to each partition; the payload is the running number.
pub(crate) fn fill(brokers: &str, name: &str, partitions: i32, count: u64) {
    let mut producer = Producer::new(brokers, "fill", &none()).unwrap();
    for number in 0..count {
        for partition in 0..partitions {
            producer
                .send(Outgoing {
                    topic: name,
                    partition: Some(partition),
                    timestamp_ms: Some(1_700_000_000_000 + number as i64),
                    key: Some(b"key"),
                    payload: Some(&number.to_be_bytes()),
                })
                .unwrap();
        }
    }
    producer.flush(PATIENCE).unwrap();
}

pub(crate) fn consumer(brokers: &str, name: &str, group: &str, protocol: GroupProtocol) -> KafkaLog {
    KafkaLog::new(&settings_of(brokers, &[name], group, protocol)).unwrap()
}

pub(crate) fn settings_of(brokers: &str, names: &[&str], group: &str, protocol: GroupProtocol) -> ConsumerSettings {
    let mut properties = none();
    if protocol == GroupProtocol::Classic {
        properties.insert("session.timeout.ms".into(), "6000".into());
        properties.insert("heartbeat.interval.ms".into(), "300".into());
    }
    properties.insert("topic.metadata.refresh.interval.ms".into(), "1000".into());
    ConsumerSettings {
        brokers: brokers.into(),
        group: group.into(),
        client_id: "test".into(),
        topics: names.iter().map(|name| (*name).into()).collect(),
        protocol,
        properties,
    }
}

/// What a poll told, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Assigned(Vec<TopicPartition>),
    Revoked(Vec<TopicPartition>),
    Record(i32, u64, i64, Option<Vec<u8>>),
    End(TopicPartition, u64),
    OutOfRange(TopicPartition),
}

pub(crate) fn poll(log: &mut KafkaLog) -> Vec<Told> {
    let mut told = Vec::new();
    log.poll(Duration::from_millis(20), &mut |event| {
        told.push(match event {
            LogEvent::Assigned(names) => Told::Assigned(names),
            LogEvent::Revoked(names) => Told::Revoked(names),
            LogEvent::Record(record) => {
                Told::Record(record.partition, record.offset, record.timestamp_ms, record.payload.map(<[u8]>::to_vec))
            }
            LogEvent::End(name, position) => Told::End(name, position),
            LogEvent::OutOfRange(name) => Told::OutOfRange(name),
        });
    });
    assert_eq!(log.fatal(), None);
    told
}

/// Polls until `done` says so of everything told so far.
pub(crate) fn poll_until(log: &mut KafkaLog, mut done: impl FnMut(&[Told]) -> bool) -> Vec<Told> {
    let (mut told, begun) = (Vec::new(), Instant::now());
    while !done(&told) {
        assert!(begun.elapsed() < PATIENCE, "waited too long, told {} things: {:?}", told.len(), told.last());
        told.extend(poll(log));
    }
    told
}

pub(crate) fn poll_for(log: &mut KafkaLog, time: Duration) -> Vec<Told> {
    let (mut told, begun) = (Vec::new(), Instant::now());
    while begun.elapsed() < time {
        told.extend(poll(log));
    }
    told
}

pub(crate) fn offsets(told: &[Told], partition: i32) -> Vec<u64> {
    told.iter()
        .filter_map(|told| match told {
            Told::Record(of, offset, ..) if *of == partition => Some(*offset),
            _ => None,
        })
        .collect()
}

pub(crate) fn assigned(told: &[Told]) -> usize {
    told.iter()
        .map(|told| match told {
            Told::Assigned(names) => names.len(),
            _ => 0,
        })
        .sum()
}

pub(crate) fn join(log: &mut KafkaLog, partitions: usize) -> Vec<TopicPartition> {
    let told = poll_until(log, |told| assigned(told) == partitions);
    assert!(
        told.iter().all(|told| matches!(told, Told::Assigned(_))),
        "nothing but the assignment before a start: {told:?}"
    );
    told.into_iter()
        .flat_map(|told| match told {
            Told::Assigned(names) => names,
            _ => Vec::new(),
        })
        .collect()
}

pub(crate) fn start(log: &mut KafkaLog, name: &TopicPartition, offset: u64) {
    let begun = Instant::now();
    while let Err(error) = log.start(name, offset) {
        assert!(begun.elapsed() < PATIENCE, "{error}");
        // Only assignment and ends may come up while one partition is not started yet.
        log.poll(Duration::from_millis(5), &mut |event| {
            assert!(!matches!(event, LogEvent::Record(record) if record.partition == name.partition));
        });
    }
}

pub(crate) fn name(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition { topic: topic.into(), partition }
}

pub(crate) fn ended(told: &[Told], partition: i32) -> Option<u64> {
    told.iter().rev().find_map(|told| match told {
        Told::End(name, position) if name.partition == partition => Some(*position),
        _ => None,
    })
}
