//! Two event types in two topics, framed in both ways, while the schema registry is killed, comes back and freezes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use devstack::Registry;
use highwater::event::wire::Writer;
use highwater::kafka::Producer;
use highwater::kafka::producer::Outgoing;
use highwater::registry::{Client, Endpoint};

use crate::support::World;

const MINUTE: Duration = Duration::from_secs(60);
const LLM_CALL: &str = include_str!("../../schemas/llm_call.avsc");
const CACHE_LOOKUP: &str = r#"{"type": "record", "name": "cache_lookup", "namespace": "com.example.cache", "fields": [
    {"name": "event_id", "type": {"type": "string", "logicalType": "uuid"}, "highwater": {"role": "id"}},
    {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "highwater": {"role": "time"}},
    {"name": "app", "type": "string", "highwater": {"role": "dimension", "examples": ["one", "two"]}},
    {"name": "environment", "type": "string", "highwater": {"role": "dimension"}},
    {"name": "bytes_read", "type": "long", "highwater": {"role": "measure", "unit": "bytes", "range": [0, 100000]}}]}"#;

/// A way to the registry that can be shut. A registry that forgot its schemas when it was killed is let in again only when
/// it has them back, as one with a disk would have.
pub struct Gate {
    pub url: String,
    pub open: Arc<AtomicBool>,
}

impl Gate {
    pub fn before(url: &str) -> Gate {
        let (target, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/{path}", listener.local_addr().unwrap());
        let (target, open) = (target.to_owned(), Arc::new(AtomicBool::new(true)));
        let is_open = Arc::clone(&open);
        std::thread::spawn(move || {
            for near in listener.incoming() {
                // Dropped where it is shut, or nobody is behind it: the connection breaks.
                let Ok(near) = near else { return };
                if is_open.load(Ordering::SeqCst)
                    && let Ok(far) = TcpStream::connect(&target)
                {
                    carry(near.try_clone().unwrap(), far.try_clone().unwrap());
                    carry(far, near);
                }
            }
        });
        Gate { url, open }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        // Either end may break off.
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
}

/// Registers a schema and answers its id.
fn register(registry: &Registry, subject: &str, schema: &str) -> u32 {
    let endpoint = Endpoint::new(&registry.url(), "", "", Duration::from_secs(20)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Client::new(endpoint).register(subject, schema)).unwrap()
}

/// What the generator says it has sent.
#[derive(Default)]
struct Sent {
    /// Events and the sum of a measure by type and app.
    series: BTreeMap<(String, String), (u64, i64)>,
    duplicates: u64,
    bad: u64,
    messages: BTreeMap<&'static str, u64>,
}

impl Sent {
    fn messages(&self) -> u64 {
        self.messages.values().sum()
    }
}

struct Scene {
    world: World,
    sent: Sent,
}

impl Scene {
    fn generate(&mut self, topic: &'static str, framing: &str, seed: u64) {
        let truth = self.world.folder.path().join("truth");
        let path = truth.to_str().unwrap();
        let seed = seed.to_string();
        let what = ["generate", "--type", "llm_call", "--type", "cache_lookup", "--topic", topic, "--partitions", "2"];
        let how = ["--framing", framing, "--seed", &seed, "--events", "4000", "--truth", path];
        let faults = ["--disorder", "10s", "--duplicates", "0.05", "--bad", "0.01"];
        // A registry that has only just come up takes its time over the first schema.
        let patience = ["--setting", "registry.timeout=30s"];
        self.world.done(&[&what[..], &how, &faults, &patience].concat());
        for line in BufReader::new(std::fs::File::open(truth).unwrap()).lines() {
            let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
            *self.sent.messages.entry(topic).or_default() += 1;
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            match line["kind"].as_str().unwrap() {
                "ok" => {
                    let fields = &line["fields"];
                    let series = self.sent.series.entry((text(&line["type"]), text(&fields["app"]))).or_default();
                    series.0 += 1;
                    let measure = fields.get("bytes_read").unwrap_or(&fields["input_tokens"]);
                    series.1 += measure.as_i64().unwrap();
                }
                "duplicate" => self.sent.duplicates += 1,
                _ => self.sent.bad += 1,
            }
        }
    }

    fn done(&self, topic: &str) -> u64 {
        self.world.number(&format!("SELECT sum(events) FROM highwater.ledger WHERE source LIKE '%/{topic}/%'"))
    }

    fn wait_for(&self, topic: &str) {
        let (begun, sent) = (Instant::now(), self.sent.messages[topic]);
        while self.done(topic) < sent {
            assert!(begun.elapsed() < 3 * MINUTE, "{} of {sent} messages of {topic} done", self.done(topic));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Holds the tables against what was sent.
    fn check(&self) {
        let mut found = BTreeMap::new();
        for (table, measure) in [("llm_call", "input_tokens"), ("cache_lookup", "bytes_read")] {
            let raw = format!("SELECT app, count(), sum({measure}) FROM highwater.{table} GROUP BY app FORMAT TSV");
            let minutes = format!(
                "SELECT app, sum(count), sum({measure}_sum) FROM highwater.{table}_1m GROUP BY app ORDER BY app FORMAT TSV"
            );
            let raw = self.world.query(&raw);
            let mut sorted: Vec<&str> = raw.lines().collect();
            sorted.sort_unstable();
            assert_eq!(sorted, self.world.query(&minutes).lines().collect::<Vec<_>>(), "events and minutes of {table}");
            for line in sorted {
                let cells: Vec<&str> = line.split('\t').collect();
                let numbers = (cells[1].parse::<u64>().unwrap(), cells[2].parse::<i64>().unwrap());
                found.insert((table.to_owned(), cells[0].to_owned()), numbers);
            }
        }
        assert_eq!(found, self.sent.series);
        let ledger = self.world.query("SELECT sum(events), sum(duplicates), sum(dead_letters) FROM highwater.ledger");
        assert_eq!(ledger.trim(), format!("{}\t{}\t{}", self.sent.messages(), self.sent.duplicates, self.sent.bad));
        assert_eq!(self.world.number("SELECT count() FROM highwater.dead_letters"), self.sent.bad);
        let audit = self.world.done(&["audit"]);
        assert!(audit.contains("clean"), "{audit}");
    }

    /// Messages that name what the registry does not have, or what can't be read, and what their dead letters must say.
    fn send_strays(&mut self, strays: &[(u32, &str, &str)]) {
        let mut producer = Producer::new(&self.world.stack.kafka.bootstrap(), "test", &Default::default()).unwrap();
        for (id, ..) in strays {
            let mut payload = Vec::new();
            Writer::Id(*id).frame(&mut payload);
            payload.extend_from_slice(b"body");
            let (partition, timestamp_ms) = (Some(0), Some(jiff::Timestamp::now().as_millisecond()));
            let payload = Some(payload.as_slice());
            producer.send(Outgoing { topic: "beta", partition, key: None, payload, timestamp_ms }).unwrap();
        }
        producer.flush(MINUTE).unwrap();
        *self.sent.messages.entry("beta").or_default() += strays.len() as u64;
        self.sent.bad += strays.len() as u64;
    }

    fn check_strays(&self, strays: &[(u32, &str, &str)]) {
        let rows = self.world.query(
            "SELECT reason, detail FROM highwater.dead_letters WHERE payload LIKE '%body' \
             ORDER BY _offset FORMAT TSV",
        );
        assert_eq!(rows.lines().count(), strays.len(), "{rows}");
        for (row, (_, reason, detail)) in rows.lines().zip(strays) {
            assert!(row.starts_with(&format!("{reason}\t")) && row.contains(detail), "{row}: {reason} {detail}");
        }
    }
}

#[test]
fn both_framings_are_exact_while_the_registry_dies_and_comes_back() {
    let registry = Registry::start().unwrap();
    let gate = Gate::before(&registry.url());
    let mut world = World::new();
    let schemas = world.folder.path().join("schemas");
    let packs = world.folder.path().join("packs");
    [&schemas, &packs].into_iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    std::fs::write(schemas.join("llm_call.avsc"), LLM_CALL).unwrap();
    std::fs::write(schemas.join("cache_lookup.avsc"), CACHE_LOOKUP).unwrap();
    world.set("EVENTS__SCHEMAS", schemas.to_str().unwrap());
    world.set("EVENTS__PACKS", packs.to_str().unwrap());
    world.set("KAFKA__TOPICS", "alpha,beta");
    world.set("REGISTRY__URL", &gate.url);
    world.set("REGISTRY__TIMEOUT", "1s");
    let mut scene = Scene { world, sent: Sent::default() };
    scene.generate("alpha", "confluent", 1);
    scene.generate("alpha", "single-object", 2);
    scene.generate("beta", "single-object", 3);
    let ids = [LLM_CALL, CACHE_LOOKUP].map(|schema| register(&registry, "again", schema));

    // Killed before anything was asked: what needs it waits, what does not goes on.
    gate.open.store(false, Ordering::SeqCst);
    registry.kill().unwrap();
    scene.world.done(&["migrate"]);
    let mut process = scene.world.run("killed");
    scene.wait_for("beta");
    process.wait_for_words("waiting for the schema registry");
    std::thread::sleep(Duration::from_secs(3));
    let waiting = scene.done("alpha");
    assert!(waiting < 20, "{waiting} messages before an id that nobody knows");
    let said = process.said();
    assert_eq!(said.matches("waiting for the schema registry").count(), 1, "{said}");

    // It comes back with what it had, and some that no event can be read with.
    registry.restart().unwrap();
    assert_eq!([LLM_CALL, CACHE_LOOKUP].map(|schema| register(&registry, "again", schema)), ids);
    let stranger = register(&registry, "other", r#"{"type": "record", "name": "com.example.stranger", "fields": []}"#);
    let misfit =
        r#"{"type": "record", "name": "dev.highwater.llm_call", "fields": [{"name": "event_id", "type": "boolean"}]}"#;
    let misfit = register(&registry, "misfit", misfit);
    let number = stranger.to_string();
    let strays = [
        (777_777, "unknown_schema", "777777"),
        (stranger, "unknown_schema", "com.example.stranger"),
        (misfit, "unresolvable_schema", "llm_call"),
        (stranger, "unknown_schema", number.as_str()),
        (u32::MAX, "unknown_schema", "4294967295"),
    ];
    scene.send_strays(&strays);
    gate.open.store(true, Ordering::SeqCst);
    scene.generate("beta", "confluent", 4);
    scene.wait_for("alpha");
    scene.wait_for("beta");
    let said = process.said();
    assert!(said.contains("is there after"), "{said}");
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");
    scene.check();
    scene.check_strays(&strays);

    // A new process has to ask anew, and the registry is frozen: it takes connections and answers nothing. The ids of the
    // duplicates' window wait for it too.
    scene.generate("alpha", "confluent", 5);
    scene.generate("beta", "single-object", 6);
    let before = scene.done("alpha") + scene.done("beta");
    registry.pause().unwrap();
    let mut process = scene.world.run("frozen");
    process.wait_for_words("no answer within 1 s");
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(scene.done("alpha") + scene.done("beta"), before, "written before the ids were known");
    registry.resume().unwrap();
    scene.wait_for("alpha");
    scene.wait_for("beta");
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");
    scene.check();
    scene.check_strays(&strays);
}

#[test]
fn without_a_registry_its_framing_is_a_dead_letter_that_says_so() {
    let mut world = World::new();
    world.set("KAFKA__TOPICS", "beta");
    let mut scene = Scene { world, sent: Sent::default() };
    scene.world.done(&["generate", "--type", "llm_call", "--topic", "beta", "--partitions", "1", "--events", "100"]);
    scene.sent.messages.insert("beta", 100);
    let strays = [(1, "not_framed", "registry.url"), (2, "not_framed", "id 2")];
    scene.send_strays(&strays);
    scene.world.done(&["migrate"]);
    let process = scene.world.run("run");
    scene.wait_for("beta");
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");
    assert_eq!(scene.world.number("SELECT count() FROM highwater.llm_call"), 100);
    scene.check_strays(&strays);
    let refused = scene.world.command(&["generate", "--type", "llm_call", "--topic", "beta", "--events", "1"]);
    let output = { refused }.args(["--framing", "confluent"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("registry.url"));
}
