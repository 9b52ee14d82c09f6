//! Brokers and topics that are away, and what is said about it.

use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use devstack::Kafka;
use highwater::kafka::settings::SettingsError;
use highwater::kafka::{GroupProtocol, KafkaLog};
use highwater::ports::{Bounds, Log};
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

/// Polls until the lines said meanwhile are such, and for what more may follow them.
fn hear(log: &mut KafkaLog, lines: &Lines, enough: impl Fn(&[String]) -> bool) -> (Vec<Told>, Vec<String>) {
    let (mut told, mut said, begun) = (Vec::new(), lines.take(), Instant::now());
    while !enough(&said) {
        assert!(begun.elapsed() < PATIENCE, "{said:?}");
        told.extend(poll(log));
        said.extend(lines.take());
    }
    told.extend(poll_for(log, Duration::from_secs(3)));
    said.extend(lines.take());
    (told, said)
}

/// A consumer that has read four partitions from offset 50 to their end, and said nothing, and their bounds. A broker that is
/// late twice is worth a line, but it is not late each time.
fn quietly_read(brokers: &str, protocol: GroupProtocol, lines: &Lines) -> (KafkaLog, Vec<Bounds>) {
    for _ in 0..3 {
        let mut log = consumer(brokers, "killed", &format!("{protocol:?}"), protocol);
        let names = join(&mut log, 4);
        let ends = bounds(&mut log, &names);
        for name in &names {
            start(&mut log, name, 50);
        }
        let told = poll_until(&mut log, |told| (0..4).all(|partition| ended(told, partition).is_some()));
        assert_eq!(offsets(&told, 3).first(), Some(&50));
        let mut said = lines.take();
        let quiet = without_brokers(&mut said);
        assert_eq!(said, Vec::<String>::new());
        if quiet {
            return (log, ends);
        }
        log.close();
        lines.take();
    }
    panic!("no quiet time");
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
        let (mut log, ends) = quietly_read(&brokers, protocol, &lines);
        let names = [0, 1, 2, 3].map(|partition| name("killed", partition));

        kafka.kill().unwrap();
        let (mut told, said) = hear(&mut log, &lines, |said| !said.is_empty());
        assert!(said.len() == 1 && said[0].contains("WARN") && said[0].contains(&brokers), "{said:?}");
        told.extend(poll_for(&mut log, Duration::from_secs(3)));
        assert!(told.iter().all(|told| !matches!(told, Told::Record(..))), "{told:?}");
        assert_eq!(lines.take(), Vec::<String>::new(), "it is said once");
        let soon = mostly(|| {
            let begun = Instant::now();
            assert!(log.bounds(&names).iter().all(Result::is_err));
            begun.elapsed() < Duration::from_secs(4)
        });
        assert!(soon, "a question waits for a broker that is gone");

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
        let back = |said: &[String]| said.iter().filter(|line| line.contains("is back after")).count();
        let (_, said) = hear(&mut log, &lines, |said| back(said) > 0);
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

/// Takes out what is said of the brokers: whether there was nothing. One that is late for others' sake may be mentioned, but
/// not each time.
fn without_brokers(said: &mut Vec<String>) -> bool {
    let all = said.len();
    said.retain(|line| !line.contains("Kafka at "));
    said.len() == all
}

#[test]
fn a_topic_that_is_missing_is_named_once_and_awaited() {
    let brokers = broker();
    for protocol in PROTOCOLS {
        let mut rounds = 0..3;
        let quiet = rounds.any(|round| is_awaited(&brokers, &format!("late-{protocol:?}-{round}"), protocol));
        assert!(quiet, "{protocol:?}: it is the brokers that are said to be away, each time");
    }
}

/// Whether nothing is said but of the topic.
fn is_awaited(brokers: &str, name: &str, protocol: GroupProtocol) -> bool {
    let lines = Lines::default();
    let _listening = lines.listen();
    let mut log = consumer(brokers, name, name, protocol);
    let (told, mut said) = hear(&mut log, &lines, |said| missing(said, name) > 0);
    assert!(told.is_empty(), "{told:?}");
    let mut quiet = without_brokers(&mut said);
    assert!(missing(&said, name) == 1 && said.len() == 1, "{said:?}");
    topic(brokers, name, 1);
    join(&mut log, 1);
    let back = |said: &[String]| said.iter().filter(|line| line.contains(name) && line.contains("is back")).count();
    let (_, mut said) = hear(&mut log, &lines, |said| back(said) > 0);
    quiet &= without_brokers(&mut said);
    assert!(back(&said) == 1 && said.len() == 1, "{said:?}");
    quiet
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
        let mut rounds = 0..3;
        let quiet = rounds.any(|round| {
            let name = format!("gone-{protocol:?}-{round}");
            let lines = Lines::default();
            let _listening = lines.listen();
            let mut log = deleted(&name, protocol, &[]);
            let (_, mut said) = hear(&mut log, &lines, |said| missing(said, &name) > 0);
            let quiet = without_brokers(&mut said);
            // A group may say besides that the partitions are lost.
            assert!(missing(&said, &name) == 1 && said.len() <= 2, "{said:?}");
            quiet
        });
        assert!(quiet, "{protocol:?}: the brokers are said to be away, each time");
    }
}

/// The longest that a thread slept which wanted to sleep 20 ms at a time, while `work` was done: how much of its time this
/// process was not given.
fn stalled_during(work: impl FnOnce()) -> Duration {
    let done = AtomicBool::new(false);
    let stalls = || {
        let mut longest = Duration::ZERO;
        while !done.load(Ordering::Relaxed) {
            let begun = Instant::now();
            std::thread::sleep(Duration::from_millis(20));
            longest = longest.max(begun.elapsed());
        }
        longest
    };
    std::thread::scope(|scope| {
        let control = scope.spawn(stalls);
        // Also if it panics, or the control would be waited for without end.
        let worked = std::panic::catch_unwind(AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        let longest = control.join().unwrap();
        worked.map_or_else(|panic| std::panic::resume_unwind(panic), |()| longest)
    })
}

/// librdkafka says so again with each answer about the topic: to ask for one whenever it does would never end.
#[test]
fn a_topic_that_is_deleted_holds_up_nobody() {
    for protocol in PROTOCOLS {
        let mut rounds = 0..3;
        let goes_on = |round| {
            let (longest, stalled) = longest_poll(&format!("held-{protocol:?}-{round}"), protocol);
            println!("{protocol:?}: a poll of 20 ms took {longest:?} at most, a sleep {stalled:?}");
            let soon = longest < Duration::from_secs(2);
            // The machine's fault, if the control was late too.
            assert!(soon || stalled >= Duration::from_secs(1), "{protocol:?}: a poll of 20 ms took {longest:?}");
            soon
        };
        assert!(rounds.any(goes_on), "{protocol:?}: a poll of 20 ms takes two seconds each time");
    }
}

/// How long one poll takes at most in the seconds after a topic was deleted, and a sleep meanwhile.
fn longest_poll(name: &str, protocol: GroupProtocol) -> (Duration, Duration) {
    // A topic that is gone is believed to be at once, and the group hears of it late.
    let properties = [("topic.metadata.propagation.max.ms", "0"), ("topic.metadata.refresh.interval.ms", "300000")];
    let lines = Lines::default();
    let _listening = lines.listen();
    let mut log = deleted(name, protocol, &properties);
    let (mut said, mut longest, begun) = (lines.take(), Duration::ZERO, Instant::now());
    let stalled = stalled_during(|| {
        while begun.elapsed() < Duration::from_secs(6) || missing(&said, name) == 0 {
            assert!(begun.elapsed() < PATIENCE, "{protocol:?}: {said:?}");
            let polled = Instant::now();
            poll(&mut log);
            longest = longest.max(polled.elapsed());
            said.extend(lines.take());
        }
    });
    (longest, stalled)
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
