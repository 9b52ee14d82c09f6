//! Where delivery starts, and what it skips.

use std::time::{Duration, Instant};

use highwater::kafka::{GroupProtocol, KafkaLog};
use highwater::ports::{Log, LogError, LogEvent, TopicPartition};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::support::*;

#[test]
fn each_partition_is_delivered_from_where_it_was_started() {
    let brokers = broker();
    for (protocol, topic_name) in
        [(GroupProtocol::Classic, "middle-classic"), (GroupProtocol::Consumer, "middle-consumer")]
    {
        topic(&brokers, topic_name, 16);
        fill(&brokers, topic_name, 16, 500);
        let mut log = consumer(&brokers, topic_name, topic_name, protocol);
        join(&mut log, 16);
        assert!(poll_for(&mut log, Duration::from_millis(700)).is_empty(), "silent before the start");
        // Partition 15 is never started.
        for partition in 0..15 {
            start(&mut log, &name(topic_name, partition), partition as u64 * 31);
        }
        let told = poll_until(&mut log, |told| (0..15).all(|partition| ended(told, partition) == Some(500)));
        for partition in 0..15 {
            let expected: Vec<u64> = (partition as u64 * 31..500).collect();
            assert_eq!(offsets(&told, partition), expected, "partition {partition}");
        }
        assert!(offsets(&told, 15).is_empty());
        assert!(told.iter().all(|told| match told {
            Told::Record(_, offset, time, payload) => {
                *time == 1_700_000_000_000 + *offset as i64 && payload.as_deref() == Some(&offset.to_be_bytes())
            }
            _ => true,
        }));
    }
}

#[test]
fn a_partition_started_again_forgets_what_was_on_its_way() {
    let brokers = broker();
    topic(&brokers, "again", 8);
    fill(&brokers, "again", 8, 2_000);
    let mut log = consumer(&brokers, "again", "again", GroupProtocol::Classic);
    join(&mut log, 8);
    let mut random = fastrand::Rng::with_seed(7);
    let mut expected: Vec<u64> = vec![0; 8];
    for partition in 0..8 {
        start(&mut log, &name("again", partition), 0);
    }
    let mut seen = 0_usize;
    for _ in 0..400 {
        let partition = random.i32(0..8);
        match random.u8(0..4) {
            0 => log.pause(&name("again", partition)),
            // A second resume must not rewind either.
            1 => log.resume(&name("again", partition)),
            2 => {
                let to = random.u64(0..2_000);
                start(&mut log, &name("again", partition), to);
                expected[partition as usize] = to;
            }
            _ => {}
        }
        log.poll(Duration::from_millis(random.u64(0..6)), &mut |event| {
            if let LogEvent::Record(record) = event {
                let next = &mut expected[record.partition as usize];
                assert_eq!(record.offset, *next, "partition {}", record.partition);
                *next += 1;
                seen += 1;
            }
        });
    }
    assert!(seen > 10_000, "only {seen} records came");
    for partition in 0..8 {
        log.resume(&name("again", partition));
    }
    let begun = Instant::now();
    while expected.iter().any(|next| *next < 2_000) {
        assert!(begun.elapsed() < PATIENCE, "{expected:?}");
        log.poll(Duration::from_millis(20), &mut |event| {
            if let LogEvent::Record(record) = event {
                let next = &mut expected[record.partition as usize];
                assert_eq!(record.offset, *next, "partition {}", record.partition);
                *next += 1;
            }
        });
    }
}

/// At its end librdkafka takes a partition to be one record farther than it is. Once with records that come while it is
/// paused, once with records that come afterwards.
#[test]
fn a_partition_paused_at_its_end_goes_on_with_the_next_record() {
    let brokers = broker();
    topic(&brokers, "paused", 2);
    let names = [name("paused", 0), name("paused", 1)];
    let mut log = consumer(&brokers, "paused", "paused", GroupProtocol::Classic);
    join(&mut log, 2);
    names.iter().for_each(|name| start(&mut log, name, 0));
    let mut filled = 0;
    let ends = |told: &[Told], at: u64| (0..2).all(|partition| ended(told, partition) == Some(at));
    let mut told = poll_until(&mut log, |told| ends(told, 0));
    for early in [true, false, true, false] {
        names.iter().for_each(|name| log.pause(name));
        // Long enough for librdkafka to note where it paused.
        told.extend(poll_for(&mut log, Duration::from_millis(200)));
        if early {
            fill(&brokers, "paused", 2, 3);
        }
        names.iter().for_each(|name| log.resume(name));
        told.extend(poll_for(&mut log, Duration::from_millis(700)));
        if !early {
            fill(&brokers, "paused", 2, 3);
        }
        filled += 3;
        let begun = Instant::now();
        while !ends(&told, filled) {
            assert!(begun.elapsed() < PATIENCE, "{told:?}");
            told.extend(poll(&mut log));
        }
    }
    for (partition, name) in names.iter().enumerate() {
        assert_eq!(offsets(&told, partition as i32), (0..filled).collect::<Vec<_>>(), "partition {partition}");
        assert!(!told.contains(&Told::OutOfRange(name.clone())));
    }
}

#[test]
fn aborted_transactions_are_skipped_and_the_end_counts_their_markers() {
    let brokers = broker();
    topic(&brokers, "transactions", 1);
    let mut producer = ClientConfig::new();
    let producer: BaseProducer =
        producer.set("bootstrap.servers", &brokers).set("transactional.id", "transactions").create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    let transaction = |payloads: std::ops::Range<u64>| {
        producer.begin_transaction().unwrap();
        for number in payloads {
            let payload = number.to_be_bytes();
            let record = BaseRecord::<[u8], [u8]>::to("transactions").payload(&payload);
            producer.send(record).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    };
    // Offsets: 0..10 and a marker, 11..16 aborted and a marker, 17..20 and a marker, 21..24 open.
    transaction(0..10);
    producer.commit_transaction(PATIENCE).unwrap();
    transaction(100..105);
    producer.abort_transaction(PATIENCE).unwrap();
    transaction(10..13);
    producer.commit_transaction(PATIENCE).unwrap();
    transaction(200..203);

    let mut log = consumer(&brokers, "transactions", "transactions", GroupProtocol::Classic);
    let names = join(&mut log, 1);
    let bounds = bounds(&mut log, &names)[0];
    assert_eq!((bounds.start, bounds.committed), (0, None));
    start(&mut log, &names[0], 4);
    let told = poll_until(&mut log, |told| ended(told, 0).is_some());
    let expected: Vec<u64> = (4..10).chain(17..20).collect();
    assert_eq!(offsets(&told, 0), expected);
    // Neither the open transaction nor a position before the last marker.
    assert_eq!(ended(&told, 0), Some(21));
    assert_eq!(bounds.end, 21, "the end that can be read, not the open transaction's");
    assert_eq!(high_watermarks(&mut log, &names), [24], "the open transaction's records are there, if unreadable");

    producer.abort_transaction(PATIENCE).unwrap();
    let told = poll_until(&mut log, |told| ended(told, 0) == Some(25));
    assert!(offsets(&told, 0).is_empty());
    assert_eq!(high_watermarks(&mut log, &names), [25], "quiet: it ends where reading ended");
}

/// Asked until the client has found its broker.
fn high_watermarks(log: &mut KafkaLog, names: &[TopicPartition]) -> Vec<u64> {
    let begun = std::time::Instant::now();
    loop {
        match log.high_watermarks(names).into_iter().collect() {
            Ok(ends) => return ends,
            Err::<_, LogError>(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
    }
}

#[test]
fn two_topics_tell_their_ends_apart() {
    let brokers = broker();
    topic(&brokers, "ends-a", 1);
    topic(&brokers, "ends-b", 1);
    fill(&brokers, "ends-a", 1, 5);
    fill(&brokers, "ends-b", 1, 9);
    let settings = settings_of(&brokers, &["ends-a", "ends-b"], "ends", GroupProtocol::Classic);
    let mut log = KafkaLog::new(&settings).unwrap();
    join(&mut log, 2);
    start(&mut log, &name("ends-a", 0), 0);
    start(&mut log, &name("ends-b", 0), 0);
    let wanted = [(name("ends-a", 0), 5), (name("ends-b", 0), 9)];
    let told =
        poll_until(&mut log, |told| wanted.iter().all(|(name, end)| told.contains(&Told::End(name.clone(), *end))));
    assert!(told.iter().all(|told| match told {
        Told::End(name, end) => wanted.contains(&(name.clone(), *end)),
        _ => true,
    }));
}

#[test]
fn a_position_outside_the_log_is_told_and_can_be_corrected() {
    let brokers = broker();
    topic(&brokers, "range", 4);
    fill(&brokers, "range", 4, 100);
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
    let mut before = TopicPartitionList::new();
    before.add_partition_offset("range", 1, Offset::Offset(40)).unwrap();
    let options = AdminOptions::new();
    futures::executor::block_on(admin.delete_records(&before, &options)).unwrap();

    let mut log = consumer(&brokers, "range", "range", GroupProtocol::Classic);
    let mut names = join(&mut log, 4);
    names.sort();
    let bounds = bounds(&mut log, &names);
    assert_eq!(bounds.iter().map(|bounds| bounds.start).collect::<Vec<_>>(), [0, 40, 0, 0]);
    assert!(bounds.iter().all(|bounds| bounds.end == 100));
    // Too early, too late, and two that are right; one of them at the very end.
    for (name, offset) in names.iter().zip([10, 10, 500, 100]) {
        start(&mut log, name, offset);
    }
    let told = poll_until(&mut log, |told| {
        ended(told, 0).is_some()
            && told.contains(&Told::OutOfRange(names[1].clone()))
            && told.contains(&Told::OutOfRange(names[2].clone()))
    });
    assert_eq!(offsets(&told, 0), (10..100).collect::<Vec<_>>());
    assert!(offsets(&told, 1).is_empty() && offsets(&told, 2).is_empty());
    assert!(!told.contains(&Told::OutOfRange(names[0].clone())));
    assert!(!told.contains(&Told::OutOfRange(names[3].clone())));

    start(&mut log, &names[1], 40);
    start(&mut log, &names[2], 95);
    let told = poll_until(&mut log, |told| ended(told, 1).is_some() && ended(told, 2).is_some());
    assert_eq!(offsets(&told, 1), (40..100).collect::<Vec<_>>());
    assert_eq!(offsets(&told, 2), (95..100).collect::<Vec<_>>());
}

/// What librdkafka stops reading it stops in its own time, and takes back where the partition's messages go.
#[test]
fn partitions_that_stop_and_start_at_once_deliver_every_time() {
    let brokers = broker();
    topic(&brokers, "restarts", 32);
    fill(&brokers, "restarts", 32, 5);
    let mut log = consumer(&brokers, "restarts", "restarts", GroupProtocol::Classic);
    let names = join(&mut log, 32);
    for round in 0..10 {
        names.iter().for_each(|name| start(&mut log, name, 1_000));
        poll_until(&mut log, |told| names.iter().all(|name| told.contains(&Told::OutOfRange(name.clone()))));
        names.iter().for_each(|name| start(&mut log, name, 2));
        let told = poll_until(&mut log, |told| (0..32).all(|partition| ended(told, partition) == Some(5)));
        (0..32).for_each(|partition| assert_eq!(offsets(&told, partition), [2, 3, 4], "round {round}, {partition}"));
    }
}
