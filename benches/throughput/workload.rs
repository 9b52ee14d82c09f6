//! The events that every system is measured with, and the truth about them.
//!
//! Event `i` is a function of `i` and the workload alone, so that two runs produce the same bytes save the day, and the
//! truth needs no server.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use apache_avro::rabin::Rabin;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::{Schema, from_value};
use serde_json::Value;

pub const SCHEMA: &str = include_str!("bench_call.avsc");
/// Partitions of every topic.
pub const PARTITIONS: u64 = 8;
/// Events of one minute, whatever their number: what series hold does not depend on how long a run is.
const EVENTS_PER_MINUTE: u64 = 100_000;
/// Events come late by up to so many microseconds.
const DISORDER_US: i64 = 4_000_000;
const DAY: u64 = 86_400;

pub const APPS: [&str; 10] =
    ["zest", "sugar", "track-s", "codegen", "helpdesk", "search", "reviews", "intranet", "mobile", "batch-jobs"];
pub const MODELS: [&str; 8] = [
    "model-large-4.1",
    "model-small-4.1",
    "model-mini",
    "model-large-5",
    "model-small-5",
    "embed-3",
    "coder-32b",
    "in-house-7b",
];
pub const STATUSES: [&str; 4] = ["ok", "error", "timeout", "cancelled"];
const ENVIRONMENTS: [&str; 4] = ["production", "production", "staging", "development"];
const PROVIDERS: [&str; 3] = ["anthropic", "openai", "aws.bedrock"];
const OPERATIONS: [&str; 3] = ["chat", "text_completion", "embeddings"];
const ENDPOINTS: [&str; 4] = ["/v1/messages", "/v1/chat/completions", "/v1/embeddings", "/v1/complete"];
const WORDS: [&str; 16] = [
    "request", "answered", "cache", "shard", "token", "stream", "closed", "retry", "after", "client", "region",
    "upstream", "header", "budget", "limit", "window",
];

/// How many events of which length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Workload {
    pub events: u64,
    /// Bytes of the field `detail`, which decides how long an event is.
    pub detail: usize,
    /// When the first event happens, microseconds since 1970.
    pub begin_us: i64,
}

/// One event.
pub struct Event {
    pub event_id: u128,
    pub time_us: i64,
    pub app: usize,
    pub environment: &'static str,
    pub provider: &'static str,
    pub model: usize,
    pub operation: &'static str,
    pub endpoint: &'static str,
    pub status: usize,
    pub user: Option<u32>,
    pub session: u64,
    pub detail: String,
    pub input_tokens: i64,
    pub cache_read_tokens: i64,
    pub cache_write_tokens: i64,
    pub output_tokens: i64,
    /// Eighths of a millisecond, so that sums of them are exact in a double.
    pub latency_eighths: u32,
    pub first_token_eighths: Option<u32>,
    pub streamed: bool,
    pub retries: i32,
}

/// Noon of yesterday, UTC: whole minutes in one month, old enough to be no future anywhere.
pub fn begin_us() -> Result<i64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock stands before 1970")?;
    let noon = Duration::from_secs((now.as_secs() / DAY - 1) * DAY + DAY / 2);
    Ok(i64::try_from(noon.as_micros())?)
}

impl Workload {
    /// Event number `at`.
    pub fn event(&self, at: u64) -> Event {
        let mut rng = fastrand::Rng::with_seed(at.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 20);
        let in_order = self.begin_us + (at * 60_000_000 / EVENTS_PER_MINUTE) as i64;
        let latency_ms = 20.0 * (rng.f64() * 6.0).exp();
        let latency_eighths = (latency_ms * 8.0) as u32;
        let streamed = rng.u8(0..10) < 7;
        let any_id = u128::from(rng.u64(..)) << 64 | u128::from(rng.u64(..));
        Event {
            event_id: any_id & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62,
            time_us: (in_order - rng.i64(0..DISORDER_US)).max(self.begin_us),
            app: rng.usize(0..APPS.len()),
            environment: ENVIRONMENTS[rng.usize(0..ENVIRONMENTS.len())],
            provider: PROVIDERS[rng.usize(0..PROVIDERS.len())],
            model: rng.usize(0..MODELS.len()),
            operation: OPERATIONS[rng.usize(0..OPERATIONS.len())],
            endpoint: ENDPOINTS[rng.usize(0..ENDPOINTS.len())],
            status: if rng.u8(0..100) < 92 { 0 } else { rng.usize(1..STATUSES.len()) },
            user: (rng.u8(0..10) < 8).then(|| rng.u32(0..50_000)),
            session: rng.u64(0..200_000),
            detail: detail(&mut rng, self.detail),
            input_tokens: rng.i64(20..12_000),
            cache_read_tokens: rng.i64(0..40_000),
            cache_write_tokens: rng.i64(0..8_000),
            output_tokens: rng.i64(1..3_000),
            latency_eighths,
            first_token_eighths: streamed.then_some(latency_eighths / 4),
            streamed,
            retries: i32::from(rng.u8(0..50) == 0),
        }
    }
}

/// Words, as messages have them: they compress about as well as text does.
fn detail(rng: &mut fastrand::Rng, length: usize) -> String {
    let mut text = String::with_capacity(length + 16);
    while text.len() < length {
        text.push_str(WORDS[rng.usize(0..WORDS.len())]);
        text.push('-');
        text.push_str(&rng.u16(..).to_string());
        text.push(' ');
    }
    text.truncate(length);
    text
}

impl Event {
    /// `latency_ms` as it is sent.
    pub fn latency_ms(&self) -> f64 {
        f64::from(self.latency_eighths) / 8.0
    }

    fn first_token_ms(&self) -> Option<f64> {
        self.first_token_eighths.map(|eighths| f64::from(eighths) / 8.0)
    }

    fn user_id(&self) -> Option<String> {
        self.user.map(|user| format!("user-{user:06}"))
    }

    fn session_id(&self) -> String {
        format!("session-{:016x}", self.session.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    /// Its Avro datum, behind the header of single-object encoding.
    pub fn avro(&self, fingerprint: Fingerprint, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&[0xc3, 0x01]);
        out.extend_from_slice(&fingerprint);
        text(&hyphenated(self.event_id), out);
        long(self.time_us, out);
        for value in
            [APPS[self.app], self.environment, self.provider, MODELS[self.model], self.operation, self.endpoint]
        {
            text(value, out);
        }
        long(self.status as i64, out);
        match self.user_id() {
            None => long(0, out),
            Some(user) => {
                long(1, out);
                text(&user, out);
            }
        }
        text(&self.session_id(), out);
        text(&self.detail, out);
        for number in [self.input_tokens, self.cache_read_tokens, self.cache_write_tokens, self.output_tokens] {
            long(number, out);
        }
        out.extend_from_slice(&self.latency_ms().to_le_bytes());
        match self.first_token_ms() {
            None => long(0, out),
            Some(time) => {
                long(1, out);
                out.extend_from_slice(&time.to_le_bytes());
            }
        }
        out.push(u8::from(self.streamed));
        long(self.retries.into(), out);
    }

    /// The same as a row of ClickHouse's RowBinary, for the engine that reads no single-object encoding.
    pub fn row_binary(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.event_id.rotate_left(64).to_le_bytes());
        out.extend_from_slice(&self.time_us.to_le_bytes());
        for value in
            [APPS[self.app], self.environment, self.provider, MODELS[self.model], self.operation, self.endpoint]
        {
            short_text(value, out);
        }
        short_text(STATUSES[self.status], out);
        match self.user_id() {
            None => out.push(1),
            Some(user) => {
                out.push(0);
                short_text(&user, out);
            }
        }
        short_text(&self.session_id(), out);
        short_text(&self.detail, out);
        for number in [self.input_tokens, self.cache_read_tokens, self.cache_write_tokens, self.output_tokens] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.latency_ms().to_le_bytes());
        match self.first_token_ms() {
            None => out.push(1),
            Some(time) => {
                out.push(0);
                out.extend_from_slice(&time.to_le_bytes());
            }
        }
        out.push(u8::from(self.streamed));
        out.extend_from_slice(&self.retries.to_le_bytes());
    }
}

pub fn hyphenated(id: u128) -> String {
    let digits = format!("{id:032x}");
    format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
}

fn varuint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn long(value: i64, out: &mut Vec<u8>) {
    varuint((value << 1 ^ value >> 63) as u64, out);
}

pub fn text(value: &str, out: &mut Vec<u8>) {
    long(value.len() as i64, out);
    out.extend_from_slice(value.as_bytes());
}

fn short_text(value: &str, out: &mut Vec<u8>) {
    varuint(value.len() as u64, out);
    out.extend_from_slice(value.as_bytes());
}

/// What names the schema in the header of each message: CRC-64-AVRO of its canonical form, least byte first.
pub type Fingerprint = [u8; 8];
/// Length of that header.
pub const HEADER: usize = 10;

/// The schema's fingerprint, after the Avro library has read the first messages as they were meant.
pub fn fingerprint(workload: &Workload) -> Result<Fingerprint> {
    let schema = Schema::parse_str(SCHEMA)?;
    // The library keeps more of a logical type in the canonical form than Avro says, so it is given none.
    let plain = Schema::parse(&without_logical_types(serde_json::from_str(SCHEMA)?))?;
    let fingerprint: Fingerprint = plain.fingerprint::<Rabin>().bytes.as_slice().try_into()?;
    let reader = GenericDatumReader::builder(&schema).build()?;
    let mut bytes = Vec::new();
    for at in 0..workload.events.min(1_000) {
        let meant = workload.event(at);
        meant.avro(fingerprint, &mut bytes);
        let read: crate::naive::Call = from_value(&reader.read_value(&mut &bytes[HEADER..])?)?;
        let same = (read.latency_ms, read.output_tokens, read.retries, read.session_id.as_str())
            == (meant.latency_ms(), meant.output_tokens, meant.retries, meant.session_id().as_str());
        ensure!(same, "the Avro library reads event {at} of the workload as {read:?}");
    }
    Ok(fingerprint)
}

pub fn without_logical_types(json: Value) -> Value {
    match json {
        Value::Object(mut map) if map.contains_key("logicalType") => map.remove("type").unwrap_or_default(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, without_logical_types(value))).collect(),
        Value::Array(items) => items.into_iter().map(without_logical_types).collect(),
        other => other,
    }
}

/// A minute and the dimensions of the rollup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// Seconds since 1970.
    pub minute: u32,
    pub app: &'static str,
    pub model: &'static str,
    pub status: &'static str,
}

/// What a series adds up to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    pub count: u64,
    pub input_tokens: i64,
    pub output_tokens: i64,
    /// Latencies, eighths of a millisecond.
    pub latencies: Vec<u32>,
}

impl Totals {
    pub fn latency_sum(&self) -> f64 {
        self.latencies.iter().map(|&eighths| f64::from(eighths) / 8.0).sum()
    }
}

/// What is true of all events.
#[derive(Debug, Default)]
pub struct Truth {
    pub events: u64,
    /// Bytes of all messages.
    pub bytes: u64,
    pub series: BTreeMap<Series, Totals>,
}

impl Truth {
    pub fn add(&mut self, event: &Event, bytes: usize) {
        self.events += 1;
        self.bytes += bytes as u64;
        let minute = event.time_us.div_euclid(60_000_000) as u32 * 60;
        let (app, model, status) = (APPS[event.app], MODELS[event.model], STATUSES[event.status]);
        let totals = self.series.entry(Series { minute, app, model, status }).or_default();
        totals.count += 1;
        totals.input_tokens += event.input_tokens;
        totals.output_tokens += event.output_tokens;
        totals.latencies.push(event.latency_eighths);
    }

    /// Puts latencies in order, for percentiles.
    pub fn finish(&mut self) {
        self.series.values_mut().for_each(|totals| totals.latencies.sort_unstable());
    }
}
