//! A service that stops by itself when one of its budgets is spent: it reads how budgets stand from their compacted topic,
//! keeps the last word on each, and asks itself before each request whether it may go on.
//!
//! ```text
//! cargo run --example budget_gate -- localhost:9092 highwater-budgets highwater-alerts open llm_daily_spend
//! app=zest
//! allowed
//! app=zest
//! denied: 50.01 of 50 of llm_daily_spend is spent until 2026-11-21T00:00:00Z
//! ```
//!
//! It needs nothing of highwater but the schemas in `published/`. What it does is what any such service has to do:
//!
//! - read both topics whole before the first answer: the last record of each key is how that budget stands;
//! - `isolation.level=read_committed`: what is not committed may be taken back;
//! - ask for the period too: a state whose period is over says nothing;
//! - know the names of the budgets that it enforces: one that was never judged has no record;
//! - a record that can't be read takes the place of the one before: how that budget stands is not known any more;
//! - hold what is spent against the amount: the levels of a budget may have any names;
//! - choose what to do while nobody says how budgets stand (`open` or `closed`): the heartbeats on the topic of alerts are
//!   the sign of life, for a budget that is not spent from is silent. They say too how far was judged, and what was not.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a terminal")]

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
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

/// How far judging may be behind the clock: what was spent since is not seen yet.
pub const BEHIND: Duration = Duration::from_secs(600);

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
}

impl State {
    /// Whether all is spent, or more; `None`: it has no such numbers.
    fn is_spent(&self) -> Option<bool> {
        Some(compare(&self.spent, &self.amount)? != Ordering::Less)
    }
}

/// Of `published/heartbeat.avsc`.
#[derive(Debug, Clone, Deserialize)]
struct Heartbeat {
    sent_at: i64,
    judged: i64,
    unjudged: Vec<String>,
}

/// The table of budgets, and when it was last heard that somebody keeps it.
pub struct Gate {
    fail: Fail,
    /// The names of the budgets that it enforces.
    budgets: BTreeSet<String>,
    states: BTreeMap<Vec<u8>, State>,
    /// Keys whose last record can't be read.
    unreadable: BTreeSet<Vec<u8>>,
    heartbeat: Option<Heartbeat>,
    /// Which topics were read to their ends.
    ends: BTreeSet<usize>,
    schemas: [Schema; 2],
}

impl Gate {
    /// A gate of some budgets that knows nothing yet.
    ///
    /// # Errors
    /// The schemas can't be read.
    pub fn new<'a>(fail: Fail, budgets: impl IntoIterator<Item = &'a str>) -> Result<Gate, String> {
        let budgets = budgets.into_iter().map(str::to_owned).collect();
        let schema = |text: &str| Schema::parse_str(text).map_err(|error| error.to_string());
        let schemas = [
            schema(include_str!("../published/budget_state.avsc"))?,
            schema(include_str!("../published/heartbeat.avsc"))?,
        ];
        let (states, unreadable, ends) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Ok(Gate { fail, budgets, states, unreadable, heartbeat: None, ends, schemas })
    }

    /// Takes a record of the topic of budgets in.
    pub fn take_state(&mut self, key: &[u8], payload: Option<&[u8]>) {
        self.unreadable.remove(key);
        match payload.map(|payload| read::<State>(&self.schemas[0], payload)) {
            Some(Some(state)) => drop(self.states.insert(key.to_vec(), state)),
            // What was spent before stays spent.
            Some(None) => drop(self.unreadable.insert(key.to_vec())),
            // Whoever deletes a key takes back what was said under it.
            None => drop(self.states.remove(key)),
        }
    }

    /// Takes a record of the topic of alerts in. One that is no heartbeat is none of ours.
    pub fn take_heartbeat(&mut self, payload: Option<&[u8]>) {
        let heartbeat = payload.and_then(|payload| read::<Heartbeat>(&self.schemas[1], payload));
        self.heartbeat = heartbeat.or(self.heartbeat.take());
    }

    /// All that was in a topic is known: 0 is that of budgets, 1 that of alerts. It may be told of one many times.
    pub fn at_end(&mut self, topic: usize) {
        self.ends.insert(topic);
    }

    /// Whether a request of these dimensions may go on at a time, in milliseconds since 1970.
    pub fn ask(&self, request: &BTreeMap<String, String>, now_ms: i64) -> Answer {
        let blind = |why: String| Answer::Blind(self.fail, why);
        if ![0, 1].iter().all(|topic| self.ends.contains(topic)) {
            return blind("the topics are not read yet".to_owned());
        }
        // What is spent stays spent until the period is over, whoever is silent.
        let is_about = |state: &&State| self.is_about(state, request);
        let is_now = |state: &&State| (state.period_start..state.period_end).contains(&now_ms);
        let mut odd = None;
        for state in self.states.values().filter(is_about).filter(is_now) {
            let State { budget, amount, spent, period_end, .. } = state;
            match state.is_spent() {
                Some(true) => {
                    let until =
                        jiff::Timestamp::from_millisecond(*period_end).map(|end| end.to_string()).unwrap_or_default();
                    return Answer::Denied(format!("{spent} of {amount} of {budget} is spent until {until}"));
                }
                Some(false) => {}
                None => odd = Some(format!("{spent:?} of {amount:?} of {budget} are no numbers")),
            }
        }
        match odd.or_else(|| self.unknown(request, now_ms)) {
            None => Answer::Allowed,
            Some(why) => blind(why),
        }
    }

    /// Whether a state is that of a budget of ours and of the series of a request.
    fn is_about(&self, state: &State, request: &BTreeMap<String, String>) -> bool {
        let is_series = state.dimensions.iter().all(|(name, value)| request.get(name) == Some(value));
        is_series && self.budgets.contains(&state.budget)
    }

    /// Why nobody says how the budgets of a request stand; `None`: it is known.
    fn unknown(&self, request: &BTreeMap<String, String>, now_ms: i64) -> Option<String> {
        let Some(Heartbeat { sent_at, judged, unjudged }) = &self.heartbeat else {
            return Some("there was never a heartbeat".to_owned());
        };
        let (age, behind) = (now_ms - sent_at, now_ms - judged);
        if age > PATIENCE.as_millis() as i64 {
            return Some(format!("the last heartbeat is {} s old", age / 1_000));
        }
        if behind > BEHIND.as_millis() as i64 {
            return Some(format!("nothing was judged for {} s", behind / 1_000));
        }
        // Whose key was never read may be about any request.
        let is_ours = |key: &&Vec<u8>| self.states.get(*key).is_none_or(|state| self.is_about(state, request));
        if let Some(key) = self.unreadable.iter().find(is_ours) {
            return Some(format!("the last record of {} can't be read", String::from_utf8_lossy(key)));
        }
        // Of any series: one that nobody has spent from yet has no record. Nor has a budget that was never judged, and nobody
        // knows what it is by.
        let concerns = |budget: &&String| {
            let state = self.states.values().find(|state| state.budget == **budget);
            state.is_none_or(|state| state.dimensions.keys().all(|name| request.contains_key(name)))
        };
        let budget = self.budgets.iter().filter(|budget| unjudged.contains(budget)).find(concerns)?;
        Some(format!("{budget} was not judged the last time"))
    }
}

/// Exact decimals, as texts: digits with or without a point and a sign. `None`: one is no such number.
fn compare(one: &str, other: &str) -> Option<Ordering> {
    /// Whether it is below 0, the digits before the point without zeros in front, and those behind without zeros at the end.
    fn parts(text: &str) -> Option<(bool, &str, &str)> {
        let (is_negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let parts = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        (is_number(whole) && is_number(fraction)).then_some((is_negative && parts != ("", ""), parts.0, parts.1))
    }
    let ((one_below, whole, fraction), (other_below, other_whole, other_fraction)) = (parts(one)?, parts(other)?);
    // Fractions compare as texts do.
    let magnitude = (whole.len(), whole, fraction).cmp(&(other_whole.len(), other_whole, other_fraction));
    Some(match (one_below, other_below) {
        (false, false) => magnitude,
        (true, true) => magnitude.reverse(),
        (is_below, _) => {
            if is_below {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
    })
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
    // One for each topic: an end that is reached has no name, and may be told of many times.
    let consumers: Vec<BaseConsumer> = topics.iter().map(|topic| reading(brokers, topic)).collect::<Result<_, _>>()?;
    while go_on() {
        for (topic, consumer) in consumers.iter().enumerate() {
            while let Some(heard) = consumer.poll(Duration::from_millis(20)) {
                let mut gate = gate.lock().unwrap_or_else(PoisonError::into_inner);
                match heard {
                    Ok(record) if topic == 0 => gate.take_state(record.key().unwrap_or_default(), record.payload()),
                    Ok(record) => gate.take_heartbeat(record.payload()),
                    Err(KafkaError::PartitionEOF(_)) => gate.at_end(topic),
                    Err(error) => eprintln!("Kafka: {error}"),
                }
                if !go_on() {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// A consumer of a topic's only partition, from its begin.
fn reading(brokers: &str, topic: &str) -> Result<BaseConsumer, KafkaError> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "budget-gate")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        .create()?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&list)?;
    Ok(consumer)
}

#[allow(dead_code, reason = "tests run what is above")]
fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, budgets, alerts, fail, names @ ..] = &arguments[..] else {
        return Err(
            "give brokers, the topics of budgets and of alerts, open or closed, and names of budgets".to_owned()
        );
    };
    if names.is_empty() {
        return Err("name the budgets that are to be enforced".to_owned());
    }
    let fail = match fail.as_str() {
        "open" => Fail::Open,
        "closed" => Fail::Closed,
        other => return Err(format!("{other:?} is neither open nor closed")),
    };
    let gate = Arc::new(Mutex::new(Gate::new(fail, names.iter().map(String::as_str))?));
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
