//! Types of many values and of other clocks: what arrives is what was sent, and a second migration finds them as wanted.

use std::sync::Arc;

use apache_avro::Schema;
use highwater::clickhouse::{Catalog, ClickHouseStore, Client, Retention};
use highwater::command::migrate::migrate;
use highwater::event::wire;
use highwater::plan::{Limits, Plan, Sources};
use serde::Deserialize;
use tokio::runtime::Handle;

use crate::fixture::{Db, START, batch, endpoint, server, source};

const SCHEMA: &str = r#"{"type": "record", "name": "nested", "doc": "Everything within.", "fields": [
    {"name": "event_id", "type": {"type": "fixed", "name": "Id", "size": 16, "logicalType": "uuid"}, "highwater": {"role": "id"}},
    {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-nanos"}, "highwater": {"role": "time"}},
    {"name": "app", "type": "string", "highwater": {"role": "dimension"}},
    {"name": "environment", "type": "string", "highwater": {"role": "dimension"}},
    {"name": "tags", "type": {"type": "array", "items": "string"}},
    {"name": "numbers", "type": ["null", {"type": "array", "items": ["null", "double"]}]},
    {"name": "colors", "type": {"type": "array", "items": {"type": "enum", "name": "Color", "symbols": ["red", "green"]}}},
    {"name": "counts", "type": {"type": "map", "values": ["null", "long"]}},
    {"name": "marks", "type": {"type": "map", "values": "Color"}},
    {"name": "prices", "type": {"type": "array", "items": {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 2}}},
    {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 3}},
    {"name": "local", "type": {"type": "long", "logicalType": "local-timestamp-millis"}},
    {"name": "noon", "type": {"type": "long", "logicalType": "time-micros"}},
    {"name": "host", "type": ["null", {"type": "record", "name": "Host", "fields": [
        {"name": "name", "type": "string"}, {"name": "color", "type": "Color"},
        {"name": "ips", "type": {"type": "array", "items": "string"}}]}]}]}"#;

fn long(value: i64, out: &mut Vec<u8>) {
    let schema = Schema::parse_str(r#""long""#).unwrap();
    #[allow(deprecated)]
    out.extend(apache_avro::to_avro_datum(&schema, value).unwrap());
}

fn text(value: &[u8], out: &mut Vec<u8>) {
    long(value.len() as i64, out);
    out.extend_from_slice(value);
}

/// Row `n` has `n` items of everything; every third has no host and no numbers.
fn body(n: i64) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend((7u128 << 64 | n as u128).to_be_bytes());
    long(START * 1_000 + n, &mut out);
    text(b"app", &mut out);
    text(b"test", &mut out);
    let block = |out: &mut Vec<u8>, item: &dyn Fn(i64, &mut Vec<u8>)| {
        if n > 0 {
            long(n, out);
            (0..n).for_each(|at| item(at, out));
        }
        long(0, out);
    };
    block(&mut out, &|at, out| text(format!("t{at}").as_bytes(), out));
    long(i64::from(n % 3 != 0), &mut out);
    if n % 3 != 0 {
        block(&mut out, &|at, out| {
            long(at % 2, out);
            if at % 2 == 1 {
                out.extend((at as f64).to_le_bytes());
            }
        });
    }
    block(&mut out, &|at, out| long(at % 2, out));
    block(&mut out, &|at, out| {
        text(format!("k{at}").as_bytes(), out);
        long(at % 2, out);
        if at % 2 == 1 {
            long(-at, out);
        }
    });
    block(&mut out, &|at, out| {
        text(format!("k{at}").as_bytes(), out);
        long(at % 2, out);
    });
    block(&mut out, &|at, out| text(&[at as u8], out));
    out.extend([0, n as u8, 0]);
    long(n * 1_000 + 1, &mut out);
    long(n * 3_600_000_000, &mut out);
    long(i64::from(n % 3 != 0), &mut out);
    if n % 3 != 0 {
        text(b"here", &mut out);
        long(1, &mut out);
        block(&mut out, &|at, out| text(format!("10.0.0.{at}").as_bytes(), out));
    }
    out
}

#[derive(Debug, Deserialize, PartialEq)]
struct Row {
    id: String,
    time: i64,
    tags: Vec<String>,
    numbers: Vec<Option<f64>>,
    colors: Vec<String>,
    counts: Vec<(String, Option<i64>)>,
    marks: Vec<(String, String)>,
    prices: Vec<String>,
    hash: String,
    local: String,
    noon: i64,
    name: Option<String>,
    color: String,
    ips: Vec<String>,
}

fn expected(n: i64) -> Row {
    let each = |count: i64| 0..count;
    let color = |at: i64| if at % 2 == 0 { "red" } else { "green" }.to_owned();
    let odd = |at: i64| at % 2 == 1;
    let hosts = if n % 3 == 0 { 0 } else { n };
    let price = |at: i64| if at == 0 { "0".to_owned() } else { format!("0.{at:02}") };
    Row {
        id: uuid::Uuid::from_u128(7u128 << 64 | n as u128).to_string(),
        time: START * 1_000 + n,
        tags: each(n).map(|at| format!("t{at}")).collect(),
        numbers: each(hosts).map(|at| odd(at).then_some(at as f64)).collect(),
        colors: each(n).map(color).collect(),
        counts: each(n).map(|at| (format!("k{at}"), odd(at).then_some(-at))).collect(),
        marks: each(n).map(|at| (format!("k{at}"), color(at))).collect(),
        prices: each(n).map(price).collect(),
        hash: format!("00{n:02X}00"),
        local: format!("1970-01-01 00:00:{n:02}.001"),
        noon: n * 3_600_000_000,
        name: (n % 3 != 0).then(|| "here".to_owned()),
        color: if n % 3 == 0 { String::new() } else { "green".to_owned() },
        ips: each(hosts).map(|at| format!("10.0.0.{at}")).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_types_come_back_as_they_were_sent() {
    let day = 86_400_000;
    let limits =
        Limits { horizon: 100, max_skew_ms: day, max_age_ms: 100_000 * day, lateness_ms: 60_000, max_series: 1_000 };
    let sources = Sources { schemas: vec![("nested.avsc".into(), SCHEMA.into())], ..Sources::default() };
    let plan = Arc::new(Plan::compile(&sources, limits).unwrap());
    let endpoint = endpoint(server(), "nested_types");
    let client = Client::new(endpoint.clone());
    let catalog = Catalog::new(&plan, &Retention::default(), "nested_types");
    migrate(&client, &catalog, false).await.unwrap();
    assert_eq!(migrate(&client, &catalog, false).await.unwrap(), Vec::<String>::new());
    let store = ClickHouseStore::new(endpoint, plan.clone(), &Handle::current(), Arc::new(()));
    let mut db = Db { client, plan, catalog, store };
    // The first and the last block have no items at all.
    for (from, numbers) in [(0, 0..1), (1, 1..10), (12, 0..1)] {
        let message = |n: i64| {
            let mut out = Vec::new();
            wire::frame(db.plan.types[0].event.fingerprint, &body(n), &mut out);
            (START, out)
        };
        let batch = batch(&db.plan, source(from), 0, &numbers.map(message).collect::<Vec<_>>());
        db.write(&batch);
    }
    let sql = "SELECT toString(event_id) AS id, toUnixTimestamp64Nano(occurred_at) AS time, tags, numbers, \
         arrayMap(c -> toString(c), colors) AS colors, \
         arrayMap(k -> (k, counts[k]), mapKeys(counts)) AS counts, \
         arrayMap(k -> (k, toString(marks[k])), mapKeys(marks)) AS marks, \
         arrayMap(p -> toString(p), prices) AS prices, hex(hash) AS hash, toString(local) AS local, noon, \
         host_name AS name, toString(host_color) AS color, host_ips AS ips \
         FROM nested_types.nested WHERE _source != '1/events/12' ORDER BY occurred_at";
    let rows: Vec<Row> = db.client.rows(sql).await.unwrap();
    assert_eq!(rows.len(), 10);
    for (n, row) in rows.into_iter().enumerate() {
        assert_eq!(row, expected(n as i64));
    }
    assert_eq!(db.number("(SELECT count() FROM nested_types.nested)").await, 11);
}
