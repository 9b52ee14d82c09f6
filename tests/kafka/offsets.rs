//! Committed offsets, as another client sees them.

use std::time::{Duration, Instant};

use highwater::kafka::GroupProtocol;
use highwater::ports::Log;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::support::*;

fn committed(brokers: &str, topic: &str, group: &str, partition: i32) -> Option<i64> {
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", group).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    let list = client.committed_offsets(list, PATIENCE).unwrap();
    match list.elements()[0].offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

#[test]
fn a_commit_is_seen_by_others_and_by_the_next_owner() {
    let brokers = broker();
    topic(&brokers, "commit", 2);
    fill(&brokers, "commit", 2, 50);
    let mut log = consumer(&brokers, "commit", "commit", GroupProtocol::Classic);
    let mut names = join(&mut log, 2);
    names.sort();
    start(&mut log, &names[0], 0);
    poll_until(&mut log, |told| ended(told, 0).is_some());
    assert_eq!(committed(&brokers, "commit", "commit", 0), None, "nothing by itself");
    log.commit(&[(names[0].clone(), 30)]);
    let begun = Instant::now();
    while committed(&brokers, "commit", "commit", 0) != Some(30) {
        assert!(begun.elapsed() < PATIENCE);
        poll(&mut log);
    }
    let bounds: Vec<_> = log.bounds(&names).into_iter().map(Result::unwrap).collect();
    assert_eq!((bounds[0].committed, bounds[1].committed), (Some(30), None));
    log.close();
    assert_eq!(committed(&brokers, "commit", "commit", 0), Some(30));
}

#[test]
fn what_is_done_is_committed_before_a_partition_changes_hands() {
    let brokers = broker();
    for (protocol, topic_name) in [(GroupProtocol::Classic, "hand-classic"), (GroupProtocol::Consumer, "hand-consumer")]
    {
        topic(&brokers, topic_name, 2);
        let mut first = consumer(&brokers, topic_name, topic_name, protocol);
        let names = join(&mut first, 2);
        for name in &names {
            start(&mut first, name, 0);
        }
        let mut second = consumer(&brokers, topic_name, topic_name, protocol);
        let begun = Instant::now();
        let (mut done, mut got) = (0, Vec::new());
        let revoked = loop {
            assert!(begun.elapsed() < PATIENCE);
            // Every commit is newer than the last, so that the latest is not yet acknowledged at the revocation.
            done += 1;
            first.commit(&names.iter().map(|name| (name.clone(), done)).collect::<Vec<_>>());
            let told = poll(&mut first);
            if let Some(Told::Revoked(gone)) = told.iter().find(|told| matches!(told, Told::Revoked(_))) {
                break gone.clone();
            }
            got.extend(poll(&mut second));
        };
        assert_eq!(assigned(&got), 0, "taken before it was given back");
        assert_eq!(revoked.len(), 1);
        let partition = revoked[0].partition;
        assert_eq!(committed(&brokers, topic_name, topic_name, partition), Some(done as i64));
        got.extend(poll_until(&mut second, |told| {
            poll(&mut first);
            assigned(told) == 1
        }));
        assert!(got.contains(&Told::Assigned(revoked)));
    }
}

#[test]
fn a_member_that_closes_hands_over_at_once() {
    let brokers = broker();
    topic(&brokers, "leave", 2);
    let mut first = consumer(&brokers, "leave", "leave", GroupProtocol::Classic);
    let names = join(&mut first, 2);
    first.commit(&[(names[0].clone(), 7)]);
    let begun = Instant::now();
    first.close();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(committed(&brokers, "leave", "leave", names[0].partition), Some(7));
    let mut second = consumer(&brokers, "leave", "leave", GroupProtocol::Classic);
    join(&mut second, 2);
    // The session time-out is 6 s: nobody waited for it.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
