//! What must be in ClickHouse, computed from the topic itself by other means: apache-avro for the bytes, sorted lists for
//! percentiles, integers for money.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use apache_avro::types::Value;
use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

const HORIZON: usize = 10_000;
const SCHEMA: &str = include_str!("../../schemas/llm_call.avsc");
const PRICES: &str = include_str!("../../prices.toml");

/// One series of one minute.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Series {
    pub count: u64,
    pub input_tokens: i128,
    pub output_tokens: i128,
    /// In 1e-12 USD.
    pub cost: i128,
    pub unpriced: u64,
}

/// Minute in seconds, then app, model, status.
pub type Name = (i64, String, String, String);

#[derive(Debug, Default)]
pub struct Truth {
    pub messages: u64,
    pub rows: u64,
    pub duplicates: u64,
    pub dead_letters: u64,
    pub series: BTreeMap<Name, Series>,
    /// All values of a minute, sorted.
    pub latencies: BTreeMap<i64, Vec<f64>>,
    pub output_tokens: BTreeMap<i64, Vec<f64>>,
}

/// One past the last offset of each partition.
pub fn ends(brokers: &str, topic: &str) -> Vec<u64> {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
    let end = |partition| consumer.fetch_watermarks(topic, partition as i32, Duration::from_secs(10)).unwrap().1 as u64;
    (0..metadata.topics()[0].partitions().len()).map(end).collect()
}

/// Reads a whole topic.
pub fn of(brokers: &str, topic: &str) -> Truth {
    let mut truth = Truth::default();
    let schema = apache_avro::Schema::parse_str(SCHEMA).unwrap();
    let reader = apache_avro::reader::datum::GenericDatumReader::builder(&schema).build().unwrap();
    let prices = prices();
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "truth")
        .set("isolation.level", "read_committed")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
    let partitions = metadata.topics()[0].partitions().len();
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition as i32, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    // For each partition the offset at which each id stood last.
    let mut seen: Vec<HashMap<String, i64>> = vec![HashMap::new(); partitions];
    let end = |partition: usize| {
        consumer.fetch_watermarks(topic, partition as i32, Duration::from_secs(10)).expect("an end").1
    };
    let ends: Vec<i64> = (0..partitions).map(end).collect();
    let mut positions = vec![0; partitions];
    let mut heard = Instant::now();
    while positions != ends {
        assert!(heard.elapsed() < Duration::from_secs(30), "no end: {positions:?} of {ends:?}");
        // It may come back empty-handed before its time.
        let Some(polled) = consumer.poll(Duration::from_secs(1)) else { continue };
        heard = Instant::now();
        match polled {
            Ok(message) => {
                positions[message.partition() as usize] = message.offset() + 1;
                truth.messages += 1;
                let payload = message.payload().unwrap_or_default();
                let event = decode(&reader, payload).filter(|event| event.micros > 0);
                let Some(event) = event else {
                    truth.dead_letters += 1;
                    continue;
                };
                let age = message.timestamp().to_millis().unwrap() - event.micros / 1_000;
                let (offset, ids) = (message.offset(), &mut seen[message.partition() as usize]);
                let before = ids.insert(event.id.clone(), offset);
                if !(-600_000..=30 * 86_400_000).contains(&age) {
                    truth.dead_letters += 1;
                } else if before.is_some_and(|before| offset - before <= HORIZON as i64) {
                    truth.duplicates += 1;
                } else {
                    truth.take(&event, &prices);
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    for values in truth.latencies.values_mut().chain(truth.output_tokens.values_mut()) {
        values.sort_by(f64::total_cmp);
    }
    truth
}

/// The value at a level: the least that has at least that share at or below it.
pub fn quantile(sorted: &[f64], level: f64) -> f64 {
    let rank = (sorted.len() as f64 * level).ceil().max(1.0) as usize;
    sorted[rank.min(sorted.len()) - 1]
}

struct Event {
    id: String,
    micros: i64,
    app: String,
    model: String,
    status: String,
    /// Input, output, cache read, cache write.
    tokens: [i64; 4],
    latency: Option<f64>,
}

impl Truth {
    fn take(&mut self, event: &Event, prices: &BTreeMap<String, [i128; 4]>) {
        self.rows += 1;
        let minute = event.micros.div_euclid(60_000_000) * 60;
        let name = (minute, event.app.clone(), event.model.clone(), event.status.clone());
        let series = self.series.entry(name).or_default();
        series.count += 1;
        series.input_tokens += i128::from(event.tokens[0]);
        series.output_tokens += i128::from(event.tokens[1]);
        match prices.get(&event.model) {
            Some(price) => {
                series.cost += price.iter().zip(event.tokens).map(|(price, n)| price * i128::from(n)).sum::<i128>()
            }
            None => series.unpriced += 1,
        }
        self.latencies.entry(minute).or_default().extend(event.latency);
        self.output_tokens.entry(minute).or_default().push(event.tokens[1] as f64);
    }
}

fn decode(reader: &apache_avro::reader::datum::GenericDatumReader<'_>, payload: &[u8]) -> Option<Event> {
    // The fingerprint is held against the one in use by the decoder's own tests; a wrong one must not decode here.
    let body = payload.strip_prefix(&[0xC3, 0x01])?;
    let (fingerprint, mut body) = body.split_at_checked(8)?;
    if fingerprint != own_fingerprint() {
        return None;
    }
    let Value::Record(fields) = reader.read_value(&mut body).ok()? else { return None };
    if !body.is_empty() {
        return None;
    }
    let fields: HashMap<String, Value> = fields.into_iter().collect();
    let text = |name: &str| match &fields[name] {
        Value::String(text) | Value::Enum(_, text) => text.clone(),
        Value::Uuid(id) => id.to_string(),
        other => panic!("{name}: {other:?}"),
    };
    let number = |name: &str| match &fields[name] {
        Value::Long(number) => *number,
        Value::Int(number) => i64::from(*number),
        Value::TimestampMicros(micros) => *micros,
        other => panic!("{name}: {other:?}"),
    };
    let latency = match &fields["latency_ms"] {
        Value::Union(_, inner) => match **inner {
            Value::Double(value) => Some(value),
            _ => None,
        },
        other => panic!("latency_ms: {other:?}"),
    };
    Some(Event {
        id: text("event_id"),
        micros: number("occurred_at"),
        app: text("app"),
        model: text("model"),
        status: text("status"),
        tokens: ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"].map(number),
        latency,
    })
}

fn own_fingerprint() -> [u8; 8] {
    static FINGERPRINT: std::sync::OnceLock<[u8; 8]> = std::sync::OnceLock::new();
    *FINGERPRINT.get_or_init(|| {
        let event = highwater::event::EventType::parse("llm_call.avsc", SCHEMA).unwrap();
        event.fingerprint.to_le_bytes()
    })
}

/// Micro-dollars per million tokens (so 1e-12 USD per token) of each model now: input, output, cache read, cache write.
fn prices() -> BTreeMap<String, [i128; 4]> {
    let list: toml::Value = toml::from_str(PRICES).unwrap();
    let mut found = BTreeMap::new();
    for entry in list["price"].as_array().unwrap() {
        let micro = |class: &str| {
            let text = entry.get(class).and_then(toml::Value::as_str).unwrap_or("0");
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            format!("{whole}{fraction:0<6}").parse::<i128>().unwrap()
        };
        let price = ["input", "output", "cache_read", "cache_write"].map(micro);
        let aliases = entry.get("aliases").and_then(toml::Value::as_array).into_iter().flatten();
        for model in std::iter::once(&entry["model"]).chain(aliases) {
            // Later entries of a model are later prices; all of the file's are in force today.
            found.insert(model.as_str().unwrap().to_owned(), price);
        }
    }
    found
}
