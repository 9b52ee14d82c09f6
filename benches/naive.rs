//! The peer: what a competent Rust programmer writes in an afternoon with the usual crates, and no more.
//!
//! rdkafka's stream of messages, the Avro library with a serde struct, the `clickhouse` crate's inserts, and a histogram
//! per minute and series. It commits after it inserts, so a crash costs duplicates; it keeps the minutes in memory until
//! the end, so a crash costs those. Nothing is done here to make it slow: column types, compression and batch size are
//! highwater's.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::{Schema, from_value};
use clickhouse::{Client, Row};
use hdrhistogram::Histogram;
use rdkafka::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::message::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Rows of an insert, and how long it may stay open.
const ROWS: u64 = 100_000;
const PERIOD: Duration = Duration::from_secs(5);

/// An event, as Avro has it and as ClickHouse takes it.
#[derive(Debug, Serialize, Deserialize, Row)]
pub struct Call {
    #[serde(deserialize_with = "parsed", serialize_with = "halves")]
    pub event_id: Uuid,
    pub occurred_at: i64,
    pub app: String,
    pub environment: String,
    pub provider: String,
    pub model: String,
    pub operation: String,
    pub endpoint: String,
    pub status: String,
    pub user_id: Option<String>,
    pub session_id: String,
    pub detail: String,
    pub input_tokens: i64,
    pub cache_read_tokens: i64,
    pub cache_write_tokens: i64,
    pub output_tokens: i64,
    pub latency_ms: f64,
    pub time_to_first_token_ms: Option<f64>,
    pub streamed: bool,
    pub retries: i32,
}

#[derive(Serialize, Row)]
struct Rollup<'a> {
    minute: u32,
    app: &'a str,
    model: &'a str,
    status: &'a str,
    count: u64,
    input_tokens: i64,
    output_tokens: i64,
    latency_sum: f64,
    p50: f64,
    p95: f64,
    p99: f64,
}

struct Totals {
    count: u64,
    input_tokens: i64,
    output_tokens: i64,
    latency_sum: f64,
    /// Latencies in microseconds.
    latency: Histogram<u64>,
}

/// Reads `events` events of a topic, writes them to `calls` and their minutes to `calls_1m`.
pub async fn run(brokers: &str, topic: &str, events: u64, url: &str, schema: &str) -> Result<()> {
    let schema = Schema::parse_str(schema)?;
    let reader = GenericDatumReader::builder(&schema).build()?;
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "naive")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()?;
    consumer.subscribe(&[topic])?;
    let client = Client::default().with_url(url).with_validation(false);
    let mut calls = client.insert::<Call>("calls").await?;
    let (mut rows, mut opened) = (0, Instant::now());
    let mut minutes: HashMap<(u32, String, String, String), Totals> = HashMap::new();
    for _ in 0..events {
        let message = consumer.recv().await?;
        let payload = message.payload().context("a message without a value")?;
        ensure!(payload.len() > 10, "a message of {} bytes", payload.len());
        let call: Call = from_value(&reader.read_value(&mut &payload[10..])?)?;
        add(&mut minutes, &call)?;
        calls.write(&call).await?;
        rows += 1;
        if rows == ROWS || (rows % 1_000 == 0 && opened.elapsed() > PERIOD) {
            calls.end().await?;
            consumer.commit_consumer_state(CommitMode::Async)?;
            calls = client.insert::<Call>("calls").await?;
            (rows, opened) = (0, Instant::now());
        }
    }
    calls.end().await?;
    let mut rollups = client.insert::<Rollup<'_>>("calls_1m").await?;
    for ((minute, app, model, status), totals) in &minutes {
        let percentile = |level| totals.latency.value_at_quantile(level) as f64 / 1_000.0;
        let row = Rollup {
            minute: *minute,
            app,
            model,
            status,
            count: totals.count,
            input_tokens: totals.input_tokens,
            output_tokens: totals.output_tokens,
            latency_sum: totals.latency_sum,
            p50: percentile(0.5),
            p95: percentile(0.95),
            p99: percentile(0.99),
        };
        rollups.write(&row).await?;
    }
    rollups.end().await?;
    Ok(())
}

/// A UUID as the schema has it: text.
fn parsed<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Uuid, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// A UUID as RowBinary has it: two numbers, the high one first.
fn halves<S: Serializer>(id: &Uuid, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    id.as_u64_pair().serialize(serializer)
}

fn add(minutes: &mut HashMap<(u32, String, String, String), Totals>, call: &Call) -> Result<()> {
    let minute = u32::try_from(call.occurred_at / 60_000_000 * 60)?;
    let key = (minute, call.app.clone(), call.model.clone(), call.status.clone());
    let totals = match minutes.entry(key) {
        std::collections::hash_map::Entry::Occupied(totals) => totals.into_mut(),
        std::collections::hash_map::Entry::Vacant(place) => place.insert(Totals {
            count: 0,
            input_tokens: 0,
            output_tokens: 0,
            latency_sum: 0.0,
            latency: Histogram::new(2)?,
        }),
    };
    totals.count += 1;
    totals.input_tokens += call.input_tokens;
    totals.output_tokens += call.output_tokens;
    totals.latency_sum += call.latency_ms;
    totals.latency.record((call.latency_ms * 1_000.0) as u64)?;
    Ok(())
}
