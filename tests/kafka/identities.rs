//! Who a topic is.

use std::time::Duration;

use highwater::kafka::identity::{IdentityError, topic_identity};
use highwater::kafka::{GroupProtocol, TopicIdentity};
use highwater::ports::{Log, LogError};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;

use crate::support::*;

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap()
}

fn resident_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_topic_made_anew_is_another() {
    let brokers = broker();
    topic(&brokers, "anew", 3);
    let log = consumer(&brokers, "anew", "anew", GroupProtocol::Classic);
    let first: TopicIdentity = log.identity("anew", PATIENCE).unwrap();
    assert_eq!(first.cluster_id, cluster_id());
    assert_eq!((first.topic_id.len(), first.partitions), (22, 3));
    assert_eq!(log.identity("anew", PATIENCE).unwrap(), first);
    drop(log);

    let admin = admin(&brokers);
    futures::executor::block_on(admin.delete_topics(&["anew"], &AdminOptions::new())).unwrap();
    let gone = Err(IdentityError::NotFound("anew".into()));
    until(|| topic_identity(admin.inner(), "anew", PATIENCE) == gone);
    topic(&brokers, "anew", 3);
    let second = topic_identity(admin.inner(), "anew", PATIENCE).unwrap();
    assert_eq!(second.cluster_id, first.cluster_id);
    assert_ne!(second.topic_id, first.topic_id);
}

/// The new log is longer than what was read of the old, so that no position tells them apart.
#[test]
fn a_topic_made_anew_while_it_is_read_is_noticed_and_not_read_on() {
    let brokers = broker();
    topic(&brokers, "anew-live", 1);
    fill(&brokers, "anew-live", 1, 5);
    let log = consumer(&brokers, "anew-live", "anew-live", GroupProtocol::Classic);
    let identity = log.identity("anew-live", PATIENCE).unwrap();
    let mut log = log.claimed([("anew-live".into(), identity)].into());
    let names = join(&mut log, 1);
    start(&mut log, &names[0], 0);
    poll_until(&mut log, |told| ended(told, 0) == Some(5));
    bounds(&mut log, &names);

    futures::executor::block_on(admin(&brokers).delete_topics(&["anew-live"], &AdminOptions::new())).unwrap();
    topic(&brokers, "anew-live", 1);
    fill(&brokers, "anew-live", 1, 50);
    let again = |told: &[Told]| told.iter().any(|told| matches!(told, Told::OutOfRange(_) | Told::Assigned(_)));
    poll_until(&mut log, again);
    let bounds = log.bounds(&names).remove(0);
    assert!(matches!(&bounds, Err(LogError::OtherTopic(why)) if why.contains("anew-live")), "{bounds:?}");
}

#[test]
fn what_does_not_exist_and_who_does_not_answer_are_told_apart() {
    let brokers = broker();
    let admin_client = admin(&brokers);
    for bad in ["no-such-topic", "nul\0inside"] {
        let error = topic_identity(admin_client.inner(), bad, PATIENCE).unwrap_err();
        assert_eq!(error, IdentityError::NotFound(bad.into()));
    }
    let error = topic_identity(admin_client.inner(), "bad name!", PATIENCE).unwrap_err();
    assert!(matches!(error, IdentityError::Refused { .. } | IdentityError::NotFound(_)), "{error}");
    // Nobody listens on the discard port.
    let nobody = admin("127.0.0.1:9");
    let error = topic_identity(nobody.inner(), "events", Duration::from_millis(300)).unwrap_err();
    assert!(matches!(&error, IdentityError::Away { .. }), "{error}");
    assert!(error.to_string().contains("events"), "{error}");
}

#[test]
fn a_thousand_questions_leave_nothing_behind() {
    let brokers = broker();
    topic(&brokers, "thousand", 50);
    let admin = admin(&brokers);
    let ask = |times: usize| {
        for _ in 0..times {
            topic_identity(admin.inner(), "thousand", PATIENCE).unwrap();
            topic_identity(admin.inner(), "no-such-topic", PATIENCE).unwrap_err();
        }
    };
    ask(200);
    let grown = || {
        let before = resident_kilobytes();
        ask(1_000);
        resident_kilobytes().saturating_sub(before)
    };
    // One description of 50 partitions takes about 10 kB: a leak of it would be 10 MB, each time. Once it may be what the
    // tests beside this one took.
    let mut seen = Vec::new();
    let is_bounded =
        std::iter::repeat_with(grown).take(3).inspect(|grown| seen.push(*grown)).any(|grown| grown < 6_000);
    assert!(is_bounded, "grown by {seen:?} kB");
}
