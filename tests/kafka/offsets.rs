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
    let bounds = bounds(&mut log, &names);
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

#[test]
fn who_leaves_before_its_last_writes_is_succeeded_at_once_and_commits_what_it_wrote_if_nobody_came() {
    let brokers = broker();
    for (protocol, topic_name) in [(GroupProtocol::Classic, "last-classic"), (GroupProtocol::Consumer, "last-consumer")]
    {
        topic(&brokers, topic_name, 4);
        fill(&brokers, topic_name, 4, 50);
        let mut first = consumer(&brokers, topic_name, topic_name, protocol);
        for name in join(&mut first, 4) {
            start(&mut first, &name, 0);
        }
        let mut second = consumer(&brokers, topic_name, topic_name, protocol);
        let mut got = poll_until(&mut second, |told| {
            poll(&mut first);
            assigned(told) == 2
        });
        let begun = Instant::now();
        first.leave();
        got.extend(poll_until(&mut second, |told| assigned(told) == 2));
        assert!(begun.elapsed() < Duration::from_secs(5), "it waited for a session time-out: {:?}", begun.elapsed());
        let mut names: Vec<_> =
            got.iter().flat_map(|told| if let Told::Assigned(names) = told { names.clone() } else { vec![] }).collect();
        names.sort();
        assert_eq!(names, [0, 1, 2, 3].map(|number| name(topic_name, number)));

        // The partitions are another's now, and so are their commits.
        start(&mut second, &names[0], 40);
        second.commit(&[(names[0].clone(), 45)]);
        poll_until(&mut second, |_| committed(&brokers, topic_name, topic_name, 0) == Some(45));
        first.commit(&[(names[0].clone(), 30)]);
        first.close();
        assert_eq!(committed(&brokers, topic_name, topic_name, 0), Some(45));

        // Nobody is left: what is written last is committed all the same.
        second.leave();
        second.commit(&[(names[0].clone(), 50)]);
        second.close();
        assert_eq!(committed(&brokers, topic_name, topic_name, 0), Some(50));
    }
}
