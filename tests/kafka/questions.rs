//! Where partitions begin and end, asked of a cluster that changes, and while records are awaited.
//!
//! The real broker is one; where leaders go and move, librdkafka's imitation of a cluster of three stands in.

use std::time::{Duration, Instant};

use highwater::kafka::{GroupProtocol, KafkaLog};
use highwater::ports::{Log, LogError, TopicPartition};
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

/// Which have bounds at the first asking.
fn asked(log: &mut KafkaLog, names: &[TopicPartition]) -> Vec<bool> {
    let begun = Instant::now();
    let found = log.bounds(names);
    println!("{found:?}, took {:?}", begun.elapsed());
    answered(&found)
}

#[test]
fn questions_do_not_wait_for_records() {
    let brokers = broker();
    topic(&brokers, "unhurried", 2);
    fill(&brokers, "unhurried", 2, 10);
    // Longer than all rounds take together, so that no fetch ends just when it is asked.
    let waits = [("fetch.wait.max.ms", "50000"), ("fetch.min.bytes", "1")];
    let mut log = uninformed(&brokers, "unhurried", &waits);
    let names = join(&mut log, 2);
    bounds(&mut log, &names);
    for name in &names {
        start(&mut log, name, 0);
    }
    poll_until(&mut log, |told| (0..2).any(|partition| !offsets(told, partition).is_empty()));
    let at_once = mostly(|| {
        // There is nothing to fetch, so that nearly always a fetch is under way.
        poll_for(&mut log, Duration::from_millis(500));
        let begun = Instant::now();
        let (found, ends) = (log.bounds(&names), log.high_watermarks(&names));
        assert!(log.identity("unhurried", PATIENCE).is_ok());
        let took = begun.elapsed();
        println!("{found:?} {ends:?}, took {took:?}");
        answered(&found) == [true; 2] && answered(&ends) == [true; 2] && took < Duration::from_secs(2)
    });
    assert!(at_once, "questions wait for records");
}

#[test]
fn a_partition_that_was_added_a_moment_ago_has_its_bounds() {
    let brokers = broker();
    topic(&brokers, "grown", 1);
    let mut log = uninformed(&brokers, "grown", &[]);
    let mut names = join(&mut log, 1);
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
    let mut filled = vec![0_u64];
    let at_once = mostly(|| {
        // What is there already is known well.
        bounds(&mut log, &names);
        high_watermarks(&mut log, &names);
        filled.extend([0, 0]);
        let count = filled.len();
        let grown = [NewPartitions::new("grown", count)];
        futures::executor::block_on(admin.create_partitions(&grown, &AdminOptions::new())).unwrap();
        fill(&brokers, "grown", count as i32, 7);
        filled.iter_mut().for_each(|end| *end += 7);
        names = (0..count as i32).map(|partition| name("grown", partition)).collect();
        let (first, ends) = (log.bounds(&names), log.high_watermarks(&names));
        println!("{first:?} {ends:?}");
        let found = bounds(&mut log, &names);
        assert!(found.iter().zip(&filled).all(|(bounds, end)| (bounds.start, bounds.end) == (0, *end)), "{found:?}");
        assert_eq!(high_watermarks(&mut log, &names), filled);
        answered(&first).into_iter().chain(answered(&ends)).all(|answered| answered)
    });
    assert!(at_once, "partitions that were just added have no answer at the first asking");
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
    let mut leaders = [1, 2].into_iter().cycle();
    let at_once = mostly(|| {
        // Who leads now is known well.
        bounds(&mut log, &names);
        high_watermarks(&mut log, &names);
        led_by(1, leaders.next().unwrap());
        asked(&mut log, &names) == [true; 3]
    });
    assert!(at_once, "the leader is another");

    // The cluster says that it leads until somebody finds out that it is gone, as we may be the first to do.
    cluster.broker_down(3).unwrap();
    until(|| answered(&log.bounds(&names)) == [true, true, false]);
    until(|| answered(&log.high_watermarks(&names)) == [true, true, false]);
    let in_time = mostly(|| {
        let begun = Instant::now();
        asked(&mut log, &names) == [true, true, false] && begun.elapsed() < Duration::from_millis(1500)
    });
    assert!(in_time, "who waits for one that is away has no time for the others");

    let nobody = || cluster.partition_leader("led", 2, None).unwrap();
    nobody();
    assert!(mostly(|| asked(&mut log, &names) == [true, true, false]), "nobody leads");

    let at_once = mostly(|| {
        nobody();
        until(|| asked(&mut log, &names) == [true, true, false]);
        led_by(2, 2);
        asked(&mut log, &names) == [true; 3]
    });
    assert!(at_once, "somebody leads again");
    high_watermarks(&mut log, &names);
}
