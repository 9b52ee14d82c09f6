//! The producer: nothing that failed is passed over in silence.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater::kafka::producer::{Outgoing, ProduceError, create_topic};
use highwater::kafka::settings::SettingsError;
use highwater::kafka::{GroupProtocol, Producer};

use crate::support::*;

fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

fn record(topic: &str, partition: Option<i32>) -> Outgoing<'_> {
    Outgoing { topic, partition, timestamp_ms: None, key: None, payload: Some(b"payload") }
}

#[test]
fn a_full_queue_waits_and_loses_nothing() {
    let brokers = broker();
    topic(&brokers, "full", 1);
    let small = properties(&[("queue.buffering.max.messages", "50")]);
    let mut producer = Producer::new(&brokers, "test", &small).unwrap();
    for _ in 0..5_000 {
        producer.send(record("full", Some(0))).unwrap();
    }
    assert_eq!(producer.flush(PATIENCE), Ok(5_000));
    let mut log = consumer(&brokers, "full", "full", GroupProtocol::Classic);
    let names = join(&mut log, 1);
    assert_eq!(log_end(&mut log, &names), 5_000);
}

#[test]
fn undelivered_records_come_out_of_flush() {
    let brokers = broker();
    topic(&brokers, "undelivered", 1);
    let mut producer = Producer::new(&brokers, "test", &none()).unwrap();
    producer.send(record("undelivered", Some(0))).unwrap();
    let refused = match producer.send(record("undelivered", Some(7))) {
        Err(error) => error,
        Ok(()) => producer.flush(PATIENCE).unwrap_err(),
    };
    match &refused {
        ProduceError::Undelivered { sent: 2, failed: 1, first } => {
            assert!(first.contains("undelivered/7"), "{first}");
        }
        ProduceError::Refused { topic, .. } => assert_eq!(topic, "undelivered"),
        other => panic!("{other}"),
    }

    let quick = properties(&[("message.timeout.ms", "500")]);
    let mut producer = Producer::new("127.0.0.1:9", "test", &quick).unwrap();
    for _ in 0..3 {
        producer.send(record("events", None)).unwrap();
    }
    let error = producer.flush(PATIENCE).unwrap_err();
    assert!(matches!(&error, ProduceError::Undelivered { sent: 3, failed: 3, .. }), "{error}");

    let mut producer = Producer::new("127.0.0.1:9", "test", &none()).unwrap();
    producer.send(record("events", None)).unwrap();
    let error = producer.flush(Duration::from_millis(200)).unwrap_err();
    assert!(error.to_string().contains("no answer within 200ms"), "{error}");

    let big = vec![0; 3_000_000];
    let huge = Outgoing { payload: Some(&big), ..record("events", None) };
    assert!(matches!(producer.send(huge), Err(ProduceError::Refused { .. })));
}

#[test]
fn a_topic_is_created_once_with_its_settings() {
    let brokers = broker();
    let create = |name: &str, settings: &BTreeMap<String, String>| {
        futures::executor::block_on(create_topic(&brokers, &BTreeMap::new(), name, 2, 1, settings))
    };
    let compacted = properties(&[("cleanup.policy", "compact")]);
    assert_eq!(create("created", &compacted), Ok(true));
    assert_eq!(create("created", &compacted), Ok(false));
    // Compaction refuses records without a key: the setting has arrived.
    let mut producer = Producer::new(&brokers, "test", &none()).unwrap();
    producer.send(record("created", Some(0))).unwrap();
    assert!(producer.flush(PATIENCE).is_err());
    let error = create("bad", &properties(&[("no.such.setting", "1")])).unwrap_err();
    assert!(error.to_string().contains("bad"), "{error}");
}

#[test]
fn an_unknown_property_is_refused_by_name() {
    let unknown = properties(&[("no.such.property", "1")]);
    let Err(SettingsError::Client(error)) = Producer::new("127.0.0.1:9", "test", &unknown) else {
        panic!("accepted");
    };
    assert!(error.contains("no.such.property"), "{error}");
}
