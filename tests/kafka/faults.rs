//! Brokers and topics that are away, and what is said about it.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use devstack::Kafka;
use highwater::kafka::settings::SettingsError;
use highwater::kafka::{GroupProtocol, KafkaLog};
use highwater::ports::Log;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;

use crate::support::*;

/// Collects the lines of this thread's log, from INFO up.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let lines = self.clone();
        tracing::subscriber::set_default(
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || lines.clone()).finish(),
        )
    }

    fn take(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_broker_that_is_killed_is_mentioned_once_and_awaited() {
    let kafka = Kafka::options().start().unwrap();
    let brokers = kafka.bootstrap();
    topic(&brokers, "killed", 4);
    fill(&brokers, "killed", 4, 100);
    let lines = Lines::default();
    let _listening = lines.listen();
    for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        let group = format!("{protocol:?}");
        let mut log = consumer(&brokers, "killed", &group, protocol);
        let names = join(&mut log, 4);
        let ends = bounds(&mut log, &names);
        for name in &names {
            start(&mut log, name, 50);
        }
        let told = poll_until(&mut log, |told| (0..4).all(|partition| ended(told, partition).is_some()));
        assert_eq!(offsets(&told, 3).first(), Some(&50));
        assert_eq!(lines.take(), Vec::<String>::new(), "a quiet time");

        kafka.kill().unwrap();
        let told = poll_for(&mut log, Duration::from_secs(8));
        assert!(told.iter().all(|told| !matches!(told, Told::Record(..))), "{told:?}");
        let said = lines.take();
        assert!(said.len() == 1 && said[0].contains("WARN") && said[0].contains(&brokers), "{said:?}");
        let begun = Instant::now();
        assert!(log.bounds(&names).iter().all(Result::is_err));
        assert!(begun.elapsed() < Duration::from_secs(4));

        kafka.restart().unwrap();
        fill(&brokers, "killed", 4, 20);
        // The group may give the partitions anew: what is delivered afterwards goes on without a gap.
        let mut next = [ends[0].end; 4];
        let begun = Instant::now();
        while next.iter().any(|next| *next < ends[0].end + 20) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{next:?}");
            for told in poll(&mut log) {
                match told {
                    Told::Assigned(names) => {
                        for name in names {
                            start(&mut log, &name, next[name.partition as usize]);
                        }
                    }
                    Told::Record(partition, offset, ..) => {
                        assert_eq!(offset, next[partition as usize]);
                        next[partition as usize] += 1;
                    }
                    Told::OutOfRange(name) => panic!("{name}"),
                    Told::Revoked(_) | Told::End(..) => {}
                }
            }
        }
        // The records may all come before the next look at the brokers.
        let (mut said, begun) = (lines.take(), Instant::now());
        let back = |said: &[String]| said.iter().filter(|line| line.contains("is back after")).count();
        while back(&said) == 0 && begun.elapsed() < PATIENCE {
            poll(&mut log);
            said.extend(lines.take());
        }
        assert_eq!(back(&said), 1, "{said:?}");
        assert!(said.len() <= 3, "{said:?}");
        log.close();
        lines.take();
    }
}

#[test]
fn a_consumer_closes_though_its_broker_is_gone_or_frozen() {
    let kafka = Kafka::options().start().unwrap();
    let brokers = kafka.bootstrap();
    topic(&brokers, "closing", 2);
    for frozen in [true, false] {
        let mut log = consumer(&brokers, "closing", "closing", GroupProtocol::Classic);
        let names = join(&mut log, 2);
        start(&mut log, &names[0], 0);
        log.commit(&[(names[0].clone(), 1)]);
        poll(&mut log);
        if frozen {
            kafka.pause().unwrap();
        } else {
            kafka.kill().unwrap();
        }
        let begun = Instant::now();
        log.close();
        let took = begun.elapsed();
        if frozen {
            kafka.resume().unwrap();
        }
        assert!(took < Duration::from_secs(12), "frozen: {frozen}, took {took:?}");
    }
}

#[test]
fn a_topic_that_is_missing_is_named_once_and_awaited() {
    let brokers = broker();
    for (protocol, topic_name) in [(GroupProtocol::Classic, "late-classic"), (GroupProtocol::Consumer, "late-consumer")]
    {
        let lines = Lines::default();
        let _listening = lines.listen();
        let mut log = consumer(&brokers, topic_name, topic_name, protocol);
        assert!(poll_for(&mut log, Duration::from_secs(4)).is_empty());
        let said = lines.take();
        assert!(said.len() == 1 && said[0].contains("WARN") && said[0].contains(topic_name), "{said:?}");
        topic(&brokers, topic_name, 1);
        join(&mut log, 1);
        poll_for(&mut log, Duration::from_secs(2));
        let said = lines.take();
        assert!(said.len() == 1 && said[0].contains("is back"), "{said:?}");
    }
}

const PROTOCOLS: [GroupProtocol; 2] = [GroupProtocol::Classic, GroupProtocol::Consumer];

/// A topic that has been read to its end, with further properties of the consumer, and is deleted then.
fn deleted(name: &str, protocol: GroupProtocol, properties: &[(&str, &str)]) -> KafkaLog {
    let brokers = broker();
    topic(&brokers, name, 4);
    fill(&brokers, name, 4, 10);
    let mut settings = settings_of(&brokers, &[name], name, protocol);
    settings.properties.extend(properties.iter().map(|(key, value)| ((*key).into(), (*value).into())));
    let mut log = KafkaLog::new(&settings).unwrap();
    for name in join(&mut log, 4) {
        start(&mut log, &name, 0);
    }
    poll_until(&mut log, |told| (0..4).all(|partition| ended(told, partition).is_some()));
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
    futures::executor::block_on(admin.delete_topics(&[name], &AdminOptions::new())).unwrap();
    log
}

/// How many lines say that a topic is not there.
fn missing(said: &[String], topic: &str) -> usize {
    let is_one = |line: &&String| line.contains("WARN") && line.contains(topic) && line.contains("is not there");
    said.iter().filter(is_one).count()
}

/// What librdkafka finds in metadata it says neither as a message nor as an error to who takes many messages at once.
#[test]
fn a_topic_that_is_deleted_while_it_is_read_is_named_once() {
    for protocol in PROTOCOLS {
        let name = format!("gone-{protocol:?}");
        let lines = Lines::default();
        let _listening = lines.listen();
        let mut log = deleted(&name, protocol, &[]);
        let (mut said, begun) = (lines.take(), Instant::now());
        while missing(&said, &name) == 0 {
            assert!(begun.elapsed() < PATIENCE, "{protocol:?}: {said:?}");
            poll(&mut log);
            said.extend(lines.take());
        }
        poll_for(&mut log, Duration::from_secs(3));
        said.extend(lines.take());
        // A group may say besides that the partitions are lost.
        assert!(missing(&said, &name) == 1 && said.len() <= 2, "{said:?}");
    }
}

/// librdkafka says so again with each answer about the topic: to ask for one whenever it does would never end.
#[test]
fn a_topic_that_is_deleted_holds_up_nobody() {
    // A topic that is gone is believed to be at once, and the group hears of it late.
    let properties = [("topic.metadata.propagation.max.ms", "0"), ("topic.metadata.refresh.interval.ms", "300000")];
    for protocol in PROTOCOLS {
        let name = format!("held-{protocol:?}");
        let lines = Lines::default();
        let _listening = lines.listen();
        let mut log = deleted(&name, protocol, &properties);
        let (mut said, mut longest, begun) = (lines.take(), Duration::ZERO, Instant::now());
        while begun.elapsed() < Duration::from_secs(6) || missing(&said, &name) == 0 {
            assert!(begun.elapsed() < PATIENCE, "{protocol:?}: {said:?}");
            let polled = Instant::now();
            poll(&mut log);
            longest = longest.max(polled.elapsed());
            said.extend(lines.take());
        }
        println!("{protocol:?}: a poll of 20 ms took {longest:?} at most");
        assert!(longest < Duration::from_secs(2), "{protocol:?}: a poll of 20 ms took {longest:?}");
    }
}

#[test]
fn a_property_that_the_engine_fixes_is_refused() {
    let mut settings = settings_of("127.0.0.1:9", &["events"], "group", GroupProtocol::Classic);
    settings.properties.insert("enable.auto.commit".into(), "true".into());
    let Err(error) = KafkaLog::new(&settings) else {
        panic!("accepted");
    };
    assert_eq!(error, SettingsError::Fixed("enable.auto.commit".into()));
    settings.properties.clear();
    settings.properties.insert("no.such.property".into(), "1".into());
    assert!(
        matches!(KafkaLog::new(&settings), Err(SettingsError::Client(error)) if error.contains("no.such.property"))
    );
}

/// Two topics have partitions of one number, and no broker is there to say which of them has been read to its end.
#[test]
fn ends_are_told_apart_without_asking_anybody() {
    let kafka = Kafka::options().start().unwrap();
    let brokers = kafka.bootstrap();
    let names = ["first", "second"];
    for name in names {
        topic(&brokers, name, 1);
        fill(&brokers, name, 1, 100);
    }
    let mut log = KafkaLog::new(&settings_of(&brokers, &names, "ends", GroupProtocol::Classic)).unwrap();
    for name in join(&mut log, 2) {
        start(&mut log, &name, 0);
    }
    // librdkafka reads all, ends included, in its own thread: what it read is there for us once the log was polled.
    let told = poll_until(&mut log, |told| !told.is_empty());
    std::thread::sleep(Duration::from_secs(3));
    kafka.pause().unwrap();
    let told = [told, poll_for(&mut log, Duration::from_secs(1))].concat();
    kafka.resume().unwrap();
    assert_eq!(offsets(&told, 0).len(), 200, "it was not read before the broker stood still");
    let end = |told: &Told| match told {
        Told::End(name, position) => Some((name.topic.to_string(), *position)),
        _ => None,
    };
    let mut ends: Vec<(String, u64)> = told.iter().filter_map(end).collect();
    ends.sort();
    assert_eq!(ends, [("first".to_owned(), 100), ("second".to_owned(), 100)]);
}
