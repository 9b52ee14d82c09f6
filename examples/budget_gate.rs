//! A service that stops by itself when a budget is spent: it reads how budgets stand from their compacted topic, keeps the
//! last word on each, and asks itself before each request whether it may go on.
//!
//! ```text
//! cargo run --example budget_gate -- localhost:9092 highwater-budgets highwater-alerts open
//! app=zest
//! allowed
//! app=zest
//! denied: 50.01 of 50 of llm_daily_spend is spent until 2026-11-21T00:00:00Z
//! ```
//!
//! It needs nothing of highwater but the schemas in `published/`. What it does is what any such service has to do:
//!
//! - read the whole topic before the first answer: the last record of each key is how that budget stands;
//! - `isolation.level=read_committed`: what is not committed may be taken back;
//! - ask for the period too: a state whose period is over says nothing;
//! - choose what to do while nobody says how budgets stand (`open` or `closed`): the heartbeats on the topic of alerts are
//!   the sign of life, for a budget that is not spent from is silent.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a terminal")]

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use apache_avro::Schema;
use apache_avro::rabin::Rabin;
use apache_avro::reader::datum::GenericDatumReader;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde::Deserialize;

/// How old the last heartbeat may be: some times `alerts.heartbeat`, which is 30 s.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What is done while nobody says how budgets stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fail {
    /// Requests go on: to stop is worse than to spend.
    Open,
    /// Requests stop: to spend is worse.
    Closed,
}

/// Whether a request may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It may.
    Allowed,
    /// It may not: a budget is spent.
    Denied(String),
    /// Nobody says how budgets stand, for this reason; the gate's choice is in it.
    Blind(Fail, String),
}

impl Answer {
    /// What a service acts by.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Answer::Allowed | Answer::Blind(Fail::Open, _))
    }
}

/// How a budget stands: some of the fields of `published/budget_state.avsc`; times are in milliseconds since 1970.
#[derive(Debug, Clone, Deserialize)]
struct State {
    budget: String,
    dimensions: BTreeMap<String, String>,
    period_start: i64,
    period_end: i64,
    amount: String,
    spent: String,
    state: String,
}

/// Of `published/heartbeat.avsc`.
#[derive(Debug, Clone, Deserialize)]
struct Heartbeat {
    sent_at: i64,
}

/// The table of budgets, and when it was last heard that somebody keeps it.
pub struct Gate {
    fail: Fail,
    states: BTreeMap<Vec<u8>, State>,
    heard: Option<i64>,
    /// Whether the topics were read to their ends.
    is_ready: bool,
    schemas: [Schema; 2],
}

impl Gate {
    /// A gate that knows nothing yet.
    ///
    /// # Errors
    /// The schemas can't be read.
    pub fn new(fail: Fail) -> Result<Gate, String> {
        let schema = |text: &str| Schema::parse_str(text).map_err(|error| error.to_string());
        let schemas = [
            schema(include_str!("../published/budget_state.avsc"))?,
            schema(include_str!("../published/heartbeat.avsc"))?,
        ];
        Ok(Gate { fail, states: BTreeMap::new(), heard: None, is_ready: false, schemas })
    }

    /// Takes a record of either topic in. One that is neither a budget's state nor a heartbeat is none of ours.
    pub fn take(&mut self, key: &[u8], payload: Option<&[u8]>) {
        let Some(payload) = payload else {
            // Whoever deletes a key takes back what was said under it.
            self.states.remove(key);
            return;
        };
        if let Some(state) = read::<State>(&self.schemas[0], payload) {
            self.states.insert(key.to_vec(), state);
        } else if let Some(heartbeat) = read::<Heartbeat>(&self.schemas[1], payload) {
            self.heard = Some(heartbeat.sent_at);
        }
    }

    /// All that was in the topics is known.
    pub fn ready(&mut self) {
        self.is_ready = true;
    }

    /// Whether a request of these dimensions may go on at a time, in milliseconds since 1970.
    pub fn ask(&self, request: &BTreeMap<String, String>, now_ms: i64) -> Answer {
        if !self.is_ready {
            return Answer::Blind(self.fail, "the topics are not read yet".to_owned());
        }
        // What is spent stays spent until the period is over, whoever is silent.
        let is_about = |state: &&State| state.dimensions.iter().all(|(name, value)| request.get(name) == Some(value));
        let is_now = |state: &&State| (state.period_start..state.period_end).contains(&now_ms);
        let mut spent = self.states.values().filter(|state| state.state == "stop").filter(is_about).filter(is_now);
        if let Some(State { budget, amount, spent, period_end, .. }) = spent.next() {
            let until = jiff::Timestamp::from_millisecond(*period_end).map(|end| end.to_string()).unwrap_or_default();
            return Answer::Denied(format!("{spent} of {amount} of {budget} is spent until {until}"));
        }
        match self.heard.map(|heard| now_ms - heard) {
            Some(age) if age <= PATIENCE.as_millis() as i64 => Answer::Allowed,
            Some(age) => Answer::Blind(self.fail, format!("the last heartbeat is {} s old", age / 1_000)),
            None => Answer::Blind(self.fail, "there was never a heartbeat".to_owned()),
        }
    }
}

/// A datum in single-object encoding: two marks, the schema's fingerprint, the datum. `None`: of another schema.
fn read<T: serde::de::DeserializeOwned>(schema: &Schema, payload: &[u8]) -> Option<T> {
    let fingerprint = schema.fingerprint::<Rabin>().bytes;
    let mut body = payload.strip_prefix(&[0xC3, 0x01])?.strip_prefix(&fingerprint[..])?;
    let value = GenericDatumReader::builder(schema).build().ok()?.read_value(&mut body).ok()?;
    apache_avro::from_value(&value).ok()
}

/// Reads both topics from their begins for as long as `go_on` says, and tells the gate.
///
/// # Errors
/// librdkafka refuses the settings. Brokers that are away are waited for; the gate tells by the heartbeats.
pub fn follow(
    brokers: &str,
    topics: [&str; 2],
    gate: &Mutex<Gate>,
    go_on: impl Fn() -> bool,
) -> Result<(), KafkaError> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "budget-gate")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        .create()?;
    let mut list = TopicPartitionList::new();
    for topic in topics {
        list.add_partition_offset(topic, 0, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let mut ends = 0;
    while go_on() {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => {
                let mut gate = gate.lock().unwrap_or_else(PoisonError::into_inner);
                gate.take(record.key().unwrap_or_default(), record.payload());
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {
                ends += 1;
                if ends == topics.len() {
                    gate.lock().unwrap_or_else(PoisonError::into_inner).ready();
                }
            }
            Some(Err(error)) => eprintln!("Kafka: {error}"),
            None => {}
        }
    }
    Ok(())
}

#[allow(dead_code, reason = "tests run what is above")]
fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, budgets, alerts, fail] = &arguments[..] else {
        return Err("give brokers, the topic of budgets, the topic of alerts, and open or closed".to_owned());
    };
    let fail = match fail.as_str() {
        "open" => Fail::Open,
        "closed" => Fail::Closed,
        other => return Err(format!("{other:?} is neither open nor closed")),
    };
    let gate = Arc::new(Mutex::new(Gate::new(fail)?));
    let (kept, brokers, budgets, alerts) = (Arc::clone(&gate), brokers.clone(), budgets.clone(), alerts.clone());
    std::thread::spawn(move || {
        if let Err(error) = follow(&brokers, [&budgets, &alerts], &kept, || true) {
            eprintln!("Kafka: {error}");
        }
    });
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let pairs = line.split(',').filter_map(|pair| pair.split_once('='));
        let request = pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let answer = gate.lock().unwrap_or_else(PoisonError::into_inner).ask(&request, now.as_millis() as i64);
        match &answer {
            Answer::Allowed => println!("allowed"),
            Answer::Denied(why) => println!("denied: {why}"),
            Answer::Blind(fail, why) => {
                println!("{}: {why}, failing {fail:?}", if answer.is_allowed() { "allowed" } else { "denied" })
            }
        }
    }
    Ok(())
}
