//! A server for all tests, a database for each, and events of every type.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use apache_avro::Schema;
use apache_avro::types::Value;
use devstack::ClickHouse;
use highwater::batch::{Batch, Block, Key, LedgerKind, LedgerRow, Progress, Source, Window};
use highwater::clickhouse::{Catalog, ClickHouseStore, Client, Endpoint, Retention};
use highwater::command::migrate::migrate;
use highwater::event::wire;
use highwater::plan::{Limits, Plan, Sources};
use highwater::ports::{Answer, Insert, Marks, Question, Record, Rows, Store, StoreError};
use highwater::writers::{Opened, Writers};
use tokio::runtime::Handle;

/// 2026-01-31 23:59:00 UTC, so that events a minute apart fall into two months.
pub const START: i64 = 1_769_903_940_000_000;
pub const MINUTE: i64 = 60_000_000;

pub fn server() -> &'static ClickHouse {
    static SERVER: OnceLock<ClickHouse> = OnceLock::new();
    SERVER.get_or_init(|| ClickHouse::options().start().unwrap())
}

/// Every type that a field can have; `extra` is more fields.
pub fn probe(extra: &str) -> String {
    format!(
        r#"{{"type": "record", "name": "probe", "doc": "A row of everything; it's `quoted`.", "fields": [
        {{"name": "event_id", "type": {{"type": "string", "logicalType": "uuid"}}, "highwater": {{"role": "id"}}}},
        {{"name": "occurred_at", "type": {{"type": "long", "logicalType": "timestamp-micros"}}, "highwater": {{"role": "time"}}}},
        {{"name": "app", "type": "string", "highwater": {{"role": "dimension"}}}},
        {{"name": "environment", "type": "string", "highwater": {{"role": "dimension"}}}},
        {{"name": "region", "type": ["null", "string"], "highwater": {{"role": "dimension"}}}},
        {{"name": "kind", "type": {{"type": "enum", "name": "kind_t", "symbols": ["low", "high"]}}, "highwater": {{"role": "dimension"}}}},
        {{"name": "flag", "type": "boolean"}},
        {{"name": "small", "type": ["null", "int"], "highwater": {{"role": "measure"}}}},
        {{"name": "large", "type": "long", "highwater": {{"role": "measure"}}}},
        {{"name": "single", "type": ["null", "float"], "highwater": {{"role": "measure"}}}},
        {{"name": "real", "type": "double", "highwater": {{"role": "measure", "unit": "ms"}}}},
        {{"name": "money", "type": ["null", {{"type": "bytes", "logicalType": "decimal", "precision": 28, "scale": 4}}], "highwater": {{"role": "measure"}}}},
        {{"name": "text", "type": ["null", "string"]}},
        {{"name": "blob", "type": "bytes"}},
        {{"name": "day", "type": {{"type": "int", "logicalType": "date"}}}},
        {{"name": "seen", "type": ["null", {{"type": "long", "logicalType": "timestamp-millis"}}]}}{extra}
        ]}}"#
    )
}

/// An event with a textual id.
const VISIT: &str = r#"{"type": "record", "name": "visit", "doc": "", "fields": [
    {"name": "event_id", "type": "string", "highwater": {"role": "id"}},
    {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "highwater": {"role": "time"}},
    {"name": "app", "type": "string", "highwater": {"role": "dimension"}},
    {"name": "environment", "type": "string", "highwater": {"role": "dimension"}}]}"#;

pub fn pack(sums: &str, by: &str) -> String {
    format!(
        "[[rollup]]\nevent = \"probe\"\nby = [{by}]\nsum = [{sums}]\ndistribution = [\"real\", \"small\", \"single\"]\n"
    )
}

pub const SUMS: &str = r#""small", "large", "single", "real", "money""#;
pub const BY: &str = r#""app", "region", "kind""#;

pub fn plan_of(extra: &str, sums: &str, by: &str) -> Plan {
    plan_with(extra, &pack(sums, by))
}

pub fn plan_with(extra: &str, pack: &str) -> Plan {
    let day = 86_400_000;
    let limits =
        Limits { horizon: 100, max_skew_ms: day, max_age_ms: 100_000 * day, lateness_ms: 60_000, max_series: 1_000 };
    let schemas = vec![("probe.avsc".into(), probe(extra)), ("visit.avsc".into(), VISIT.into())];
    let sources = Sources { schemas, packs: vec![("probe.toml".into(), pack.to_owned())], ..Sources::default() };
    Plan::compile(&sources, limits).unwrap_or_else(|errors| panic!("{errors:?}"))
}

/// One `probe` event, all of it derived from a number.
pub fn probe_message(plan: &Plan, number: u64, time: i64) -> Vec<u8> {
    let odd = number % 2 == 1;
    let nullable = |value: Value| {
        if odd { Value::Union(0, Box::new(Value::Null)) } else { Value::Union(1, Box::new(value)) }
    };
    let uuid = uuid::Uuid::from_u128(u128::from(number) << 64 | 7);
    let real = match number % 10 {
        3 => f64::NAN,
        n => n as f64 * 1.5 - 3.0,
    };
    let money = apache_avro::Decimal::from((number as i64 * 12_345 - 50_000).to_be_bytes().to_vec());
    let value = Value::Record(vec![
        ("event_id".into(), Value::Uuid(uuid)),
        ("occurred_at".into(), Value::TimestampMicros(time)),
        ("app".into(), Value::String(format!("app{}", number % 3))),
        ("environment".into(), Value::String("test".into())),
        ("region".into(), nullable(Value::String("it's\t`eu`".into()))),
        ("kind".into(), if odd { Value::Enum(1, "high".into()) } else { Value::Enum(0, "low".into()) }),
        ("flag".into(), Value::Boolean(odd)),
        ("small".into(), nullable(Value::Int(-(number as i32)))),
        ("large".into(), Value::Long(i64::MAX / 2 - number as i64)),
        ("single".into(), nullable(Value::Float(number as f32 / 4.0))),
        ("real".into(), Value::Double(real)),
        ("money".into(), nullable(Value::Decimal(money))),
        ("text".into(), nullable(Value::String("ünï\ncode \\ \0 nul".into()))),
        ("blob".into(), Value::Bytes(vec![0, 255, number as u8])),
        ("day".into(), Value::Date(number as i32)),
        ("seen".into(), nullable(Value::TimestampMillis(time / 1_000))),
    ]);
    message(plan, 0, value)
}

pub fn visit_message(plan: &Plan, id: &str, time: i64) -> Vec<u8> {
    let value = Value::Record(vec![
        ("event_id".into(), Value::String(id.into())),
        ("occurred_at".into(), Value::TimestampMillis(time / 1_000)),
        ("app".into(), Value::String("app0".into())),
        ("environment".into(), Value::String("test".into())),
    ]);
    message(plan, 1, value)
}

fn message(plan: &Plan, index: usize, value: Value) -> Vec<u8> {
    let event = &plan.types[index].event;
    let schema = Schema::parse_str(&event.json).unwrap();
    #[allow(deprecated)]
    let body = apache_avro::to_avro_datum(&schema, value).unwrap();
    let mut out = Vec::new();
    wire::frame(event.fingerprint, &body, &mut out);
    out
}

pub fn source(partition: i32) -> Source {
    Source { epoch: 1, redrive: None, topic: "events".into(), partition }
}

/// A batch of messages at consecutive offsets from `from` on, each with its record's timestamp in microseconds.
pub fn batch(plan: &Plan, source: Source, from: u64, messages: &[(i64, Vec<u8>)]) -> Arc<Batch> {
    let mut batch = Batch::new(source.clone(), from, false);
    let (mut window, mut progress) = (Window::new(plan.limits.horizon), Progress::default());
    let writers = Writers::default();
    for (offset, (time, payload)) in (from..).zip(messages) {
        let record = Record {
            topic: &source.topic,
            partition: source.partition,
            offset,
            timestamp_ms: time / 1_000,
            key: Some(b"key"),
            payload: Some(payload),
        };
        let Opened::Known(content) = writers.open(plan, &record, Duration::ZERO) else { panic!("asks a registry") };
        batch.push(plan, &record, content, &mut window, &mut progress);
    }
    Arc::new(batch)
}

/// `count` probe events, a second apart from `start` on; number 5 is sent twice and number 7 can't be read.
pub fn probes(plan: &Plan, first: u64, count: u64, start: i64) -> Vec<(i64, Vec<u8>)> {
    let mut messages = Vec::new();
    for number in first..first + count {
        let time = start + (number - first) as i64 * 1_000_000;
        let message = probe_message(plan, number, time);
        if number % 100 == 5 {
            messages.push((time, message.clone()));
        }
        messages.push((time, if number % 100 == 7 { b"nonsense".to_vec() } else { message }));
    }
    messages
}

/// A migrated database and a store on it.
pub struct Db {
    pub client: Client,
    pub plan: Arc<Plan>,
    pub catalog: Catalog,
    pub store: ClickHouseStore,
}

pub fn endpoint(server: &ClickHouse, database: &str) -> Endpoint {
    let mut endpoint = Endpoint::new(&server.url(), database, "default", "").unwrap();
    endpoint.insert_timeout = Duration::from_secs(20);
    endpoint
}

impl Db {
    pub async fn new(name: &str) -> Db {
        Db::on(server(), name).await
    }

    pub async fn on(server: &ClickHouse, name: &str) -> Db {
        Db::of(server, name, plan_of("", SUMS, BY)).await
    }

    pub async fn of(server: &ClickHouse, name: &str, plan: Plan) -> Db {
        let endpoint = endpoint(server, name);
        let (client, plan) = (Client::new(endpoint.clone()), Arc::new(plan));
        let retention = Retention { dead_letters_days: 0, ..Retention::default() };
        let catalog = Catalog::new(&plan, &retention, name);
        migrate(&client, &catalog, false).await.unwrap();
        let store = ClickHouseStore::new(endpoint, plan.clone(), &Handle::current(), Arc::new(()));
        Db { client, plan, catalog, store }
    }

    /// The answer to what was just asked.
    pub fn answer(&mut self) -> Answer {
        tokio::task::block_in_place(|| assert!(self.store.wait(Duration::from_secs(30)), "no answer in 30 s"));
        self.store.poll().unwrap().1
    }

    pub fn ask(&mut self, questions: Vec<Question>) -> Result<Vec<Marks>, StoreError> {
        self.store.ask(questions);
        match self.answer() {
            Answer::Marks(marks) => marks,
            other => panic!("{other:?}"),
        }
    }

    pub fn insert(&mut self, insert: Insert) -> Result<(), StoreError> {
        self.store.insert(insert);
        match self.answer() {
            Answer::Inserted(result) => result,
            other => panic!("{other:?}"),
        }
    }

    pub fn marks(&mut self, source: &Source, from: u64, keys: Vec<Key>, recorded: bool) -> Marks {
        let question = Question { source: source.clone(), from, keys, recorded };
        self.ask(vec![question]).unwrap().remove(0)
    }

    /// Inserts all blocks of a batch, then its ledger row, as a worker does; answers the marks.
    pub fn write(&mut self, batch: &Arc<Batch>) -> BTreeMap<Key, u64> {
        let marks = self.write_blocks(batch);
        let row = batch.ledger_row(&self.plan, batch.from(), marks.clone());
        self.write_ledger(row);
        marks
    }

    pub fn write_blocks(&mut self, batch: &Arc<Batch>) -> BTreeMap<Key, u64> {
        let (source, from) = (batch.source().clone(), batch.from());
        let keys: Vec<Key> = batch.keys(&self.plan, from).into_keys().collect();
        let connection = self.marks(&source, from, keys.clone(), false).connection;
        for &key in &keys {
            let token = format!("{source}/{}/{}/{from}", self.plan.table(key.table).name, key.month);
            let rows = Rows::Block(Block::new(batch.clone(), key, from));
            self.insert(Insert { connection, token, rows }).unwrap();
        }
        let marks = self.marks(&source, from, keys.clone(), false).marks;
        assert_eq!(marks.len(), keys.len(), "a block was not seen");
        marks
    }

    pub fn write_ledger(&mut self, row: LedgerRow) {
        let connection = self.marks(&row.source.clone(), 0, vec![], false).connection;
        let token = format!("{}/ledger/{}/{}", row.source, row.from, row.kind.as_str());
        self.insert(Insert { connection, token, rows: Rows::Ledger(row) }).unwrap();
    }

    pub async fn number(&self, sql: &str) -> u64 {
        #[derive(serde::Deserialize)]
        struct N {
            n: u64,
        }
        self.client.rows::<N>(&format!("SELECT toUInt64({sql}) AS n")).await.unwrap()[0].n
    }

    pub async fn run(&self, sql: &str) {
        self.client.execute(sql).await.unwrap();
    }
}

/// A ledger row for a range without events.
pub fn ledger_row(source: Source, kind: LedgerKind, from: u64, to: u64) -> LedgerRow {
    LedgerRow {
        source,
        kind,
        from,
        to,
        events: 0,
        rows: BTreeMap::new(),
        dead_letters: 0,
        duplicates: 0,
        late: 0,
        min_time: None,
        max_time: None,
        horizon_cut: false,
        plan: "plan".into(),
        marks: BTreeMap::new(),
    }
}
