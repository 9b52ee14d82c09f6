//! What subscribers get: `published/alert.avsc` and `published/budget_state.avsc`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::rabin::Rabin;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::history::{Before, Publication, State};
use super::period::Minute;
use super::record::{FORMER, SCHEMAS};
use super::rule::Kind;
use super::verdict::{Baseline, Reading};
use crate::event::wire;

/// A change of what holds of an alert. What its fields mean, the schema says; times are in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Message {
    pub alert_id: String,
    pub sequence: i64,
    pub rule: String,
    pub kind: String,
    pub severity: String,
    pub state: String,
    pub previous: String,
    pub provisional: bool,
    pub corrected: bool,
    pub corrects: Vec<i64>,
    pub at: i64,
    pub since: i64,
    pub dimensions: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub summary: String,
    pub metric: String,
    pub unit: String,
    pub value: Option<f64>,
    pub threshold: f64,
    pub readings: Vec<MessageReading>,
    pub baseline: Option<MessageBaseline>,
    pub budget: Option<MessageBudget>,
    pub forecast: Option<i64>,
    pub complete_through: i64,
    pub late: i64,
    pub lag_ms: i64,
    pub rule_text: String,
    pub rule_hash: String,
}

/// A window that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct MessageReading {
    pub name: String,
    pub from: i64,
    pub to: i64,
    pub numerator: f64,
    pub denominator: f64,
    pub samples: i64,
    pub value: Option<f64>,
    pub bound: Option<f64>,
}

/// What earlier weeks were like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct MessageBaseline {
    pub values: Vec<f64>,
    pub median: f64,
    pub deviation: f64,
}

/// How a budget stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct MessageBudget {
    pub period_start: i64,
    pub period_end: i64,
    pub amount: String,
    pub spent: String,
    pub percent: String,
    pub overshoot: String,
}

/// What a budget stands at, for a compacted topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct BudgetState {
    pub key: String,
    pub budget: String,
    pub dimensions: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub period_start: i64,
    pub period_end: i64,
    pub amount: String,
    pub spent: String,
    pub percent: String,
    pub overshoot: String,
    pub state: String,
    pub forecast: Option<i64>,
    pub unpriced: i64,
    pub complete_through: i64,
}

/// The schema of [`Message`].
pub const ALERT_SCHEMA: &str = include_str!("../../published/alert.avsc");
/// The schema of [`BudgetState`].
pub const BUDGET_STATE_SCHEMA: &str = include_str!("../../published/budget_state.avsc");

/// How complete the data was when it was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Completeness {
    /// Before this time no event is expected any more, in milliseconds since 1970.
    pub through_ms: i64,
    /// The clock.
    pub now_ms: i64,
    /// Events that came later than that all the same, of late, by the ledger.
    pub late: i64,
}

/// Milliseconds since 1970 of a minute's begin.
pub(super) fn millis(minute: Minute) -> i64 {
    minute * 60_000
}

/// The minute that begins at a time.
pub(super) fn minute(millis: i64) -> Minute {
    millis.div_euclid(60_000)
}

/// Names an alert: a hash of the rule's name, the series' dimensions, and of budgets the begin of the period.
pub fn alert_id(rule: &str, dimensions: &BTreeMap<String, String>, period: Option<Minute>) -> Uuid {
    // JSON keeps apart what a plain concatenation would mix up. A tuple of texts and numbers has no way to fail.
    let name = serde_json::to_string(&(rule, dimensions, period)).unwrap_or_default();
    Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("highwater:alert:{name}").as_bytes())
}

/// A message could not be encoded or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a message is not as published/{schema}.avsc has it: {what}")]
pub struct MessageError {
    schema: &'static str,
    what: String,
}

/// A schema, parsed, with its name and fingerprint.
pub(super) struct Wire {
    name: &'static str,
    parsed: Result<(Schema, u64), String>,
}

impl Wire {
    fn new(name: &'static str, json: &str) -> Wire {
        let parsed = Schema::parse_str(json).map_err(|error| error.to_string());
        let parsed = parsed.map(|schema| {
            let fingerprint = schema.fingerprint::<Rabin>().bytes;
            (schema, fingerprint.try_into().map_or(0, u64::from_le_bytes))
        });
        Wire { name, parsed }
    }

    fn failed(&self, what: impl ToString) -> MessageError {
        MessageError { schema: self.name, what: what.to_string() }
    }

    fn schema(&self) -> Result<&(Schema, u64), MessageError> {
        self.parsed.as_ref().map_err(|error| self.failed(error))
    }

    /// The fingerprint of the schema.
    pub(super) fn fingerprint(&self) -> Result<u64, MessageError> {
        self.schema().map(|(_, fingerprint)| *fingerprint)
    }

    /// A message without a frame.
    pub(super) fn datum(&self, message: &impl Serialize) -> Result<Vec<u8>, MessageError> {
        let (schema, _) = self.schema()?;
        let datum = || {
            let value = apache_avro::to_value(message)?.resolve(schema)?;
            GenericDatumWriter::builder(schema).build()?.write_value_to_vec(value)
        };
        datum().map_err(|error| self.failed(error))
    }

    /// The single-object encoding: a mark, the fingerprint, the datum.
    fn encode(&self, message: &impl Serialize) -> Result<Vec<u8>, MessageError> {
        let datum = self.datum(message)?;
        let mut out = Vec::with_capacity(datum.len() + 10);
        wire::frame(self.fingerprint()?, &datum, &mut out);
        Ok(out)
    }

    /// What a message without its frame says.
    pub(super) fn read<T: serde::de::DeserializeOwned>(&self, mut body: &[u8]) -> Result<T, MessageError> {
        let (schema, _) = self.schema()?;
        let mut read = || {
            let value = GenericDatumReader::builder(schema).build()?.read_value(&mut body)?;
            apache_avro::from_value(&value)
        };
        read().map_err(|error| self.failed(error))
    }

    /// The same of what was written with another schema of that name.
    pub(super) fn read_as<T: serde::de::DeserializeOwned>(
        &self,
        writer: &Wire,
        mut body: &[u8],
    ) -> Result<T, MessageError> {
        let ((reads, _), (wrote, _)) = (self.schema()?, writer.schema()?);
        let mut read = || {
            let reader = GenericDatumReader::builder(wrote).reader_schema(reads).build()?;
            apache_avro::from_value(&reader.read_value(&mut body)?)
        };
        read().map_err(|error| self.failed(error))
    }

    fn decode<T: serde::de::DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, MessageError> {
        let mut header = Vec::new();
        wire::frame(self.fingerprint()?, &[], &mut header);
        let Some(body) = bytes.strip_prefix(&header[..]) else {
            return Err(self.failed("it does not begin with the fingerprint of that schema"));
        };
        self.read(body)
    }
}

impl MessageError {
    /// Of what none of our schemas describes.
    pub(super) fn foreign(what: String) -> MessageError {
        MessageError { schema: "*", what }
    }
}

static WIRES: LazyLock<[Wire; 4]> = LazyLock::new(|| SCHEMAS.map(|(name, json)| Wire::new(name, json)));

static FORMERS: LazyLock<[Wire; FORMER.len()]> = LazyLock::new(|| FORMER.map(|(name, json)| Wire::new(name, json)));

/// The schema at a place in [`FORMER`].
pub(super) fn former(position: usize) -> &'static Wire {
    &FORMERS[position]
}

/// The schema at a place in [`SCHEMAS`].
pub(super) fn wire_of(position: usize) -> &'static Wire {
    &WIRES[position]
}

impl Message {
    /// In Avro's single-object encoding, with the fingerprint of the schema.
    ///
    /// # Errors
    /// It is not as the schema has it; no message that this room makes is so.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        wire_of(0).encode(self)
    }

    /// What was encoded with the same schema.
    ///
    /// # Errors
    /// It is something else.
    pub fn decode(bytes: &[u8]) -> Result<Message, MessageError> {
        wire_of(0).decode(bytes)
    }

    /// What it says without its evidence; `None` where it is not a message of this room.
    pub fn publication(&self) -> Option<Publication> {
        let state = match self.state.as_str() {
            "firing" => State::Firing,
            "resolved" => State::Resolved,
            "withdrawn" => State::Withdrawn,
            _ => return None,
        };
        let before = match self.previous.as_str() {
            "inactive" => Before::Inactive,
            "pending" => Before::Pending,
            "firing" => Before::Firing,
            "resolved" => Before::Resolved,
            _ => return None,
        };
        let sequence = u64::try_from(self.sequence).ok()?;
        let corrects = self.corrects.iter().filter_map(|sequence| u64::try_from(*sequence).ok()).collect();
        let (at, since, is_correction) = (minute(self.at), minute(self.since), self.corrected);
        Some(Publication { sequence, state, before, at, since, corrects, is_correction })
    }
}

impl BudgetState {
    /// In Avro's single-object encoding, with the fingerprint of the schema.
    ///
    /// # Errors
    /// It is not as the schema has it; no state that this room makes is so.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        wire_of(1).encode(self)
    }
}

impl From<&Reading> for MessageReading {
    fn from(reading: &Reading) -> MessageReading {
        MessageReading {
            name: reading.name.to_owned(),
            from: millis(reading.from),
            to: millis(reading.to),
            numerator: reading.numerator,
            denominator: reading.denominator,
            samples: i64::try_from(reading.samples).unwrap_or(i64::MAX),
            value: reading.value,
            bound: reading.bound,
        }
    }
}

impl From<&Baseline> for MessageBaseline {
    fn from(baseline: &Baseline) -> MessageBaseline {
        MessageBaseline { values: baseline.values.clone(), median: baseline.median, deviation: baseline.deviation }
    }
}

impl State {
    /// As messages write it.
    pub fn name(self) -> &'static str {
        match self {
            State::Firing => "firing",
            State::Resolved => "resolved",
            State::Withdrawn => "withdrawn",
        }
    }
}

impl Before {
    /// As messages write it.
    pub fn name(self) -> &'static str {
        match self {
            Before::Inactive => "inactive",
            Before::Pending => "pending",
            Before::Firing => "firing",
            Before::Resolved => "resolved",
        }
    }
}

/// What all messages have: everything but what was found.
pub(super) struct Envelope<'a> {
    pub(super) notice: &'a super::rule::Notice,
    pub(super) kind: Kind,
    pub(super) severity: &'a str,
    pub(super) dimensions: BTreeMap<String, String>,
    pub(super) period: Option<Minute>,
    pub(super) completeness: Completeness,
}

impl Envelope<'_> {
    /// A message without evidence.
    pub(super) fn message(self, publication: &Publication) -> Message {
        let id = alert_id(&self.notice.name, &self.dimensions, self.period);
        Message {
            alert_id: id.to_string(),
            sequence: i64::try_from(publication.sequence).unwrap_or(i64::MAX),
            rule: self.notice.name.clone(),
            kind: self.kind.name().to_owned(),
            severity: self.severity.to_owned(),
            state: publication.state.name().to_owned(),
            previous: publication.before.name().to_owned(),
            provisional: false,
            corrected: publication.is_correction,
            corrects: publication.corrects.iter().map(|sequence| *sequence as i64).collect(),
            at: millis(publication.at),
            since: millis(publication.since),
            dimensions: self.dimensions,
            labels: self.notice.labels.clone(),
            summary: String::new(),
            metric: self.notice.metric.clone(),
            unit: self.notice.unit.clone(),
            value: None,
            threshold: 0.0,
            readings: Vec::new(),
            baseline: None,
            budget: None,
            forecast: None,
            complete_through: self.completeness.through_ms,
            late: self.completeness.late,
            lag_ms: (self.completeness.now_ms - self.completeness.through_ms).max(0),
            rule_text: self.notice.text.clone(),
            rule_hash: self.notice.hash.clone(),
        }
    }
}
