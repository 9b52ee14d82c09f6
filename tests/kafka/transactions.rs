//! Records that appear together or not at all, and the producer that shuts out the one before.

use highwater::kafka::producer::Outgoing;
use highwater::kafka::{ConsumerSettings, GroupProtocol, TransactionError, Transactions, read_to_end};

use crate::support::{broker, settings_of, topic};

fn settings(name: &str) -> ConsumerSettings {
    settings_of(&broker(), &[name], "transactions", GroupProtocol::Classic)
}

fn open(settings: &ConsumerSettings, id: &str) -> Transactions {
    Transactions::open(settings, id, &|| false).unwrap()
}

fn record<'a>(topic: &'a str, key: &'a [u8], payload: Option<&'a [u8]>) -> Outgoing<'a> {
    Outgoing { topic, partition: Some(0), timestamp_ms: None, key: Some(key), payload }
}

/// Publishes texts, each under itself as its key.
fn publish(producer: &mut Transactions, topic: &str, texts: &[&str]) -> Result<(), TransactionError> {
    let records: Vec<_> = texts.iter().map(|text| record(topic, text.as_bytes(), Some(text.as_bytes()))).collect();
    producer.publish(&records, || {}, &|| false)
}

/// What a subscriber sees.
fn read(settings: &ConsumerSettings, topic: &str) -> Vec<Option<String>> {
    let mut found = Vec::new();
    let count = read_to_end(settings, topic, &|| false, |_, payload| {
        found.push(payload.map(|payload| String::from_utf8(payload.to_vec()).unwrap()));
        Ok(())
    });
    assert_eq!(count.unwrap(), found.len() as u64);
    found
}

fn texts(of: &[&str]) -> Vec<Option<String>> {
    of.iter().map(|text| Some((*text).to_owned())).collect()
}

#[test]
fn the_next_producer_shuts_out_the_one_before_and_what_that_had_not_committed() {
    let name = "transactions-fence";
    topic(&broker(), name, 1);
    let settings = settings(name);
    assert_eq!(read(&settings, name), []);
    let mut first = open(&settings, "fence");
    publish(&mut first, name, &["a", "b"]).unwrap();
    assert_eq!(read(&settings, name), texts(&["a", "b"]));

    // The first sleeps with all of its records in the log, and wakes up when there is a second.
    let mut second = None;
    let take_over = || second = Some(open(&settings, "fence"));
    let outcome = first.publish(&[record(name, b"c", Some(b"c")), record(name, b"d", None)], take_over, &|| false);
    assert_eq!(outcome, Err(TransactionError::Fenced("fence".to_owned())));
    assert_eq!(read(&settings, name), texts(&["a", "b"]), "what was not committed is seen");
    publish(second.as_mut().unwrap(), name, &["e"]).unwrap();
    assert_eq!(publish(&mut first, name, &["f"]).map_err(|error| error.to_string().contains("fence")), Err(true));
    assert_eq!(read(&settings, name), texts(&["a", "b", "e"]));

    // Others are no concern of its.
    let mut other = open(&settings, "other");
    publish(&mut other, name, &["g"]).unwrap();
    publish(second.as_mut().unwrap(), name, &["h"]).unwrap();
    assert_eq!(read(&settings, name), texts(&["a", "b", "e", "g", "h"]));
}

#[test]
fn a_record_that_is_refused_undoes_its_transaction() {
    let name = "transactions-refused";
    topic(&broker(), name, 1);
    let settings = settings(name);
    let mut producer = open(&settings, "refused");
    let large = vec![b'x'; 2_000_000];
    let records = [record(name, b"a", Some(b"a")), record(name, b"b", Some(&large))];
    let error = producer.publish(&records, || panic!("all was sent"), &|| false).unwrap_err().to_string();
    assert!(error.contains("refused can't send a record"), "{error}");
    let mut next = open(&settings, "refused");
    publish(&mut next, name, &["c"]).unwrap();
    assert_eq!(read(&settings, name), texts(&["c"]));
}

#[test]
fn what_cannot_be_understood_or_reached_is_told() {
    let name = "transactions-read";
    topic(&broker(), name, 1);
    let settings = settings(name);
    publish(&mut open(&settings, "read"), name, &["a", "b"]).unwrap();
    let refuse = |offset, _: Option<&[u8]>| if offset == 1 { Err("not mine".to_owned()) } else { Ok(()) };
    let error = read_to_end(&settings, name, &|| false, refuse).unwrap_err().to_string();
    assert!(error.contains("transactions-read: offset 1: not mine"), "{error}");
    let away = ConsumerSettings { brokers: "127.0.0.1:1".to_owned(), ..settings.clone() };
    assert!(read_to_end(&away, name, &|| true, |_, _| Ok(())).is_err());
    let error = Transactions::open(&away, "read", &|| true).err().unwrap().to_string();
    assert!(error.contains("the transactional producer read can't begin"), "{error}");
    // librdkafka looks at what it is told only when it begins.
    let mut wrong = settings;
    wrong.properties.insert("compression.level".to_owned(), "much".to_owned());
    let error = Transactions::open(&wrong, "read", &|| true).err().unwrap().to_string();
    assert!(error.contains("can't be made"), "{error}");
}
