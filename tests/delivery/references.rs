//! A schema in a real registry that refers to others, registered under subjects of their own.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use devstack::Registry;
use highwater::event::wire::Writer;
use highwater::kafka::Producer;
use highwater::kafka::producer::{Outgoing, create_topic};
use serde_json::{Value, json};

use crate::support::World;

const MINUTE: Duration = Duration::from_secs(60);

/// Registers a schema with its references and answers its id.
fn register(registry: &Registry, subject: &str, schema: &str, references: &Value) -> u32 {
    let url = registry.url();
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let body = json!({ "schema": schema, "schemaType": "AVRO", "references": references }).to_string();
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST /{path}/subjects/{subject}/versions HTTP/1.0\r\nHost: {address}\r\nContent-Type: \
         application/vnd.schemaregistry.v1+json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    body["id"].as_u64().unwrap_or_else(|| panic!("{answer}")) as u32
}

fn visit(app: &str, place: &str) -> String {
    format!(
        r#"{{"type": "record", "name": "visit", "namespace": "com.example", "fields": [
        {{"name": "event_id", "type": "string", "highwater": {{"role": "id"}}}},
        {{"name": "occurred_at", "type": {{"type": "long", "logicalType": "timestamp-millis"}}, "highwater": {{"role": "time"}}}},
        {{"name": "app", "type": {app}, "highwater": {{"role": "dimension"}}}},
        {{"name": "environment", "type": "string", "highwater": {{"role": "dimension"}}}},
        {{"name": "place", "type": {place}}}]}}"#
    )
}

const APP: &str = r#"{"type": "enum", "name": "App", "namespace": "com.example.names", "symbols": ["one", "two"]}"#;
const PLACE: &str = r#"{"type": "record", "name": "Place", "namespace": "com.example.maps", "fields": [
    {"name": "row", "type": "int"}, {"name": "of", "type": "com.example.names.App"}]}"#;

#[test]
fn a_schema_with_references_is_read_whole() {
    let registry = Registry::start().unwrap();
    let mut world = World::new();
    let schemas = world.folder.path().join("schemas");
    let packs = world.folder.path().join("packs");
    [&schemas, &packs].into_iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    std::fs::write(schemas.join("visit.avsc"), visit(APP, PLACE)).unwrap();
    for (key, value) in [
        ("EVENTS__SCHEMAS", schemas.to_str().unwrap()),
        ("EVENTS__PACKS", packs.to_str().unwrap()),
        ("KAFKA__TOPICS", "visits"),
        ("REGISTRY__URL", &registry.url()),
    ] {
        world.set(key, value);
    }
    register(&registry, "names", APP, &json!([]));
    let app = json!({ "name": "com.example.names.App", "subject": "names", "version": 1 });
    register(&registry, "maps", PLACE, &json!([app]));
    let place = json!({ "name": "com.example.maps.Place", "subject": "maps", "version": 1 });
    let schema = visit("\"com.example.names.App\"", "\"com.example.maps.Place\"");
    let id = register(&registry, "visits-com.example.visit", &schema, &json!([app, place]));

    let bootstrap = world.stack.kafka.bootstrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let none = Default::default();
    runtime.block_on(create_topic(&bootstrap, &none, "visits", 1, 1, &none)).unwrap();
    let mut producer = Producer::new(&bootstrap, "test", &none).unwrap();
    let now = jiff::Timestamp::now().as_millisecond();
    for number in 0..30_i64 {
        let mut payload = Vec::new();
        Writer::Id(id).frame(&mut payload);
        text(&format!("visit-{number}"), &mut payload);
        long(now + number, &mut payload);
        long(number % 2, &mut payload);
        text("test", &mut payload);
        long(number * 10, &mut payload);
        long((number + 1) % 2, &mut payload);
        let outgoing = Outgoing {
            topic: "visits",
            partition: Some(0),
            key: None,
            payload: Some(&payload),
            timestamp_ms: Some(now),
        };
        producer.send(outgoing).unwrap();
    }
    producer.flush(MINUTE).unwrap();
    world.done(&["migrate"]);
    let process = world.run("references");
    let begun = Instant::now();
    while world.number("SELECT sum(events) FROM highwater.ledger") < 30 {
        assert!(begun.elapsed() < MINUTE, "{}", process.said());
        std::thread::sleep(Duration::from_millis(100));
    }
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");
    let letters = world.query("SELECT detail FROM highwater.dead_letters LIMIT 1");
    assert_eq!(letters, "");
    let rows = world.query(
        "SELECT app, count(), sum(toInt64(splitByChar('-', event_id)[2])) FROM highwater.visit GROUP BY app ORDER BY app \
         FORMAT TSV",
    );
    let sum = |odd: i64| (0..30).filter(|number| number % 2 == odd).sum::<i64>();
    assert_eq!(rows, format!("one\t15\t{}\ntwo\t15\t{}\n", sum(0), sum(1)));
    assert!(world.done(&["audit"]).contains("clean"));
}

/// Avro's `long`: zigzag, seven bits a byte.
fn long(value: i64, out: &mut Vec<u8>) {
    let mut bits = ((value << 1) ^ (value >> 63)) as u64;
    while bits > 127 {
        out.push(bits as u8 | 128);
        bits >>= 7;
    }
    out.push(bits as u8);
}

fn text(text: &str, out: &mut Vec<u8>) {
    long(text.len() as i64, out);
    out.extend_from_slice(text.as_bytes());
}
