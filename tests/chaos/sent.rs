//! What a producer knows of its messages, and whether the log agrees.

use std::collections::HashSet;
use std::sync::Mutex;

use rdkafka::ClientContext;
use rdkafka::Message as _;
use rdkafka::producer::{DeliveryResult, ProducerContext};

use crate::shared::truth::Truth;

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Committed,
    Aborted,
    /// The producer gave up on it: it may be there or not.
    Unknown,
}

struct Message {
    partition: i32,
    hash: u64,
    /// Where the broker says that it is.
    acknowledged: Option<u64>,
    transaction: Option<usize>,
}

/// All that one producer has sent.
#[derive(Default)]
pub struct Sent {
    messages: Vec<Message>,
    transactions: Vec<Option<End>>,
    /// Whether a transaction is open.
    open: bool,
}

/// The broker's answers, as librdkafka's callbacks bring them: a message's number and its offset.
#[derive(Default)]
pub struct Deliveries(Mutex<Vec<(usize, u64)>>);

impl ClientContext for Deliveries {
    // What goes wrong on the way is what this is about; what it costs is checked in the end.
    fn log(&self, _level: rdkafka::config::RDKafkaLogLevel, _facility: &str, _line: &str) {}

    fn error(&self, _error: rdkafka::error::KafkaError, _reason: &str) {}
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, serial: usize) {
        if let Ok(message) = result {
            self.0.lock().unwrap().push((serial, message.offset() as u64));
        }
    }
}

/// What producers know, all together.
#[derive(Debug, Default)]
pub struct Summary {
    pub acknowledged: u64,
    pub committed: u64,
    pub aborted: u64,
    pub unknown: u64,
    /// Where the log says otherwise.
    pub wrong: Vec<String>,
}

impl Sent {
    /// The number of one more message.
    pub fn add(&mut self, partition: i32, hash: u64) -> usize {
        let transaction = self.open.then(|| self.transactions.len() - 1);
        self.messages.push(Message { partition, hash, acknowledged: None, transaction });
        self.messages.len() - 1
    }

    pub fn begin(&mut self) {
        self.transactions.push(None);
        self.open = true;
    }

    pub fn end(&mut self, end: End) {
        *self.transactions.last_mut().unwrap() = Some(end);
        self.open = false;
    }

    /// Takes in the broker's answers.
    pub fn delivered(&mut self, deliveries: &Deliveries) {
        for (serial, offset) in deliveries.0.lock().unwrap().drain(..) {
            self.messages[serial].acknowledged = Some(offset);
        }
    }

    fn end_of(&self, message: &Message) -> End {
        message.transaction.map_or(End::Committed, |at| self.transactions[at].unwrap_or(End::Unknown))
    }
}

/// Holds what all producers know against the log.
pub fn check(all: &[Sent], truth: &Truth) -> Summary {
    let mut summary = Summary::default();
    let mut hashes = HashSet::new();
    for sent in all {
        for end in sent.transactions.iter().map(|end| end.unwrap_or(End::Unknown)) {
            *match end {
                End::Committed => &mut summary.committed,
                End::Aborted => &mut summary.aborted,
                End::Unknown => &mut summary.unknown,
            } += 1;
        }
        for message in &sent.messages {
            hashes.insert(message.hash);
            let Some(offset) = message.acknowledged else { continue };
            summary.acknowledged += 1;
            let log = &truth.partitions[message.partition as usize].log;
            let found = log.binary_search_by_key(&offset, |(offset, _)| *offset).ok().map(|at| log[at].1);
            let place = format!("{}/{offset}", message.partition);
            match (sent.end_of(message), found) {
                (End::Committed, found) if found != Some(message.hash) => {
                    summary.wrong.push(format!("the log does not have what was acknowledged at {place}"));
                }
                (End::Aborted, Some(_)) => summary.wrong.push(format!("a reader sees what was aborted at {place}")),
                _ => {}
            }
        }
    }
    for (number, partition) in truth.partitions.iter().enumerate() {
        let strange = partition.log.iter().filter(|(_, hash)| !hashes.contains(hash)).count();
        if strange > 0 {
            summary.wrong.push(format!("{strange} messages of partition {number} were sent by nobody"));
        }
    }
    summary
}
