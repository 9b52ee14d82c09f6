//! What must be in ClickHouse, computed from the topic itself by other means: apache-avro for the bytes, sorted lists for
//! percentiles, integers for money.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::kind::{Event, Kind, LLM_CALL, Reader};

const HORIZON: i64 = 10_000;
const PATIENCE: Duration = Duration::from_secs(10);

/// One series of one minute.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Series {
    pub count: u64,
    pub sums: Vec<i128>,
    /// In 1e-12 USD.
    pub cost: i128,
    pub unpriced: u64,
    /// How many values each distribution has.
    pub values: Vec<u64>,
}

/// Minute in seconds, then the dimensions.
pub type Name = (i64, Vec<String>);

/// What one event type's tables must hold.
#[derive(Debug)]
pub struct Table {
    pub kind: Kind,
    /// Offsets of its rows, ascending, by partition.
    pub rows: Vec<Vec<u64>>,
    pub series: BTreeMap<Name, Series>,
    /// For each distribution, all values of a minute, sorted.
    pub values: Vec<BTreeMap<i64, Vec<f64>>>,
}

/// What became of the messages of a partition.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Partition {
    pub messages: u64,
    pub duplicates: u64,
    pub dead_letters: u64,
    /// Where a reader stands that has read all.
    pub end: u64,
    /// Offset and hash of every message, ascending.
    pub log: Vec<(u64, u64)>,
}

#[derive(Debug)]
pub struct Truth {
    pub messages: u64,
    pub rows: u64,
    pub duplicates: u64,
    pub dead_letters: u64,
    pub tables: Vec<Table>,
    pub partitions: Vec<Partition>,
    /// Partition and offset of every dead letter, and why.
    pub letters: BTreeMap<(i32, u64), &'static str>,
}

/// Reasons that the truth tells apart; every other is some way of not being what the schema says.
pub const REASONS: [&str; 5] = ["not_framed", "unknown_schema", "missing_time", "in_the_future", "too_old"];
/// The name of all others.
pub const UNREADABLE: &str = "unreadable";

/// One past the last offset of each partition.
pub fn ends(brokers: &str, topic: &str) -> Vec<u64> {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    let end = |partition| consumer.fetch_watermarks(topic, partition as i32, PATIENCE).unwrap().1 as u64;
    (0..metadata.topics()[0].partitions().len()).map(end).collect()
}

/// Reads a whole topic of model calls.
pub fn of(brokers: &str, topic: &str) -> Truth {
    of_kinds(brokers, topic, &[LLM_CALL])
}

/// Reads a whole topic of these event types; messages of all others are of an unknown schema.
pub fn of_kinds(brokers: &str, topic: &str, kinds: &[Kind]) -> Truth {
    let schemas: Vec<_> = kinds.iter().map(|kind| apache_avro::Schema::parse_str(kind.schema).unwrap()).collect();
    let readers: Vec<Reader<'_>> =
        kinds.iter().zip(&schemas).map(|(kind, schema)| Reader::new(*kind, schema)).collect();
    let consumer = consumer(brokers);
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    let partitions = metadata.topics()[0].partitions().len();
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition as i32, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut truth = Truth::new(kinds, partitions);
    // For each partition the offset at which each id stood last.
    let mut seen: Vec<HashMap<(usize, String), i64>> = vec![HashMap::new(); partitions];
    let mut ended = vec![false; partitions];
    let mut heard = Instant::now();
    while ended.contains(&false) {
        assert!(heard.elapsed() < 3 * PATIENCE, "no end: {ended:?}");
        // It may come back empty-handed before its time.
        let Some(polled) = consumer.poll(Duration::from_secs(1)) else { continue };
        heard = Instant::now();
        match polled {
            Ok(message) => truth.message(&message, &readers, &mut seen[message.partition() as usize]),
            Err(KafkaError::PartitionEOF(partition)) => ended[partition as usize] = true,
            Err(error) => panic!("{error}"),
        }
    }
    let position = consumer.position().unwrap();
    for (number, partition) in truth.partitions.iter_mut().enumerate() {
        let element = position.find_partition(topic, number as i32).unwrap();
        partition.end = element.offset().to_raw().and_then(|offset| u64::try_from(offset).ok()).unwrap_or(0);
    }
    for minutes in truth.tables.iter_mut().flat_map(|table| &mut table.values) {
        minutes.values_mut().for_each(|values| values.sort_by(f64::total_cmp));
    }
    truth
}

fn consumer(brokers: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "truth")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap()
}

/// The value at a level: the least that has at least that share at or below it.
pub fn quantile(sorted: &[f64], level: f64) -> f64 {
    let rank = (sorted.len() as f64 * level).ceil().max(1.0) as usize;
    sorted[rank.min(sorted.len()) - 1]
}

/// By which a message is recognised.
pub fn hash(payload: Option<&[u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    payload.hash(&mut hasher);
    hasher.finish()
}

impl Truth {
    fn new(kinds: &[Kind], partitions: usize) -> Truth {
        let table = |kind: &Kind| Table {
            kind: *kind,
            rows: vec![Vec::new(); partitions],
            series: BTreeMap::new(),
            values: vec![BTreeMap::new(); kind.distributions.len()],
        };
        Truth {
            messages: 0,
            rows: 0,
            duplicates: 0,
            dead_letters: 0,
            tables: kinds.iter().map(table).collect(),
            partitions: vec![Partition::default(); partitions],
            letters: BTreeMap::new(),
        }
    }

    fn message(
        &mut self,
        message: &BorrowedMessage<'_>,
        readers: &[Reader<'_>],
        seen: &mut HashMap<(usize, String), i64>,
    ) {
        let (number, offset) = (message.partition(), message.offset());
        let partition = &mut self.partitions[number as usize];
        partition.messages += 1;
        partition.log.push((offset as u64, hash(message.payload())));
        self.messages += 1;
        let judged = decode(message.payload().unwrap_or_default(), readers).and_then(|(at, event)| {
            let before = seen.insert((at, event.id.clone()), offset);
            let age = message.timestamp().to_millis().unwrap() - event.micros.div_euclid(1_000);
            match age {
                ..-600_000 => Err("in_the_future"),
                2_592_000_001.. => Err("too_old"),
                _ => Ok((at, event, before.is_some_and(|before| offset - before <= HORIZON))),
            }
        });
        match judged {
            Err(reason) => {
                self.dead_letters += 1;
                partition.dead_letters += 1;
                self.letters.insert((number, offset as u64), reason);
            }
            Ok((_, _, true)) => {
                self.duplicates += 1;
                partition.duplicates += 1;
            }
            Ok((at, event, false)) => {
                self.rows += 1;
                self.tables[at].rows[number as usize].push(offset as u64);
                self.tables[at].take(event);
            }
        }
    }
}

/// Which kind it is and what it says, or why it can't be read.
fn decode(payload: &[u8], readers: &[Reader<'_>]) -> Result<(usize, Event), &'static str> {
    let framed = payload.strip_prefix(&[0xC3, 0x01]).and_then(|rest| rest.split_at_checked(8));
    let (fingerprint, body) = framed.ok_or("not_framed")?;
    let at = readers.iter().position(|reader| reader.fingerprint == fingerprint).ok_or("unknown_schema")?;
    let event = readers[at].read(body).ok_or(UNREADABLE)?;
    if event.micros > 0 { Ok((at, event)) } else { Err("missing_time") }
}

impl Table {
    fn take(&mut self, event: Event) {
        let minute = event.micros.div_euclid(60_000_000) * 60;
        let (sums, distributions) = (event.sums.len(), event.distributions.len());
        let series = self.series.entry((minute, event.by)).or_insert_with(|| Series {
            sums: vec![0; sums],
            values: vec![0; distributions],
            ..Series::default()
        });
        series.count += 1;
        series.sums.iter_mut().zip(&event.sums).for_each(|(sum, value)| *sum += value);
        match event.cost {
            Some(cost) => series.cost += cost,
            None => series.unpriced += 1,
        }
        for (at, value) in event.distributions.into_iter().enumerate() {
            let values = self.values[at].entry(minute).or_default();
            values.extend(value);
            series.values[at] += u64::from(value.is_some());
        }
    }
}
