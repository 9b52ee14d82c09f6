//! Where partitions begin and end, asked of a cluster that changes, and while records are awaited.
//!
//! The real broker is one; where leaders go and move, librdkafka's imitation of a cluster of three stands in.

use std::time::{Duration, Instant};

use highwater::kafka::{GroupProtocol, KafkaLog};
use highwater::ports::{Log, LogError};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::mocking::{MockCluster, MockCoordinator};

use crate::support::*;

/// A consumer that hears of the cluster by itself too seldom to matter here.
fn uninformed(brokers: &str, topic: &str, properties: &[(&str, &str)]) -> KafkaLog {
    let mut settings = settings_of(brokers, &[topic], topic, GroupProtocol::Classic);
    settings.properties.insert("topic.metadata.refresh.interval.ms".into(), "300000".into());
    settings.properties.extend(properties.iter().map(|(key, value)| ((*key).into(), (*value).into())));
    KafkaLog::new(&settings).unwrap()
}

/// Which have an answer.
fn answered<T>(found: &[Result<T, LogError>]) -> Vec<bool> {
    found.iter().map(Result::is_ok).collect()
}

#[test]
fn questions_do_not_wait_for_records() {
    let brokers = broker();
    topic(&brokers, "unhurried", 2);
    fill(&brokers, "unhurried", 2, 10);
    let mut log = uninformed(&brokers, "unhurried", &[("fetch.wait.max.ms", "4000")]);
    let names = join(&mut log, 2);
    bounds(&mut log, &names);
    for name in &names {
        start(&mut log, name, 10);
    }
    poll_until(&mut log, |told| (0..2).all(|partition| ended(told, partition).is_some()));
    for _ in 0..3 {
        // There is nothing to fetch, so that nearly always a fetch is under way.
        poll_for(&mut log, Duration::from_millis(300));
        let begun = Instant::now();
        let found = log.bounds(&names);
        assert_eq!(answered(&found), [true, true], "{found:?}");
        assert_eq!(answered(&log.high_watermarks(&names)), [true, true]);
        assert!(log.identity("unhurried", PATIENCE).is_ok());
        assert!(begun.elapsed() < Duration::from_secs(2), "took {:?}", begun.elapsed());
    }
}

#[test]
fn a_partition_that_was_added_a_moment_ago_has_its_bounds() {
    let brokers = broker();
    topic(&brokers, "grown", 1);
    let mut log = uninformed(&brokers, "grown", &[]);
    let names = join(&mut log, 1);
    bounds(&mut log, &names);
    assert_eq!(answered(&log.high_watermarks(&names)), [true]);
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
    futures::executor::block_on(admin.create_partitions(&[NewPartitions::new("grown", 3)], &AdminOptions::new()))
        .unwrap();
    fill(&brokers, "grown", 3, 7);
    let names = [name("grown", 0), name("grown", 1), name("grown", 2)];
    let found: Vec<_> = log.bounds(&names).into_iter().map(Result::unwrap).collect();
    assert!(found.iter().all(|bounds| (bounds.start, bounds.end) == (0, 7)), "{found:?}");
    let ends: Vec<_> = log.high_watermarks(&names).into_iter().map(Result::unwrap).collect();
    assert_eq!(ends, [7, 7, 7]);
}

#[test]
fn a_leader_that_is_away_or_was_replaced_keeps_back_at_most_its_own_partitions() {
    let cluster = MockCluster::new(3).unwrap();
    cluster.create_topic("led", 3, 3).unwrap();
    let led_by = |partition, broker| cluster.partition_leader("led", partition, Some(broker)).unwrap();
    (0..3).for_each(|partition| led_by(partition, partition + 1));
    cluster.coordinator(MockCoordinator::Group("led".into()), 1).unwrap();
    let mut log = uninformed(&cluster.bootstrap_servers(), "led", &[]);
    let names = [name("led", 0), name("led", 1), name("led", 2)];
    bounds(&mut log, &names);
    assert_eq!(answered(&log.high_watermarks(&names)), [true; 3]);

    led_by(1, 1);
    let found = log.bounds(&names);
    assert_eq!(answered(&found), [true; 3], "the leader is another: {found:?}");

    // The cluster says that it leads until somebody finds out that it is gone, as we may be the first to do.
    cluster.broker_down(3).unwrap();
    until(|| answered(&log.bounds(&names)) == [true, true, false]);
    until(|| answered(&log.high_watermarks(&names)) == [true, true, false]);
    let begun = Instant::now();
    let found = log.bounds(&names);
    assert_eq!(answered(&found), [true, true, false], "{found:?}");
    assert!(begun.elapsed() < Duration::from_millis(1500), "took {:?}", begun.elapsed());

    cluster.partition_leader("led", 2, None).unwrap();
    let found = log.bounds(&names);
    assert_eq!(answered(&found), [true, true, false], "nobody leads: {found:?}");

    led_by(2, 2);
    let found = log.bounds(&names);
    assert_eq!(answered(&found), [true; 3], "somebody leads again: {found:?}");
    assert_eq!(answered(&log.high_watermarks(&names)), [true; 3]);
}
